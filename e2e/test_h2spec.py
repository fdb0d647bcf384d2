"""h2spec, the conformance suite of HTTP/2, against both directions of the proxy, and over the mesh's TLS."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e import bridges, credentials, http2
from e2e.conftest import Field
from e2e.pods import Stream

TOOL = Path(__file__).parents[1] / "tools" / "h2spec"
PACKAGE = "github.com/summerwind/h2spec/cmd/h2spec"
BUILD_S = 300
RUN_S = 100
INBOUND_PORT = 4143
NAME = "{}.default.serviceaccount.identity.linkerd.cluster.local"


@pytest.fixture(scope="module")
def h2spec() -> str:
    """Return the program: that of TULLE_H2SPEC, or built from its Go module."""
    if given := os.environ.get("TULLE_H2SPEC"):
        return given
    if shutil.which("go") is None:
        pytest.skip("h2spec is written in Go, which is not installed: apt-get install golang")
    target = Path(__file__).parents[1] / "target" / "tools" / "h2spec"
    if not target.exists():
        subprocess.run(["go", "build", "-o", target, PACKAGE], cwd=TOOL, check=True, timeout=BUILD_S)
    return str(target)


async def report(program: str, connect: bridges.Connect) -> str:
    """Run every case over connections that `connect` makes, and return what was said of them."""
    async with bridges.loopback(connect) as (host, port):
        process = await asyncio.create_subprocess_exec(
            program,
            *("--strict", "--host", host, "--port", str(port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(RUN_S):
            said, _ = await process.communicate()
    return said.decode()


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.timeout(BUILD_S + RUN_S)
async def test_every_case_passes_in_plaintext(field: Field, h2spec: str, direction: str) -> None:
    client = field["plain-client" if direction == "inbound" else "client-ours"]
    server = field["server-ours" if direction == "inbound" else "plain-server"]

    async with server.serving(http2.Server()) as served:
        said = await report(h2spec, lambda: client.connect(server.name, served.port))

    assert "146 tests, 146 passed, 0 skipped, 0 failed" in said, said


@pytest.mark.timeout(BUILD_S + RUN_S)
async def test_every_case_passes_over_the_meshes_tls(field: Field, h2spec: str) -> None:
    server, name = field["server-ours"], NAME.format("client-ours")
    identity = credentials.issue(credentials.of_mesh(field.mesh), name)
    context = credentials.client(credentials.roots(field.mesh), identity)

    async def connect() -> Stream:
        stream = await field["plain-client"].connect(server.address, INBOUND_PORT)
        await stream.writer.start_tls(context, server_hostname=NAME.format(server.name))
        stream.write(credentials.header(served.port, "http2"))
        return stream

    async with server.serving(http2.Server()) as served:
        said = await report(h2spec, connect)

    assert "146 tests, 146 passed, 0 skipped, 0 failed" in said, said
