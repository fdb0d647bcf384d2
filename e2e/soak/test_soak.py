"""Ten minutes of what wears a proxy out; it must hold no more at the end than in the middle.

Connections that stay (10,000 of them to a meshed pod from one outside the mesh, and a tenth as many through a
proxy of the client's own; each has had a request), clients that read slowly, and a steady coming and going of
others, half of which end by a reset in the middle of a response. `SOAK_SECONDS` and `SOAK_CONNECTIONS` make
it shorter: `SOAK_SECONDS=20 SOAK_CONNECTIONS=300` is over in half a minute.
"""

import asyncio
import contextlib
import os
import re
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Coroutine

import pytest

from e2e.conftest import kind, pod
from e2e.pods import Pod, Stream, eventually
from e2e.soak.samples import Series
from tulle.testing import LiveMesh

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
CONNECTIONS = int(os.environ.get("SOAK_CONNECTIONS", "10000"))
START_S = 300
OPENING = 64
"""How many of the staying connections are opened at once."""
SLOW = 20
SLOW_BODY = 1 << 20
SLOW_STEP = 4096
SLOW_WAIT_S = 0.05
PER_SECOND = 20
"""Connections that come and go."""
RESET_BODY = 256 * 1024
SAMPLES = 200
CLIENTS = ("client", "outsider")
RESET = struct.pack("ii", 1, 0)
OPEN = re.compile(r'^tcp_open_connections\{[^}]*peer="src"[^}]*\} ([0-9.e+]+)$', re.MULTILINE)


async def origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer `GET /N` with N bytes, for as long as the client asks."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b" ", 2)[1].removeprefix(b"/"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length)
        for begun in range(0, length, 65536):
            writer.write(bytes(min(65536, length - begun)))
            await writer.drain()


class Load:
    """Everything that the clients do, until it is stopped."""

    def __init__(self, pods: dict[str, Pod], port: int) -> None:
        self._pods = pods
        self._port = port
        self._opening = asyncio.Semaphore(OPENING)
        self.failures: list[str] = []
        self.done = 0

    async def ask(self, client: str, length: int) -> Stream:
        """Open a connection and read the head of one response."""
        # To the pod itself: outside the mesh a service is somebody else's to balance.
        host = "server" if client == "client" else self._pods["server"].address
        stream = await self._pods[client].connect(host, self._port)
        stream.write(b"GET /%d HTTP/1.1\r\nhost: server\r\n\r\n" % length)
        async with asyncio.timeout(60):
            head = await stream.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return stream

    async def stay(self, client: str) -> Stream:
        """Open a connection that stays, once its turn comes."""
        async with self._opening:
            return await self.ask(client, 0)

    async def read_slowly(self, client: str) -> None:
        """Download for ever, a little at a time."""
        async with await self.ask(client, 0) as stream:
            while True:
                stream.write(b"GET /%d HTTP/1.1\r\nhost: server\r\n\r\n" % SLOW_BODY)
                await stream.reader.readuntil(b"\r\n\r\n")
                for _ in range(SLOW_BODY // SLOW_STEP):
                    await stream.exactly(SLOW_STEP)
                    await asyncio.sleep(SLOW_WAIT_S)
                self.done += 1

    async def come_and_go(self, number: int) -> None:
        """One connection: read to the end and close, or break it off by a reset."""
        stream = await self.ask(CLIENTS[number // 2 % 2], RESET_BODY)
        if number % 2:
            await stream.exactly(RESET_BODY)
        else:
            made: socket.socket = stream.writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stream.writer.transport.abort()
        stream.writer.close()
        self.done += 1

    async def keep_coming(self) -> None:
        """Start connections at a steady rate."""
        async with asyncio.TaskGroup() as group:
            number = 0
            due = time.monotonic()
            while True:
                group.create_task(self._noted(self.come_and_go(number)))
                number += 1
                due = max(due + 1 / PER_SECOND, time.monotonic() - 1)
                await asyncio.sleep(due - time.monotonic())

    async def _noted(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except (OSError, TimeoutError, asyncio.IncompleteReadError, AssertionError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    @contextlib.asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Load while the block runs; what fails of the steady part fails the block."""
        for client in CLIENTS:
            # The first of a pod starts the process that makes its sockets.
            async with await self.ask(client, 0):
                pass
        clients = ["outsider"] * CONNECTIONS + ["client"] * (CONNECTIONS // 10)
        staying = await asyncio.gather(*(self.stay(client) for client in clients))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.read_slowly(CLIENTS[number % 2])) for number in range(SLOW)]
            tasks.append(group.create_task(self.keep_coming()))
            yield
            for task in tasks:
                task.cancel()
        for stream in staying:
            stream.writer.transport.abort()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + START_S + 300)
async def test_nothing_grows_under_slow_readers_resets_and_many_connections(mesh: LiveMesh) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # One end of every connection is here, the other in a proxy, which has as many as this process may.
    wanted = CONNECTIONS + CONNECTIONS // 10 + 2000
    if most < wanted:
        pytest.skip(f"may open {most} files and needs {wanted}: ulimit -Hn {wanted}, or SOAK_CONNECTIONS")
    outsider = pod("outsider", {"linkerd.io/inject": "disabled"})
    state = await mesh.up(pod("client", kind("ours")), pod("server", kind("ours")), outsider)
    pods = {found.name: Pod(mesh, found.name, found.addresses[0], "") for found in state.pods}
    series = {name: Series(await mesh.pid(f"{name}/proxy")) for name in ("client", "server")}
    try:
        async with pods["server"].serving(origin) as served:
            load = Load(pods, served.port)
            async with load.going():
                begun = time.monotonic()
                while (now := time.monotonic() - begun) < SECONDS:
                    for name, each in series.items():
                        text = await mesh.api.proxy_metrics(name)
                        each.sample(now, connections=sum(map(float, OPEN.findall(text))))
                    await asyncio.sleep(max(1.0, SECONDS / SAMPLES))
            accepted = served.accepted

            for name, each in series.items():
                print(f"{name}: {each.told()}")  # noqa: T201 (what the run is for)
            print(f"{load.done} done, {accepted} connections at the origin, {len(load.failures)} failed")  # noqa: T201
            assert {name: each.grown() for name, each in series.items()} == {"client": [], "server": []}
            assert load.failures == []

            def few_descriptors() -> bool:
                for each in series.values():
                    each.sample(SECONDS)
                return all(each.figures["descriptors"][-1] < 200 for each in series.values())

            await eventually(few_descriptors, "every connection is given back once its client is gone")
    finally:
        for used in pods.values():
            used.close()
