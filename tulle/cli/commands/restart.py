"""Replaces the pods of a workload."""

import asyncio

from tulle.cli import output
from tulle.cli.commands.arguments import Name, Workload
from tulle.mesh import Mesh


def run(workload: Workload, name: Name = None) -> int:
    """Replace the pods of a workload without losing a request; returns when the new ones are wanted."""
    asyncio.run(Mesh.only(name).restart(workload))
    output.hint(f"{workload} is being replaced; see: {output.program()} ps")
    return 0
