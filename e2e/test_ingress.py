"""An ingress in the mesh: requests say which service they are for, whichever pod it connects to."""

from functools import partial

from e2e import http1
from e2e.pods import Pod
from e2e.routes.rig import answering, is_from, is_status, until
from tulle.testing import LiveMesh

PORT = 8080
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{linkerd.io/inject: {mode}}}}}
spec: {{containers: [{{name: main, command: [sleep, infinity], ports: [{{containerPort: 8080}}]}}]}}
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
"""
MANIFESTS = "".join(
    [
        POD.format(name="gate", mode="ingress"),
        *(POD.format(name=name, mode="enabled") + SERVICE.format(name=name) for name in ("one", "two")),
    ]
)


async def ask(gate: Pod, address: str, host: str, override: str = "") -> http1.Message:
    """Make one request from the ingress to a pod's address."""
    more = f"l5d-dst-override: {override}\r\n" if override else ""
    async with await gate.connect(address, PORT) as stream:
        return await http1.ask(stream, http1.get("/", host=host, more=more))


async def test_an_ingress_says_by_header_or_host_which_service_a_request_is_for(live_mesh: LiveMesh) -> None:
    state = await live_mesh.up(MANIFESTS)
    pods = {pod.name: Pod(live_mesh, pod.name, pod.addresses[0], "") for pod in state.pods}
    two = "two.default.svc.cluster.local"
    to_one = partial(ask, pods["gate"], pods["one"].address)
    async with answering(pods["one"], port=PORT), answering(pods["two"], port=PORT) as (_, recorder):
        await until(partial(to_one, "shop.example"), is_from(pods["one"]), "the pod itself answers")
        await until(partial(to_one, two), is_from(pods["two"]), "the service of the host answers")
        await until(
            partial(to_one, "shop.example", two), is_from(pods["two"]), "the service of the override answers"
        )
        await until(
            partial(to_one, "shop.example", "nowhere.default.svc.cluster.local"),
            is_status(404),
            "an unknown service is not found",
        )

    assert recorder.seen[-1]["host"] == "shop.example"
    assert recorder.seen[-1]["l5d-dst-override"] is None
