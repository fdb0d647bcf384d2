"""Ends a mesh, whatever state it is in."""

import asyncio
from typing import Annotated

import typer

from tulle.cli import output
from tulle.cli.commands.arguments import Name
from tulle.mesh import Mesh


def run(
    name: Name = None,
    volumes: Annotated[bool, typer.Option("--volumes", help="Remove stored data and the CA too.")] = False,
) -> int:
    """Stop a mesh and leave nothing behind, also after one of its processes was killed."""
    mesh = Mesh.only(name)
    with output.Progress() as progress:
        progress.doing(f"stopping {mesh.name}")
        there = asyncio.run(mesh.down(volumes=volumes))
        progress.done(f"{mesh.name} is stopped" if there else f'no mesh called "{mesh.name}" was running')
    return 0
