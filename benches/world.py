"""A stand-in for the supervisor: tells a controller of a world that the bench makes up.

The controller reads whole snapshots from a Unix socket, one JSON line each; this serves the newest one to whoever
asks and every later one as it comes.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n"


class World:
    """The newest snapshot."""

    def __init__(self) -> None:
        self._line = b'{"generation":0,"objects":[],"pods":[]}\n'
        self._generation = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def state(self, objects: Sequence[Json], pods: Sequence[Json]) -> None:
        """Replace the snapshot."""
        async with self._changed:
            self._generation += 1
            snapshot = {"generation": self._generation, "objects": objects, "pods": pods}
            self._line = json.dumps(snapshot).encode() + b"\n"
            self._changed.notify_all()

    @asynccontextmanager
    async def served(self, path: Path) -> AsyncIterator[None]:
        """Serve it at a socket."""
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield
        finally:
            server.close()
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            sent = 0
            while not self._ended:
                writer.write(self._line)
                sent = self._generation
                await writer.drain()
                async with self._changed:
                    while self._generation == sent and not self._ended:
                        await self._changed.wait()
        writer.close()


def service(
    name: str, namespace: str, address: str, ports: Mapping[int, int], annotations: Mapping[str, str]
) -> Json:
    """Return a Service that selects by its own name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations)},
        "spec": {
            "selector": {"app": name},
            "clusterIP": address,
            "clusterIPs": [address],
            "ports": [
                {"name": f"port-{port}", "port": port, "targetPort": target, "protocol": "TCP"}
                for port, target in ports.items()
            ],
        },
    }


def pod(
    name: str,
    namespace: str,
    account: str,
    address: str,
    *,
    app: str,
    ports: Sequence[int],
    annotations: Mapping[str, str],
) -> Json:
    """Return a meshed pod that is ready."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": {"app": app},
        "annotations": dict(annotations),
        "service_account": account,
        "owner": {"kind": "Deployment", "name": app},
        "node": "local",
        "addresses": [address],
        "ready": True,
        "terminating": False,
        "hostname": name,
        "subdomain": None,
        "meshed": True,
        "ports": [{"name": f"port-{port}", "port": port, "protocol": "TCP"} for port in ports],
        "probes": [],
        "skip_inbound_ports": [],
    }
