"""Protocols in which the server speaks first, or which are not HTTP, on ports that nobody has described.

A client that is silent for 50 ms lets its proxy ask the server. That may cost the first connection 100 ms and later
ones 5 ms, and must never let a byte of the client's onto a connection that was opened before it was known what it
speaks. The limits are for an optimised build: without optimisation a handshake alone takes longer than 5 ms.
"""

import asyncio
import time

import pytest

from e2e import http1
from e2e.conftest import Field
from e2e.http1 import Recorder, ask, get
from e2e.pods import Pod, eventually

MYSQL = b"\x4a\x00\x00\x00\x0a8.0.39\x00\x0b\x00\x00\x00abcdefgh\x00\xff\xf7\xff\x02\x00\xff\x8f" + bytes(11)
CONVERSATIONS = {
    "mysql": (b"", MYSQL),
    "smtp": (b"", b"220 mail.example ESMTP\r\n"),
    "ssh": (b"", b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nats": (b"", b'INFO {"server_id":"A","version":"2.11"} \r\n'),
    "redis": (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
    "postgresql": (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"N"),
}
"""What the client says first, and what the server says first or answers."""
PATHS = {
    "ours-to-ours": ("client-ours", "server-ours"),
    "ours-to-stock": ("client-ours", "server-stock"),
    "ours-to-none": ("client-ours", "plain-server"),
    "none-to-ours": ("plain-client", "server-ours"),
}
LATER = 15
ROUNDS = 3
"""A busy machine makes a round slow; a wait by design would be in all of them, and in every connection."""
FIRST_COST_S = 0.1
LATER_COST_S = 0.005


def ends(field: Field, path: str) -> tuple[Pod, Pod]:
    """Return client and server of a path."""
    client, server = PATHS[path]
    if server not in field.pods:
        pytest.skip("TULLE_STOCK_PROXY names no stock proxy")
    return field[client], field[server]


async def durations(client: Pod, server: Pod, question: bytes, reply: bytes) -> list[float]:
    """Return how long each of some connections took until the server's first words were there."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(question))
        writer.write(reply)
        assert await reader.read(-1) == b"thanks"

    found = []
    async with server.serving(speak) as served:
        await client.resolve(server.name)
        for _ in range(1 + LATER):
            begun = time.perf_counter()
            async with await client.connect(server.name, served.port) as stream:
                stream.write(question)
                assert await stream.exactly(len(reply)) == reply
                found.append(time.perf_counter() - begun)
                stream.write(b"thanks")
                stream.writer.write_eof()
                await stream.closed()
    return found


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("protocol", CONVERSATIONS)
async def test_the_first_words_come_soon(field: Field, path: str, protocol: str) -> None:
    client, server = ends(field, path)

    said = []
    for _ in range(ROUNDS):
        _, *direct = await durations(field["plain-client"], field["plain-server"], *CONVERSATIONS[protocol])
        first, *later = await durations(client, server, *CONVERSATIONS[protocol])
        first_cost, later_cost = first - min(direct), min(later) - min(direct)
        if first_cost <= FIRST_COST_S and later_cost <= LATER_COST_S:
            return
        said.append(f"first {1000 * first_cost:.1f} ms, later {1000 * later_cost:.1f} ms")
    raise AssertionError(f"slower than a direct connection in every round: {'; '.join(said)}")


@pytest.mark.parametrize("path", PATHS)
async def test_what_a_late_client_says_is_not_said_to_the_leg_that_was_opened_before(
    field: Field, path: str
) -> None:
    client, server = ends(field, path)
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = len(heard)
        heard.append(b"")
        while data := await reader.read(1 << 16):
            heard[mine] += data
            if b"\r\n\r\n" in heard[mine]:
                writer.write(http1.answer(b"late"))

    async with server.serving(listen) as served:
        async with await client.connect(server.name, served.port) as stream:
            await eventually(lambda: served.accepted == 1, "the server was asked whether it speaks first")
            response = await ask(stream, get("/late"))

    assert response.body == b"late"
    assert heard[0] == b""
    assert heard[1].startswith(b"GET /late ")
    assert len(heard) == 2


async def test_a_client_that_may_not_connect_does_not_get_the_server_asked(field: Field) -> None:
    refusing, open_to_all = field["all-authenticated-ours"], field["server-ours"]

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.read(-1)

    client = field["plain-client"]
    async with refusing.serving(greet) as refused, open_to_all.serving(greet) as admitted:
        async with (
            await client.connect(refusing.name, refused.port) as first,
            await client.connect(open_to_all.name, admitted.port) as second,
        ):
            # Connected later and greeted by now: the first one's 50 ms are over, too.
            assert await second.read() == b"220 hello\r\n"
            assert refused.accepted == 0
            assert first.reader.at_eof() or not first.reader._buffer  # type: ignore[attr-defined]


async def test_a_server_that_answers_silence_with_http_does_not_become_opaque(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]
    recorder = Recorder()

    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if served.accepted == 1:
            writer.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return
        await recorder(reader, writer)

    async with server.serving(impatient) as served:
        async with await client.connect(server.name, served.port) as silent:
            assert (await silent.rest()).startswith(b"HTTP/1.1 408")
        async with await client.connect(server.name, served.port) as stream:
            response = await ask(stream, get())

    assert response.body == b"hello"
    assert recorder.seen[0]["l5d-client-id"] is not None
