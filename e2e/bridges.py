"""Bridges between sockets inside pods and programs that only speak to addresses of this machine, such as gRPC."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator

from e2e.pods import Pod, Served


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


@contextlib.asynccontextmanager
async def into(pod: Pod, host: str, port: int) -> AsyncIterator[str]:
    """Give an address on this machine whose connections are made from inside a pod."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            stream = await pod.connect(host, port)
            await join((reader, writer), (stream.reader, stream.writer))

    with tempfile.TemporaryDirectory(prefix="tulle-") as folder:
        path = os.path.join(folder, "s")
        server = await asyncio.start_unix_server(accept, path)
        try:
            yield f"unix:{path}"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def out_of(pod: Pod, address: str, *, port: int | None = None) -> AsyncIterator[Served]:
    """Serve a port inside a pod by what listens on an address of this machine."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join((reader, writer), await asyncio.open_unix_connection(address.removeprefix("unix:")))

    async with pod.serving(handler, port=port) as served:
        yield served
