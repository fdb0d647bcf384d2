"""Routes that a client's namespace makes for itself."""

from e2e.conftest import kind, pod
from e2e.pods import Pod
from e2e.routes.rig import answering, asking, is_from, service, until
from tulle.testing import LiveMesh

PORT = 9001
CONSUMER = """
apiVersion: v1
kind: Namespace
metadata: {name: depot}
---
apiVersion: v1
kind: Pod
metadata: {name: consumer, namespace: depot, annotations: {linkerd.io/inject: enabled}}
spec: {containers: [{name: main, command: [sleep, infinity]}]}
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: of-depot, namespace: depot}
spec:
  parentRefs: [{group: "", kind: Service, name: shared, namespace: default, port: 80}]
  rules: [{backendRefs: [{name: special, namespace: default, port: 80}]}]
"""


async def test_a_consumer_s_route_changes_its_own_namespace_s_requests_alone(live_mesh: LiveMesh) -> None:
    texts = [pod(name, kind("ours")) for name in ("client", "usual", "special-pod")]
    services = [service("shared", "usual", PORT), service("special", "special-pod", PORT)]
    await live_mesh.up(*texts, *services, CONSUMER)
    names = ("client", "consumer", "usual", "special-pod")
    client, consumer, usual, special = (Pod(live_mesh, name, "", "") for name in names)
    other, own = asking(client, "shared.default"), asking(consumer, "shared.default")
    try:
        async with answering(usual, port=PORT), answering(special, port=PORT):
            for ask in (other, own):
                await until(ask, is_from(usual), "the service answers")

            assert await live_mesh.write("route.yaml", ROUTE) == ()
            await until(own, is_from(special), "the consumer's route is in force")
            assert is_from(usual)(await other())

            await live_mesh.remove("route.yaml")
            await until(own, is_from(usual), "the service answers again")
    finally:
        for each in (client, consumer, usual, special):
            each.close()
