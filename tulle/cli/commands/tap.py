"""Requests as the proxies see them, a line for each beginning, answer and end, as Linkerd's tap prints them.

req id=0:1 proxy=in  src=10.77.0.5:40512 dst=10.77.0.7:8080 tls=true :method=GET :authority=web :path=/
rsp id=0:1 proxy=in  src=10.77.0.5:40512 dst=10.77.0.7:8080 tls=true :status=200 latency=912µs
end id=0:1 proxy=in  src=10.77.0.5:40512 dst=10.77.0.7:8080 tls=true duration=40µs response-length=5B
"""

import asyncio
import contextlib
import sys
from typing import Annotated, Any

import grpc
import msgspec
import typer

from tulle.cli import output
from tulle.cli.commands.arguments import Format, Name, Output
from tulle.cli.running import Interrupted, until_signal
from tulle.mesh import Mesh
from tulle.model.errors import MeshError

Event = dict[str, Any]

Target = Annotated[
    str, typer.Argument(metavar="WORKLOAD", help="[KIND/]NAME[.NAMESPACE] of a workload or pod, or ns/NAME.")
]
To = Annotated[str, typer.Option("--to", help="Only to this workload, pod or service, named likewise.")]
Method = Annotated[str, typer.Option("--method", help="Only requests of this method.")]
Path = Annotated[str, typer.Option("--path", help="Only paths that begin so.")]
Authority = Annotated[str, typer.Option("--authority", help="Only requests for this host, port included.")]
Scheme = Annotated[str, typer.Option("--scheme", help="Only http or only https.")]
MaxRps = Annotated[
    float, typer.Option("--max-rps", min=1, help="Requests per second; of more a sample is shown.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="End after this many requests.", show_default=False)
]

# RFC 9113 §7, by number.
RESETS = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def run(
    target: Target,
    to: To = "",
    method: Method = "",
    path: Path = "",
    authority: Authority = "",
    scheme: Scheme = "",
    max_rps: MaxRps = 100,
    limit: Limit = None,
    name: Name = None,
    format: Output = Format.table,
) -> int:
    """Watch requests as the proxies of a workload see them; -o json shows headers too, a line for each event."""
    # People get nothing of headers, so the proxies need not send any.
    watching = Mesh.only(name).tap(
        target,
        to=to,
        method=method,
        path=path,
        authority=authority,
        scheme=scheme,
        max_rps=max_rps,
        headers=format is Format.json,
        note=note,
    )

    async def watch() -> int:
        ended = 0
        async with contextlib.aclosing(watching) as events:
            async for event in events:
                shown = line(event, wide=format is Format.wide)
                sys.stdout.write(
                    f"{msgspec.json.encode(event).decode() if format is Format.json else shown}\n"
                )
                sys.stdout.flush()
                ended += "responseEndEvent" in event
                if limit is not None and ended >= limit:
                    return 0
        raise MeshError(f'no proxy of "{target}" can be watched any longer')

    try:
        return asyncio.run(until_signal(watch()))
    except Interrupted:
        return 0


def note(pod: str, error: str | None) -> None:
    """Say beside the answer which pods are watched."""
    output.hint(f"watching {pod}" if error is None else f"{pod} cannot be watched: {error}")


def line(event: Event, *, wide: bool) -> str:
    """Return an event in a line."""
    inbound = event["proxyDirection"] == "INBOUND"
    source, destination = event["source"], event["destination"]
    tls = (source if inbound else destination)["metadata"].get("tls", "")
    parts = [f"proxy={'in ' if inbound else 'out'}", f"src={place(source)}", f"dst={place(destination)}"]
    parts += [f"tls={tls}"]
    if begun := event.get("requestInitEvent"):
        kind, stream = "req", begun["id"]
        parts += [f":method={begun['method']}", f":authority={begun['authority']}", f":path={begun['path']}"]
    elif answered := event.get("responseInitEvent"):
        kind, stream = "rsp", answered["id"]
        parts += [
            f":status={answered['httpStatus']}",
            f"latency={microseconds(answered['sinceRequestInit'])}",
        ]
    else:
        ended = event["responseEndEvent"]
        kind, stream = "end", ended["id"]
        parts += [*outcome(ended), f"duration={microseconds(ended['sinceResponseInit'])}"]
        parts += [f"response-length={ended['responseBytes']}B"]
    if wide:
        parts += labels("src", source["metadata"])
        parts += labels("dst", destination["metadata"])
        parts += labels("rt", event["routeMeta"] or {})
    return " ".join((kind, f"id={stream['base']}:{stream['stream']}", *parts))


def place(end: Event) -> str:
    """Return an address with its port."""
    address = f"[{end['ip']}]" if ":" in (end["ip"] or "") else end["ip"]
    return f"{address}:{end['port']}"


def microseconds(since: Event) -> str:
    """Return a duration as Linkerd writes it."""
    return f"{since.get('seconds', 0) * 1_000_000 + since.get('nanos', 0) // 1000}µs"


def outcome(ended: Event) -> list[str]:
    """Return what else is known of an end."""
    if "grpcStatusCode" in ended:
        code = ended["grpcStatusCode"]
        return [f"grpc-status={CODES.get(code, code)}"]
    if "resetErrorCode" in ended:
        code = ended["resetErrorCode"]
        return [f"reset-error={RESETS[code] if code < len(RESETS) else code}"]
    return []


def labels(prefix: str, metadata: dict[str, str]) -> list[str]:
    """Return what is known of an end, but for what every line says."""
    return [f"{prefix}_{key}={value}" for key, value in sorted(metadata.items()) if key != "tls"]
