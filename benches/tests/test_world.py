import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec

from benches import mesh
from benches.world import World
from tulle.model.pod import Pod
from tulle.model.update import Object, Update
from tulle.sources import snapshot
from tulle.sources.local import LocalSource


class Stated:
    """Keeps what a source says."""

    def __init__(self) -> None:
        self.worlds: asyncio.Queue[list[Object]] = asyncio.Queue()

    def replace(self, objects: Iterable[Object]) -> None:
        self.worlds.put_nowait(list(objects))

    def apply(self, updates: Iterable[Update]) -> None:
        raise AssertionError(f"a local source states whole worlds, not {updates}")


def test_the_controller_reads_what_the_bench_tells() -> None:
    objects, pods = mesh.snapshot(["10.77.1.1", "10.77.1.2"])
    line = msgspec.json.encode({"generation": 1, "objects": objects, "pods": pods})

    read = list(snapshot.objects(snapshot.decode(line)))

    meshed = {str(each.name) for each in read if isinstance(each, Pod) and each.meshed}
    assert meshed == {"linkerd/linkerd-destination", "bench/client-0", "bench/server-0", "bench/server-1"}


async def test_a_reader_gets_the_newest_world_at_once_and_each_later_one(tmp_path: Path) -> None:
    world, stated = World(), Stated()
    await world.state(*mesh.snapshot(["10.77.1.1"]))

    async with world.served(tmp_path / "socket"):
        reading = asyncio.create_task(LocalSource(tmp_path / "socket").run(stated))
        first = await stated.worlds.get()
        await world.state(*mesh.snapshot(["10.77.1.1", "10.77.1.2"]))
        second = await stated.worlds.get()
        reading.cancel()

    count = [sum(isinstance(each, Pod) for each in one) for one in (first, second)]
    assert count == [3, 4]
