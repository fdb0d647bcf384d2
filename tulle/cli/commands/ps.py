"""The pods of a mesh, with what their proxies counted over the last ten seconds."""

import asyncio

from rich.text import Text

from tulle.cli import output
from tulle.cli.commands.arguments import Format, Name, Output
from tulle.mesh import Mesh, Pod, State

COLUMNS = (
    "NAME",
    "PHASE",
    "READY",
    "RESTARTS",
    "ADDRESS",
    "IDENTITY",
    "CERT",
    "RPS",
    "SUCCESS",
    "P50",
    "P99",
)
WIDE = ("NAMESPACE", "WORKLOAD", "TCP")
NUMBERS = ("RESTARTS", "CERT", "RPS", "SUCCESS", "P50", "P99", "TCP")
IDENTITY_SUFFIX = ".serviceaccount.identity."


def run(name: Name = None, format: Output = Format.table) -> int:
    """Show the pods with live numbers."""
    mesh = Mesh.only(name)
    pods, state = asyncio.run(look(mesh))
    if format is Format.json:
        output.show_json([record(pod) for pod in pods])
        return 0
    show(pods, wide=format is Format.wide)
    show_published(state)
    return 0


async def look(mesh: Mesh) -> tuple[tuple[Pod, ...], State]:
    """Return the pods with their numbers, and the rest."""
    return await mesh.pods(), await mesh.state()


def record(pod: Pod) -> dict[str, object]:
    """Return what programs get of a pod. These keys are public and do not change."""
    return {
        "name": pod.name,
        "phase": pod.phase,
        "ready": pod.ready,
        "restarts": pod.restarts,
        "address": pod.address,
        "identity": pod.identity,
        "requests_per_s": pod.traffic.requests_per_s,
        "success_rate": pod.traffic.success_rate,
        "p50_ms": pod.traffic.p50_ms,
        "p99_ms": pod.traffic.p99_ms,
    }


def show(pods: tuple[Pod, ...], *, wide: bool = False) -> None:
    """Print the table of pods."""
    columns = (*WIDE[:2], *COLUMNS, WIDE[2]) if wide else COLUMNS
    rows = [(*extra(pod), *row(pod, wide=wide), tcp(pod)) if wide else row(pod, wide=wide) for pod in pods]
    output.table(columns, rows, right=NUMBERS)


def extra(pod: Pod) -> tuple[str, str]:
    """Return what only the wide table begins with."""
    return pod.namespace, pod.workload or output.NONE


def tcp(pod: Pod) -> str:
    """Return how many connections are open to the pod."""
    return output.NONE if pod.traffic.tcp_open is None else str(pod.traffic.tcp_open)


def row(pod: Pod, *, wide: bool) -> tuple[str | Text, ...]:
    """Return one line of the table."""
    traffic = pod.traffic
    return (
        pod.name,
        phase(pod),
        Text("yes", "green") if pod.ready else Text("no", "dim" if pod.settled else "yellow"),
        str(pod.restarts),
        pod.address or output.NONE,
        identity(pod, wide=wide),
        output.until(traffic.certificate_expires),
        output.number(traffic.requests_per_s),
        output.percent(traffic.success_rate),
        output.number(traffic.p50_ms, " ms"),
        output.number(traffic.p99_ms, " ms"),
    )


def phase(pod: Pod) -> Text:
    """Return a pod's phase, with the reason when it is not as it should be."""
    if pod.settled or not pod.meshed or not pod.note:
        return Text(pod.phase)
    return Text(f"{pod.phase}: {pod.note}", "yellow")


def identity(pod: Pod, *, wide: bool) -> Text:
    """Return who a pod is; the long form of a name says the same of every pod."""
    if not pod.meshed:
        return Text(pod.note or "not meshed: add linkerd.io/inject: enabled", "yellow")
    if pod.identity is None:
        return Text(output.NONE)
    return Text(pod.identity if wide else pod.identity.partition(IDENTITY_SUFFIX)[0])


def show_published(state: State) -> None:
    """Say where services can be reached from this machine."""
    for published in state.published:
        output.say(f"\n{published.namespace}/{published.service} is at {published.url}")
