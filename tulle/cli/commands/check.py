"""Says whether a mesh can run here. Each line that is not good says what to do."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tulle.cli import output
from tulle.cli.commands.arguments import NewName, PlainFormat, PlainOutput
from tulle.cli.commands.up import Publish
from tulle.local import host
from tulle.mesh import DEFAULT_NAME, Mesh

MARKS = {"good": Text("√", "green"), "warning": Text("‼", "yellow"), "bad": Text("×", "red")}


def run(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR|FILE]...", help="Manifests to look at too.", show_default=False),
    ] = None,
    publish: Publish = None,
    name: NewName = DEFAULT_NAME,
    format: PlainOutput = PlainFormat.table,
) -> int:
    """Say whether a mesh can run here, and what to do if not."""
    findings = asyncio.run(look(Mesh(name), paths or [], publish or []))
    bad = [finding for finding in findings if finding.verdict == "bad"]
    if format is PlainFormat.json:
        records = [
            {"what": of.what, "result": of.verdict, "found": of.found, "fix": of.fix} for of in findings
        ]
        output.show_json({"success": not bad, "checks": records})
    else:
        for finding in findings:
            show(finding)
        output.say(f"\n{len(bad)} to fix" if bad else "\na mesh can run here")
    return 1 if bad else 0


async def look(mesh: Mesh, paths: list[Path], publish: list[str]) -> list[host.Finding]:
    """Look at everything."""
    findings = await host.needed() + await host.wanted(mesh.places)
    return findings + (host.manifests(paths, publish) if paths else [])


def show(finding: host.Finding) -> None:
    """Print one finding, and under it what to do."""
    found = f": {finding.found}" if finding.found else ""
    output.console().print(Text.assemble(MARKS[finding.verdict], f" {finding.what}{found}"))
    if finding.fix:
        output.say(f"    {finding.fix}")
