"""What a process uses, as the kernel counts it."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from e2e.pods import DEADLINE_S, LOOK_S

TICKS = os.sysconf("SC_CLK_TCK")


class Memory:
    """How much a process's memory has grown at most since this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # Makes the peak start again from what is resident now.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._before = self._kib("VmRSS")

    def _kib(self, name: str) -> int:
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def grown_mib(self) -> float:
        """Return the growth up to the peak in MiB."""
        return (self._kib("VmHWM") - self._before) / 1024


def cpu_s(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def stalled(measure: Callable[[], int], *, for_s: float = 0.5) -> None:
    """Return when a number has begun to grow and then not grown for a while."""
    deadline = time.monotonic() + DEADLINE_S
    last, since = measure(), time.monotonic()
    while last == 0 or time.monotonic() - since < for_s:
        if time.monotonic() > deadline:
            raise AssertionError(f"still growing after {DEADLINE_S} s, at {last}")
        await asyncio.sleep(LOOK_S)
        if (now := measure()) != last:
            last, since = now, time.monotonic()
