"""Asking a container whether it started, lives, or is ready.

Every probe goes from the supervisor's loop over a socket that was opened in the pod's network namespace, to the
pod's own address. That is loopback to the kernel, so neither the mesh nor its policy stands between.

What is not done by hand, gRPC, gets a Unix socket whose other end is piped to such a socket, because the library
can only connect by itself.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6

from tulle.local.processes import Namespaces, Spawner
from tulle.model.workload import Exec, GrpcCheck, HttpGet, TcpSocket

MAX_HEAD = 64 * 1024
SERVING = 1

Runner = Callable[[tuple[str, ...]], Awaitable[int]]
"""Runs a command inside the container and returns its exit code."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container's probes go."""

    spawner: Spawner
    namespaces: Namespaces
    address: str
    ports: Mapping[str, int]
    run: Runner
    scratch: Path
    """A folder for the sockets of gRPC probes."""


class ProbeFailed(Exception):
    """The container did not answer as it should; the text says what it did instead."""


async def ask(action: HttpGet | TcpSocket | Exec | GrpcCheck, target: Target, timeout_s: float) -> None:
    """Ask once.

    Raises ProbeFailed with what was wrong.
    """
    try:
        async with asyncio.timeout(timeout_s):
            match action:
                case HttpGet():
                    await _http(action, target)
                case TcpSocket(port, host):
                    _, writer = await connect(target, host or target.address, _port(port, target))
                    writer.close()
                case Exec(command):
                    code = await target.run(command)
                    if code != 0:
                        raise ProbeFailed(f"{command[0]} ended with code {code}")
                case GrpcCheck():
                    await _grpc(action, target)
    except TimeoutError:
        raise ProbeFailed(f"no answer within {timeout_s:g} s") from None
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ProbeFailed(str(error)) from error


async def http_status(
    target: Target,
    host: str,
    port: int,
    path: str,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    tls: bool = False,
) -> int:
    """Return the status that a GET is answered with."""
    reader, writer = await connect(target, host, port, tls=tls)
    try:
        given = {name.lower() for name, _ in headers}
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        own = (("host", shown), ("user-agent", "tulle-probe"), ("accept", "*/*"), ("connection", "close"))
        fields = (*headers, *((name, value) for name, value in own if name not in given))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        head = await reader.readuntil(b"\r\n")
        parts = head.split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
            raise ProbeFailed("the answer is not HTTP")
        return int(parts[1])
    finally:
        writer.close()


async def connect(
    target: Target, host: str, port: int, *, tls: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect from inside the pod."""
    family = AF_INET6 if ":" in host else AF_INET
    opened = await target.spawner.socket(target.namespaces, family)
    try:
        await asyncio.get_running_loop().sock_connect(opened, (host, port))
    except BaseException:
        opened.close()
        raise
    context = None
    if tls:
        # A probe asks whether something answers, not who it is.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(
        sock=opened, ssl=context, server_hostname="" if tls else None, limit=MAX_HEAD
    )


async def _http(action: HttpGet, target: Target) -> None:
    status = await http_status(
        target,
        action.host or target.address,
        _port(action.port, target),
        action.path or "/",
        headers=action.headers,
        tls=action.scheme == "HTTPS",
    )
    if not 200 <= status < 400:
        raise ProbeFailed(f"GET {action.path} was answered with {status}")


async def _grpc(action: GrpcCheck, target: Target) -> None:
    # Only a mesh with such a probe pays for loading the library. The two messages of the health protocol have
    # one field each, with the numbers and types of these two well-known ones.
    import grpc.aio
    from google.protobuf.wrappers_pb2 import Int32Value, StringValue

    async with (
        _relay(target, action.port) as path,
        grpc.aio.insecure_channel(
            f"unix:{path}", options=[("grpc.default_authority", "localhost")]
        ) as channel,
    ):
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )
        try:
            answer = await check(StringValue(value=action.service))
        except grpc.aio.AioRpcError as error:
            raise ProbeFailed(f"{error.code().name}: {error.details()}") from error
    if answer.value != SERVING:
        raise ProbeFailed(f"health status {answer.value} instead of SERVING")


@asynccontextmanager
async def _relay(target: Target, port: int) -> AsyncIterator[Path]:
    """Lend a Unix socket that leads to a port of the pod."""

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(MAX_HEAD):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # The library sees its end closed and says so better.
        finally:
            sink.close()

    async def serve(near: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far, far_writer = await connect(target, target.address, port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(pipe(near, far_writer))
            both.create_task(pipe(far, writer))

    target.scratch.mkdir(parents=True, exist_ok=True)
    path = target.scratch / f"probe-{target.address}-{port}.sock"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield path
    finally:
        server.close()
        path.unlink(missing_ok=True)


def _port(port: int | str, target: Target) -> int:
    number = port if isinstance(port, int) else target.ports.get(port)
    if number is None:
        raise ProbeFailed(f'no port of the container is named "{port}"')
    return number
