"""What can be between generator and origin, and how it is started.

A topology is started for each visit and ended after it, so that nothing but what is measured runs meanwhile.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benches import certificates, configurations, mesh, peers, rig
from benches.certificates import Certificates
from benches.configurations import ENTRY, MIDDLE_PORT, Hop, Pair, Side
from benches.rig import (
    ADDRESSES,
    CLIENT,
    LOAD_CORE,
    NOBODY,
    PORTS,
    PROXY_CORE,
    SERVER,
    BenchError,
    Process,
    Rig,
)

HTTP = ("http1", "grpc")
STOCK = "TULLE_STOCK_PROXY"


@dataclass(frozen=True, slots=True)
class Topology:
    """A name in the table, and what it can carry."""

    name: str
    program: str | None
    """The peer's program; None where it is ours, stock or nothing."""
    hop: Hop | None
    protocols: Sequence[str]


DIRECT = Topology("direct", None, None, (*HTTP, "tcp"))
TULLE = Topology("tulle", None, None, (*HTTP, "tcp"))
STOCK_PAIR = Topology("stock", None, None, (*HTTP, "tcp"))
ALL = (
    DIRECT,
    TULLE,
    Topology("haproxy-h1", "haproxy", "h1", ("http1",)),
    Topology("haproxy-h2", "haproxy", "h2", HTTP),
    Topology("haproxy-tcp", "haproxy", "tcp", ("http1", "tcp")),
    Topology("envoy-h2", "envoy", "h2", HTTP),
    Topology("envoy-tcp", "envoy", "tcp", ("tcp",)),
    Topology("nginx-h1", "nginx", "h1", ("http1",)),
    Topology("nghttpx-h2", "nghttpx", "h2", HTTP),
    STOCK_PAIR,
)


@dataclass(frozen=True, slots=True)
class Up:
    """A running topology."""

    target: str
    proxies: Sequence[Process]
    origin: Process


class Topologies:
    """Starts topologies in a rig."""

    def __init__(self, place: Rig, proxy: Path) -> None:
        self.place = place
        self._certificates: Certificates | None = None
        own = place.copy(proxy, "tulle-proxy")
        stock = os.environ.get(STOCK)
        self.own = mesh.Binaries(own, own)
        self.stock = mesh.Binaries(place.copy(Path(stock), "stock-proxy"), own) if stock else None

    def missing(self, topology: Topology) -> str | None:
        """Return why a topology is left out; None if it is there."""
        if topology.name == "stock":
            return None if self.stock else f"{STOCK} is not set"
        if topology.program and peers.find(topology.program) is None:
            return f"{topology.program} is not installed; {peers.hint(topology.program)}"
        return None

    @asynccontextmanager
    async def up(self, topology: Topology, protocol: str) -> AsyncIterator[Up]:
        """Start a topology with its origin for one protocol."""
        async with self.origin() as origin:
            if topology == DIRECT:
                yield Up(f"{ADDRESSES[SERVER]}:{PORTS[protocol]}", (), origin)
            elif topology.hop is None:
                binaries = self.own if topology == TULLE else self.stock
                if binaries is None:
                    raise BenchError(f"{STOCK} is not set")
                async with mesh.running(self.place, binaries) as running:
                    yield Up(mesh.TARGETS[protocol], running.pair, origin)
            else:
                async with self._peers(topology, protocol, topology.hop) as proxies:
                    yield Up(ENTRY, proxies, origin)

    @asynccontextmanager
    async def origin(self, *flags: str) -> AsyncIterator[Process]:
        """Start the origin on all its ports; `flags` add to them."""
        program = self.place.copy(self.place.root / "target/release/tulle-load", "tulle-load")
        flags = flags or tuple(f"--{protocol}=0.0.0.0:{port}" for protocol, port in PORTS.items())
        argv = [program, "origin", *(part for flag in flags for part in flag.split("=", 1))]
        origin = await self.place.start("origin", argv, where=SERVER, core=LOAD_CORE, uid=NOBODY)
        async with self.place.running(origin):
            await rig.reachable(origin, ADDRESSES[SERVER], rig.TCP if len(flags) == len(PORTS) else rig.HTTP1)
            yield origin

    @asynccontextmanager
    async def _peers(self, topology: Topology, protocol: str, hop: Hop) -> AsyncIterator[tuple[Process, ...]]:
        if self._certificates is None:
            self._certificates = certificates.make(self.place.folder / "certificates")
        pair = Pair(hop, protocol, self._certificates)
        started: list[Process] = []
        async with AsyncExitStack() as stack:
            sides: tuple[tuple[Side, str], ...] = (("server", SERVER), ("client", CLIENT))
            for side, where in sides:
                argv = self._argv(topology, pair, side)
                process = await self.place.start(
                    f"{topology.name}-{side}", argv, where=where, core=PROXY_CORE, uid=NOBODY
                )
                await stack.enter_async_context(self.place.running(process))
                started.append(process)
            await rig.reachable(started[0], ADDRESSES[SERVER], MIDDLE_PORT)
            await rig.listening(started[1], CLIENT, int(ENTRY.rpartition(":")[2]))
            yield tuple(started)

    def _argv(self, topology: Topology, pair: Pair, side: Side) -> list[str]:
        program = peers.find(topology.program or "")
        if program is None:
            raise BenchError(f"{topology.program} is not installed; {peers.hint(topology.program or '')}")

        def file(ending: str, content: str) -> str:
            path = self.place.folder / f"{topology.name}-{side}.{ending}"
            path.write_text(content)
            return str(path)

        make: dict[str, Callable[[], list[str]]] = {
            "haproxy": lambda: ["-db", "-f", file("cfg", configurations.haproxy(pair, side))],
            "envoy": lambda: [
                *("--config-path", file("json", configurations.envoy(pair, side))),
                *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"),
            ],
            "nginx": lambda: [
                *("-p", str(self.place.folder), "-e", "stderr"),
                *("-c", file("conf", configurations.nginx(pair, side, str(self.place.writable(NOBODY))))),
            ],
            "nghttpx": lambda: configurations.nghttpx(pair, side),
        }
        if topology.program == "envoy":
            program = self.place.copy(Path(program), "envoy")
        return [program, *make[topology.program or ""]()]
