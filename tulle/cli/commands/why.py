"""Says what the mesh would do with a request, step by step, and why."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from tulle.cli import output
from tulle.cli.commands.arguments import Name, PlainFormat, PlainOutput
from tulle.explain import words
from tulle.explain.answer import Explanation, Question
from tulle.mesh import Mesh
from tulle.model.errors import SettingError

From = Annotated[
    str, typer.Option("--from", metavar="CLIENT", help="[NAMESPACE/]WORKLOAD, a pod, or an address.")
]
To = Annotated[str, typer.Option("--to", metavar="TARGET", help="What the client writes: NAME[:PORT].")]
Folders = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", help="Manifests instead of the running mesh.", show_default=False),
]
Header = Annotated[list[str] | None, typer.Option("--header", "-H", metavar="NAME:VALUE", show_default=False)]


def run(
    source: From = "",
    target: To = "",
    path: Annotated[str, typer.Option(help="Path and query.")] = "/",
    method: Annotated[
        str | None, typer.Option(help="GET; for gRPC POST, with --path /SERVICE/METHOD.", show_default=False)
    ] = None,
    header: Header = None,
    tcp: Annotated[bool, typer.Option("--tcp", help="Ask about a connection that is not HTTP.")] = False,
    http2: Annotated[bool, typer.Option("--http2", help="The client speaks HTTP/2.")] = False,
    address: Annotated[
        str | None, typer.Option(help="What a name outside stands for.", show_default=False)
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(
            help="A request as JSON, as `tulle tap -o json` records it; - is stdin.", show_default=False
        ),
    ] = None,
    filename: Folders = None,
    name: Name = None,
    format: PlainOutput = PlainFormat.table,
) -> int:
    """Say what becomes of a request: which route, backend, endpoint, Server and authorization, and why.

    With -f the manifests decide and no mesh need run; without, what the proxies of the running mesh are told
    now. The exit code is 0 where the request is allowed, else 1.
    """
    question = recorded(request) if request else Question(source, target)
    question = msgspec.structs.replace(
        question,
        source=source or question.source,
        target=target or question.target,
        path=path if path != "/" else question.path,
        method=method or question.method,
        headers=(*question.headers, *map(field, header or ())),
        tcp=tcp or question.tcp,
        http2=http2 or question.http2,
        address=address,
    )
    if not question.source or not question.target:
        raise SettingError("say who asks and for what: --from CLIENT --to TARGET[:PORT]")
    found = answer(question, filename, name)
    if format is PlainFormat.json:
        output.show_json(found)
    else:
        show(found)
        if not found.allowed and (said := words.first_refusal(found)) and said.reason == "unauthorized":
            folder = "".join(f" -f {each}" for each in filename or ())
            output.hint(
                f"\nto allow it: tulle allow --from {question.source} --to {question.target}"
                f"{'' if question.path == '/' else f' --path {question.path}'}{folder}"
            )
    return 0 if found.allowed else 1


def answer(question: Question, folders: list[Path] | None, name: str | None) -> Explanation:
    """Ask manifests, or the running mesh."""
    if folders:
        from tulle.explain.folder import folder_ground
        from tulle.explain.why import explain

        return explain(folder_ground(folders), question)
    return asyncio.run(Mesh.only(name).why(question))


def show(found: Explanation) -> None:
    """Print the decision path."""
    first, *rest = words.lines(found)
    output.console().print(Text(first, "bold green" if found.allowed else "bold red"))
    for line in rest:
        output.say(line)


def field(text: str) -> tuple[str, str]:
    """Read a header field."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise SettingError(f'"{text}" is no header field; write NAME:VALUE')
    return name.strip().lower(), value.strip()


class Recorded(msgspec.Struct, rename="camel"):
    """What a tapped request says, as far as it matters here."""

    source: str = ""
    destination: str = ""
    method: str | None = None
    path: str = "/"
    authority: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def recorded(file: Path) -> Question:
    """Read a recorded request: its first line, if it has several."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        found = msgspec.json.decode(text.strip().partition("\n")[0], type=Recorded)
    except OSError as error:
        raise SettingError(f"{file} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise SettingError(f"{file} is no recorded request: {error}") from error
    return Question(
        found.source, found.authority or found.destination, found.path, found.method, found.headers
    )
