"""The controller dies and comes back without knowing anything: clients go on, on what their proxies have learnt.

The supervisor is its only source. Stopped with SIGSTOP as soon as it has started the new controller, it keeps that
one from knowing the world: a controller that answered too early would empty every proxy. That it starts nothing
meanwhile is why the new controller is waited for first.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable

import pytest

from e2e.faults.steady import CLIENT, PYTHON, loading, server
from e2e.pods import eventually
from tulle.mesh import FETCH
from tulle.model.errors import NotFound
from tulle.testing import LiveMesh

HELD_S = 5.0
IDLE_S = 3.0
FORGETFUL = {
    "config.linkerd.io/proxy-outbound-discovery-cache-unused-timeout": "1s",
    "config.linkerd.io/proxy-inbound-discovery-cache-unused-timeout": "1s",
}
"""Idle limits that are over many times while the clients are silent."""


def forgetful(manifest: str) -> str:
    """Return a manifest whose pod forgets what it does not use."""
    told = ", ".join(f"{name}: {value}" for name, value in FORGETFUL.items())
    return manifest.replace("labels: {app: client}", f"labels: {{app: client}}, annotations: {{{told}}}")


@contextlib.asynccontextmanager
async def endpoints_of(mesh: LiveMesh, pod: str) -> AsyncIterator[Callable[[], list[float]]]:
    """Look all the time at how many endpoints a pod's proxy balances over; hand out what was seen."""
    command = await mesh.api.exec_arguments(pod, [PYTHON, "-c", FETCH, "http://127.0.0.1:4191/metrics"])
    seen: list[float] = []

    async def look() -> None:
        while True:
            said = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, timeout=10)
            for line in said.stdout.decode().splitlines():
                if line.startswith("outbound_http_balancer_endpoints{") and '"ready"' in line:
                    seen.append(float(line.rpartition(" ")[2]))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield lambda: list(seen)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def another_controller(mesh: LiveMesh, old: int) -> int:
    """Return the number of the controller that follows one that was killed."""
    found = 0

    async def there() -> bool:
        nonlocal found
        with contextlib.suppress(NotFound):
            found = await mesh.pid("controller")
        return found not in (0, old)

    await eventually(there, "another controller", within_s=10)
    return found


async def let_pass(seconds: float) -> None:
    """Return when a span is over that is itself what the test is about."""
    end = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() >= end, "time to pass", within_s=seconds + 5)


@pytest.mark.parametrize("idle", [False, True], ids=["busy", "idle"])
async def test_a_killed_controller_that_comes_back_ignorant_fails_no_request(
    mesh: LiveMesh, idle: bool
) -> None:
    await mesh.up(forgetful(CLIENT), server(annotations=", ".join(f"{k}: {v}" for k, v in FORGETFUL.items())))
    async with loading(mesh) as clients, endpoints_of(mesh, "client") as seen:
        if idle:
            await clients.pause()
            await let_pass(IDLE_S)
        supervisor = await mesh.pid("supervisor")

        controller = await mesh.kill("controller")
        await another_controller(mesh, controller)
        os.kill(supervisor, signal.SIGSTOP)
        try:
            if idle:
                await let_pass(IDLE_S)
                await clients.go()
            await let_pass(HELD_S)
            held = await clients.unharmed("held back")
        finally:
            os.kill(supervisor, signal.SIGCONT)
        returned = time.monotonic()
        await mesh.api.scale("web", 4)

        async def converged() -> bool:
            return len((await clients.report()).servers) == 4

        await eventually(converged, "a fourth replica serves", within_s=15)
        print(f"a new replica served {time.monotonic() - returned:.1f} s after the source's return")  # noqa: T201
        report = await clients.unharmed("returned")

    assert time.monotonic() - returned < 10
    assert set(seen()) <= {3.0, 4.0}, "a proxy was sent other sets than the three replicas, then four"
    assert report.done > held.done > 500
