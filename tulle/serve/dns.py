"""The mesh's name server: a process in the bridge's network namespace that answers from the last snapshot.

What was learnt stays in force while the supervisor cannot be asked. It answers from the start, with no names in it:
pods that resolve before the first snapshot do not exist yet either.
"""

import argparse
import asyncio
import random
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tulle.lib import log
from tulle.local.names import UDP_BYTES, Zone, answer, zone
from tulle.local.watch import watch
from tulle.model.errors import PeerError

PORT = 53
RETRY_S = 0.2
IDLE_S = 30


class Server:
    """Answers on every address that it was told."""

    def __init__(self) -> None:
        self._zone = Zone()
        self._log = log.logger("dns")

    async def run(self, supervisor: Path, addresses: Sequence[str]) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        for address in addresses:
            await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(address, PORT))
            await asyncio.start_server(self._stream, address, PORT)
        while True:
            try:
                async for seen in watch(supervisor):
                    self._zone = zone(seen)
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
    parser.add_argument("--listen", action="append", required=True, help="an address to answer on")
    options = parser.parse_args(arguments)
    log.configure()
    asyncio.run(Server().run(options.supervisor, options.listen))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
