"""The parts as processes on loopback, without a mesh."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from vaccine_finder import dev


@pytest.fixture(scope="session")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dev.Finder]:
    """Run all parts for as long as tests need them."""
    with dev.running(tmp_path_factory.mktemp("slots")) as running:
        yield running
