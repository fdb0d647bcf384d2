"""A value that many tasks follow, each of them seeing only the newest.

The follower keeps a generation number and nothing else, so a slow one costs no memory: what it
missed is not kept for it. `set` wakes every waiter once; whoever was busy then sees the new value
the next time it asks. There is no queue anywhere, which is what bounds the memory of a control
plane with thousands of streams of which some are stalled.
"""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """The newest value and its number."""

    def __init__(self, value: T | None = None) -> None:
        self._value = value
        self._generation = 0 if value is None else 1
        self._waiters: dict[asyncio.Future[None], None] = {}

    @property
    def generation(self) -> int:
        """The number of values so far; 0 while there is none."""
        return self._generation

    @property
    def value(self) -> T | None:
        """Return the newest value, None while there is none."""
        return self._value

    def set(self, value: T) -> None:
        """Make this the newest value and wake whoever waits."""
        self._value = value
        self._generation += 1
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def next(self, after: int) -> tuple[int, T]:
        """Wait for a generation later than `after`; return it with its value."""
        while self._generation <= after or self._value is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)
        return self._generation, self._value
