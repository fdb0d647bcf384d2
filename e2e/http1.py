"""HTTP/1 as the tests speak it: byte by byte, so that what a proxy changes is seen."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from e2e.pods import Stream

Fields = list[tuple[str, str]]


@dataclass(slots=True)
class Message:
    """A request or a response as it arrived; names of fields are in lower case, their order is kept."""

    start: str
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    """Sizes of the chunks, where there were any."""

    def __getitem__(self, name: str) -> str | None:
        """Return the value of a field, several joined by commas."""
        values = [value for key, value in self.fields if key == name]
        return ", ".join(values) if values else None

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.start.split()[1])

    @property
    def reason(self) -> str | None:
        """The code of a refusal, without where it comes from."""
        said = self["tulle-reason"]
        return None if said is None else said.partition(";")[0]

    @property
    def target(self) -> str:
        """The target of a request."""
        return self.start.split()[1]

    @property
    def method(self) -> str:
        """The method of a request."""
        return self.start.split()[0]


def parsed(lines: Iterable[str]) -> Fields:
    """Return header lines as pairs."""
    pairs = (line.partition(":") for line in lines if line)
    return [(name.lower(), value.strip()) for name, _, value in pairs]


async def read_head(reader: asyncio.StreamReader) -> Message:
    """Read a head up to its empty line."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.split("\r\n")
    return Message(start, parsed(lines))


async def read_chunked(reader: asyncio.StreamReader, message: Message) -> None:
    """Read a chunked body and its trailers into a message."""
    pieces = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        message.chunks.append(size)
        assert await reader.readexactly(2) == b"\r\n"
    message.body = b"".join(pieces)
    lines = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        lines.append(line.decode("latin-1").rstrip("\r\n"))
    message.trailers = parsed(lines)


async def read_request(reader: asyncio.StreamReader) -> Message:
    """Read a whole request."""
    message = await read_head(reader)
    if message["transfer-encoding"] is not None:
        await read_chunked(reader, message)
    elif (length := message["content-length"]) is not None:
        message.body = await reader.readexactly(int(length))
    return message


async def read_response(reader: asyncio.StreamReader, *, method: str = "GET") -> Message:
    """Read a whole response, interim ones left to the caller; without a length the connection's end is its end."""
    message = await read_head(reader)
    if method == "HEAD" or message.status < 200 or message.status in (204, 304):
        return message
    if message["transfer-encoding"] is not None:
        await read_chunked(reader, message)
    elif (length := message["content-length"]) is not None:
        message.body = await reader.readexactly(int(length))
    else:
        message.body = await reader.read(-1)
    return message


async def ask(stream: Stream, request: bytes, *, method: str = "GET") -> Message:
    """Send a request and return the response."""
    stream.write(request)
    async with asyncio.timeout(15):
        return await read_response(stream.reader, method=method)


def get(path: str = "/", *, host: str = "server", more: str = "") -> bytes:
    """Return a simple request; `more` are whole lines."""
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n".encode()


def answer(body: bytes = b"", *, status: str = "200 OK", more: str = "") -> bytes:
    """Return a simple response; `more` are whole lines."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


@dataclass(slots=True)
class Recorder:
    """A server that keeps what it was asked and answers each request with the same bytes."""

    response: bytes = answer(b"hello")
    seen: list[Message] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve requests until the connection ends."""
        while not reader.at_eof():
            self.seen.append(await read_request(reader))
            writer.write(self.response)
            await writer.drain()
