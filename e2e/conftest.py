"""The mesh that the protocol tests share: a client and a server for each kind of proxy, and one of each without."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from e2e.pods import FIRST_PORT, PORTS, Pod, eventually
from tulle.testing import LiveMesh

CONTROLLER = "linkerd-destination"
STOCK = "TULLE_STOCK_PROXY"
KINDS = ("ours", "stock") if os.environ.get(STOCK) else ("ours",)
COMBINATIONS = tuple((client, server) for client in KINDS for server in KINDS)

POD = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, group: {group}}}, annotations: {{{annotations}}}}}
spec:
  serviceAccountName: {name}
  containers:
  - {{name: main, command: [sleep, infinity], ports: [{ports}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ipFamilyPolicy: RequireDualStack, ports: [{service_ports}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}-headless}}
spec: {{clusterIP: None, selector: {{app: {name}}}, ipFamilyPolicy: RequireDualStack, ports: [{service_ports}]}}
---
"""
OPAQUE_PORT = 9101
SKIPPED_PORT = 9102
BALANCED = ("balanced-1", "balanced-2", "balanced-3")
BALANCED_SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: empty}}
spec: {{selector: {{group: none}}, ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: balanced}}
spec: {{selector: {{group: balanced}}, ports: [{ports}]}}
---
"""


def pod(name: str, annotations: dict[str, str], *, group: str = "single") -> str:
    """Return the manifests of a pod that only sleeps, and of its services."""
    ports = [*range(FIRST_PORT, FIRST_PORT + PORTS), OPAQUE_PORT, SKIPPED_PORT]
    return POD.format(
        name=name,
        group=group,
        annotations=", ".join(f'{key}: "{value}"' for key, value in annotations.items()),
        ports=", ".join(f"{{containerPort: {port}}}" for port in ports),
        service_ports=", ".join(f"{{name: p{port}, port: {port}}}" for port in ports),
    )


def kind(which: str) -> dict[str, str]:
    """Return the annotations that choose the program; ours is the installed one, or that of TULLE_PROXY."""
    program = "stock" if which == "stock" else os.environ.get("TULLE_PROXY", "")
    return {"linkerd.io/inject": "enabled"} | ({"tulle.dev/proxy-binary": program} if program else {})


def layout() -> str:
    """Return every pod of the shared mesh."""
    ports = {
        "config.linkerd.io/opaque-ports": str(OPAQUE_PORT),
        "config.linkerd.io/skip-inbound-ports": str(SKIPPED_PORT),
        "config.linkerd.io/skip-outbound-ports": str(SKIPPED_PORT),
    }
    text = pod("plain-client", {"linkerd.io/inject": "disabled"})
    text += pod("plain-server", {"linkerd.io/inject": "disabled"})
    for name in BALANCED:
        text += pod(name, kind("ours"), group="balanced")
    text += BALANCED_SERVICE.format(
        ports=", ".join(f"{{name: p{port}, port: {port}}}" for port in range(FIRST_PORT, FIRST_PORT + PORTS))
    )
    for which in KINDS:
        text += pod(f"client-{which}", kind(which) | ports)
        text += pod(f"server-{which}", kind(which) | ports)
        for policy in ("deny", "all-authenticated"):
            text += pod(
                f"{policy}-{which}",
                kind(which) | ports | {"config.linkerd.io/default-inbound-policy": policy},
            )
    return text


@pytest.fixture
def mesh(live_mesh: LiveMesh) -> LiveMesh:
    """Return a running mesh: here nothing is about manifests alone."""
    return live_mesh


@dataclass(frozen=True, slots=True)
class Field:
    """The pods of the shared mesh by name."""

    mesh: LiveMesh
    pods: dict[str, Pod]

    def __getitem__(self, name: str) -> Pod:
        return self.pods[name]


@dataclass(frozen=True, slots=True)
class Pair:
    """A client and a server, each with the proxy that the test is about."""

    client: Pod
    server: Pod

    @property
    def label(self) -> str:
        """Both names, for messages."""
        return f"{self.client.name} → {self.server.name}"


async def reachable(field: Field) -> None:
    """Return when every service leads somewhere for a client without a proxy: its pod's rules come last."""

    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async def connects(name: str, port: int) -> bool:
        try:
            async with await field["plain-client"].connect(name, port):
                return True
        except ConnectionError:
            return False

    for name, each in field.pods.items():
        if name != CONTROLLER:
            async with each.serving(hang_up) as served:
                await eventually(partial(connects, name, served.port), f"{name} can be reached")


@pytest.fixture(scope="session")
def field(able_machine: None) -> Iterator[Field]:
    """Return the shared mesh, started once."""
    home = Path(tempfile.mkdtemp(prefix="tulle-"))
    live = LiveMesh(home)
    pods: dict[str, Pod] = {}
    try:
        state = asyncio.run(live.up(layout()))
        for found in state.pods:
            first, second = (*found.addresses, "")[:2]
            pods[found.name] = Pod(live, found.name, first, second)
        whole = Field(live, pods)
        asyncio.run(reachable(whole))
        yield whole
    finally:
        for each in pods.values():
            each.close()
        asyncio.run(live.api.down(volumes=True))
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=COMBINATIONS, ids="-to-".join)
def pair(request: pytest.FixtureRequest, field: Field) -> Pair:
    """Return a client and a server, for each kind of proxy on either side."""
    client, server = request.param
    return Pair(field[f"client-{client}"], field[f"server-{server}"])


@pytest.fixture(params=KINDS)
def which(request: pytest.FixtureRequest) -> str:
    """Return the kind of proxy, where only one is involved."""
    return str(request.param)


def pytest_report_header() -> str:
    """Say which proxies take part."""
    if os.environ.get(STOCK):
        return f"proxies: ours and the stock one, on either side ({STOCK}={os.environ[STOCK]})"
    return f"proxies: ours only; the stock one was left out, since {STOCK} names none"
