"""What the pages about traffic show is so in a running mesh."""

import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

from e2e import http1
from e2e.pods import Pod, eventually
from e2e.routes.test_egress import OUTSIDE, change_network
from tests.test_docs import APPLICATION, DOCS, blocks
from tulle.testing import Answer, LiveMesh

PLAIN = """
apiVersion: v1
kind: Pod
metadata: {name: outside, annotations: {linkerd.io/inject: disabled}}
spec:
  containers:
    - name: main
      command: [python3, -m, http.server, "8080", --directory, /usr/share]
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Namespace
metadata: {name: default, annotations: {linkerd.io/inject: enabled}}
"""


async def page(mesh: LiveMesh, name: str) -> None:
    """Start the application with the manifests of a page."""
    await mesh.up(APPLICATION, "".join(blocks(Path(DOCS, f"{name}.md"), "yaml")))


def members(
    mesh: LiveMesh, path: str = "/", *, service: str = "members", **options: str
) -> "partial[Answer]":
    """Return what calls the application's Service."""
    method = options.pop("method", "GET")
    headers = {key.replace("_", "-"): value for key, value in options.items()}
    return partial(mesh.call, "web", f"http://{service}:8080{path}", method=method, headers=headers)


async def pods(mesh: LiveMesh) -> dict[str, Pod]:
    """Return the application's pods as places to make connections in."""
    return {pod.name: Pod(mesh, pod.name, *pod.addresses) for pod in await mesh.api.pods()}


async def posts(mesh: LiveMesh) -> int:
    """Return how many POSTs the application has seen."""
    return "".join([text async for text in mesh.api.logs("members")]).count('"POST ')


async def test_the_page_about_routing_holds(live_mesh: LiveMesh) -> None:
    await page(live_mesh, "routing")

    seen = Counter([(await members(live_mesh, "/doc/")()).status for _ in range(120)])
    staff = await members(live_mesh, "/doc/", x_staff="yes")()
    moved = await members(live_mesh, "/old")()
    plain = await members(live_mesh)()

    # Only the stable version has this path. Twelve are expected elsewhere; none, or more than 40, is one case in 300,000.
    assert seen[200] + seen[404] == 120
    assert 1 <= seen[404] <= 40
    assert staff.status == 404
    assert (moved.status, moved.headers["location"].rpartition(":8080")[2]) == (308, "/")
    assert plain.headers["x-routed"] == "yes"


async def test_the_page_about_retries_holds(live_mesh: LiveMesh) -> None:
    await page(live_mesh, "retries-and-timeouts")

    # The application has no answer to a POST but 501, which it is asked for three times.
    assert (await members(live_mesh, method="POST")()).status == 501

    async def seen() -> bool:
        return await posts(live_mesh) == 3

    await eventually(seen, "three tries reach the application")
    await live_mesh.kill("members", signal.SIGSTOP)
    try:
        begun = time.monotonic()
        late = await members(live_mesh)()
        took = time.monotonic() - begun
    finally:
        await live_mesh.kill("members", signal.SIGCONT)
    assert late.status == 504
    assert 1.4 < took < 6


async def test_the_page_about_breakers_holds(live_mesh: LiveMesh) -> None:
    await page(live_mesh, "circuit-breaking")
    web = (await pods(live_mesh))["web"]

    async def status(method: str = "GET") -> int:
        async with await web.connect("members-guarded", 8080) as stream:
            request = f"{method} / HTTP/1.1\r\nhost: members-guarded\r\ncontent-length: 0\r\n\r\n"
            return (await http1.ask(stream, request.encode())).status

    async def is_back() -> bool:
        return await status() == 200

    assert await status() == 200
    assert [await status("POST") for _ in range(3)] == [501, 501, 501]
    assert await status() == 504
    await eventually(is_back, "the endpoint is tried again", within_s=40)


async def test_the_page_about_egress_holds(live_mesh: LiveMesh) -> None:
    await live_mesh.up(APPLICATION, PLAIN)
    there = await pods(live_mesh)
    await change_network(there["outside"], "address", "replace", f"{OUTSIDE}/32", "dev", "eth0")
    await change_network(there["web"], "route", "replace", f"{OUTSIDE}/32", "dev", "eth0")

    async def status(path: str, host: str) -> int | None:
        url = f"http://{OUTSIDE}:8080{path}"
        return (await live_mesh.call("web", url, headers={"host": host})).status

    async def is_refused() -> bool:
        return await status("/", "other.example") == 403

    assert await status("/", "other.example") == 200
    assert await live_mesh.write("page.yaml", "".join(blocks(Path(DOCS, "egress.md"), "yaml"))) == ()
    await eventually(is_refused, "what no route takes is refused")
    assert await status("/doc/", "docs.example") == 200
    assert await status("/", "docs.example") == 403


async def test_the_page_about_profiles_holds(live_mesh: LiveMesh) -> None:
    await page(live_mesh, "service-profiles")

    answer = await members(live_mesh, "/doc/")()

    metrics = await live_mesh.api.proxy_metrics("web")
    assert answer.status == 200
    assert 'rt_route="GET /doc"' in metrics
    assert 'dst_service="members-next"' in metrics
