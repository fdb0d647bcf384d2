"""A gRPC service of all four shapes, of bytes, and the cases of the interop suite as values that can be compared."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

SERVICE = "tulle.test.Echo"
DEADLINE_S = 15
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
PECULIAR = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"

# What the stubs do not know of: calls of bytes need no serialisers, and a stream has an end that can be read.
Channel = Any
Context = Any
AIO: Any = grpc.aio
Messages = AsyncIterator[bytes]


async def _greet(context: Context) -> None:
    asked = {key: value for key, value in context.invocation_metadata() or () if key.startswith("x-")}
    if initial := asked.get("x-initial"):
        await context.send_initial_metadata((("x-initial", initial),))
    if trailing := asked.get("x-trailing-bin"):
        context.set_trailing_metadata((("x-trailing-bin", trailing),))
    if status := asked.get("x-status"):
        code, _, text = str(status).partition(" ")
        await context.abort(list(grpc.StatusCode)[int(code)], PECULIAR if text == "peculiar" else text)


async def _unary(request: bytes, context: Context) -> bytes:
    await _greet(context)
    return request


async def _collect(requests: Messages, context: Context) -> bytes:
    await _greet(context)
    return b"".join([request async for request in requests])


async def _spread(request: bytes, context: Context) -> Messages:
    await _greet(context)
    for size in request.split(b","):
        yield bytes(int(size))


async def _both(requests: Messages, context: Context) -> Messages:
    await _greet(context)
    async for request in requests:
        yield request


async def _wait(request: bytes, context: Context) -> bytes:
    await asyncio.Event().wait()
    return request


def handlers() -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the service."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Unary": grpc.unary_unary_rpc_method_handler(_unary),
            "Collect": grpc.stream_unary_rpc_method_handler(_collect),
            "Spread": grpc.unary_stream_rpc_method_handler(_spread),
            "Both": grpc.stream_stream_rpc_method_handler(_both),
            "Wait": grpc.unary_unary_rpc_method_handler(_wait),
        },
    )


@contextlib.asynccontextmanager
async def server(*options: tuple[str, Any]) -> AsyncIterator[tuple[grpc.aio.Server, str]]:
    """Run the service on an address of this machine."""
    with tempfile.TemporaryDirectory(prefix="tulle-") as folder:
        address = "unix:" + os.path.join(folder, "s")
        running = grpc.aio.server(options=[("grpc.so_reuseport", 0), *options])
        running.add_generic_rpc_handlers((handlers(),))
        running.add_insecure_port(address)
        await running.start()
        try:
            yield running, address
        finally:
            await running.stop(None)


@contextlib.asynccontextmanager
async def channel(address: str) -> AsyncIterator[Channel]:
    """Open a channel that speaks for a service name, as through any address."""
    options = [*OPTIONS, ("grpc.default_authority", "echo.example")]
    async with AIO.insecure_channel(address, options=options) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that an application sees of a call."""

    code: str
    details: str
    responses: tuple[bytes, ...] = ()
    initial: tuple[tuple[str, Any], ...] = ()
    trailing: tuple[tuple[str, Any], ...] = ()


def _ours(metadata: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in metadata or () if key.startswith("x-"))


async def _outcome(call: Any, responses: list[bytes]) -> Outcome:
    try:
        if hasattr(call, "read"):
            while (response := await call.read()) is not AIO.EOF:
                responses.append(response)
        else:
            responses.append(await call)
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    return Outcome(
        str(await call.code()),
        str(await call.details() or ""),
        tuple(responses),
        _ours(await call.initial_metadata()),
        _ours(await call.trailing_metadata()),
    )


async def unary(
    opened: Channel,
    request: bytes,
    *,
    method: str = f"/{SERVICE}/Unary",
    metadata: tuple[tuple[str, Any], ...] = (),
    timeout: float = DEADLINE_S,
) -> Outcome:
    """Make a call of one request and one response."""
    call = opened.unary_unary(method)(request, metadata=metadata, timeout=timeout)
    return await _outcome(call, [])


async def client_stream(opened: Channel, *sizes: int) -> Outcome:
    """Send requests of these sizes."""

    async def requests() -> Messages:
        for size in sizes:
            yield bytes([size % 251]) * size

    return await _outcome(opened.stream_unary(f"/{SERVICE}/Collect")(requests(), timeout=DEADLINE_S), [])


async def server_stream(opened: Channel, *sizes: int) -> Outcome:
    """Ask for responses of these sizes."""
    request = b",".join(str(size).encode() for size in sizes)
    return await _outcome(opened.unary_stream(f"/{SERVICE}/Spread")(request, timeout=DEADLINE_S), [])


async def ping_pong(opened: Channel, *sizes: int, metadata: tuple[tuple[str, Any], ...] = ()) -> Outcome:
    """Send each request when the response to the one before is here."""
    call = opened.stream_stream(f"/{SERVICE}/Both")(metadata=metadata, timeout=DEADLINE_S)
    responses: list[bytes] = []
    for size in sizes:
        await call.write(bytes(size))
        responses.append(await call.read())
    await call.done_writing()
    return await _outcome(call, responses)


async def cancelled_after_first(opened: Channel) -> Outcome:
    """Cancel a call of both streams after its first response."""
    call = opened.stream_stream(f"/{SERVICE}/Both")(timeout=DEADLINE_S)
    await call.write(b"first")
    responses = [await call.read()]
    call.cancel()
    return Outcome(str(await call.code()), "", tuple(responses))


Case = Callable[[Channel], Awaitable[Outcome]]
ECHOED = (("x-initial", "echo-initial-value"), ("x-trailing-bin", b"\xab\x00\xff"))

INTEROP: dict[str, Case] = {
    "empty_unary": lambda opened: unary(opened, b""),
    "large_unary": lambda opened: unary(opened, bytes(271_828)),
    "client_streaming": lambda opened: client_stream(opened, 27_182, 8, 1_828, 45_904),
    "server_streaming": lambda opened: server_stream(opened, 31_415, 9, 2_653, 58_979),
    "ping_pong": lambda opened: ping_pong(opened, 31_415, 9, 2_653, 58_979),
    "empty_stream": lambda opened: ping_pong(opened),
    "custom_metadata": lambda opened: unary(opened, b"x", metadata=ECHOED),
    "custom_metadata_stream": lambda opened: ping_pong(opened, 5, metadata=ECHOED),
    "status_code_and_message": lambda opened: unary(
        opened, b"", metadata=(("x-status", "2 test status message"),)
    ),
    "status_of_a_stream": lambda opened: ping_pong(opened, metadata=(("x-status", "9 not in this state"),)),
    "special_status_message": lambda opened: unary(opened, b"", metadata=(("x-status", "2 peculiar"),)),
    "unimplemented_method": lambda opened: unary(opened, b"", method=f"/{SERVICE}/Nothing"),
    "unimplemented_service": lambda opened: unary(opened, b"", method="/tulle.test.Nothing/Unary"),
    "cancel_after_first_response": cancelled_after_first,
    "timeout_on_sleeping_server": lambda opened: unary(opened, b"", method=f"/{SERVICE}/Wait", timeout=0.25),
}
"""The cases of gRPC's own interoperability tests that do not need its messages."""
