"""Arguments that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer

Name = Annotated[
    str | None,
    typer.Option(
        "--name", "-n", envvar="TULLE_NAME", help="Which mesh; not needed while one runs.", show_default=False
    ),
]
NewName = Annotated[str, typer.Option("--name", "-n", envvar="TULLE_NAME", help="What to call the mesh.")]
Publish = Annotated[
    list[str] | None,
    typer.Option(
        "--publish",
        "-p",
        metavar="PORT=[NAMESPACE/]SERVICE:PORT",
        help="Publish a service at another port of 127.0.0.1 than its own.",
        show_default=False,
    ),
]
Pod = Annotated[str, typer.Argument(metavar="POD", help="[NAMESPACE/]POD, or a workload for its first pod.")]
Workload = Annotated[str, typer.Argument(metavar="WORKLOAD", help="[KIND/]NAME of a workload.")]
Container = Annotated[
    str | None, typer.Option("--container", "-c", help="Which container of the pod.", show_default=False)
]


class Format(StrEnum):
    """How an answer is printed."""

    table = "table"
    wide = "wide"
    json = "json"


class PlainFormat(StrEnum):
    """How an answer is printed that has no wide form."""

    table = "table"
    json = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]
PlainOutput = Annotated[PlainFormat, typer.Option("--output", "-o", help="How to print the answer.")]
