"""What a test may write in three lines: a port closed to all but some; and probes, which stay open."""

import pytest

from e2e.conftest import kind
from e2e.faults.steady import HERE, PYTHON
from e2e.pods import eventually
from tulle.testing import LiveMesh

CLIENT_IDENTITY = "client.default.serviceaccount.identity.linkerd.cluster.local"
CLIENTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: client}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}, annotations: {linkerd.io/inject: enabled}}
spec: {serviceAccountName: client, containers: [{name: main, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger}, annotations: {linkerd.io/inject: disabled}}
spec: {containers: [{name: main, command: [sleep, infinity]}]}
---
"""
WEB = """
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}, annotations: {{{annotations}}}}}
spec:
  containers:
  - name: main
    command: [{python}, {program}]
    ports: [{{name: http, containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: "/healthz?full=1", port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 8080}}]}}
"""


def web(which: str = "ours", **annotations: str) -> str:
    """Return a server that says that it is well at any path."""
    said = kind(which) | {
        f"config.linkerd.io/{key.replace('_', '-')}": value for key, value in annotations.items()
    }
    listed = ", ".join(f'"{key}": "{value}"' for key, value in said.items())
    return WEB.format(annotations=listed, python=PYTHON, program=HERE / "origin.py")


async def until(live_mesh: LiveMesh, client: str, path: str, status: int) -> None:
    """Return when a client gets this status."""

    async def gets() -> bool:
        return (await live_mesh.call(client, f"http://web:8080{path}")).status == status

    await eventually(gets, f"{client} gets {status} for {path}")


async def test_a_denied_client_is_refused_until_the_manifest_is_gone(live_mesh: LiveMesh) -> None:
    await live_mesh.up(CLIENTS, web())
    assert (await live_mesh.call("client", "http://web:8080/")).status == 200

    denied = await live_mesh.deny("web", 8080)
    await until(live_mesh, "client", "/", 403)
    assert await live_mesh.deny("web", 8080, but=[CLIENT_IDENTITY]) == denied
    await until(live_mesh, "client", "/", 200)
    await until(live_mesh, "stranger", "/", 403)

    await live_mesh.remove(denied)
    await until(live_mesh, "stranger", "/", 200)


async def test_a_probe_stays_open_where_everything_else_is_denied(live_mesh: LiveMesh, which: str) -> None:
    await live_mesh.up(CLIENTS, web(which, default_inbound_policy="deny"))

    await until(live_mesh, "stranger", "/healthz", 200)
    assert (await live_mesh.call("stranger", "http://web:8080/healthz", method="POST")).status == 403
    assert (await live_mesh.call("stranger", "http://web:8080/healthz/more")).status == 403
    assert (await live_mesh.call("client", "http://web:8080/")).status == 403


@pytest.mark.parametrize("path", ["/live", "/ready"])
async def test_anybody_may_ask_whether_a_proxy_lives_and_nobody_else_for_its_metrics(
    live_mesh: LiveMesh, which: str, path: str
) -> None:
    await live_mesh.up(CLIENTS, web(which, default_inbound_policy="deny"))
    address = (await live_mesh.api.pod("web")).addresses[0]

    assert (await live_mesh.call("stranger", f"http://{address}:4191{path}")).status == 200
    assert (await live_mesh.call("stranger", f"http://{address}:4191/metrics")).status == 403
    assert (await live_mesh.call("client", f"http://{address}:4191/metrics")).status == 403
