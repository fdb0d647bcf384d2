"""A source in a thread and event loop of its own, so that code of others cannot hold up ours.

A plug-in may read a file on a dead network share, or never yield. Then its thread hangs, its data
ages, and everything else goes on. The thread is a daemon: it cannot hold up the end of the process
either. What the plug-in states is handed over whole, in order, and taken in by the controller's loop.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable

from tulle.model.source import Sink, Source
from tulle.model.update import Object, Update


class IsolatedSource:
    """A source of somebody else, run where it can only harm itself."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self.name = inner.name

    async def run(self, sink: Sink) -> None:
        """Run the source in a new thread until it ends."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        handover = _Handover(sink, loop)

        def work() -> None:
            failure: BaseException | None = None
            try:
                asyncio.run(self._inner.run(handover))
            except BaseException as error:  # noqa: BLE001  # it is raised again where it is awaited
                failure = error
            handover.call(lambda: ended.set_result(failure))

        threading.Thread(target=work, name=f"source {self.name}", daemon=True).start()
        try:
            failure = await ended
        finally:
            handover.close()
        if failure:
            raise RuntimeError(f"{type(failure).__name__}: {failure}") from failure


class _Handover:
    """A sink for the other thread; closed, it drops what still comes from a thread left behind."""

    def __init__(self, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._sink = sink
        self._loop = loop
        self._closed = False

    def replace(self, objects: Iterable[Object]) -> None:
        state = list(objects)
        self.call(lambda: self._sink.replace(state))

    def apply(self, updates: Iterable[Update]) -> None:
        changes = list(updates)
        self.call(lambda: self._sink.apply(changes))

    def call(self, what: Callable[[], object]) -> None:
        if not self._closed and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: None if self._closed else what())

    def close(self) -> None:
        self._closed = True
