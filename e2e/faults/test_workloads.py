"""Jobs end, with their proxies; an application's proxy is there before it and after it; a lone replica is waited for."""

import contextlib
import sqlite3
import time
from pathlib import Path

import msgspec

from e2e.faults.steady import CLIENT, HERE, PYTHON, loading, server
from e2e.pods import eventually
from tulle.testing import LiveMesh

JOB = f"""
apiVersion: batch/v1
kind: Job
metadata: {{name: errand}}
spec:
  completions: 2
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: main, command: [{PYTHON}, {HERE / "farewell.py"}]}}
---
"""
GUEST = f"""
apiVersion: v1
kind: Pod
metadata: {{name: guest}}
spec:
  containers:
  - {{name: main, command: [{PYTHON}, {HERE / "farewell.py"}, --stay]}}
---
"""
FINDER = Path(__file__).parents[2] / "examples" / "vaccine-finder" / "manifests"
BOOKED = 40


def log(mesh: LiveMesh, pod: str) -> str:
    """Return what a pod's application said, also when the pod is gone."""
    return (mesh.api.places.state / "logs" / "default" / pod / "main.log").read_text()


async def test_a_jobs_proxy_ends_with_the_job(mesh: LiveMesh) -> None:
    await mesh.up(server(1), ready=False)
    await mesh.api.wait_ready(60)
    assert await mesh.write("job.yaml", JOB) == ()

    async def done() -> bool:
        jobs = [pod for pod in (await mesh.api.state()).pods if pod.workload == "Job/errand"]
        return len(jobs) == 2 and all(pod.phase == "Succeeded" for pod in jobs)

    await eventually(done, "two completions", within_s=40)
    jobs = [pod for pod in (await mesh.api.state()).pods if pod.workload == "Job/errand"]
    assert all(pod.meshed and pod.restarts == 0 for pod in jobs)
    assert [log(mesh, pod.name) for pod in jobs] == ["first: 200\n", "first: 200\n"]

    def proxies() -> int:
        return sum("tulle-proxy" in line.split(" ", 1)[0] for line in mesh.processes().values())

    await eventually(
        lambda: proxies() == 2, "the end of the jobs' proxies; the server's and the controller's stay"
    )


async def test_the_proxy_is_there_before_the_application_and_after_it(mesh: LiveMesh) -> None:
    await mesh.up(server(1))
    assert await mesh.write("guest.yaml", GUEST) == ()

    async def greeted() -> bool:
        try:
            return log(mesh, "guest").endswith("\n")
        except OSError:
            return False

    await eventually(greeted, "the first call", within_s=30)
    assert await mesh.remove("guest.yaml") == ()

    async def left() -> bool:
        return all(pod.name != "guest" for pod in (await mesh.api.state()).pods)

    await eventually(left, "the end of the pod", within_s=30)
    assert log(mesh, "guest") == "first: 200\nlast: 200\n"


async def test_a_killed_container_costs_idempotent_requests_little(mesh: LiveMesh) -> None:
    state = await mesh.up(CLIENT, server())
    victim = next(pod.name for pod in state.pods if pod.workload == "Deployment/web")

    async with loading(mesh, methods="GET") as clients:
        begun = time.monotonic()
        old = await mesh.kill(victim)

        async def recovered() -> bool:
            state = await mesh.api.state()
            pod = next(pod for pod in state.pods if pod.name == victim)
            return pod.ready and pod.restarts > 0 and old not in mesh.processes()

        await eventually(recovered, "the container's return", within_s=20)
        returned = time.monotonic() - begun
        report = await clients.more(1000)

    print(f"{report.failed} of {report.done} failed; ready again after {returned:.1f} s")  # noqa: T201
    assert report.failed <= 50, report.failures
    assert report.slowest_ms < 3000


async def test_callers_bridge_the_restart_of_a_lone_replica(mesh: LiveMesh) -> None:
    publish = ["28080=vaccine-finder/web:8080"]
    await mesh.api.up(FINDER, publish=publish)
    await mesh.api.wait_ready(120)
    visitors = "vaccine-finder/visitors"

    async def report() -> Visits:
        return msgspec.json.decode((await mesh.call(visitors, "http://127.0.0.1:8080/")).body, type=Visits)

    async def rate(per_second: int) -> None:
        url = f"http://127.0.0.1:8080/rate?per_second={per_second}"
        assert (await mesh.call(visitors, url, method="PUT")).status == 200

    async def sold(least: int) -> bool:
        return (await report()).sold >= least

    await rate(10)
    await eventually(lambda: sold(1), "a booking", within_s=30)
    before = (await mesh.api.pod("vaccine-finder/slots-0")).pid

    await mesh.api.restart("slots")

    async def restarted() -> bool:
        state = await mesh.api.state()
        return state.ready and any(
            pod.name == "slots-0" and pod.pid not in (None, before) for pod in state.pods
        )

    await eventually(restarted, "another slots-0", within_s=40)
    so_far = (await report()).sold
    await eventually(lambda: sold(so_far + BOOKED), f"{BOOKED} more bookings", within_s=40)
    await rate(0)

    async def quiet() -> bool:
        return (await report()).under_way == 0

    await eventually(quiet, "the end of every visit", within_s=40)
    after = await report()
    print(after)  # noqa: T201
    assert after.failures == {}
    # A booking that was sent twice would be there twice, one that was lost not at all.
    assert len(bookings(mesh)) == after.sold


class Visits(msgspec.Struct):
    """What became of the visitors."""

    under_way: int
    outcomes: dict[str, int]
    failures: dict[str, int]

    @property
    def sold(self) -> int:
        """How many bookings were confirmed."""
        return self.outcomes.get("booked", 0) + self.outcomes.get("cancelled", 0)


def bookings(mesh: LiveMesh) -> list[tuple[int, str]]:
    """Return every booking that was ever made, from the claim of the mesh that runs."""
    file = next((mesh.api.places.persistent / "volumes").rglob("slots.db"))
    with contextlib.closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT site, starts FROM booking").fetchall()
