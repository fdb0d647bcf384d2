"""Serving a view over gRPC: bytes out as they are, the newest only, nothing before the world is known."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio

from tulle.lib.latest import Latest
from tulle.lib.views import Answer, AnswerView, Refused, Views

Context = grpc.aio.ServicerContext[Any, bytes]
K = TypeVar("K")

MAX_STREAMS = 100_000
SERVER_OPTIONS: list[tuple[str, int]] = [
    # Every proxy of a mesh may reconnect at once; by default most of such a storm ends as CANCELLED.
    ("grpc.server.max_pending_requests", MAX_STREAMS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_STREAMS),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    # The proxies ping; a server that counts these as abuse would close the connection.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
]


class Gate:
    """Closed until the world is known; a stream that arrives before waits without a message."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Tell whether the world is known."""
        return self._open.is_set()

    def open(self) -> None:
        """Let every stream begin; it never closes again."""
        self._open.set()

    async def wait(self) -> None:
        """Wait until the world is known."""
        await self._open.wait()


async def refuse(context: Context, refused: Refused) -> NoReturn:
    """End the call with the refusal."""
    await context.abort(refused.code, refused.message)
    raise AssertionError("abort returned")


async def follow(latest: Latest[Answer], context: Context) -> None:
    """Write each newest answer until the client leaves or the answer is a refusal."""
    generation = 0
    while True:
        generation, answer = await latest.next(generation)
        if isinstance(answer, Refused):
            await refuse(context, answer)
        await context.write(answer)


async def follow_own(views: Views[K, AnswerView], choose: Callable[[], K], context: Context) -> None:
    """Follow the view that `choose` names, which may become another one, as `follow` does."""
    sent: Answer | None = None
    while True:
        key, generation = choose(), 0
        with views.follow(key) as view:
            while True:
                generation, answer = await view.latest.next(generation)
                if choose() != key:
                    break
                if isinstance(answer, Refused):
                    await refuse(context, answer)
                if answer != sent:
                    await context.write(answer)
                    sent = answer


def handlers(
    service: str,
    *,
    watches: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, Context], Awaitable[None]]]],
    gets: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, Context], Awaitable[bytes]]]],
) -> "grpc.GenericRpcHandler[Any, Any]":
    """Build a service of server streams and unary calls whose answers are bytes already."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, (decode, serve) in watches.items():
        methods[name] = grpc.unary_stream_rpc_method_handler(
            serve,
            request_deserializer=decode,
        )
    for name, (decode, answer) in gets.items():
        methods[name] = grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=decode,
        )
    return grpc.method_handlers_generic_handler(service, methods)
