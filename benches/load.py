"""Runs the generator once and brings together what it saw and what the kernel saw meanwhile."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benches import proc
from benches.proc import Processors
from benches.rig import CLIENT, LOAD_CORE, NOBODY, BenchError, Process, Rig

Json = dict[str, Any]
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator is asked for."""

    protocol: str
    body: int
    connections: int
    rate: float | None = None
    seconds: float = 3.0
    warmup: float = 1.0
    keepalive: bool = True
    requests: int | None = None
    idle: int = 0
    seed: int = 1

    def arguments(self, target: str) -> list[str]:
        """Return the generator's flags."""
        flags = [f"--protocol={self.protocol}", f"--target={target}", "--host=web.bench"]
        flags += [f"--connections={self.connections}", f"--body={self.body}", f"--seed={self.seed}"]
        flags += [f"--seconds={self.seconds}", f"--warmup={self.warmup}", f"--idle={self.idle}"]
        flags += [f"--rate={self.rate}"] if self.rate else []
        flags += [f"--requests={self.requests}"] if self.requests else []
        flags += [] if self.keepalive else ["--no-keepalive"]
        return [part for flag in flags for part in flag.split("=", 1)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of the generator."""

    said: Json
    """What the generator printed."""
    proxy_cpu_us: float
    origin_cpu_us: float
    """Of each request."""
    rss_mib: Sequence[float]
    """Of each proxy, at the end."""
    foreign: float
    stolen: float
    """How many cores others used, and how many the host took away."""
    threads: Sequence[Mapping[str, int]] = ()
    """Of each proxy, the CPU time of each thread in nanoseconds."""


async def run(
    rig: Rig,
    load: Load,
    target: str,
    *,
    proxies: Sequence[Process] = (),
    origin: Process | None = None,
    during: Callable[[], object] | None = None,
) -> Sample:
    """Run the generator; `during` is called when measuring begins.

    Raises BenchError when it fails.
    """
    program = rig.copy(rig.root / "target/release/tulle-load", "tulle-load")
    generator = await rig.start(
        "generator",
        [program, "run", *load.arguments(target)],
        where=CLIENT,
        core=LOAD_CORE,
        uid=NOBODY,
        piped=True,
    )
    async with rig.running(generator):
        limit = PATIENCE_S + load.seconds + load.warmup
        try:
            async with asyncio.timeout(limit):
                await _event(generator, "begin")
                watch = _Watch(rig, proxies, origin)
                if during:
                    during()
                await _event(generator, "end")
                watch.end()
                said = await _line(generator)
        except TimeoutError:
            raise BenchError(f"the generator did not end within {limit:g} s") from None
    return watch.sample(said)


class _Watch:
    """Counters from the begin of the measured time to its end."""

    def __init__(self, rig: Rig, proxies: Sequence[Process], origin: Process | None) -> None:
        self._rig = rig
        self._proxies = [process.pid for process in proxies]
        self._origin = [origin.pid] if origin else []
        self._began = self._read()
        self._ended = self._began
        self._rss: list[float] = []

    def end(self) -> None:
        self._ended = self._read()
        self._rss = list(map(proc.rss_mib, self._proxies))

    def sample(self, said: Json) -> Sample:
        (began, own0, threads0, origin0), (ended, own1, threads1, origin1) = self._began, self._ended
        wall_ns = max(ended.at - began.at, 1e-9) * 1e9
        requests = max(said["requests"], 1)
        threads = [
            {name: time - before.get(name, 0) for name, time in after.items()}
            for before, after in zip(threads0, threads1, strict=True)
        ]
        return Sample(
            said=said,
            proxy_cpu_us=sum(sum(each.values()) for each in threads) / requests / 1e3,
            origin_cpu_us=(origin1 - origin0) / requests / 1e3,
            rss_mib=self._rss,
            foreign=max(0.0, (ended.busy - began.busy - (own1 - own0)) / wall_ns),
            stolen=(ended.stolen - began.stolen) / wall_ns,
            threads=threads,
        )

    def _read(self) -> tuple[Processors, int, list[dict[str, int]], int]:
        threads = [
            {name: time for each in proc.tree(pid) for name, time in proc.threads(each).items()}
            for pid in self._proxies
        ]
        return Processors.now(), self._rig.own_cpu_ns(), threads, proc.cpu_ns(self._origin)


async def _event(generator: Process, name: str) -> None:
    line = await _line(generator)
    if line.get("event") != name:
        raise BenchError(f"the generator said {line} where {name} was expected")


async def _line(generator: Process) -> Json:
    assert generator.child.stdout
    line = await generator.child.stdout.readline()
    if not line:
        raise BenchError(f"the generator failed: {generator.words()}")
    decoded: Json = json.loads(line)
    return decoded
