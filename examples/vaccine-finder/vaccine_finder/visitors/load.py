"""How many visitors come, and what became of them.

Arrivals are a Poisson process and do not wait for answers (open loop), so a slow application shows as slow
answers and not as fewer visitors. At most `most_at_once` are under way; who comes beyond that is turned
away and counted.
"""

import asyncio
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vaccine_finder.visitors.browser import FailedError
from vaccine_finder.visitors.journey import Outcome

_REMEMBERED_ANSWERS = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """The counts since the start; p50 and p99 are of the latest answers."""

    rate: float
    under_way: int
    turned_away: int
    requests: int
    outcomes: dict[str, int]
    failures: dict[str, int]
    p50_ms: float
    p99_ms: float


class Load:
    """Starts visitors at a rate, in journeys per second, that can be changed at any time."""

    def __init__(
        self,
        travel: Callable[[Callable[[float], None]], Awaitable[Outcome]],
        *,
        rate: float,
        most_at_once: int,
        chance: random.Random,
    ) -> None:
        self._travel = travel
        self._rate = rate
        self._most_at_once = most_at_once
        self._chance = chance
        self._changed = asyncio.Event()
        self._under_way = 0
        self._turned_away = 0
        self._requests = 0
        self._outcomes: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._latest: deque[float] = deque(maxlen=_REMEMBERED_ANSWERS)

    def set_rate(self, rate: float) -> None:
        """Change the rate from now on; 0 pauses."""
        self._rate = rate
        self._changed.set()
        log.info("rate=%s", rate)

    def report(self) -> Report:
        """Return the counts."""
        ordered = sorted(self._latest)
        return Report(
            rate=self._rate,
            under_way=self._under_way,
            turned_away=self._turned_away,
            requests=self._requests,
            outcomes=dict(self._outcomes),
            failures=dict(self._failures),
            p50_ms=_quantile_ms(ordered, 0.5),
            p99_ms=_quantile_ms(ordered, 0.99),
        )

    async def run(self) -> None:
        """Send visitors until cancelled; who is under way then is cancelled too."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as visitors:
            due = loop.time()
            while True:
                # An exponential gap has no memory, so after a change it may simply be drawn anew.
                due += self._chance.expovariate(self._rate) if self._rate else math.inf
                if await self._rate_changes_before(due):
                    due = loop.time()
                elif self._under_way >= self._most_at_once:
                    self._turned_away += 1
                else:
                    self._under_way += 1
                    visitors.create_task(self._visit())

    async def _rate_changes_before(self, due: float) -> bool:
        try:
            async with asyncio.timeout_at(due if math.isfinite(due) else None):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def _visit(self) -> None:
        try:
            self._outcomes[(await self._travel(self._measured)).value] += 1
        except FailedError as error:
            self._failures[error.kind] += 1
            log.warning("failed: %s", error)
        finally:
            self._under_way -= 1

    def _measured(self, seconds: float) -> None:
        self._requests += 1
        self._latest.append(seconds)


def _quantile_ms(ordered: list[float], share: float) -> float:
    return round(ordered[int(share * (len(ordered) - 1))] * 1000, 1) if ordered else 0.0
