"""A proxy that is asked to end lets what is in flight finish, uploads that are half done included."""

import asyncio
import contextlib
import hashlib
import signal

import pytest

from e2e.faults.steady import CLIENT, loading, server
from e2e.pods import Pod, Stream, eventually
from tulle.model.errors import MeshError
from tulle.testing import LiveMesh

HALF = b"h" * 10_000
HEAD = b"POST /?seconds=1 HTTP/1.1\r\nhost: web\r\ncontent-length: 20000\r\n\r\n"


async def answer(stream: Stream) -> tuple[str, dict[str, str], bytes]:
    """Read one answer: its status, its headers and its body."""
    head = (await asyncio.wait_for(stream.reader.readuntil(b"\r\n\r\n"), 15)).decode("latin-1")
    status, *lines = head.rstrip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return status.split(" ")[1], headers, await stream.exactly(int(headers["content-length"]))


async def another(mesh: LiveMesh, pod: str, old: int) -> None:
    """Return when another proxy serves a pod."""

    async def there() -> bool:
        with contextlib.suppress(MeshError):
            return (await mesh.api.state()).ready and await mesh.pid(f"{pod}/proxy") != old
        return False

    await eventually(there, f"another proxy of {pod}", within_s=20)


@pytest.mark.parametrize("whose", ["web", "client"])
async def test_a_proxy_told_to_end_finishes_a_slow_upload(mesh: LiveMesh, whose: str) -> None:
    await mesh.up(CLIENT, server(1))
    pod = Pod(mesh, "client", "", "")
    try:
        async with await pod.connect("web", 80) as stream:
            await stream.send(HEAD + HALF)

            old = await mesh.kill(f"{whose}/proxy", signal.SIGTERM)
            await stream.send(HALF)
            status, headers, body = await answer(stream)

        assert status == "200", body
        assert hashlib.sha256(HALF + HALF).hexdigest() in body.decode()
        if whose == "client":
            assert headers["connection"] == "close"
        await another(mesh, whose, old)
        assert (await mesh.call("client", "http://web/")).status == 200
    finally:
        pod.close()


async def test_ending_each_servers_proxy_under_load_fails_no_request(mesh: LiveMesh) -> None:
    state = await mesh.up(CLIENT, server())
    servers = [pod.name for pod in state.pods if pod.workload == "Deployment/web"]

    async with loading(mesh) as clients:
        for name in servers:
            old = await mesh.kill(f"{name}/proxy", signal.SIGTERM)
            await another(mesh, name, old)
            await clients.more(200)
        await clients.unharmed("SIGTERM to each proxy")
