import asyncio
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from tulle.model.endpoint import Endpoint, Slice, SlicePort
from tulle.model.service import ObjectName, Service, ServicePort
from tulle.model.update import Object

EXAMPLE = Path(__file__).parents[2] / "examples" / "sources" / "json_endpoints.py"
LEGACY = ObjectName("shop", "legacy")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("json_endpoints", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_has_forty_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_its_file_becomes_a_service_with_endpoints_of_both_families(
    example: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(json.dumps({"shop/legacy": ["192.0.2.7:8080", "[2001:db8::7]:8081"]}))

    service, first, second = example.read(path)

    assert service == Service(LEGACY, ports=(ServicePort(80),))
    assert first == Slice(
        ObjectName("shop", "legacy-json-0"), LEGACY, (SlicePort("", 8080),), (Endpoint("192.0.2.7"),)
    )
    assert second.endpoints == (Endpoint("2001:db8::7"),)


async def test_it_states_the_whole_file(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text('{"shop/legacy": ["192.0.2.7:8080"]}')
    monkeypatch.setenv("TULLE_JSON_ENDPOINTS", str(path))
    stated: asyncio.Queue[list[Object]] = asyncio.Queue()

    class Sink:
        def replace(self, objects: Iterable[Object]) -> None:
            stated.put_nowait(list(objects))

        def apply(self, updates: object) -> None: ...

    running = asyncio.create_task(example.JsonEndpoints().run(Sink()))

    assert len(await stated.get()) == 2
    running.cancel()
    await asyncio.wait([running])
