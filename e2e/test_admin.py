"""The admin port: where a platform asks for a proxy's health and its numbers."""

from functools import partial

import pytest

from e2e import http1
from e2e.conftest import Field
from e2e.http1 import Recorder, ask, get
from e2e.pods import Pod, eventually

ADMIN_PORT = 4191

# What dashboards read, by what makes a proxy have it.
SERVER_SIDE = {
    "request_total{",
    "response_total{",
    "response_latency_ms_bucket{",
    "inbound_http_authz_allow_total{",
    "inbound_http_requests_total{",
    "inbound_http_statuses_total{",
    "inbound_http_request_duration_seconds_bucket{",
}
CLIENT_SIDE = {
    "request_total{",
    "response_total{",
    "response_latency_ms_bucket{",
    "outbound_http_route_request_statuses_total{",
    "outbound_http_route_request_duration_seconds_bucket{",
    "outbound_http_route_backend_requests_total{",
    "outbound_http_route_backend_response_statuses_total{",
    "outbound_http_route_backend_response_duration_seconds_bucket{",
    "outbound_http_balancer_endpoints{",
}
BOTH = {
    "tcp_open_total{",
    "tcp_open_connections{",
    "tcp_close_total{",
    "tcp_read_bytes_total{",
    "tcp_write_bytes_total{",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "proxy_build_info{",
}
IDENTITY = {"control_identity_cert_expiration_timestamp_seconds", "control_identity_cert_refreshes_total"}


async def fetch(client: Pod, server: Pod, path: str, *, method: str = "GET") -> http1.Message:
    """Ask a pod's admin port."""
    async with await client.connect(server.address, ADMIN_PORT) as stream:
        return await ask(stream, f"{method} {path} HTTP/1.1\r\nhost: admin\r\n\r\n".encode(), method=method)


@pytest.mark.parametrize("client", ["plain-client", "client-ours"])
async def test_health_is_told_to_anyone(field: Field, which: str, client: str) -> None:
    for policy in ("server", "deny"):
        server = field[f"{policy}-{which}"]

        assert (await fetch(field[client], server, "/live")).body == b"live\n"
        assert (await fetch(field[client], server, "/ready")).body == b"ready\n"


async def test_what_changes_a_proxy_is_heard_from_its_own_pod_only(field: Field, which: str) -> None:
    server = field[f"server-{which}"]

    assert (await fetch(field["plain-client"], server, "/proxy-log-level")).status == 403
    assert (await fetch(field["plain-client"], server, "/shutdown", method="POST")).status in (403, 404)


async def test_numbers_are_not_told_where_nobody_is_admitted(field: Field, which: str) -> None:
    assert (await fetch(field["plain-client"], field[f"deny-{which}"], "/metrics")).status == 403


async def test_what_is_not_there_is_not_found(field: Field, which: str) -> None:
    assert (await fetch(field["plain-client"], field[f"server-{which}"], "/nothing")).status == 404


async def test_numbers_have_their_usual_names_and_labels(field: Field, which: str) -> None:
    client, server = field[f"client-{which}"], field[f"server-{which}"]
    async with server.serving(Recorder()) as served:
        async with await client.connect(server.name, served.port) as stream:
            await ask(stream, get())

    at_client = (await fetch(field["plain-client"], client, "/metrics")).body.decode()
    at_server = (await fetch(field["plain-client"], server, "/metrics")).body.decode()

    assert {name for name in BOTH | IDENTITY | CLIENT_SIDE if f"\n{name}" not in at_client} == set()
    assert {name for name in BOTH | IDENTITY | SERVER_SIDE if f"\n{name}" not in at_server} == set()
    assert at_client.endswith("# EOF\n")

    identity = "{}.default.serviceaccount.identity.linkerd.cluster.local"
    port = str(served.port)
    inbound = {
        "direction": "inbound",
        "target_port": port,
        "tls": "true",
        "client_id": identity.format(client.name),
        "srv_kind": "default",
        "srv_name": "all-unauthenticated",
        "route_kind": "default",
        "route_name": "default",
        "authz_kind": "default",
        "authz_name": "all-unauthenticated",
    }
    outbound = {
        "direction": "outbound",
        "target_ip": server.address,
        "target_port": port,
        "tls": "true",
        "server_id": identity.format(server.name),
        "authority": f"{server.name}.default.svc.cluster.local:{port}",
        "dst_namespace": "default",
        "dst_service": server.name,
        "dst_pod": server.name,
        "dst_serviceaccount": server.name,
    }
    outcome = {"status_code": "200", "classification": "success", "grpc_status": "", "error": ""}
    parent = {"parent_kind": "Service", "parent_namespace": "default", "parent_name": server.name}
    route = {**parent, "parent_port": port, "route_name": "http", "http_status": "200", "error": ""}
    wanted = [
        (server, "request_total", inbound),
        (server, "response_total", inbound | outcome),
        (client, "request_total", outbound),
        (client, "response_total", outbound | outcome),
    ]
    if which == "ours":
        # A stock proxy does not show this series for every port that it has used.
        wanted.append((client, "outbound_http_route_request_statuses_total", route))
    for pod, name, labels in wanted:
        # What has ended is counted a moment after the client has heard all of it.
        await eventually(partial(shows, field, pod, name, labels), f"{name} of {pod.name} with {labels}")


async def shows(field: Field, pod: Pod, name: str, labels: dict[str, str]) -> bool:
    """Say whether a pod's numbers have a series that has these labels and has counted something."""
    return counted((await fetch(field["plain-client"], pod, "/metrics")).body.decode(), name, labels)


def counted(text: str, name: str, labels: dict[str, str]) -> bool:
    """Say whether a series of a name that has these labels has counted something."""
    for line in text.splitlines():
        if line.startswith(f"{name}{{"):
            inner, _, value = line.removeprefix(f"{name}{{").rpartition("} ")
            pairs = (pair.partition("=") for pair in inner.split('",'))
            own = {key: text.strip('"') for key, _, text in pairs}
            if own.items() >= labels.items() and float(value) > 0:
                return True
    return False
