"""Carries connections from this machine into the mesh, and, where asked, out of it: a process in the bridge's network.

It accepts on sockets that the supervisor opened on the host and handed over, so it needs no way to the host, and a
restart loses nothing but what it carried: who connects meanwhile waits in the socket. It connects to a ready
endpoint itself, since there are no translations where it lives; a policy sees the bridge's address as the client.
What leaves the mesh is led to it by the bridge's rules, and goes on over a socket of the machine's own network.
"""

import argparse
import asyncio
import random
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tulle.lib import log
from tulle.local import outside
from tulle.local.endpoints import Endpoint, endpoints, pods_behind
from tulle.local.handover import Door, Handed, receive
from tulle.local.watch import Seen, watch
from tulle.model.errors import PeerError

CONNECT_S = 1.0
WAIT_S = 10.0
"""How long a connection may wait for the first ready endpoint: as long as a small pod takes to start."""
POLL_S = 0.05
CHUNK = 64 * 1024
RETRY_S = 0.2
LEAVE_S = 30.0
"""How long a connection to somewhere outside may take to be made; the client has its own patience."""


class Gateway:
    """Forwards what arrives at every door it was handed."""

    def __init__(self) -> None:
        self._seen = Seen((), ())
        self._servers: dict[str, asyncio.Server] = {}
        self._log = log.logger("gateway")

    async def run(
        self,
        supervisor: Path,
        control: socket.socket,
        supply: socket.socket | None,
        leaving: Sequence[socket.socket],
    ) -> None:
        """Serve until the supervisor is gone."""
        if supply is not None:
            for each in leaving:
                await asyncio.start_server(_Leave(supply), sock=each)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(supervisor))
            async for handed in receive(control):
                await self._open(handed)
            watching.cancel()

    async def _watch(self, supervisor: Path) -> None:
        while True:
            try:
                async for seen in watch(supervisor):
                    self._seen = seen
            except (OSError, PeerError) as error:
                self._log.info("supervisor away", error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _open(self, handed: Handed) -> None:
        """Take over a new set of doors; connections through one that stays are not disturbed."""
        wanted = {door.key: (door, listener) for door, listener in handed}
        for key in self._servers.keys() - wanted.keys():
            self._servers.pop(key).close()
        for key, (door, listener) in wanted.items():
            if key in self._servers:
                listener.close()
                continue
            serve = _Serve(self, door)
            self._servers[key] = await asyncio.start_server(serve, sock=listener)

    async def connect(self, door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Connect to a ready endpoint of a service, waiting a while for the first."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + WAIT_S
        while loop.time() < give_up:
            choices = list(self._endpoints(door))
            random.shuffle(choices)
            for choice in choices:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        return await asyncio.open_connection(choice.address, choice.port)
                except (OSError, TimeoutError):
                    continue
            await asyncio.sleep(POLL_S)
        return None

    def _endpoints(self, door: Door) -> tuple[Endpoint, ...]:
        for service in self._seen.services:
            if (service.meta.namespace, service.meta.name) == (door.namespace, door.service):
                for port in service.ports:
                    if port.port == door.service_port:
                        return endpoints(pods_behind(service, self._seen.pods), port, version=4)
        return ()


class _Serve:
    """Serves the connections of one door."""

    def __init__(self, gateway: Gateway, door: Door) -> None:
        self._gateway = gateway
        self._door = door

    async def __call__(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        await _join(near, near_writer, await self._gateway.connect(self._door))


class _Leave:
    """Serves the connections that want to leave the mesh."""

    def __init__(self, supply: socket.socket) -> None:
        self._supply = supply
        self._log = log.logger("egress")

    async def __call__(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        wanted = outside.wanted(near_writer.get_extra_info("socket"))
        await _join(near, near_writer, await self._connect(*wanted) if wanted else None)

    async def _connect(
        self, address: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        made = await outside.take(self._supply, address)
        if made is None:
            return None
        try:
            async with asyncio.timeout(LEAVE_S):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
            return await asyncio.open_connection(sock=made)
        except (OSError, TimeoutError) as error:
            self._log.info("not reached", address=address, port=port, error=str(error) or "timed out")
            made.close()
            return None


async def _join(
    near: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None,
) -> None:
    """Copy both ways until both have ended; without another side, reset."""
    if far is None:
        near_writer.transport.abort()
        return
    far_reader, far_writer = far
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(near, far_writer))
            group.create_task(_pipe(far_reader, near_writer))
    except* OSError:
        # One side broke off; the other must see that it was no orderly end.
        near_writer.transport.abort()
        far_writer.transport.abort()
    finally:
        near_writer.close()
        far_writer.close()


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy one direction and hand its end on; the other direction goes on."""
    while data := await source.read(CHUNK):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


def main(arguments: Sequence[str]) -> int:
    """Run until ended."""
    parser = argparse.ArgumentParser(prog="python -m tulle.serve.gateway")
    parser.add_argument("--supervisor", type=Path, required=True, help="the supervisor's socket")
    parser.add_argument("--control", type=int, required=True, help="the descriptor over which sockets arrive")
    parser.add_argument("--outside", type=int, help="the descriptor over which sockets for outside arrive")
    parser.add_argument(
        "--leaving",
        type=int,
        action="append",
        default=[],
        help="a descriptor where what goes outside arrives",
    )
    options = parser.parse_args(arguments)
    log.configure()
    control = _given(options.control)
    supply = None if options.outside is None else _given(options.outside)
    leaving = [_given(descriptor) for descriptor in options.leaving]
    try:
        asyncio.run(Gateway().run(options.supervisor, control, supply, leaving))
    except msgspec.MsgspecError as error:
        raise PeerError(f"the supervisor's message cannot be read: {error}") from error
    return 0


def _given(descriptor: int) -> socket.socket:
    given = socket.socket(fileno=descriptor)
    given.setblocking(False)
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
