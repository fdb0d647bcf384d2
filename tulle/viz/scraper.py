"""Reads every proxy's metrics through the controller's own proxy, which makes it mutual TLS.

Each pod is asked once a second while somebody looks, else every five: both leave enough readings in
the window. A pod that does not answer holds one of the places of the pool until its time-out and
delays nobody; its last numbers stay until it is gone.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import httpx2

from tulle.viz.metrics import Stats, Window, read

WATCHED_INTERVAL = 1.0
IDLE_INTERVAL = 5.0
# As long as somebody may be looking at `ps` that refreshes.
WATCHED_FOR = 30.0
TIMEOUT = 2.0
MOST_AT_ONCE = 32


class Scraper:
    """`targets` returns the URL of each pod's metrics by the pod's name."""

    def __init__(self, targets: Callable[[], Mapping[str, str]]) -> None:
        self._targets = targets
        self._windows: dict[str, Window] = {}
        self._in_flight: set[str] = set()
        self._asked = -WATCHED_FOR
        self._wake = asyncio.Event()

    def stats(self) -> dict[str, Stats]:
        """Return the newest numbers; being asked also makes them come more often."""
        self._asked = time.monotonic()
        self._wake.set()
        there = self._targets()
        found = {pod: window.stats() for pod, window in self._windows.items() if pod in there}
        return {pod: stats for pod, stats in found.items() if stats}

    async def run(self) -> None:
        """Ask every pod, again and again, until cancelled."""
        limits = httpx2.Limits(max_connections=MOST_AT_ONCE, max_keepalive_connections=None)
        # Variables of the environment would send these through a proxy of the operator's.
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                targets = self._targets()
                for pod in self._windows.keys() - targets.keys():
                    del self._windows[pod]
                for pod in targets.keys() - self._in_flight:
                    self._in_flight.add(pod)
                    tasks.create_task(self._scrape(client, pod, targets[pod]))
                await self._pause()

    async def _pause(self) -> None:
        watched = time.monotonic() - self._asked < WATCHED_FOR
        if watched:
            await asyncio.sleep(WATCHED_INTERVAL)
            return
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), IDLE_INTERVAL)
        except TimeoutError:
            return

    async def _scrape(self, client: httpx2.AsyncClient, pod: str, url: str) -> None:
        try:
            response = await client.get(url)
            if response.is_success and pod in self._targets():
                reading = read(response.text, time.monotonic())
                self._windows.setdefault(pod, Window()).add(reading)
        except (httpx2.HTTPError, ValueError):
            pass  # it starts, ends or is stuck; the next second asks again
        finally:
            self._in_flight.discard(pod)
