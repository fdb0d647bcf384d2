"""A connection that is open when a policy stops allowing it is closed, and no new one is let in."""

import asyncio

from e2e.conftest import OPAQUE_PORT, pod
from e2e.faults.test_cut_link import BANNER, echo
from e2e.pods import Pod, eventually
from tulle.testing import LiveMesh

OPAQUE = {"config.linkerd.io/opaque-ports": str(OPAQUE_PORT)}
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: default, annotations: {config.linkerd.io/default-inbound-policy: %s}}
"""
CLOSED_S = 5.0


async def test_a_server_resource_closes_a_live_connection_that_it_no_longer_allows(mesh: LiveMesh) -> None:
    await mesh.up(pod("client", OPAQUE), pod("server", OPAQUE))
    client, host = Pod(mesh, "client", "", ""), Pod(mesh, "server", "", "")
    try:
        async with (
            host.serving(echo, port=OPAQUE_PORT) as served,
            await client.connect("server", OPAQUE_PORT) as stream,
        ):
            await stream.send(BANNER)
            assert await stream.exactly(len(BANNER)) == BANNER

            denied = await mesh.deny("server", OPAQUE_PORT)

            async with asyncio.timeout(CLOSED_S):
                assert await stream.rest() == b""
            async with await client.connect("server", OPAQUE_PORT) as refused:
                refused.write(BANNER)
                assert await refused.rest() == b""
            assert served.accepted == 1
            assert await mesh.remove(denied) == ()

            async def allowed() -> bool:
                async with await client.connect("server", OPAQUE_PORT) as again:
                    again.write(BANNER)
                    return await again.read(len(BANNER)) == BANNER

            await eventually(allowed, "a connection after the policy is gone")
    finally:
        client.close()
        host.close()


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

            assert await mesh.write("2.yaml", NAMESPACE % "deny") == ()

            async with asyncio.timeout(CLOSED_S):
                assert await stream.rest() == b""
    finally:
        client.close()
        host.close()
