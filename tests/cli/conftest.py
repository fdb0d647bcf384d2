import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.sockets import Server, sockets


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of the test's own, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="tulle-"))
    monkeypatch.setenv("TULLE_STATE_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def servers(home: Path) -> Iterator[tuple[Server, Server]]:
    """A running mesh: its supervisor's and its controller's socket."""
    with sockets() as both:
        yield both
