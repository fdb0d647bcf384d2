"""What can be measured by name, and how the results of one name join those of the others."""

import hashlib
import os
from itertools import product
from pathlib import Path

from benches import measure, results, table
from benches.measure import Cell, Visit
from benches.rig import BenchError
from benches.topologies import ALL, STOCK, Topologies, Topology

KIB, MIB = 2**10, 2**20
QUICK = (Visit((Cell("http1", KIB, 48, 2_000), Cell("http1", KIB, 48, None))),)
QUICK_TOPOLOGIES = ("direct", "tulle", "haproxy-h1", "haproxy-h2", "envoy-h2")
SHORT = (
    *QUICK,
    Visit((Cell("http1", KIB, 1, None), Cell("http1", 64 * KIB, 48, None))),
    Visit((Cell("grpc", KIB, 48, 2_000), Cell("grpc", KIB, 48, None))),
    Visit((Cell("tcp", KIB, 48, 2_000), Cell("tcp", KIB, 48, None))),
)
BODIES = (100, KIB, 64 * KIB, MIB)
RATES = (500.0, 2_000.0, None)
CONNECTIONS = (1, 16, 48, 256)


def full() -> tuple[Visit, ...]:
    """Return the whole matrix, less what would ask for more than 2 Gb/s."""
    visits = []
    for protocol, body in product(("http1", "grpc", "tcp"), BODIES):
        cells = (
            Cell(protocol, body, connections, rate) for connections, rate in product(CONNECTIONS, RATES)
        )
        visits.append(Visit(tuple(cell for cell in cells if cell.within_reach)))
    return tuple(visits)


async def run(wanted: str, topologies: Topologies, proxy: Path) -> None:
    """Measure what is asked for, and write the results."""
    chosen = _present(topologies)
    if wanted == "quick":
        chosen = [each for each in chosen if each.name in QUICK_TOPOLOGIES]
        rows = await measure.rounds(topologies, chosen, QUICK, count=3, seconds=2.0)
    elif wanted == "short":
        rows = await measure.rounds(topologies, chosen, SHORT, count=3, seconds=2.0)
    elif wanted == "full":
        journal = results.Journal("full", hashlib.sha256(proxy.read_bytes()).hexdigest()[:12])
        rows = await measure.rounds(
            topologies, chosen, full(), count=3, seconds=3.0, known=journal.known, keep=journal.keep
        )
    else:
        raise BenchError(f"BENCH={wanted} is none of quick, short, full")
    made = {
        "machine": results.machine(),
        "versions": results.versions(proxy, os.environ.get(STOCK)),
        "rows": rows,
    }
    text = table.render(made)
    results.write(made, text)
    print(text)


def _present(topologies: Topologies) -> list[Topology]:
    present = []
    for each in ALL:
        if why := topologies.missing(each):
            measure.progress(f"{each.name} is left out: {why}")
        else:
            present.append(each)
    return present
