import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from tests.control_plane import WEB_SERVICE, web_pod
from tulle.lib.clock import wall_clock
from tulle.model.source import Sink, Source
from tulle.model.update import Changed, Update
from tulle.sources import service as module
from tulle.sources.isolated import IsolatedSource
from tulle.sources.memory import MemorySource
from tulle.sources.service import SourceService


class Heard:
    """What the service published."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.known = asyncio.Event()
        self.published = asyncio.Event()

    def publish(self, updates: list[Update]) -> None:
        self.updates += updates
        self.published.set()


@asynccontextmanager
async def running(sources: Sequence[Source]) -> AsyncIterator[tuple[SourceService, Heard]]:
    heard = Heard()
    service = SourceService(sources, publish=heard.publish, known=heard.known.set, clock=wall_clock)
    task = asyncio.create_task(service.run())
    for source in sources:
        if isinstance(source, MemorySource):
            await source.running.wait()
    await asyncio.sleep(0)
    yield service, heard
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_world_is_known_when_every_source_has_delivered() -> None:
    first, second = MemorySource("first"), MemorySource("second")
    async with running([first, second]) as (service, heard):
        first.deliver([WEB_SERVICE])
        assert heard.updates == [Changed(WEB_SERVICE)]
        assert not heard.known.is_set()
        assert service.waiting_for() == ["second"]

        second.deliver([])

        assert heard.known.is_set()
        assert service.waiting_for() == []


class Broken:
    """Delivers once, fails, and from then on fails at once."""

    name = "broken"

    def __init__(self, failures: int) -> None:
        self.runs = 0
        self._failures = failures
        self.done = asyncio.Event()

    async def run(self, sink: Sink) -> None:
        self.runs += 1
        if self.runs == 1:
            sink.replace([web_pod()])
        if self.runs > self._failures:
            self.done.set()
            await asyncio.Event().wait()
        raise RuntimeError("no")


async def test_a_source_that_fails_keeps_its_data_and_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Backoff", lambda random: _Impatient())
    broken, other = Broken(failures=3), MemorySource()
    async with running([broken, other]) as (service, heard):
        other.deliver([WEB_SERVICE])
        await broken.done.wait()

        assert heard.updates == [Changed(web_pod()), Changed(WEB_SERVICE)]
        assert heard.known.is_set()
        assert service.ages()["broken"] is not None


class _Impatient:
    def delay(self) -> float:
        return 0.0

    def reset(self) -> None:
        pass


class Blocking:
    """Delivers, then blocks its thread without ever yielding."""

    name = "blocking"

    def __init__(self) -> None:
        self.release = threading.Event()

    async def run(self, sink: Sink) -> None:
        sink.replace([web_pod()])
        self.release.wait()


async def test_a_plug_in_that_blocks_its_thread_ages_only_its_own_data() -> None:
    blocking, other = Blocking(), MemorySource()
    async with running([IsolatedSource(blocking), other]) as (_, heard):
        await heard.published.wait()
        other.deliver([WEB_SERVICE])

        await heard.known.wait()

        assert heard.updates == [Changed(web_pod()), Changed(WEB_SERVICE)]
    blocking.release.set()


async def test_an_isolated_source_s_failure_is_its_own_words() -> None:
    class Failing:
        name = "failing"

        async def run(self, sink: Sink) -> None:
            raise OSError("disk gone")

    with pytest.raises(RuntimeError, match="OSError: disk gone"):
        await IsolatedSource(Failing()).run(_Deaf())


class _Deaf:
    def replace(self, objects: object) -> None: ...

    def apply(self, updates: object) -> None: ...


async def test_no_source_at_all_is_a_known_empty_world() -> None:
    async with running([]) as (_, heard):
        assert heard.known.is_set()


async def test_a_plug_in_that_cannot_be_made_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, name: str, made: object) -> None:
            self.name = name
            self._made = made

        def load(self) -> object:
            return self._made

    def broken() -> None:
        raise RuntimeError("no settings")

    entries = [Entry("broken", broken), Entry("memory", MemorySource)]
    monkeypatch.setattr(module, "entry_points", lambda group: entries)

    assert [source.name for source in module.load_plugins()] == ["memory"]
