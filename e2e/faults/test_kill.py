"""Each process of a mesh is killed in turn: the mesh recovers, or `tulle down` leaves nothing of it behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import pytest

from e2e.faults.leftovers import Machine, left, look, said
from e2e.faults.steady import CLIENT, server
from e2e.pods import eventually
from tulle.model.errors import AlreadyRunning, MeshError, NotFound, TulleError
from tulle.testing import LiveMesh

PUBLISHED = """
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{name: http, port: %d, targetPort: 8080}]}
"""
TULLE = [sys.executable, "-m", "tulle.cli.main"]


def small(port: int = 18080) -> str:
    """Return the smallest application that has every part of a mesh."""
    return server(1) + PUBLISHED % port


async def process(mesh: LiveMesh, what: str) -> int:
    """Return a process of the mesh by its part in it."""
    written = mesh.api.places.read()
    assert written is not None
    match what:
        case "outer":
            return next(each.pid for each in written.processes if each.role == "outer")
        case "dns" | "gateway":
            found = [pid for pid, line in mesh.processes().items() if f"tulle.serve.{what}" in line]
            if not found:
                raise NotFound(f"{what} does not run")
            return found[0]
        case "holder":
            return await mesh.api.holder("web")
        case "proxy":
            return await mesh.pid("web/proxy")
        case "controller's proxy":
            return await mesh.pid("linkerd/linkerd-destination/proxy")
        case "container":
            return await mesh.pid("web")
        case _:
            return await mesh.pid(what)


@pytest.mark.parametrize(
    "what", ["container", "proxy", "holder", "controller", "controller's proxy", "dns", "gateway"]
)
async def test_a_mesh_recovers_from_the_death_of(mesh: LiveMesh, what: str) -> None:
    before = Machine.now()
    await mesh.up(CLIENT, small())
    assert (await mesh.call("client", "http://web/")).status == 200

    old = await process(mesh, what)
    os.kill(old, signal.SIGKILL)

    async def recovered() -> bool:
        with contextlib.suppress(MeshError):
            if await process(mesh, what) == old or not (await mesh.api.state()).ready:
                return False
            inside = await mesh.call("client", "http://web/", timeout_s=2)
            outside = await asyncio.to_thread(said, "curl", "-sf", "-m2", "http://127.0.0.1:18080/")
            return inside.status == 200 and "GET" in outside
        return False

    await eventually(recovered, f"recovery from the death of the {what}", within_s=20)
    seen = look(mesh)
    assert await mesh.api.down()
    assert left(mesh, seen) == []
    assert Machine.now() == before


@pytest.mark.parametrize("what", ["supervisor", "outer"])
async def test_nothing_is_left_after_the_death_of(mesh: LiveMesh, what: str) -> None:
    before = Machine.now()
    await mesh.up(CLIENT, small())
    seen = look(mesh)

    os.kill(await process(mesh, what), signal.SIGKILL)
    assert await mesh.api.down()

    assert left(mesh, seen) == []
    assert Machine.now() == before
    assert not mesh.api.running
    await mesh.up()
    assert (await mesh.call("client", "http://web/")).status == 200


@pytest.mark.parametrize("when", ["starting", "running"])
async def test_ctrl_c_ends_a_mesh_in_the_foreground_without_a_trace(mesh: LiveMesh, when: str) -> None:
    before = Machine.now()
    mesh.folder.mkdir(parents=True)
    (mesh.folder / "all.yaml").write_text(small())
    environment = {**os.environ, "TULLE_STATE_DIR": str(mesh.folder.parent / "s")}
    command = [*TULLE, "up", str(mesh.folder), "--name", mesh.name]
    running = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:

        async def there() -> bool:
            with contextlib.suppress(MeshError):
                return when == "starting" or (await mesh.api.state()).ready
            return False

        await eventually(lambda: mesh.api.running, "a supervisor")
        await eventually(there, "every pod", within_s=40)
        seen = look(mesh)
        running.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(running.communicate(), 30)
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()

    assert running.returncode == 130, output
    assert b"Traceback" not in output
    assert left(mesh, seen) == []
    assert Machine.now() == before


async def test_starting_twice_names_the_mesh_that_runs(mesh: LiveMesh) -> None:
    await mesh.up(CLIENT)

    with pytest.raises(AlreadyRunning, match=rf'"{mesh.name}" runs already.*tulle down --name {mesh.name}'):
        await mesh.up(CLIENT)

    assert (await mesh.api.state()).ready


async def test_two_meshes_run_side_by_side(mesh: LiveMesh) -> None:
    other = LiveMesh(mesh.folder.parent / "other")
    try:
        await mesh.up(CLIENT, small())
        await other.up(CLIENT, small(18081))
        first = (await mesh.call("client", "http://web/")).body
        second = (await other.call("client", "http://web/")).body

        assert first.split()[0] != second.split()[0]
        seen = look(other)
        await other.api.down(volumes=True)
        assert left(other, seen) == []
        assert (await mesh.call("client", "http://web/")).body == first
    finally:
        await other.api.down(volumes=True)


async def test_a_taken_port_is_an_error_that_says_how_to_move(mesh: LiveMesh) -> None:
    other = LiveMesh(mesh.folder.parent / "other")
    try:
        await other.up(small())

        with pytest.raises(TulleError, match=r"18080.*--publish"):
            await mesh.up(small())

        assert not mesh.api.running
    finally:
        await other.api.down(volumes=True)
