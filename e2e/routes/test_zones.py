"""Endpoints near the client."""

from e2e.conftest import kind, pod
from e2e.http1 import get
from e2e.pods import Pod
from e2e.routes.rig import answering, ask
from tulle.testing import LiveMesh

PORT = 9001
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: near, annotations: {service.kubernetes.io/topology-mode: Auto}}
spec: {selector: {group: near}, ports: [{name: main, port: 80, targetPort: 9001}]}
"""


async def test_a_client_uses_the_endpoints_of_its_zone(live_mesh: LiveMesh) -> None:
    zones = {"client": "b", "first": "a", "second": "b"}
    texts = [
        pod(name, kind("ours") | {"tulle.dev/zone": zone}, group="none" if name == "client" else "near")
        for name, zone in zones.items()
    ]
    await live_mesh.up(*texts, SERVICE)
    client, first, second = (Pod(live_mesh, name, "", "") for name in zones)
    try:
        async with answering(first, port=PORT), answering(second, port=PORT):
            answers = [(await ask(client, "near", get(host="near"))).body for _ in range(20)]
        metrics = await live_mesh.api.proxy_metrics("client")
    finally:
        for each in (client, first, second):
            each.close()

    assert answers == [b"second"] * 20
    assert 'dst_zone="b"' in metrics
    assert 'dst_zone_locality="local"' in metrics
