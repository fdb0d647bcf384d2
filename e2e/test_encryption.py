"""Nothing that meshed pods say to each other can be read on the wire, whatever protocol they speak."""

import asyncio
import secrets

from e2e import bridges, grpcs, http1
from e2e.captures import capturing
from e2e.conftest import Field, Pair
from e2e.http1 import Recorder, ask
from e2e.pods import Pod

INBOUND_PORT = 4143


async def say_over_http(client: Pod, server: Pod, marker: bytes) -> None:
    """Send the marker as path, field and body, and have it sent back."""
    async with server.serving(
        Recorder(http1.answer(marker, more=f"x-marker: {marker.decode()}\r\n"))
    ) as served:
        async with await client.connect(server.name, served.port) as stream:
            request = b"POST /%s HTTP/1.1\r\nhost: server\r\nx-marker: %s\r\ncontent-length: %d\r\n\r\n%s"
            response = await ask(stream, request % (marker, marker, len(marker), marker))
            assert response.body == marker


async def say_over_tcp(client: Pod, server: Pod, marker: bytes) -> None:
    """Send the marker as bytes, and have it sent back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(-1))

    async with server.serving(echo) as served:
        async with await client.connect(server.name, served.port) as stream:
            stream.write(b"\x00" + marker)
            stream.writer.write_eof()
            assert await stream.rest() == b"\x00" + marker


async def say_over_grpc(client: Pod, server: Pod, marker: bytes) -> None:
    """Send the marker as message and metadata, and have it sent back."""
    async with (
        grpcs.server() as (_, address),
        bridges.out_of(server, address) as served,
        bridges.into(client, server.name, served.port) as entrance,
        grpcs.channel(entrance) as channel,
    ):
        outcome = await grpcs.unary(channel, marker, metadata=(("x-initial", marker.decode()),))
        assert outcome.responses == (marker,)


async def test_no_plaintext_crosses_the_wire_between_meshed_pods(pair: Pair) -> None:
    marker = secrets.token_hex(16).encode()

    async with capturing(pair.server) as at_server, capturing(pair.client) as at_client:
        await say_over_http(pair.client, pair.server, marker)
        await say_over_tcp(pair.client, pair.server, marker)
        await say_over_grpc(pair.client, pair.server, marker)

    assert at_server.tcp_bytes(INBOUND_PORT) > 10 * len(marker)
    assert at_client.tcp_bytes(INBOUND_PORT) > 10 * len(marker)
    assert not at_server.has(marker)
    assert not at_client.has(marker)


async def test_the_capture_would_have_seen_it(field: Field) -> None:
    marker = secrets.token_hex(16).encode()

    async with capturing(field["plain-server"]) as capture:
        await say_over_http(field["plain-client"], field["plain-server"], marker)

    assert capture.has(marker)
