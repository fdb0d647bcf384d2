"""Certificates: what there is, new ones, and back from a mesh in which all have expired."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tulle.cli import output
from tulle.cli.commands.arguments import Name, PlainFormat, PlainOutput
from tulle.mesh import Mesh

Root = Annotated[bool, typer.Option("--root", help="Replace the trust anchor too.")]
Plan = Annotated[bool, typer.Option("--plan", help="Only say what would be done.")]
Force = Annotated[bool, typer.Option("--force", help="Go on though not every proxy has reported.")]


def show(name: Name = None, format: PlainOutput = PlainFormat.table) -> int:
    """Show trust anchor and issuer, and how far a rotation has come."""
    tell(asyncio.run(Mesh.only(name).identity()), format)
    return 0


def rotate(
    root: Root = False,
    plan: Plan = False,
    force: Force = False,
    name: Name = None,
    format: PlainOutput = PlainFormat.table,
) -> int:
    """Replace the issuer, or the trust anchor too, while everything runs."""
    answer = asyncio.run(Mesh.only(name).rotate(root=root, plan=plan, force=force))
    if format is PlainFormat.table and plan:
        for number, step in enumerate(entries(answer, "steps"), 1):
            here = " (it is here now)" if step.get("current") else ""
            output.say(f"{number}. {step.get('title')}; waits for: {step.get('waits_for')}{here}")
        return 0
    tell(answer, format)
    if answer.get("phase") != "steady":
        output.hint(f"it goes on by itself; see: {output.program()} identity show")
    return 0


def recover(name: Name = None, format: PlainOutput = PlainFormat.table) -> int:
    """Bring back a mesh in which everything has expired."""
    answer = asyncio.run(Mesh.only(name).recover())
    tell(answer, format)
    if format is PlainFormat.table and not answer.get("done", True):
        output.hint("nothing had expired, so nothing was done")
    return 0


def tell(answer: Mapping[str, Any], format: PlainFormat) -> None:
    """Print what the controller says about itself."""
    if format is PlainFormat.json:
        output.show_json(answer)
        return
    rows = [("phase", str(answer.get("phase", output.NONE)))]
    for part in ("root", "issuer"):
        found = answer.get(part)
        if isinstance(found, dict):
            rows.append(
                (part, f"{str(found.get('sha256'))[:16]}, expires in {output.until(found.get('expires'))}")
            )
    rows.append(("proxies that reported", str(len(answer.get("reported", ())))))
    rows += [("waits for", f"{of.get('pod')}: {of.get('reason')}") for of in entries(answer, "blockers")]
    output.table(("WHAT", "VALUE"), rows)


def entries(answer: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return a list of mappings from an answer."""
    found = answer.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
