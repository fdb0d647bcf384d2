"""The mesh's name server: a process in the bridge's network namespace that answers from the last snapshot.

Its sockets are the supervisor's, which opened them before any pod: a question that comes while this process is not
there yet, or was killed, waits in them. None is answered before the first snapshot, since an answer that a name does
not exist would be believed. What was learnt stays in force while the supervisor cannot be asked.
"""

import argparse
import asyncio
import random
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tulle.lib import log
from tulle.local.names import UDP_BYTES, Zone, answer, zone
from tulle.local.watch import watch
from tulle.model.errors import PeerError

RETRY_S = 0.2
IDLE_S = 30


class Server:
    """Answers on every socket that it was given."""

    def __init__(self) -> None:
        self._zone = Zone()
        self._known = asyncio.Event()
        self._log = log.logger("dns")

    async def run(self, supervisor: Path, sockets: Sequence[socket.socket]) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(supervisor))
            await self._known.wait()
            for each in sockets:
                if each.type == socket.SOCK_DGRAM:
                    await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=each)
                else:
                    await asyncio.start_server(self._stream, sock=each)

    async def _watch(self, supervisor: Path) -> None:
        while True:
            try:
                async for seen in watch(supervisor):
                    self._zone = zone(seen)
                    self._known.set()
            except (OSError, PeerError) as error:
                self._log.info("supervisor away", error=str(error))
            await asyncio.sleep(RETRY_S)

    def answer(self, question: bytes, longest: int | None) -> bytes | None:
        """Answer one message."""
        return answer(self._zone, question, longest=longest, shuffle=random.shuffle)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    question = await reader.readexactly(length)
                said = self.answer(question, None)
                if said is None:
                    return
                writer.write(struct.pack("!H", len(said)) + said)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # The client has gone, or has nothing more to ask.
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        said = self._server.answer(data, UDP_BYTES)
        if said is not None and self._transport is not None:
            self._transport.sendto(said, addr)


def main(arguments: Sequence[str]) -> int:
    """Run until ended."""
    parser = argparse.ArgumentParser(prog="python -m tulle.serve.dns")
    parser.add_argument("--supervisor", type=Path, required=True, help="the supervisor's socket")
    parser.add_argument(
        "--socket", action="append", type=int, required=True, help="a descriptor to answer on"
    )
    options = parser.parse_args(arguments)
    log.configure()
    sockets = [socket.socket(fileno=descriptor) for descriptor in options.socket]
    asyncio.run(Server().run(options.supervisor, sockets))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
