import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.sources.test_snapshot import POD
from tulle.model.errors import PeerError
from tulle.model.update import Object
from tulle.sources.local import LocalSource


class Sink:
    def __init__(self) -> None:
        self.states: list[list[Object]] = []

    def replace(self, objects: Iterable[Object]) -> None:
        self.states.append(list(objects))

    def apply(self, updates: object) -> None:
        raise AssertionError("the local source states wholes")


@asynccontextmanager
async def supervisor(*chunks: bytes, status: bytes = b"200 OK") -> AsyncIterator[Path]:
    """Answer every request with these chunks, then end the response."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\ntransfer-encoding: chunked\r\n\r\n")
        for chunk in (*chunks, b""):
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        await writer.drain()
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "supervisor.sock"
        server = await asyncio.start_unix_server(answer, path)
        async with server:
            yield path


def line(*pods: dict[str, object]) -> bytes:
    return json.dumps({"generation": 1, "objects": [], "pods": pods}, ensure_ascii=False).encode() + b"\n"


async def test_each_line_is_a_whole_state_however_it_is_cut() -> None:
    # U+2028 is a line's end to Unicode and a character like any other to JSON.
    text = line(POD | {"annotations": {"note": "a\u2028b"}}) + line()
    sink = Sink()

    async with supervisor(text[:10], text[10:11], text[11:]) as path:
        await LocalSource(path).run(sink)

    assert [len(state) for state in sink.states] == [1, 0]


async def test_a_line_that_cannot_be_read_ends_the_run_with_a_clear_error() -> None:
    async with supervisor(b'{"objects": 1}\n') as path:
        with pytest.raises(PeerError, match="snapshot cannot be read"):
            await LocalSource(path).run(Sink())


async def test_an_absent_or_refusing_supervisor_ends_the_run() -> None:
    with pytest.raises(httpx2.ConnectError):
        await LocalSource(Path("/nonexistent/supervisor.sock")).run(Sink())
    async with supervisor(status=b"503 Not Yet") as path:
        with pytest.raises(httpx2.HTTPStatusError):
            await LocalSource(path).run(Sink())
