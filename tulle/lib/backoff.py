"""How long to wait before trying again: exponential with full-range jitter.

The jitter keeps a thousand clients of a restarted server from returning in one instant. Randomness
is an argument, so a test is a list of numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Delays in seconds; `random` returns numbers in [0, 1)."""

    random: Callable[[], float]
    shortest: float = 0.1
    longest: float = 10.0
    jitter: float = 0.5
    _next: float = field(default=0.0, init=False)

    def delay(self) -> float:
        """Return the next delay; each one is twice as long, less a random part of itself."""
        base = self._next or self.shortest
        self._next = min(base * 2, self.longest)
        return base * (1 - self.jitter * self.random())

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._next = 0.0
