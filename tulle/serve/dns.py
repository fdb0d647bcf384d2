"""The mesh's name server: a process in the bridge's network namespace that answers from the last snapshot.

Its sockets are the supervisor's, which opened them before any pod: a question that comes while this process is not
there yet, or was killed, waits in them. None is answered before the first snapshot, since an answer that a name does
not exist would be believed. What was learnt stays in force while the supervisor cannot be asked. With a way out,
names of the world outside are asked of the machine's own name servers, over TCP.
"""

import argparse
import asyncio
import random
import socket
import struct
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import cast

import dns.exception

from tulle.lib import log
from tulle.local import outside
from tulle.local.names import UDP_BYTES, Zone, answer, failed, fitted, is_outside, zone
from tulle.local.watch import watch
from tulle.model.errors import PeerError

NAMES_PORT = 53
RETRY_S = 0.2
IDLE_S = 30
ASK_S = 3.0
"""For each name server outside: shorter than the 5 s after which a client asks again."""
MAX_ASKED = 64
"""Questions on their way outside; more of them wait."""


class Outside:
    """Asks the machine's name servers."""

    def __init__(self, supply: socket.socket, upstream: Sequence[str]) -> None:
        self._supply = supply
        self._upstream = upstream
        self._room = asyncio.Semaphore(MAX_ASKED)

    async def ask(self, question: bytes) -> bytes | None:
        """Return the first reply, or None where nobody gave one."""
        async with self._room:
            for address in self._upstream:
                try:
                    async with asyncio.timeout(ASK_S):
                        return await self._ask(address, question)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
        return None

    async def _ask(self, address: str, question: bytes) -> bytes | None:
        made = await outside.take(self._supply, address)
        if made is None:
            return None
        try:
            await asyncio.get_running_loop().sock_connect(made, (address, NAMES_PORT))
        except BaseException:
            made.close()
            raise
        reader, writer = await asyncio.open_connection(sock=made)
        try:
            writer.write(struct.pack("!H", len(question)) + question)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()


class Server:
    """Answers on every socket that it was given."""

    def __init__(self, beyond: Outside | None) -> None:
        self._beyond = beyond
        self._tasks: set[asyncio.Task[None]] = set()
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
        """Answer one message from what is known here."""
        return answer(self._zone, question, longest=longest, shuffle=random.shuffle)

    def beyond(self, question: bytes) -> Outside | None:
        """Return whom to ask where a question is about the world outside and there is a way there."""
        return self._beyond if self._beyond and is_outside(self._zone, question) else None

    def later(self, answering: Coroutine[None, None, None]) -> None:
        """Go on with something beside what comes next."""
        task = asyncio.get_running_loop().create_task(answering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    question = await reader.readexactly(length)
                beyond = self.beyond(question)
                said = await _asked(beyond, question, None) if beyond else self.answer(question, None)
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
        beyond = self._server.beyond(data)
        if beyond is not None:
            self._server.later(self._answer_later(beyond, data, addr))
            return
        said = self._server.answer(data, UDP_BYTES)
        if said is not None and self._transport is not None:
            self._transport.sendto(said, addr)

    async def _answer_later(self, beyond: Outside, data: bytes, addr: tuple[str | object, int]) -> None:
        said = await _asked(beyond, data, UDP_BYTES)
        if self._transport is not None:
            self._transport.sendto(said, addr)


async def _asked(beyond: Outside, question: bytes, longest: int | None) -> bytes:
    reply = await beyond.ask(question)
    if reply is None:
        return failed(question)
    try:
        return fitted(reply, question, longest)
    except dns.exception.DNSException:
        return failed(question)


def main(arguments: Sequence[str]) -> int:
    """Run until ended."""
    parser = argparse.ArgumentParser(prog="python -m tulle.serve.dns")
    parser.add_argument("--supervisor", type=Path, required=True, help="the supervisor's socket")
    parser.add_argument(
        "--socket", action="append", type=int, required=True, help="a descriptor to answer on"
    )
    parser.add_argument("--outside", type=int, help="the descriptor over which sockets for outside arrive")
    parser.add_argument("--upstream", action="append", default=[], help="a name server outside")
    options = parser.parse_args(arguments)
    log.configure()
    beyond = None
    if options.outside is not None:
        supply = socket.socket(fileno=options.outside)
        supply.setblocking(False)
        beyond = Outside(supply, options.upstream)
    sockets = [socket.socket(fileno=descriptor) for descriptor in options.socket]
    asyncio.run(Server(beyond).run(options.supervisor, sockets))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
