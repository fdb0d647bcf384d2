"""A connection that is open when a policy stops allowing it is closed, and no new one is let in."""

import time

from e2e.conftest import OPAQUE_PORT, pod
from e2e.faults.test_cut_link import BANNER, echo
from e2e.pods import Pod
from tulle.testing import LiveMesh

OPAQUE = {"config.linkerd.io/opaque-ports": str(OPAQUE_PORT)}
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: default, annotations: {config.linkerd.io/default-inbound-policy: %s}}
"""
CLOSED_S = 12.0
"""The pods are replaced; the old one may take its time to say farewell."""


async def test_a_namespaces_default_policy_closes_a_live_connection_that_it_no_longer_allows(
    mesh: LiveMesh,
) -> None:
    await mesh.up(pod("client", OPAQUE), pod("server", OPAQUE), NAMESPACE % "all-unauthenticated")
    client, host = Pod(mesh, "client", "", ""), Pod(mesh, "server", "", "")
    try:
        async with (
            host.serving(echo, port=OPAQUE_PORT),
            await client.connect("server", OPAQUE_PORT) as stream,
        ):
            await stream.send(BANNER)
            assert await stream.exactly(len(BANNER)) == BANNER

            begun = time.monotonic()
            assert await mesh.write("2.yaml", NAMESPACE % "deny") == ()

            assert await stream.rest() == b""
            closed = time.monotonic() - begun
        print(f"closed after {closed:.1f} s")  # noqa: T201
        assert closed < CLOSED_S
        await mesh.api.wait_ready(30)
        policy = await mesh.api.inbound_policy("server", OPAQUE_PORT)
        assert "authorizations" not in policy
    finally:
        client.close()
        host.close()
