"""Changes how many pods a workload has."""

import asyncio
from typing import Annotated

import typer

from tulle.cli import output
from tulle.cli.commands.arguments import Name, Workload
from tulle.mesh import Mesh


def run(
    workload: Workload,
    replicas: Annotated[int, typer.Option("--replicas", "-r", min=0, max=1000, help="How many.")],
    name: Name = None,
) -> int:
    """Give a workload this number of pods, until its manifest changes."""
    asyncio.run(Mesh.only(name).scale(workload, replicas))
    output.hint(f"{workload} gets {replicas} pods; see: {output.program()} ps")
    return 0
