"""What a process holds, sampled over time, and whether that grows.

A leak is a slope: at the end of a day it is a number that nobody accepted. So a line is fitted over the second
half of the samples (the first half is warm-up: pools fill, allocators settle), and what it gains over that time is
compared with a bound that is small beside the level.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 1024**2


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a figure may gain over the second half: this, and this share of its mean."""

    absolute: float
    share: float

    def over(self, mean: float) -> float:
        """Return the bound at a level."""
        return self.absolute + self.share * mean


BOUNDS = {
    # An allocator hands pages back when it likes.
    "rss_mib": Bound(2.0, 0.03),
    # Connections come and go while they are counted.
    "descriptors": Bound(20.0, 0.01),
    "tasks": Bound(1.0, 0.0),
    "connections": Bound(20.0, 0.01),
}


@dataclass(slots=True)
class Series:
    """The figures of one process, in order of time."""

    pid: int
    times: list[float] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def sample(self, now: float, **more: float) -> None:
        """Take down what the kernel says of the process, and what else is known."""
        home = Path(f"/proc/{self.pid}")
        measured = {
            "rss_mib": int((home / "statm").read_text().split()[1]) * PAGE_MIB,
            "descriptors": float(len(os.listdir(home / "fd"))),
            "tasks": float(len(os.listdir(home / "task"))),
            **more,
        }
        self.times.append(now)
        for name, value in measured.items():
            self.figures.setdefault(name, []).append(value)

    def grown(self) -> list[str]:
        """Return each figure that gained more than its bound, in words."""
        found = []
        for name, values in self.figures.items():
            gain, mean = gained(self.times, values)
            bound = BOUNDS[name].over(mean)
            if gain > bound:
                found.append(f"{name} gained {gain:.1f} (at most {bound:.1f}) around {mean:.1f}")
        return found

    def told(self) -> str:
        """Return every figure's level and gain in one line."""
        parts = []
        for name, values in self.figures.items():
            gain, mean = gained(self.times, values)
            parts.append(f"{name} {mean:.1f} {gain:+.1f}")
        return ", ".join(parts)


def gained(times: list[float], values: list[float]) -> tuple[float, float]:
    """Return what the fitted line of the second half gains over it, and the mean there."""
    half = len(times) // 2
    times, values = times[half:], values[half:]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((time - middle) ** 2 for time in times)
    if not spread:
        return 0.0, mean
    slope = sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / spread
    return slope * (times[-1] - times[0]), mean
