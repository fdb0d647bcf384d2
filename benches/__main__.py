"""`python -m benches`: measures what BENCH names, or the short set.

The bench runs itself again inside namespaces of its own (processes, mounts, network), which end with it: nothing
that it makes can outlive it or meet anything else on this machine.
"""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benches import mesh, rig, sets
from benches.rig import BenchError, Rig
from benches.topologies import Topologies

INSIDE = "TULLE_BENCH_FOLDER"
"""Set inside the namespaces: where files go."""
ROOT = Path(__file__).parent.parent


def main() -> int:
    """Run the bench; return its exit code."""
    folder = os.environ.get(INSIDE)
    if folder is None:
        return _enter()
    try:
        asyncio.run(_run(os.environ.get("BENCH") or "short", Path(folder)))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _enter() -> int:
    if os.geteuid() != 0:
        print("bench: needs root; run: sudo .venv/bin/python -m benches", file=sys.stderr)
        return 77
    stage = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        # Every user that a proxy runs as must get to its files.
        Path(folder).chmod(0o755)
        environment = {**os.environ, INSIDE: folder, "PATH": path}
        argv = [*stage, sys.executable, "-m", "benches"]
        return subprocess.run(argv, env=environment, cwd=ROOT, check=False).returncode


async def _run(wanted: str, folder: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {int(rig.LOAD_CORE)})
    proxy = mesh.find(ROOT)
    if not (ROOT / "target/release/tulle-load").exists():
        raise BenchError("tulle-load is not built; run: cargo build --release -p tulle-load")
    place = Rig(folder, ROOT)
    await rig.lay_out()
    async with rig.awake(place):
        await sets.run(wanted, Topologies(place, proxy), proxy)


if __name__ == "__main__":
    sys.exit(main())
