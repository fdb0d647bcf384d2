"""Runs a command inside a pod, in the place of this process: the terminal and the exit code are its own."""

import asyncio
import os
from typing import Annotated

import typer

from tulle.cli.commands.arguments import Container, Name, Pod
from tulle.mesh import Mesh
from tulle.model.errors import HostError


def run(
    pod: Pod,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGUMENT]...", help="What to run.")],
    container: Container = None,
    name: Name = None,
) -> int:
    """Run a command inside a pod: in its network, as its user, with its environment."""
    arguments = asyncio.run(Mesh.only(name).exec_arguments(pod, command, container=container))
    try:
        os.execvp(arguments[0], arguments)
    except OSError as error:
        raise HostError(f"{arguments[0]} cannot be run: {error.strerror}; it is in util-linux") from error
