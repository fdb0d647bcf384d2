"""What the kernel says about processes and processors.

CPU time is the sum of what the scheduler ran of each thread, in nanoseconds: `/proc/PID/stat` has the same sum in
hundredths of a second, which is too coarse for a cell of a few seconds at 500 requests/s.
"""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
JIFFY_NS = 10_000_000
PAGE = 4096


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in (PROC / str(each) / "task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def threads(pid: int) -> dict[str, int]:
    """Return the CPU time in nanoseconds of each thread of one process, by number and name."""
    times = {}
    with contextlib.suppress(OSError):
        for task in (PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError, IndexError):
                name = f"{task.name} {(task / 'comm').read_text().strip()}"
                times[name] = int((task / "schedstat").read_text().split()[0])
    return times


def cpu_ns(pids: Iterable[int]) -> int:
    """Return the CPU time of processes and their descendants."""
    return sum(sum(threads(each).values()) for pid in pids for each in tree(pid))


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants."""
    pages = 0
    for each in tree(pid):
        with contextlib.suppress(OSError, IndexError):
            pages += int((PROC / str(each) / "statm").read_text().split()[1])
    return pages * PAGE / 2**20


@dataclass(frozen=True, slots=True)
class Processors:
    """How long all processors together have been busy and stolen, in nanoseconds, at a moment."""

    at: float
    busy: int
    stolen: int

    @classmethod
    def now(cls) -> "Processors":
        """Read the counters."""
        user, nice, system, _, _, irq, softirq, steal = _jiffies()
        return cls(time.monotonic(), (user + nice + system + irq + softirq) * JIFFY_NS, steal * JIFFY_NS)


def _jiffies() -> tuple[int, ...]:
    with (PROC / "stat").open() as file:
        return tuple(map(int, file.readline().split()[1:9]))
