"""The life of one service process: listen, serve until told to stop, finish what is in flight, leave.

After SIGTERM a service goes on serving for `linger_s`, because those who call it learn of its end a moment
later than it does; only then does it refuse new connections and wait for the open requests.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import grpc
import uvicorn
from starlette.types import ASGIApp

from vaccine_finder.wire.health_pb2 import HealthCheckRequest, HealthCheckResponse

# Longer than the slowest request we serve: a booking that bridges a restart of `slots`.
FINISH_WITHIN_S = 25

# Longer than any of our clients keeps an idle connection, so that the client is the one who closes it.
KEEP_ALIVE_S = 75

# Quoted because only the stubs of grpc know that it is generic.
Handler: TypeAlias = "grpc.GenericRpcHandler[Any, Any]"

log = logging.getLogger(__name__)


def log_to_stderr() -> None:
    """Log one line of text per event."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def run_http(app: ASGIApp, listen: str, linger_s: float) -> None:
    """Serve HTTP until SIGTERM or SIGINT."""
    asyncio.run(serve_http(app, listen, linger_s))


async def serve_http(app: ASGIApp, listen: str, linger_s: float) -> None:
    """Serve HTTP until SIGTERM or SIGINT, inside a loop that the caller also uses for other things."""
    server = _HttpServer(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=FINISH_WITHIN_S,
        )
    )
    with _listener(listen) as listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            log.info("serving HTTP on %s", listen)
            await _until_told_to_stop(linger_s)
            server.should_exit = True
    log.info("stopped")


async def serve_grpc(handlers: Sequence[Handler], listen: str, health_listen: str, linger_s: float) -> None:
    """Serve gRPC until SIGTERM or SIGINT.

    Health has a port of its own, so that whoever may ask whether we live needs no right to ask anything else.
    """
    server, health = _grpc_server(handlers, listen), _grpc_server([_health_handler()], health_listen)
    await server.start()
    await health.start()
    log.info("serving gRPC on %s, health on %s", listen, health_listen)
    await _until_told_to_stop(linger_s)
    await server.stop(grace=FINISH_WITHIN_S)
    await health.stop(grace=None)
    log.info("stopped")


class _HttpServer(uvicorn.Server):
    """Leaves the signals to `_until_told_to_stop`, which lingers before it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listener(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    if host == "[::]":
        return socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server((host, int(port)))


def _grpc_server(handlers: Sequence[Handler], listen: str) -> grpc.aio.Server:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(tuple(handlers))
    server.add_insecure_port(listen)
    return server


def _health_handler() -> Handler:
    async def check(request: HealthCheckRequest, context: object) -> HealthCheckResponse:
        return HealthCheckResponse(status=HealthCheckResponse.SERVING)

    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                check,
                request_deserializer=HealthCheckRequest.FromString,
                response_serializer=HealthCheckResponse.SerializeToString,
            )
        },
    )


async def _until_told_to_stop(linger_s: float) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()
    log.info("told to stop, serving for another %s s", linger_s)
    await asyncio.sleep(linger_s)
