"""What the containers of a pod have written."""

import asyncio
import sys
from typing import Annotated

import typer

from tulle.cli.commands.arguments import Container, Name, Pod
from tulle.mesh import Mesh


def run(
    pod: Pod,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only this many last lines.", show_default=False)] = None,
    container: Container = None,
    name: Name = None,
) -> int:
    """Show what a pod says; its proxy is the container linkerd-proxy."""
    asyncio.run(copy(Mesh.only(name), pod, follow=follow, tail=tail, container=container))
    return 0


async def copy(mesh: Mesh, pod: str, *, follow: bool, tail: int | None, container: str | None) -> None:
    """Write the log to stdout as it arrives."""
    async for text in mesh.logs(pod, follow=follow, container=container, tail=tail):
        sys.stdout.write(text)
        sys.stdout.flush()
