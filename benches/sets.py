"""What can be measured by name, and how what is measured now joins what was measured before.

The rows are of one run and are replaced together. Each measurement with a name of its own stands by itself, so it
is replaced alone.
"""

import datetime as dt
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benches import measure, results, table
from benches.extras import MEASUREMENTS
from benches.measure import Cell, Visit
from benches.rig import BenchError
from benches.topologies import ALL, STOCK, Topologies, Topology

Json = dict[str, Any]

KIB, MIB = 2**10, 2**20
TARGETS = Visit((Cell("http1", KIB, 48, 2_000), Cell("http1", KIB, 48, None)))
"""What the targets are about."""
WITHOUT_KEEPALIVE = Visit((Cell("http1", KIB, 16, 500, keepalive=False),))
BODIES = (100, KIB, 64 * KIB, MIB)
RATES = (500.0, 2_000.0, None)
CONNECTIONS = (1, 16, 48, 256)


@dataclass(frozen=True, slots=True)
class Set:
    """Rows that are measured together."""

    visits: Sequence[Visit]
    rounds: int
    seconds: float
    topologies: frozenset[str] | None = None
    """None is all."""


def full() -> tuple[Visit, ...]:
    """Return the whole matrix, less what would ask for more than 2 Gb/s."""
    visits = []
    for protocol, body in product(("http1", "grpc", "tcp"), BODIES):
        cells = (Cell(protocol, body, connections, rate) for connections, rate in product(CONNECTIONS, RATES))
        visits.append(Visit(tuple(cell for cell in cells if cell.within_reach)))
    return (*visits, WITHOUT_KEEPALIVE)


SETS = {
    "quick": Set(
        (TARGETS,), 3, 2.0, frozenset({"direct", "tulle", "haproxy-h1", "haproxy-h2", "envoy-h2", "stock"})
    ),
    "short": Set(
        (
            TARGETS,
            Visit((Cell("grpc", KIB, 48, 2_000), Cell("grpc", KIB, 48, None))),
            Visit((Cell("tcp", KIB, 48, 2_000), Cell("tcp", KIB, 48, None))),
            Visit((Cell("http1", 64 * KIB, 48, None),)),
            WITHOUT_KEEPALIVE,
        ),
        3,
        2.0,
    ),
    "full": Set(full(), 3, 3.0),
}
"""`short` is followed by every measurement with a name of its own."""


async def run(wanted: str, topologies: Topologies, proxy: Path) -> None:
    """Measure what is asked for, and write the results after each part."""
    known = {**SETS, "cell": _cell()} if wanted == "cell" else SETS
    if wanted not in known and wanted not in MEASUREMENTS:
        raise BenchError(f"BENCH={wanted} is none of {', '.join((*SETS, 'cell', *MEASUREMENTS))}")
    made: Json = {"measurements": {}, "rows": [], **results.read()}
    made |= {"machine": results.machine(), "versions": results.versions(proxy, os.environ.get(STOCK))}
    if wanted in known:
        made["rows"] = await _rows(wanted, known[wanted], topologies, proxy)
        results.write(made, table.render(made))
    for name in MEASUREMENTS if wanted == "short" else [wanted] if wanted in MEASUREMENTS else []:
        measure.progress(f"{name} …")
        begun = dt.datetime.now(dt.UTC)
        figures = await MEASUREMENTS[name](topologies)
        made["measurements"][name] = figures
        results.write(made, table.render(made))
        seconds = (dt.datetime.now(dt.UTC) - begun).total_seconds()
        measure.progress(f"{name} ({seconds:.0f} s): {figures}")
    print(table.render(made))


def _cell() -> Set:
    """Return the one cell that CELL names."""
    text = os.environ.get("CELL", "")
    try:
        protocol, body, connections, rate = text.split(",")
        cell = Cell(protocol, int(body), int(connections), float(rate) or None)
    except ValueError:
        raise BenchError(f"CELL={text} is not of the form http1,1024,48,2000") from None
    return Set((Visit((cell,)),), 3, 3.0)


async def _rows(name: str, chosen: Set, topologies: Topologies, proxy: Path) -> list[Json]:
    only = os.environ.get("ONLY")
    present = _present(topologies, frozenset(only.split(",")) if only else chosen.topologies)
    if name != "full":
        return await measure.rounds(
            topologies, present, chosen.visits, count=chosen.rounds, seconds=chosen.seconds
        )
    journal = results.Journal(
        results.FOLDER / f"{name}.jsonl", hashlib.sha256(proxy.read_bytes()).hexdigest()[:12]
    )
    return await measure.rounds(
        topologies,
        present,
        chosen.visits,
        count=chosen.rounds,
        seconds=chosen.seconds,
        known=journal.known,
        keep=journal.keep,
    )


def _present(topologies: Topologies, wanted: frozenset[str] | None) -> list[Topology]:
    present = []
    for each in ALL:
        if wanted is not None and each.name not in wanted:
            continue
        if why := topologies.missing(each):
            measure.progress(f"{each.name} is left out: {why}")
        else:
            present.append(each)
    return present
