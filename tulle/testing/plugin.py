"""The pytest fixtures: `mesh` asks manifests what they would do, `live_mesh` is a running mesh of the test's own.

Where the manifests of `mesh` are: the marker `tulle_manifests(PATH, …)`, relative to the test's file; else the setting
`tulle_manifests` of pytest's configuration; else a folder `manifests` beside the test's file or above it.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tulle.testing import LiveMesh
    from tulle.testing.policy import PolicyMesh

SETTING = "tulle_manifests"
FOLDER = "manifests"
COMPILED: "pytest.StashKey[dict[tuple[Path, ...], PolicyMesh]]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting."""
    parser.addini(SETTING, "files and folders of manifests that the fixture `mesh` is about", type="paths")


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker."""
    config.addinivalue_line("markers", f"{SETTING}(*paths): manifests that the fixture `mesh` is about")
    config.stash[COMPILED] = {}


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> "PolicyMesh":
    """Return what the manifests would do; nothing is started, and manifests are read once."""
    from tulle.model.errors import ManifestError
    from tulle.testing.policy import PolicyMesh

    paths = manifests_of(request)
    compiled = request.config.stash[COMPILED]
    if paths not in compiled:
        try:
            compiled[paths] = PolicyMesh(paths)
        except ManifestError as error:
            pytest.fail(str(error), pytrace=False)
    return compiled[paths].fresh()


def manifests_of(request: pytest.FixtureRequest) -> tuple[Path, ...]:
    """Return where the manifests of a test are."""
    marker = request.node.get_closest_marker(SETTING)
    here = request.path.parent
    if marker is not None:
        return tuple((here / path).resolve() for path in marker.args)
    configured: list[Path] = request.config.getini(SETTING)
    if configured:
        return tuple(path.resolve() for path in configured)
    root = request.config.rootpath
    for folder in (here, *(above for above in here.parents if above.is_relative_to(root))):
        if (folder / FOLDER).is_dir():
            return (folder / FOLDER,)
    pytest.fail(
        f"which manifests? There is no folder {FOLDER} beside {request.path.name} or above it; say "
        f'@pytest.mark.{SETTING}("PATH"), or set {SETTING} in the configuration of pytest',
        pytrace=False,
    )


@pytest.fixture(scope="session")
def able_machine() -> None:
    """Skip what needs namespaces where there are none, and say what to do about it."""
    from tulle.local.host import needed

    bad = [str(finding) for finding in asyncio.run(needed()) if finding.verdict == "bad"]
    if bad:
        pytest.skip("; ".join(bad))


@pytest.fixture
def live_mesh(able_machine: None) -> Iterator["LiveMesh"]:  # noqa: ARG001 (it skips)
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
    fixtures = getattr(item, "funcargs", {})
    for name in ("live_mesh", "mesh"):
        said = getattr(fixtures.get(name), "said", None)
        if report.when == "call" and report.failed and said is not None:
            report.sections.append(("what the mesh said", said()))
            break
    return report
