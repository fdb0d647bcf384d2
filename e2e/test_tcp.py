"""Connections that are not HTTP: what goes in on one side comes out on the other, ends included."""

import asyncio
import hashlib
import random
import socket
import struct

import pytest

from e2e.conftest import OPAQUE_PORT, SKIPPED_PORT, Pair
from e2e.pods import Stream, chunks
from e2e.seeds import seeded

GREETING = b"\x00\x01 not HTTP\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back whatever comes, and end when the client does."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def pour(stream: Stream, data: bytes, source: random.Random) -> None:
    """Write in pieces of random sizes."""
    for piece in chunks(data, iter(lambda: source.choice((1, 7, 100, 1460, 4096, 40_000)), 0)):
        stream.write(piece)
        await stream.writer.drain()
    stream.writer.write_eof()


@pytest.mark.parametrize("port", [None, OPAQUE_PORT, SKIPPED_PORT], ids=["detected", "opaque", "skipped"])
async def test_bytes_arrive_unchanged_in_both_directions(pair: Pair, port: int | None) -> None:
    source = seeded()
    data = GREETING + source.randbytes(3_000_000)

    async with pair.server.serving(echo, port=port) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            pouring = asyncio.create_task(pour(stream, data, source))
            received = await stream.rest()
            await pouring

    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("port", [None, OPAQUE_PORT], ids=["detected", "opaque"])
async def test_a_client_that_has_said_everything_still_gets_its_answer(pair: Pair, port: int | None) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)
        writer.write(b"you said " + question)

    async with pair.server.serving(server, port=port) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(GREETING)
            stream.writer.write_eof()

            assert await stream.rest() == b"you said " + GREETING


@pytest.mark.parametrize("port", [None, OPAQUE_PORT], ids=["detected", "opaque"])
async def test_a_server_that_has_said_everything_still_hears_its_client(pair: Pair, port: int | None) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(GREETING))
        writer.write_eof()
        heard.set_result(await reader.read(-1))

    async with pair.server.serving(server, port=port) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(GREETING)
            assert await stream.rest() == b""
            stream.write(b"more after your end")
            stream.writer.write_eof()

            assert await asyncio.wait_for(heard, 15) == b"more after your end"


def break_off(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, so that its other end cannot take what it got for everything."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_a_client_that_breaks_off_is_a_reset_for_the_server(pair: Pair) -> None:
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(GREETING)))
        try:
            ended.set_result(await reader.read(-1))
        except ConnectionResetError as error:
            ended.set_exception(error)

    async with pair.server.serving(server, port=OPAQUE_PORT) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(GREETING)
            await stream.reader.readexactly(len(GREETING))
            break_off(stream.writer)

            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(ended, 15)


async def test_a_server_that_breaks_off_is_a_reset_for_the_client(pair: Pair) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(GREETING)))
        await reader.readexactly(1)
        break_off(writer)

    async with pair.server.serving(server, port=OPAQUE_PORT) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(GREETING)
            await stream.reader.readexactly(len(GREETING))
            stream.write(b"x")

            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(stream.reader.read(-1), 15)


async def test_a_skipped_port_is_reached_without_any_proxy(pair: Pair) -> None:
    callers: list[str] = []

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername")[0].removeprefix("::ffff:"))
        await echo(reader, writer)

    async with pair.server.serving(server, port=SKIPPED_PORT) as served:
        async with await pair.client.connect(pair.server.name, served.port) as stream:
            stream.write(GREETING)
            stream.writer.write_eof()
            assert await stream.rest() == GREETING

    assert callers == [pair.client.address]
