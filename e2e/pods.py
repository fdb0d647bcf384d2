"""Pods whose applications are the tests themselves.

A socket belongs to the network that its maker was in, and stays there when it is handed on. So a small process
inside the pod makes sockets and hands them out, and the test, outside, is client and server at once: it sees both
ends of what crosses two proxies, in one program and in order. Nothing else of the pod is used but its names.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from tulle.local.enter import inside_network
from tulle.testing import LiveMesh

PASSER = """
import json, socket
wire = socket.socket(fileno=0)
while order := wire.recv(65536):
    wish = json.loads(order)
    try:
        if "name" in wish:
            found = socket.getaddrinfo(wish["name"], None, wish["family"], socket.SOCK_STREAM)
            wire.send(json.dumps(sorted({entry[4][0] for entry in found})).encode())
        else:
            with socket.socket(*wish["socket"]) as made:
                socket.send_fds(wire, [b"{}"], [made.fileno()])
    except OSError as error:
        wire.send(json.dumps(str(error)).encode())
"""
ANSWER_S = 10
DEADLINE_S = 15
"""How long something may take that usually takes milliseconds, on a machine that is busy with something else."""
LOOK_S = 0.01
FIRST_PORT = 9001
PORTS = 48
"""A test takes the next one, so that none sees the connections or the memory that another left behind."""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], what: str, *, within_s: float = DEADLINE_S
) -> None:
    """Return when a condition holds; the only place where a test waits for what has no event."""
    deadline = time.monotonic() + within_s
    while True:
        said = condition()
        if said if isinstance(said, bool) else await said:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(LOOK_S)


class Passer:
    """Hands out sockets that a process somewhere else makes."""

    def __init__(self, command: list[str]) -> None:
        self._wire, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._wire.settimeout(ANSWER_S)
        with other:
            self._process = subprocess.Popen(command, stdin=other.fileno())

    def make(self, *kind: int) -> socket.socket:
        """Return a new socket of a family, type and protocol."""
        self._wire.send(json.dumps({"socket": kind}).encode())
        said, handed, _, _ = socket.recv_fds(self._wire, 4096, 1)
        if not handed:
            raise OSError(said.decode() or "the pod is gone")
        made = socket.socket(fileno=handed[0])
        made.setblocking(False)
        return made

    def resolve(self, name: str, family: int) -> list[str]:
        """Return the addresses of a name, as the pod sees it."""
        self._wire.send(json.dumps({"name": name, "family": family}).encode())
        said = json.loads(self._wire.recv(65536))
        if isinstance(said, str):
            raise OSError(f"{name}: {said}")
        return [str(address) for address in said]

    def close(self) -> None:
        """End the process."""
        self._wire.close()
        self._process.wait(ANSWER_S)


@dataclass(slots=True)
class Pod:
    """One pod, as a place to make sockets in."""

    mesh: LiveMesh
    name: str
    address: str
    address6: str
    _passers: dict[bool, Passer] = field(default_factory=dict)
    _next: int = 0
    _names: dict[tuple[str, int], str] = field(default_factory=dict)

    async def passer(self, *, privileged: bool = False) -> Passer:
        """Return who makes sockets: as the application would, or with every right over the pod's network."""
        if privileged not in self._passers:
            command = [sys.executable, "-c", PASSER]
            if privileged:
                holder = await self.mesh.api.holder(self.name)
                command = inside_network(holder, command, rootless=os.geteuid() != 0)
            else:
                command = await self.mesh.api.exec_arguments(self.name, command)
            self._passers[privileged] = Passer(command)
        return self._passers[privileged]

    def close(self) -> None:
        """End the makers of sockets."""
        for passer in self._passers.values():
            passer.close()
        self._passers.clear()

    def next_port(self) -> int:
        """Return the port that was not used for longest."""
        self._next += 1
        return FIRST_PORT + (self._next - 1) % PORTS

    async def resolve(self, name: str, family: int = socket.AF_INET) -> str:
        """Return an address of a name, asked for once."""
        if (name, family) not in self._names:
            self._names[name, family] = (await self.passer()).resolve(name, family)[0]
        return self._names[name, family]

    async def connect(self, host: str, port: int, *, family: int = socket.AF_INET) -> "Stream":
        """Connect from inside the pod."""
        address = await self.resolve(host, family)
        connection = (await self.passer()).make(family, socket.SOCK_STREAM)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except BaseException:
            connection.close()
            raise
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 20)
        return Stream(reader, writer)

    async def listen(self, port: int, *, family: int = socket.AF_INET6) -> socket.socket:
        """Listen inside the pod, at every address it has."""
        listener = (await self.passer()).make(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        listener.listen(256)
        return listener

    @contextlib.asynccontextmanager
    async def serving(self, handler: Handler, *, port: int | None = None) -> AsyncIterator["Served"]:
        """Serve connections with a handler while the block runs; what a handler raises ends the block."""
        served = Served(port or self.next_port(), handler)
        server = await asyncio.start_server(served.accept, sock=await self.listen(served.port), limit=1 << 20)
        try:
            yield served
        finally:
            server.close()
            for task in served.tasks:
                task.cancel()
            await asyncio.gather(*served.tasks, return_exceptions=True)
        for error in served.errors:
            raise error


@dataclass(slots=True)
class Served:
    """A server that the test runs inside a pod."""

    port: int
    handler: Handler
    accepted: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    errors: list[BaseException] = field(default_factory=list)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; that its client went away is no error of the server's."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.accepted += 1
        try:
            await self.handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 (raised again where the test sees it)
            self.errors.append(error)
        finally:
            self.tasks.discard(task)
            writer.close()


@dataclass(slots=True)
class Stream:
    """One connection of a client; every wait on it has a deadline."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                await self.writer.wait_closed()

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        self.writer.write(data)

    async def send(self, data: bytes) -> None:
        """Write bytes and wait until most of them are gone."""
        self.writer.write(data)
        async with asyncio.timeout(DEADLINE_S):
            await self.writer.drain()

    async def read(self, count: int = 1 << 16) -> bytes:
        """Return what arrives next; empty at the end."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read(count)

    async def exactly(self, count: int) -> bytes:
        """Return this many bytes."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Return everything up to the end; a reset is an end, too."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    async def closed(self) -> None:
        """Return when the other side has closed without another byte."""
        assert await self.rest() == b""


def chunks(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    """Cut data into pieces of these sizes."""
    at = 0
    while at < len(data):
        size = next(sizes)
        yield data[at : at + size]
        at += size
