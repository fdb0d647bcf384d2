"""Runs the sources, each on its own: none can stop, delay or empty another.

A source that raises or returns is run again after a back-off; what it said stays. See
`model.source` for when the whole counts as known.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import cast

from tulle.lib.backoff import Backoff
from tulle.lib.clock import Clock
from tulle.lib.log import logger
from tulle.model.source import Source
from tulle.model.update import Object, Update
from tulle.sources.isolated import IsolatedSource
from tulle.sources.merge import Merge

ENTRY_POINTS = "tulle.sources"

_log = logger("sources")


class SourceService:
    """`publish` gets every effective change; `known` is called once, after every source's first state."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        publish: Callable[[list[Update]], None],
        known: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._sources = sources
        self._publish = publish
        self._known = known
        self._clock = clock
        self._merge = Merge(len(sources))
        self._heard = [0.0] * len(sources)

    async def run(self) -> None:
        """Run every source until cancelled."""
        if not self._sources:
            self._known()
        async with asyncio.TaskGroup() as tasks:
            for number, source in enumerate(self._sources):
                tasks.create_task(self._run(number, source), name=f"source {source.name}")

    def waiting_for(self) -> list[str]:
        """Return the names of the sources that have not delivered yet."""
        return [source.name for source, heard in zip(self._sources, self._heard, strict=True) if not heard]

    def ages(self) -> dict[str, float | None]:
        """Return the seconds since each source was last heard of."""
        now = self._clock().timestamp()
        return {
            source.name: now - heard if heard else None
            for source, heard in zip(self._sources, self._heard, strict=True)
        }

    async def _run(self, number: int, source: Source) -> None:
        backoff = Backoff(random.random)
        while True:
            heard = self._heard[number]
            try:
                await source.run(_Sink(self, number))
                _log.warning("source ended", source=source.name)
            except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
                _log.warning("source failed", source=source.name, error=repr(error))
            if self._heard[number] != heard:
                backoff.reset()
            await asyncio.sleep(backoff.delay())

    def take(self, number: int, effects: list[Update], *, whole: bool) -> None:
        """Take in what a source's words changed."""
        waiting = self.waiting_for()
        if whole or self._heard[number]:
            self._heard[number] = self._clock().timestamp()
        if effects:
            self._publish(effects)
        if waiting and not self.waiting_for():
            self._known()

    @property
    def merge(self) -> Merge:
        """Return the sum of all sources."""
        return self._merge


class _Sink:
    def __init__(self, service: SourceService, number: int) -> None:
        self._service = service
        self._number = number

    def replace(self, objects: Iterable[Object]) -> None:
        effects = self._service.merge.replace(self._number, objects)
        self._service.take(self._number, effects, whole=True)

    def apply(self, updates: Iterable[Update]) -> None:
        effects = self._service.merge.apply(self._number, updates)
        self._service.take(self._number, effects, whole=False)


def load_plugins() -> list[Source]:
    """Make every installed plug-in source; one that cannot even be made is left out and reported.

    Each gets a thread of its own.
    """
    sources: list[Source] = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            sources.append(IsolatedSource(cast(Source, entry.load()())))
        except Exception as error:  # noqa: BLE001  # the same
            _log.error("source cannot be loaded", source=entry.name, error=repr(error))
    return sources
