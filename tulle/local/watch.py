"""How the name server and the gateway read the supervisor's snapshots.

Apart from what writes them, so that these two small processes load nothing that they do not need. The controller
has a decoder of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tulle.local.endpoints import PodFacts
from tulle.model.errors import PeerError
from tulle.model.objects import Metadata, Position, Service, ServicePort

MAX_LINE = 64 * 2**20
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the name server and the gateway know of the mesh."""

    services: tuple[Service, ...]
    pods: tuple[PodFacts, ...]


async def watch(socket: Path) -> AsyncIterator[Seen]:
    """Yield each snapshot from the supervisor.

    Raises OSError or PeerError when the supervisor is gone.
    """
    reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_LINE)
    try:
        # With HTTP/1.0 the body is what comes until the end, without chunks around the lines.
        writer.write(b"GET /v1/watch HTTP/1.0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise PeerError(f"the supervisor answered {head.splitlines()[0].decode(errors='replace')}")
        while line := await reader.readline():
            yield seen(msgspec.json.decode(line))
        raise PeerError("the supervisor closed the watch")
    except asyncio.IncompleteReadError as error:
        raise PeerError("the supervisor closed the watch") from error
    finally:
        writer.close()


def seen(snapshot: Json) -> Seen:
    """Read a snapshot."""
    return Seen(
        services=tuple(_service(item) for item in snapshot["objects"] if item["kind"] == "Service"),
        pods=tuple(PodFacts.from_json(pod) for pod in snapshot["pods"]),
    )


def _service(item: Json) -> Service:
    meta, spec, source = (
        item["metadata"],
        item["spec"],
        Position(item["source"]["file"], item["source"]["line"]),
    )
    addresses = tuple(address for address in spec["clusterIPs"] if address != "None")
    return Service(
        meta=Metadata(
            meta["name"], meta["namespace"], meta.get("labels") or {}, meta.get("annotations") or {}
        ),
        type=spec.get("type", "ClusterIP"),
        headless="None" in spec["clusterIPs"],
        cluster_ips=addresses,
        selector=spec.get("selector") or {},
        ports=tuple(_ports(spec.get("ports") or (), source)),
        publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
        external_name=spec.get("externalName"),
        raw=item,
        source=source,
    )


def _ports(ports: Iterable[Json], source: Position) -> Iterable[ServicePort]:
    for port in ports:
        yield ServicePort(
            name=port.get("name"),
            port=port["port"],
            target=port.get("targetPort") or port["port"],
            protocol=port.get("protocol") or "TCP",
            app_protocol=port.get("appProtocol"),
            source=source,
        )
