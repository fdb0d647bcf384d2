"""Pods reach what is outside the mesh where the mesh was started with a way out, as far as policy lets them."""

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from tulle.testing import LiveMesh

CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {containers: [{name: client, command: [sleep, infinity]}]}
"""
DENY = """
apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {name: outside}
spec: {networks: [{cidr: ADDRESS/32}], trafficPolicy: Deny}
"""


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


def own_address() -> str | None:
    """Return an address of this machine that is not loopback, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(asking.getsockname()[0])


@pytest.fixture
def outside() -> Iterator[str]:
    """Serve something on this machine, outside the mesh."""
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    with http.server.ThreadingHTTPServer((address, 0), _Hello) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"{address}:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_pod_reaches_what_is_outside_only_with_a_way_out(mesh: LiveMesh, outside: str) -> None:
    await mesh.up(CLIENT)
    closed = await mesh.call("client", f"http://{outside}/")
    await mesh.api.down()

    await mesh.api.up(mesh.folder, egress=True)
    await mesh.api.wait_ready()
    opened = await mesh.call("client", f"http://{outside}/")

    assert closed.status != 200
    assert (opened.status, opened.body) == (200, b"hello")


async def test_an_egress_network_denies_what_no_route_allows(mesh: LiveMesh, outside: str) -> None:
    mesh.folder.mkdir(parents=True)
    (mesh.folder / "client.yaml").write_text(CLIENT)
    (mesh.folder / "egress.yaml").write_text(DENY.replace("ADDRESS", outside.partition(":")[0]))

    await mesh.api.up(mesh.folder, egress=True)
    await mesh.api.wait_ready()

    answer = await mesh.call("client", f"http://{outside}/")
    assert answer.status == 403
    assert answer.headers["l5d-proxy-error"] == "the egress network refuses what no route allows"


async def test_the_mesh_itself_is_not_reached_through_the_way_out(mesh: LiveMesh) -> None:
    mesh.folder.mkdir(parents=True)
    (mesh.folder / "client.yaml").write_text(CLIENT)
    await mesh.api.up(mesh.folder, egress=True)
    await mesh.api.wait_ready()

    answer = await mesh.call("client", "http://10.77.0.1:4150/")

    assert answer.status != 200
