"""Runs the generator once and brings together what it saw and what the kernel saw meanwhile."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    rss_mib: float
    """Of the largest proxy, at the end."""
    foreign: float
    stolen: float
    """How many cores others used, and how many the host took away."""
    threads: Mapping[str, float] = field(default_factory=dict)
    """The part of the proxies' CPU time that each of their threads had."""


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
        self._rss = 0.0

    def end(self) -> None:
        self._ended = self._read()
        self._rss = max(map(proc.rss_mib, self._proxies), default=0.0)

    def sample(self, said: Json) -> Sample:
        (began, own0, proxies0, origin0), (ended, own1, proxies1, origin1) = self._began, self._ended
        wall_ns = max(ended.at - began.at, 1e-9) * 1e9
        requests = max(said["requests"], 1)
        per_thread = {
            name: time - proxies0.get(name, 0) for name, time in proxies1.items() if time > proxies0.get(name, 0)
        }
        total = sum(per_thread.values())
        return Sample(
            said=said,
            proxy_cpu_us=total / requests / 1e3,
            origin_cpu_us=(origin1 - origin0) / requests / 1e3,
            rss_mib=self._rss,
            foreign=max(0.0, (ended.busy - began.busy - (own1 - own0)) / wall_ns),
            stolen=(ended.stolen - began.stolen) / wall_ns,
            threads={name: time / total for name, time in per_thread.items()} if total else {},
        )

    def _read(self) -> tuple[Processors, int, dict[str, int], int]:
        threads = {
            name: time
            for pid in self._proxies
            for each in proc.tree(pid)
            for name, time in proc.threads(each).items()
        }
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
