"""Runs manifests: in the foreground until Ctrl-C, or with `--detach` until `tulle down`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from tulle.cli import output
from tulle.cli.commands import ps
from tulle.cli.commands.arguments import NewName, Publish
from tulle.cli.running import Attempt, Interrupted, follow_log, start, until_signal
from tulle.mesh import DEFAULT_NAME, Mesh
from tulle.model.errors import MeshError

Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[DIR|FILE]...", help="Manifests; none means this folder.", show_default=False),
]
Egress = Annotated[
    bool, typer.Option("--egress", help="Let pods reach what is outside the mesh, by TCP and by name.")
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return when every pod is ready.")]


def run(
    paths: Paths = None,
    detach: Detach = False,
    name: NewName = DEFAULT_NAME,
    publish: Publish = None,
    egress: Egress = False,
) -> int:
    """Run the pods of manifests on this machine, meshed.

    Editing a manifest takes effect at once. Without --detach the mesh ends with this command.
    """
    mesh = Mesh(name)
    return asyncio.run(up(mesh, paths or [Path()], detach=detach, publish=publish or [], egress=egress))


async def up(mesh: Mesh, paths: list[Path], *, detach: bool, publish: list[str], egress: bool) -> int:
    """Start, show, and stay."""
    attempt = Attempt(mesh)
    try:
        # All of it: a signal between two steps would end this command and leave the mesh.
        return await until_signal(_up(attempt, paths, detach=detach, publish=publish, egress=egress))
    except Interrupted:
        await attempt.undo()
        return 130
    except MeshError:
        if not detach:
            await attempt.undo()
        raise


async def _up(attempt: Attempt, paths: list[Path], *, detach: bool, publish: list[str], egress: bool) -> int:
    mesh = attempt.mesh
    with output.Progress() as progress:
        await start(attempt, paths, publish=publish, egress=egress, progress=progress)
    pods, state = await ps.look(mesh)
    ps.show(pods)
    ps.show_published(state)
    if detach:
        output.hint(f"\nsee: {output.program()} ps; stop with: {output.program()} down")
        return 0
    output.hint(f"\nsee: {output.program()} ps; stop with Ctrl-C")
    await follow_log(mesh)
    raise MeshError(f"{mesh.name} has ended")
