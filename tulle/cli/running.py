"""What `up` and `demo` have in common: starting a mesh before somebody's eyes, and ending it on a signal."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TypeVar

from tulle.cli.output import Progress, hint
from tulle.mesh import Mesh, State
from tulle.model.errors import MeshError
from tulle.model.objects import Problem

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOG_S = 0.3
"""How often the log of a mesh in the foreground is looked at for new lines."""
READY_S = 300


class Interrupted(Exception):
    """Somebody wants this to end; it is not an error."""


async def until_signal(work: Coroutine[object, object, Result]) -> Result:
    """Do something, unless a signal comes first; then it is cancelled, cleanly, and `Interrupted` is raised."""
    task = asyncio.ensure_future(work)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted:
            raise Interrupted from None
        raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


class Attempt:
    """Whether this command has started the mesh. What it has not started it must not stop either."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.started = False

    async def undo(self) -> None:
        """End what was started."""
        if self.started:
            await stop(self.mesh)


async def stop(mesh: Mesh) -> None:
    """End a mesh, and say so; who asks a second time does not wait for its pods."""
    with Progress() as progress:
        progress.doing(f"stopping {mesh.name}")
        try:
            await until_signal(mesh.down())
        except Interrupted:
            mesh.places.kill()
            await mesh.down()
        progress.done(f"{mesh.name} is stopped")


async def start(
    attempt: Attempt, paths: list[Path], *, publish: list[str], egress: bool = False, progress: Progress
) -> State:
    """Start a mesh and return when every pod is ready, showing each on the way."""
    mesh = attempt.mesh
    remarks: list[Problem] = []
    progress.doing(f"starting {mesh.name}")
    await mesh.up(*paths, publish=publish, egress=egress, remark=remarks.append)
    attempt.started = True
    for remark in remarks:
        if remark.severity == "warning":
            hint(f"warning: {remark}", style="yellow")
    progress.done(f"{mesh.name}: supervisor and control plane started")
    seen: set[str] = set()

    def show(state: State) -> None:
        for pod in state.pods:
            if pod.settled and pod.name not in seen:
                seen.add(pod.name)
                progress.done(f"{pod.name} {'is ready' if pod.ready else 'has done its work'}")
        late = [f"{pod.name} ({pod.note or pod.phase})" for pod in state.pods if not pod.settled]
        progress.doing(
            f"{len(seen)} of {len(state.pods)} pods; waiting for {', '.join(late) or 'the first pod'}"
        )

    ready = asyncio.create_task(mesh.wait_ready(READY_S, seen=show))
    ended = asyncio.create_task(mesh.gone())
    try:
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise MeshError(f"{mesh.name} ended before its pods were ready")
        return ready.result()
    finally:
        ready.cancel()
        ended.cancel()


async def follow_log(mesh: Mesh) -> None:
    """Show what the supervisor says, and return when the mesh is gone."""
    async with lines_of(mesh.places.log) as lines:
        while mesh.running:
            for line in lines():
                hint(line)
            await asyncio.sleep(LOG_S)


@contextlib.asynccontextmanager
async def lines_of(path: Path) -> AsyncIterator["NewLines"]:
    """Open a log at its end."""
    new = NewLines(path)
    try:
        yield new
    finally:
        new.close()


class NewLines:
    """The complete lines that a file got since it was last asked."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(encoding="utf-8", errors="replace")
        self._file.seek(0, 2)
        self._rest = ""

    def __call__(self) -> list[str]:
        """Return them."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()
