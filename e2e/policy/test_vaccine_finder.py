"""The policies of the vaccine finder hold while it runs, and its visitors do not notice them."""

import sys
from pathlib import Path

import msgspec

from e2e.pods import eventually
from tulle.testing import LiveMesh

MANIFESTS = Path(__file__).parents[2] / "examples" / "vaccine-finder" / "manifests"
NAMESPACE = "vaccine-finder"
FIND_FAMILY = """
import grpc
call = grpc.insecure_channel("members:8080").unary_unary("/vaccine_finder.members.Members/FindFamily")
try:
    print("OK" if call(b"\\n\\x06100010", timeout=10) else "nothing")
except grpc.RpcError as error:
    print(error.code().name)
"""


async def read_members(mesh: LiveMesh, pod: str) -> str:
    """Ask `members` for a family from inside a pod; return the code."""
    done = await mesh.api.exec(f"{NAMESPACE}/{pod}", [sys.executable, "-c", FIND_FAMILY])
    assert done.code == 0, done.stderr.decode()
    return done.stdout.decode().strip()


async def status(mesh: LiveMesh, pod: str, url: str, *, method: str = "GET") -> int | None:
    return (await mesh.call(f"{NAMESPACE}/{pod}", url, method=method)).status


async def test_the_policies_hold_while_visitors_come(live_mesh: LiveMesh) -> None:
    # Beside the package, as the manifests expect.
    await live_mesh.api.up(MANIFESTS)
    await live_mesh.api.wait_ready(110)

    assert await read_members(live_mesh, "web") == "OK"
    assert await read_members(live_mesh, "slots") == "PERMISSION_DENIED"
    assert await read_members(live_mesh, "visitors") == "PERMISSION_DENIED"

    assert await status(live_mesh, "visitors", "http://slots:8080/free?site=1") == 200
    assert await status(live_mesh, "visitors", "http://slots:8080/healthz") == 200
    assert await status(live_mesh, "visitors", "http://slots:8080/bookings", method="POST") == 403
    assert await status(live_mesh, "web", "http://slots:8080/families/100010/bookings") == 200

    canary = (await live_mesh.api.pod(f"{NAMESPACE}/sites-canary")).name
    for _ in range(3):
        answer = await live_mesh.call(
            f"{NAMESPACE}/web", "http://sites:8080/places", headers={"x-staff": "yes"}
        )
        assert answer.headers["served-by"] == canary

    async def enough() -> bool:
        return await outcomes(live_mesh) >= 10

    await eventually(enough, "ten visitors have come and gone", within_s=60)


async def outcomes(mesh: LiveMesh) -> int:
    """Return how many visitors have come and gone, none of whom failed."""
    answer = await mesh.call(f"{NAMESPACE}/visitors", "http://localhost:8080/")
    report = msgspec.json.decode(answer.body)
    assert not report["failures"], report
    return sum(report["outcomes"].values())
