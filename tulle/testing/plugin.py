"""The pytest fixture `mesh`: a mesh of the test's own, that nothing outlives."""

import asyncio
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tulle.testing import LiveMesh


@pytest.fixture(scope="session")
def able_machine() -> None:
    """Skip what needs namespaces where there are none, and say what to do about it."""
    from tulle.local.host import needed

    bad = [str(finding) for finding in asyncio.run(needed()) if finding.verdict == "bad"]
    if bad:
        pytest.skip("; ".join(bad))


@pytest.fixture
def mesh(able_machine: None) -> Iterator["LiveMesh"]:  # noqa: ARG001 (it skips)
    """Return a mesh that is not started yet; it is ended, with all that it stored, when the test is over."""
    from tulle.testing import LiveMesh

    # Not pytest's own folder: its path is too long for a socket, and kept for days.
    home = Path(tempfile.mkdtemp(prefix="tulle-"))
    live = LiveMesh(home)
    try:
        yield live
    finally:
        asyncio.run(live.api.down(volumes=True))
        shutil.rmtree(home, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the mesh said to the report of a test that failed."""
    report = yield
    said = getattr(getattr(item, "funcargs", {}).get("mesh"), "said", None)
    if report.when == "call" and report.failed and said is not None:
        report.sections.append(("what the mesh said", said()))
    return report
