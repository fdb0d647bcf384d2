"""Bridges between sockets inside pods and programs that only speak to addresses of this machine, such as gRPC."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable

from e2e.pods import Pod, Served, Stream


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy up to the end and pass the end on."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def join(
    first: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    second: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Join two connections until both have ended or one has broken."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(first[0], second[1]))
            group.create_task(copy(second[0], first[1]))
    except* (OSError, RuntimeError):
        pass
    finally:
        for _, writer in (first, second):
            writer.transport.abort() if writer.transport.is_closing() else writer.close()


Connect = Callable[[], Awaitable[Stream]]


class Bridge:
    """Joins each connection that it accepts with one that `connect` makes."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            stream = await self._connect()
            await join((reader, writer), (stream.reader, stream.writer))
        self._tasks.discard(task)

    async def end(self) -> None:
        """End every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def into(pod: Pod, host: str, port: int) -> AsyncIterator[str]:
    """Give gRPC an address on this machine whose connections are made from inside a pod."""
    bridge = Bridge(lambda: pod.connect(host, port))
    with tempfile.TemporaryDirectory(prefix="tulle-") as folder:
        path = os.path.join(folder, "s")
        server = await asyncio.start_unix_server(bridge.accept, path)
        try:
            yield f"unix:{path}"
        finally:
            server.close()
            await bridge.end()


@contextlib.asynccontextmanager
async def loopback(connect: Connect) -> AsyncIterator[tuple[str, int]]:
    """Give host and port on this machine whose connections are those that `connect` makes."""
    bridge = Bridge(connect)
    server = await asyncio.start_server(bridge.accept, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield host, port
    finally:
        server.close()
        await bridge.end()


@contextlib.asynccontextmanager
async def out_of(pod: Pod, address: str, *, port: int | None = None) -> AsyncIterator[Served]:
    """Serve a port inside a pod by what listens on an address of this machine."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join((reader, writer), await asyncio.open_unix_connection(address.removeprefix("unix:")))

    async with pod.serving(handler, port=port) as served:
        yield served
