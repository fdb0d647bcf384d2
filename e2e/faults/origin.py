"""A small HTTP/1.1 server to run in a pod: it names itself, echoes bodies, takes its time when asked, and ends well.

On SIGTERM it answers what it has begun to receive and ends. With `--marks FOLDER` it leaves a file there when it
begins and when it ends, so that a test can see the order of things.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import signal
import time
import urllib.parse
from pathlib import Path


class Origin:
    """The server's state: how many requests are in flight."""

    def __init__(self) -> None:
        self.busy = 0
        self.ending = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        line = await reader.readline()
        if not line:
            return False
        self.busy += 1
        try:
            method, target, _ = line.decode("latin-1").split(" ", 2)
            length = 0
            while (header := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = header.decode("latin-1").partition(":")
                if name.lower() == "content-length":
                    length = int(value)
            body = await reader.readexactly(length)
            url = urllib.parse.urlsplit(target)
            wishes = dict(urllib.parse.parse_qsl(url.query))
            if "seconds" in wishes:
                await asyncio.sleep(float(wishes["seconds"]))
            said = f"{os.uname().nodename} {method} {length} {hashlib.sha256(body).hexdigest()}\n".encode()
            close = b"connection: close\r\n" if self.ending.is_set() else b""
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n" % (len(said), close) + said)
            await writer.drain()
            return not close
        finally:
            self.busy -= 1


async def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--marks", type=Path)
    options = parser.parse_args()
    mark(options.marks, "begun")
    origin = Origin()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, origin.ending.set)
    server = await asyncio.start_server(origin.serve, None, options.port, backlog=512)
    await origin.ending.wait()
    server.close()
    while origin.busy:
        await asyncio.sleep(0.01)
    mark(options.marks, "ended")


def mark(folder: Path | None, what: str) -> None:
    """Write down when something happened."""
    if folder is not None:
        (folder / f"{os.uname().nodename}-{what}").write_text(repr(time.time()))


if __name__ == "__main__":
    asyncio.run(main())
