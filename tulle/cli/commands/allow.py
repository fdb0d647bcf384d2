"""Prints the fewest manifests that let a client in; applying them is somebody's decision."""

import asyncio
import sys
from typing import Annotated

import typer

from tulle.cli import output
from tulle.cli.commands.arguments import Name, PlainFormat, PlainOutput
from tulle.cli.commands.why import Folders, From, To
from tulle.explain.answer import Question
from tulle.mesh import Mesh
from tulle.model.errors import SettingError


def run(
    source: From = "",
    target: To = "",
    path: Annotated[
        str, typer.Option(help="Allow this path alone; with a / at the end, all below it.")
    ] = "/",
    method: Annotated[str | None, typer.Option(help="Allow this method alone.", show_default=False)] = None,
    tcp: Annotated[bool, typer.Option("--tcp", help="Ask about a connection that is not HTTP.")] = False,
    filename: Folders = None,
    name: Name = None,
    format: PlainOutput = PlainFormat.table,
) -> int:
    """Print the fewest manifests that allow a request, and change nothing for anybody else.

    They are made to be appended to a file of the folder: tulle allow … -f DIR >> DIR/policies.yaml
    """
    if not source or not target:
        raise SettingError("say who asks and for what: --from CLIENT --to TARGET[:PORT]")
    question = Question(source, target, path, method, tcp=tcp)
    if filename:
        from tulle.explain.allow import allow
        from tulle.explain.folder import folder_ground

        permission = allow(folder_ground(filename), question)
    else:
        permission = asyncio.run(Mesh.only(name).allow(question))
    if format is PlainFormat.json:
        output.show_json(permission)
    elif not permission.manifests:
        output.hint(f"it is allowed already; see tulle why\ntulle.testing: {permission.test}")
    else:
        from tulle.explain.allow import shown

        sys.stdout.write(shown(permission))
    return 0
