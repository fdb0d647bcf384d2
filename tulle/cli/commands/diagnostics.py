"""What the control plane would tell a proxy now, from the same views that it sends."""

import asyncio
import sys
from typing import Annotated

import typer

from tulle.cli import output
from tulle.cli.commands.arguments import Name, PlainFormat, PlainOutput, Pod
from tulle.mesh import Mesh

Authority = Annotated[
    str, typer.Argument(metavar="AUTHORITY", help="SERVICE.NAMESPACE.svc.cluster.local:PORT")
]
PortOrNone = Annotated[int | None, typer.Argument(help="A port of the pod.", show_default=False)]


def endpoints(authority: Authority, name: Name = None, format: PlainOutput = PlainFormat.table) -> int:
    """Show the addresses that a client gets for a service."""
    answer = asyncio.run(Mesh.only(name).endpoints(authority))
    if format is PlainFormat.json:
        output.show_json(answer)
        return 0
    found = answer.get("endpoints")
    rows = (
        [endpoint_row(entry) for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    )
    if not rows:
        output.hint("No endpoints found." if answer.get("exists", True) else "No such service.")
        return 0
    output.table(("NAMESPACE", "ADDRESS", "PORT", "POD", "HINT", "IDENTITY"), rows, right=("PORT",))
    return 0


def endpoint_row(entry: dict[str, object]) -> tuple[str, ...]:
    """Return a line of the table of addresses."""
    labels = entry.get("labels")
    pod = labels.get("pod", output.NONE) if isinstance(labels, dict) else output.NONE
    space = (
        labels.get("namespace", labels.get("dst_namespace", output.NONE)) if isinstance(labels, dict) else ""
    )
    values = (space, entry.get("address"), entry.get("port"), pod, entry.get("hint"), entry.get("identity"))
    return tuple(output.NONE if value is None else str(value) for value in values)


def profile(authority: Authority, name: Name = None) -> int:
    """Show the profile that a client gets for an address."""
    output.show_json(asyncio.run(Mesh.only(name).profile(authority)))
    return 0


def policy(
    target: Annotated[str, typer.Argument(metavar="POD|AUTHORITY", help="A pod, or SERVICE.NAMESPACE:PORT.")],
    port: PortOrNone = None,
    name: Name = None,
) -> int:
    """Show the policy of a pod's port, or without a port that of a client to a service."""
    mesh = Mesh.only(name)
    wanted = mesh.outbound_policy(target) if port is None else mesh.inbound_policy(target, port)
    output.show_json(asyncio.run(wanted))
    return 0


def proxy_metrics(pod: Pod, name: Name = None) -> int:
    """Show the metrics of a pod's proxy, as Prometheus reads them."""
    sys.stdout.write(asyncio.run(Mesh.only(name).proxy_metrics(pod)))
    return 0
