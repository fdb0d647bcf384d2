"""The command line as somebody types it: real processes, signals and exit codes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tulle.local.enter import descendants
from tulle.local.places import start_time
from tulle.testing import LiveMesh

TULLE = [sys.executable, "-m", "tulle.cli.main"]
MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: python
          command: [python3, -m, http.server, "8080"]
          ports: [{containerPort: 8080}]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8080}]}
"""


async def tulle(mesh: LiveMesh, *arguments: str) -> tuple[int, str, str]:
    """Run a command for the mesh of a test; return exit code, stdout and stderr."""
    async with typed(mesh, *arguments) as process:
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def typed(mesh: LiveMesh, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command for the mesh of a test."""
    process = await asyncio.create_subprocess_exec(
        *TULLE,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TULLE_NAME": mesh.name, "TULLE_STATE_DIR": str(mesh.folder.parent / "s")},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def started(mesh: LiveMesh, manifests: str) -> None:
    """Start the mesh of a test by the command."""
    code, _, err = await tulle(mesh, "up", "--detach", manifests)
    assert code == 0, err


@pytest.fixture
def manifests(mesh: LiveMesh) -> str:
    """The folder of manifests, written."""
    mesh.folder.mkdir()
    (mesh.folder / "web.yaml").write_text(MANIFESTS)
    return str(mesh.folder)


def left(mesh: LiveMesh, processes: dict[int, str]) -> list[str]:
    """What there still is of a mesh whose processes were these."""
    alive = [command for pid, command in processes.items() if start_time(pid) is not None]
    return alive + ([str(mesh.api.places.state)] if mesh.api.places.exists() else [])


async def test_a_mesh_in_the_foreground_ends_with_control_c(mesh: LiveMesh, manifests: str) -> None:
    async with typed(mesh, "up", manifests) as process:
        assert process.stdout is not None
        shown = [await process.stdout.readline() for _ in range(3)]
        running = mesh.processes()

        process.send_signal(signal.SIGINT)
        code = await process.wait()

    assert b"NAME" in shown[0]
    assert len(running) > 4
    assert code == 130
    assert left(mesh, running) == []


async def test_a_mesh_interrupted_while_it_starts_leaves_nothing(mesh: LiveMesh, manifests: str) -> None:
    async with typed(mesh, "up", manifests) as process:
        while not mesh.processes():
            await asyncio.sleep(0.01)
        running = mesh.processes()

        process.send_signal(signal.SIGINT)
        code = await process.wait()

    assert code == 130
    assert left(mesh, running) == []


async def test_starting_twice_changes_nothing_and_names_the_running_mesh(
    mesh: LiveMesh, manifests: str
) -> None:
    await started(mesh, manifests)
    before = await mesh.api.state()

    code, _, err = await tulle(mesh, "up", manifests)

    assert code == 1
    assert f'a mesh called "{mesh.name}" runs already' in err
    assert await mesh.api.state() == before


@pytest.mark.parametrize(
    "what",
    ["outer", "tulle.serve.supervisor", "controller", "dns", "gateway", "sleep", "http.server", "-proxy"],
)
async def test_nothing_is_left_when_a_process_is_killed_and_the_mesh_stopped(
    mesh: LiveMesh, manifests: str, what: str
) -> None:
    await started(mesh, manifests)
    running = mesh.processes()
    state = mesh.api.places.read()
    assert state is not None
    victim = (
        state.processes[0].pid if what == "outer" else next(pid for pid in running if what in running[pid])
    )

    os.kill(victim, signal.SIGKILL)
    code, _, _ = await tulle(mesh, "down", "--volumes")

    assert code == 0
    assert left(mesh, running) == []
    assert not mesh.api.places.persistent.exists()


async def test_the_commands_show_a_running_mesh(mesh: LiveMesh, manifests: str) -> None:
    await started(mesh, manifests)
    pod = (await mesh.api.pod("web")).name

    _, pods, _ = await tulle(mesh, "ps", "-o", "json")
    assert {(of["name"], of["phase"], of["ready"]) for of in json.loads(pods)} >= {(pod, "Running", True)}

    code, out, _ = await tulle(
        mesh, "exec", "web", "--", "sh", "-c", "id -u; grep CapBnd /proc/self/status; exit 7"
    )
    assert (code, out.split()) == (7, ["65534", "CapBnd:", "0000000000000000"])

    _, endpoints, _ = await tulle(mesh, "diagnostics", "endpoints", "web:8080", "-o", "json")
    assert [of["labels"]["pod"] for of in json.loads(endpoints)["endpoints"]] == [pod]

    _, metrics, _ = await tulle(mesh, "diagnostics", "proxy-metrics", "web")
    assert metrics.endswith("# EOF\n")

    code, _, err = await tulle(mesh, "restart", "nothing")
    assert code == 1
    assert "nothing" in err


async def test_nothing_of_the_mesh_is_started_outside_of_its_processes(
    mesh: LiveMesh, manifests: str
) -> None:
    before = set(descendants(os.getpid()))

    await mesh.up()

    assert set(mesh.processes()) >= set(descendants(os.getpid())) - before
