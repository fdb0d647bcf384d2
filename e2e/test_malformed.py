"""Requests whose end two readers could see in different places are refused, and no part of them is passed on."""

import asyncio

import pytest

from e2e import http1
from e2e.conftest import Field
from e2e.pods import Stream

HOST = b"Host: server\r\n"
HEAD = b"POST / HTTP/1.1\r\n" + HOST
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: server\r\n\r\n"

MALFORMED = {
    "length and chunked": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths that differ": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two lengths that agree": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a plus": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length in hexadecimal": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a gap": HEAD + b"Content-Length: 1 0\r\n\r\nhello",
    "a length beyond 64 bits": HEAD + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "an empty length": HEAD + b"Content-Length:\r\n\r\n",
    "chunked is not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown encoding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked after a control character": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: server\n\n",
    "one bare line feed": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\nX-B: 2\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\rX-B: 2\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n  2\r\n\r\n",
    "a NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\x002\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "a space in a name": b"GET / HTTP/1.1\r\n" + HOST + b"X A: 1\r\n\r\n",
    "an empty name": b"GET / HTTP/1.1\r\n" + HOST + b": 1\r\n\r\n",
    "a line without a colon": b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n",
    "a space before the first name": b"GET / HTTP/1.1\r\n Host: server\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nX-A: 1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + b"Host: other\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nHost: ser ver\r\n\r\n",
    "a host and a user": b"GET / HTTP/1.1\r\nHost: root@server\r\n\r\n",
}
PATHS = {"inbound": ("plain-client", "server-ours"), "outbound": ("client-ours", "plain-server")}


class Listener:
    """A server that keeps every byte."""

    def __init__(self) -> None:
        self.heard = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer whatever looks like the end of a head."""
        while data := await reader.read(1 << 16):
            self.heard += data
            if b"\r\n\r\n" in data or b"\n\n" in data:
                writer.write(http1.answer(b"heard"))


async def refusal(stream: Stream, request: bytes) -> http1.Message:
    """Send bytes and return the answer, after which the connection must end."""
    stream.write(request)
    async with asyncio.timeout(15):
        response = await http1.read_response(stream.reader)
    await stream.closed()
    return response


@pytest.mark.parametrize("direction", PATHS)
@pytest.mark.parametrize("mistake", MALFORMED)
async def test_a_malformed_request_is_refused_and_not_passed_on(
    field: Field, direction: str, mistake: str
) -> None:
    client, server = (field[name] for name in PATHS[direction])
    listener = Listener()

    async with server.serving(listener) as served:
        async with await client.connect(server.name, served.port) as stream:
            response = await refusal(stream, MALFORMED[mistake] + SMUGGLED)

    assert (response.status, response.reason) == (400, "bad_request")
    assert listener.heard == b""


BROKEN_CHUNKS = {
    "no number": b"zz\r\nhello\r\n0\r\n\r\n",
    "a number with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a number beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a bare line feed": b"5\nhello\r\n0\r\n\r\n",
    "no end after the data": b"5\r\nhelloXX0\r\n\r\n",
}


@pytest.mark.parametrize("direction", PATHS)
@pytest.mark.parametrize("mistake", BROKEN_CHUNKS)
async def test_a_body_that_breaks_off_its_framing_never_becomes_whole(
    field: Field, direction: str, mistake: str
) -> None:
    client, server = (field[name] for name in PATHS[direction])
    listener = Listener()

    async with server.serving(listener) as served:
        async with await client.connect(server.name, served.port) as stream:
            stream.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + BROKEN_CHUNKS[mistake] + SMUGGLED)
            await stream.rest()

    assert b"0\r\n\r\n" not in listener.heard
    assert b"smuggled" not in listener.heard


async def test_a_head_may_be_large_but_not_larger_than_the_limit(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]
    recorder = http1.Recorder()

    async with server.serving(recorder) as served:
        async with await client.connect(server.name, served.port) as stream:
            large = await http1.ask(stream, http1.get(more=f"x-large: {'x' * 50_000}\r\n"))
        async with await client.connect(server.name, served.port) as stream:
            excessive = await http1.ask(stream, http1.get(more=f"x-large: {'x' * 70_000}\r\n"))

    assert large.status == 200
    assert (excessive.status, excessive.reason) == (431, "headers_too_large")
    assert len(recorder.seen) == 1
