"""Says whether manifests can be applied, or whether a mesh can run here. What is not good says what to do."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tulle.cli import output
from tulle.cli.commands.arguments import Name, PlainFormat, PlainOutput, Publish
from tulle.model.objects import Problem
from tulle.rules.decode import Decoded, decode_paths

if TYPE_CHECKING:
    from tulle.local.host import Finding

MARKS = {"good": Text("√", "green"), "warning": Text("‼", "yellow"), "bad": Text("×", "red")}
STYLES = {"error": "red", "warning": "yellow"}


def run(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR|FILE]...", help="Manifests to look at.", show_default=False),
    ] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="With manifests: also look whether this machine can run them.")
    ] = False,
    publish: Publish = None,
    name: Name = None,
    format: PlainOutput = PlainFormat.table,
) -> int:
    """Say whether manifests can be applied; without any, whether a mesh can run here.

    Manifests are looked at on any system, and as a part of something larger: a name that is not among them is only a
    warning.
    """
    if paths and not machine:
        return show_manifests(decode_paths(paths, whole=False), format)
    return look_here(paths or [], publish or [], name, format)


def show_manifests(decoded: Decoded, format: PlainFormat) -> int:
    """Print all that there is to say about manifests."""
    said = sorted(of for of in (*decoded.problems, *decoded.remarks) if of.severity != "note")
    if format is PlainFormat.json:
        output.show_json(
            {
                "success": not decoded.problems,
                "objects": len(decoded.objects),
                "problems": [record(problem) for problem in said],
            }
        )
        return 1 if decoded.problems else 0
    for problem in said:
        output.console().print(
            Text.assemble((problem.severity, STYLES[problem.severity]), f": {problem}"), soft_wrap=True
        )
    errors = len(decoded.problems)
    warnings = len(said) - errors
    counts = ((len(decoded.objects), "object"), (errors, "error"), (warnings, "warning"))
    output.say(", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts))
    return 1 if errors else 0


def record(problem: Problem) -> dict[str, object]:
    """Return what programs get of a problem. These keys are public and do not change."""
    return {
        "severity": problem.severity,
        "file": problem.position.file,
        "line": problem.position.line,
        "field": problem.field,
        "text": problem.text,
    }


def look_here(paths: list[Path], publish: list[str], name: str | None, format: PlainFormat) -> int:
    """Look at this machine, and at what of manifests it decides."""
    findings = asyncio.run(look(paths, publish, name))
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


async def look(paths: list[Path], publish: list[str], name: str | None) -> "list[Finding]":
    """Look at everything."""
    # Only Linux has what these modules import, and manifests are checked everywhere.
    from tulle.local import host
    from tulle.mesh import DEFAULT_NAME, Mesh

    findings = await host.needed() + await host.wanted(Mesh(name or DEFAULT_NAME).places)
    return findings + (host.manifests(paths, publish) if paths else [])


def show(finding: "Finding") -> None:
    """Print one finding, and under it what to do."""
    found = f": {finding.found}" if finding.found else ""
    output.console().print(Text.assemble(MARKS[finding.verdict], f" {finding.what}{found}"))
    if finding.fix:
        output.say(f"    {finding.fix}")
