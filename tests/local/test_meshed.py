"""Meshed pods on this machine: proxies started, watched and ended with their pods."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.local.machine import Machine, children, eventually, leftovers
from tests.local.manifests import app, published

STOCK = os.environ.get("TULLE_STOCK_PROXY")
OURS = shutil.which("tulle-proxy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(OURS is None, reason="tulle-proxy is not built"),
]

INSIDE = "annotations: {linkerd.io/inject: enabled}"
STOCK_SIDE = "annotations: {linkerd.io/inject: enabled, tulle.dev/proxy-binary: stock}"


def meshed(mesh: Machine, name: str, annotations: str = INSIDE, *, replicas: int = 1) -> str:
    return app(mesh, name, annotations=annotations, replicas=replicas)


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (INSIDE, INSIDE),
        pytest.param(
            STOCK_SIDE, INSIDE, marks=pytest.mark.skipif(not STOCK, reason="TULLE_STOCK_PROXY is not set")
        ),
        pytest.param(
            INSIDE, STOCK_SIDE, marks=pytest.mark.skipif(not STOCK, reason="TULLE_STOCK_PROXY is not set")
        ),
    ],
    ids=["ours", "stock to ours", "ours to stock"],
)
async def test_meshed_pods_prove_who_they_are(mesh: Machine, client: str, server: str) -> None:
    await mesh.up(meshed(mesh, "web", client) + published(mesh) + meshed(mesh, "api", server))

    headers = await mesh.fetch("http://api/headers")

    identity = "default.default.serviceaccount.identity.linkerd.cluster.local"
    assert (await mesh.pod("api"))["identity"] == identity
    assert headers["l5d-client-id"] == identity


async def test_a_pod_that_is_not_meshed_can_be_called_and_call(mesh: Machine) -> None:
    await mesh.up(app(mesh) + published(mesh) + meshed(mesh, "api"))

    headers = await mesh.fetch("http://api/headers")

    assert "l5d-client-id" not in headers
    assert (await mesh.pod("web"))["note"].startswith("not meshed: ")


async def test_the_proxy_is_out_of_the_applications_sight(mesh: Machine) -> None:
    await mesh.up(meshed(mesh, "web") + published(mesh))

    assert len(await mesh.ask("processes")) <= 3
    for place in ("/tulle", str(mesh.state_dir), str(mesh.persistent_dir)):
        with pytest.raises(OSError, match="No such file"):
            await mesh.ask("list", path=place)


@pytest.mark.parametrize("victim", ["tulle-proxy", "tulle.serve.controller"])
async def test_a_killed_part_of_the_mesh_comes_back(mesh: Machine, victim: str) -> None:
    await mesh.up(meshed(mesh, "web") + published(mesh) + meshed(mesh, "api"))
    victims = children(mesh.init, victim)
    assert victims

    for process in victims:
        os.kill(process, signal.SIGKILL)

    await eventually(lambda: _others(mesh, victim, victims), f"{victim} did not come back")
    await mesh.settled()
    await eventually(lambda: mesh.fetch("http://api/"), "no answer")


async def test_clients_do_not_notice_that_the_controller_was_killed(mesh: Machine) -> None:
    await mesh.up(meshed(mesh, "web") + published(mesh) + meshed(mesh, "api"))
    await mesh.fetch("http://api/")
    (controller,) = children(mesh.init, "tulle.serve.controller")

    os.kill(controller, signal.SIGKILL)

    async def back() -> bool:
        await mesh.fetch("http://api/")  # each one has to succeed, while the controller is away too
        return _others(mesh, "tulle.serve.controller", [controller])

    while not await back():
        pass


def _others(mesh: Machine, wanted: str, before: list[int]) -> bool:
    current = children(mesh.init, wanted)
    return len(current) == len(before) and not set(current) & set(before)


async def test_the_proxy_of_a_job_ends_with_it(mesh: Machine) -> None:
    await mesh.up(
        f"""
apiVersion: batch/v1
kind: Job
metadata: {{name: work}}
spec:
  template:
    metadata: {{{INSIDE}}}
    spec:
      restartPolicy: Never
      containers: [{{name: main, command: ["true"]}}]
---
"""
    )

    pods = await mesh.pods("work")

    assert [pod["phase"] for pod in pods] == ["Succeeded"]
    await eventually(lambda: len(children(mesh.init, "tulle-proxy")) == 1, "its proxy still runs")


async def test_a_rolling_restart_of_meshed_pods_loses_no_request(mesh: Machine) -> None:
    await mesh.up(meshed(mesh, "web") + published(mesh) + meshed(mesh, "api", replicas=2))
    before = {pod["name"] for pod in await mesh.pods("api")}

    await mesh.post("/v1/restart", workload="api")

    answers = set()
    while before & {pod["name"] for pod in await mesh.pods("api")}:
        answers.add(await mesh.fetch("http://api/"))
    assert before & answers


async def test_nothing_is_left_of_a_meshed_mesh_that_was_killed(mesh: Machine) -> None:
    await mesh.up(meshed(mesh, "web") + published(mesh))
    assert mesh.process is not None

    os.kill(mesh.init, signal.SIGKILL)
    await mesh.process.communicate()

    await eventually(lambda: not leftovers(mesh.base), "something is left")
