"""A source that says what it is told: for tests, and for programs that know the world themselves."""

import asyncio
from collections.abc import Iterable

from tulle.model.source import Sink
from tulle.model.update import Changed, Key, Object, Removed, key_of


class MemorySource:
    """Hold it before the first `deliver` to have a source that has not delivered."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self._objects: dict[Key, Object] = {}
        self._delivered = False
        self._sink: Sink | None = None
        self.running = asyncio.Event()

    async def run(self, sink: Sink) -> None:
        """State what was delivered, then every delivery and change."""
        self._sink = sink
        self.running.set()
        if self._delivered:
            sink.replace(self._objects.values())
        await asyncio.Event().wait()

    def deliver(self, objects: Iterable[Object] = ()) -> None:
        """State the whole world."""
        self._objects = {key_of(item): item for item in objects}
        self._delivered = True
        if self._sink:
            self._sink.replace(self._objects.values())

    def change(self, *objects: Object) -> None:
        """State that objects are now so."""
        self._objects.update((key_of(item), item) for item in objects)
        if self._sink and self._delivered:
            self._sink.apply([Changed(item) for item in objects])

    def remove(self, *objects: Object) -> None:
        """State that objects are gone."""
        for item in objects:
            self._objects.pop(key_of(item), None)
        if self._sink and self._delivered:
            self._sink.apply([Removed(key_of(item)) for item in objects])
