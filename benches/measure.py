"""Cells, measured in interleaved rounds, and the rows that come of it.

Only ratios within one run mean something, since a shared machine is a different one every minute: so each round
goes through all topologies before the next one begins, and a row is the median of its rounds. A sample during
which others used the processors is taken again, a few times; what is kept in the end says how foreign it was.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benches import load
from benches.load import Load, Sample
from benches.proc import Processors
from benches.rig import Rig
from benches.topologies import Topologies, Topology, Up

FOREIGN, STOLEN = 0.2, 0.12
"""Cores; above that a sample is taken again."""
ATTEMPTS = 3
QUIET_S, PATIENCE_S = 0.2, 20.0
GIGABITS = 2e9
"""A cell that would move more than this many bits each second measures memory, not proxies."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a row is about, the topology aside."""

    protocol: str
    body: int
    connections: int
    rate: float | None
    keepalive: bool = True

    @property
    def within_reach(self) -> bool:
        """Tell whether the rate does not ask for more than the links are meant to carry."""
        return self.rate is None or self.rate * self.body * 8 <= GIGABITS

    def __str__(self) -> str:
        rate = f"{self.rate:g}/s" if self.rate else "saturated"
        close = "" if self.keepalive else " without keep-alive"
        return f"{self.protocol} {self.body} B {self.connections} connections {rate}{close}"


@dataclass(frozen=True, slots=True)
class Visit:
    """Cells that are measured one after the other while a topology runs: all of one protocol."""

    cells: tuple[Cell, ...]

    @property
    def protocol(self) -> str:
        """Return what all of them speak."""
        return self.cells[0].protocol


class Quiet:
    """Waits for others to leave the processors alone."""

    def __init__(self, place: Rig) -> None:
        self._place = place

    async def wait(self) -> None:
        """Return when a moment was quiet, or when patience has ended."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            before, own = Processors.now(), self._place.own_cpu_ns()
            await asyncio.sleep(QUIET_S)
            after = Processors.now()
            wall = (after.at - before.at) * 1e9
            foreign = (after.busy - before.busy - (self._place.own_cpu_ns() - own)) / wall
            if foreign <= FOREIGN and (after.stolen - before.stolen) / wall <= STOLEN:
                return


async def sample(place: Rig, quiet: Quiet, cell: Cell, up: Up, *, seconds: float, seed: int) -> Sample:
    """Measure one cell once."""
    asked = Load(
        cell.protocol,
        cell.body,
        cell.connections,
        cell.rate,
        seconds=seconds,
        warmup=0.5,
        keepalive=cell.keepalive,
        seed=seed,
    )
    best: Sample | None = None
    for _ in range(ATTEMPTS):
        await quiet.wait()
        one = await load.run(place, asked, up.target, proxies=up.proxies, origin=up.origin)
        if best is None or one.foreign + one.stolen < best.foreign + best.stolen:
            best = one
        if one.foreign <= FOREIGN and one.stolen <= STOLEN:
            break
    assert best
    return best


Key = tuple[str, Cell]
Samples = dict[Key, list[Json]]


async def rounds(
    topologies: Topologies,
    chosen: Sequence[Topology],
    visits: Sequence[Visit],
    *,
    count: int,
    seconds: float,
    known: Callable[[str, Cell, int], Json | None] = lambda *_: None,
    keep: Callable[[str, Cell, int, Json], None] = lambda *_: None,
) -> list[Json]:
    """Measure every cell in every topology that can carry it, `count` times; return the rows.

    Args:
        known: returns a sample of an earlier run.
        keep: is given each new one.
    """
    quiet = Quiet(topologies.place)
    taken: Samples = {}
    total = (
        sum(len(visit.cells) for visit in visits for each in chosen if visit.protocol in each.protocols)
        * count
    )
    done, begun, fresh = 0, time.monotonic(), 0
    for visit in visits:
        for number in range(count):
            for topology in chosen:
                if visit.protocol not in topology.protocols:
                    continue
                left = []
                for cell in visit.cells:
                    if (old := known(topology.name, cell, number)) is None:
                        left.append(cell)
                    else:
                        taken.setdefault((topology.name, cell), []).append(old)
                        done += 1
                if not left:
                    continue
                async with topologies.up(topology, visit.protocol) as up:
                    for cell in left:
                        one = await sample(
                            topologies.place, quiet, cell, up, seconds=seconds, seed=number + 1
                        )
                        facts = flat(one)
                        taken.setdefault((topology.name, cell), []).append(facts)
                        keep(topology.name, cell, number, facts)
                        done, fresh = done + 1, fresh + 1
                        pace = (time.monotonic() - begun) / fresh
                        progress(
                            f"{done}/{total} (about {pace * (total - done) / 60:.0f} min left)"
                            f" {topology.name}, {cell}, round {number + 1}: {brief(facts)}"
                        )
    return [row(name, cell, samples) for (name, cell), samples in taken.items()]


def flat(one: Sample) -> Json:
    """Return what is kept of a sample."""
    names = ("requests_per_s", "bytes_per_s", "p50_us", "p90_us", "p99_us", "p999_us", "errors")
    return {
        **{name: one.said[name] for name in names},
        "cpu_us_per_request": one.proxy_cpu_us,
        "origin_cpu_us_per_request": one.origin_cpu_us,
        "rss_mib": max(one.rss_mib, default=0.0),
        "foreign_cores": one.foreign,
        "stolen_cores": one.stolen,
        **({"first_error": one.said["first_error"]} if "first_error" in one.said else {}),
    }


def brief(facts: Json) -> str:
    """Return a sample in a few words."""
    text = (
        f"{facts['requests_per_s']:.0f}/s, {facts['cpu_us_per_request']:.0f} us CPU,"
        f" p50 {facts['p50_us']:.0f} us, p90 {facts['p90_us']:.0f} us"
    )
    if facts["errors"]:
        text += f", {facts['errors']} errors ({facts.get('first_error', '?')})"
    if facts["foreign_cores"] > FOREIGN or facts["stolen_cores"] > STOLEN:
        text += f" (disturbed: {facts['foreign_cores']:.2f} foreign, {facts['stolen_cores']:.2f} stolen)"
    return text


def row(topology: str, cell: Cell, samples: Iterable[Json]) -> Json:
    """Return the medians of a cell's rounds, with the range of what is mostly the host's."""
    taken = list(samples)

    def median(name: str, digits: int = 1) -> float:
        return round(float(statistics.median(each[name] for each in taken)), digits)

    made: Json = {
        "topology": topology,
        "protocol": cell.protocol,
        "body_bytes": cell.body,
        "rate": cell.rate,
        "connections": cell.connections,
        "keepalive": cell.keepalive,
        "requests_per_s": median("requests_per_s"),
        "cpu_us_per_request": median("cpu_us_per_request"),
        "origin_cpu_us_per_request": median("origin_cpu_us_per_request"),
        "p50_us": median("p50_us"),
        "p90_us": median("p90_us"),
        "p99_us": median("p99_us"),
        "p99_range_us": [min(each["p99_us"] for each in taken), max(each["p99_us"] for each in taken)],
        "rss_mib": median("rss_mib"),
        "errors": sum(each["errors"] for each in taken),
        "foreign_cores": round(max(each["foreign_cores"] for each in taken), 2),
        "stolen_cores": round(max(each["stolen_cores"] for each in taken), 2),
        "rounds": len(taken),
    }
    errors = [each["first_error"] for each in taken if "first_error" in each]
    return {**made, "first_error": errors[0]} if errors else made


def progress(text: str) -> None:
    """Say how far the bench is."""
    print(text, file=sys.stderr, flush=True)
