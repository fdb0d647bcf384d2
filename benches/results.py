"""Where results lie: `latest.json` for programs, `latest.md` for people, and samples of runs that may be resumed."""

import contextlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benches import peers
from benches.measure import Cell

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "results"


def machine() -> Json:
    """Return what the numbers were measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "kernel": platform.release(),
        "architecture": platform.machine(),
    }


def versions(proxy: Path, stock: str | None) -> Json:
    """Return what was measured."""

    done = subprocess.run([proxy, "--version"], capture_output=True, text=True, check=False)
    found = {name: peers.version(name) for name in ("envoy", *peers.DEBIAN)}
    return {
        "tulle-proxy": f"{peers.number(done.stdout)} ({proxy.parent.name} build)",
        **({"stock": "linkerd2-proxy"} if stock else {}),
        **{name: version for name, version in found.items() if version},
    }


def read() -> Json:
    """Return the latest results; empty where there are none."""
    try:
        found: Json = json.loads((FOLDER / "latest.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def write(results: Json, table: str) -> None:
    """Replace the latest results."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "latest.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (FOLDER / "latest.md").write_text(table)


class Journal:
    """Samples of a long run, so that it can go on where it ended."""

    def __init__(self, path: Path, of: str) -> None:
        """Open a journal; our own samples `of` another build are not used."""
        self._path = path
        self._of = of
        self._known: dict[str, Json] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                # The last line of a run that was ended while it wrote is not whole.
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    self._known[entry["key"]] = entry["sample"]

    def known(self, topology: str, cell: Cell, number: int) -> Json | None:
        """Return the sample of an earlier run."""
        return self._known.get(self._key(topology, cell, number))

    def keep(self, topology: str, cell: Cell, number: int, sample: Json) -> None:
        """Write a sample down."""
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a") as file:
            file.write("\n" + json.dumps({"key": self._key(topology, cell, number), "sample": sample}))

    def _key(self, topology: str, cell: Cell, number: int) -> str:
        build = self._of if topology == "tulle" else ""
        return f"{topology} {build} {cell} {number}"
