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
from tulle.model.errors import NotFound, SettingError

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
            help="The first request that `tulle tap -o json` printed; - is stdin.", show_default=False
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
    """Ask manifests, or the running mesh.

    Raises:
        SettingError: the question makes no sense, or names what is not there: exit code 1 is for an answer.
    """
    try:
        if folders:
            from tulle.explain.folder import folder_ground
            from tulle.explain.why import explain

            return explain(folder_ground(folders), question)
        return asyncio.run(Mesh.only(name).why(question))
    except NotFound as error:
        raise SettingError(str(error)) from error


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


class RecordedField(msgspec.Struct, rename="camel"):
    """One field, in a recorded request; one that is no text has no text."""

    name: str
    value_str: str | None = None


class Begun(msgspec.Struct):
    """The event that a request began."""

    method: str = ""
    authority: str = ""
    path: str = "/"
    headers: list[RecordedField] | None = None


class End(msgspec.Struct):
    """One end of a connection, with what is known of it."""

    ip: str = ""
    port: int = 0
    metadata: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Return what to call it: the workload, which a folder knows too; else the address."""
        name = next((self.metadata[kind] for kind in WORKLOADS if kind in self.metadata), None)
        return f"{self.metadata['namespace']}/{name}" if name and "namespace" in self.metadata else self.ip


class Recorded(msgspec.Struct, rename="camel"):
    """An event of `tulle tap -o json`, as far as it matters here."""

    request_init_event: Begun | None = None
    source: End = msgspec.field(default_factory=End)
    destination: End = msgspec.field(default_factory=End)


WORKLOADS = ("deployment", "statefulset", "daemonset", "k8s_job", "cronjob", "pod")
OF_CONNECTION = (":", "host", "l5d-", "connection", "content-length", "transfer-encoding")


def recorded(file: Path) -> Question:
    """Read the first request that was recorded."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        events = [msgspec.json.decode(line, type=Recorded) for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{file} cannot be read: {error}") from error
    except msgspec.MsgspecError as error:
        raise SettingError(f"{file} is not what tulle tap -o json prints: {error}") from error
    event = next((each for each in events if each.request_init_event), None)
    if event is None or event.request_init_event is None:
        raise SettingError(f"{file} records no request; make one with: tulle tap WORKLOAD -o json --limit 1")
    begun = event.request_init_event
    target = begun.authority or f"{event.destination.ip}:{event.destination.port}"
    headers = tuple(
        (header.name.lower(), header.value_str)
        for header in begun.headers or ()
        if header.value_str is not None and not header.name.lower().startswith(OF_CONNECTION)
    )
    return Question(event.source.name, target, begun.path or "/", begun.method or None, headers)
