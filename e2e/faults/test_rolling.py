"""Every pod of a service is replaced, removed or added while clients are busy, and none of them notices."""

from e2e.faults.steady import CLIENT, loading, replaced, server
from e2e.pods import eventually
from tulle.testing import LiveMesh


async def test_replacing_every_replica_under_load_fails_no_request(mesh: LiveMesh) -> None:
    before = await mesh.up(CLIENT, server())

    async with loading(mesh) as clients:
        await mesh.api.restart("web")
        restarted = await replaced(mesh, before, 3)
        await clients.more(500)
        await clients.unharmed("tulle restart")
        assert await mesh.write("1.yaml", server(edition="2")) == ()
        edited = await replaced(mesh, restarted, 3)
        await clients.more(500)
        report = await clients.unharmed("edited manifest")

    assert {pod.name for pod in edited.pods if pod.workload == "Deployment/web"} <= report.servers.keys()


async def test_scaling_up_and_down_under_load_fails_no_request(mesh: LiveMesh) -> None:
    await mesh.up(CLIENT, server())

    async def count() -> int:
        pods = [pod for pod in (await mesh.api.state()).pods if pod.workload == "Deployment/web"]
        return len(pods) if all(pod.ready for pod in pods) else 0

    async with loading(mesh) as clients:
        for replicas in (5, 1, 4, 2):
            await mesh.api.scale("web", replicas)

            async def reached(replicas: int = replicas) -> bool:
                return await count() == replicas

            await eventually(reached, f"{replicas} pods", within_s=40)
            await clients.more(300)
            await clients.unharmed(f"scale to {replicas}")
