"""The admin port: where a platform asks for a proxy's health and its numbers."""

import pytest

from e2e import http1
from e2e.conftest import Field
from e2e.http1 import Recorder, ask, get
from e2e.pods import Pod

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
    [requests] = series(at_server, "request_total", direction="inbound", target_port=str(served.port))
    assert requests["tls"] == "true"
    assert requests["client_id"] == identity.format(client.name)
    assert (requests["srv_kind"], requests["srv_name"]) == ("default", "all-unauthenticated")
    assert (requests["route_kind"], requests["route_name"]) == ("default", "default")
    assert (requests["authz_kind"], requests["authz_name"]) == ("default", "all-unauthenticated")

    [requests] = series(at_client, "request_total", direction="outbound", target_port=str(served.port))
    assert requests["tls"] == "true"
    assert requests["server_id"] == identity.format(server.name)
    assert requests["authority"] == f"{server.name}.default.svc.cluster.local:{served.port}"
    assert requests["target_ip"] == server.address
    assert (requests["dst_namespace"], requests["dst_service"]) == ("default", server.name)
    assert (requests["dst_pod"], requests["dst_serviceaccount"]) == (server.name, server.name)

    for text, direction in ((at_client, "outbound"), (at_server, "inbound")):
        [responses] = series(text, "response_total", direction=direction, target_port=str(served.port))
        assert (responses["status_code"], responses["classification"]) == ("200", "success")
        assert (responses["grpc_status"], responses["error"]) == ("", "")

    [statuses] = series(
        at_client,
        "outbound_http_route_request_statuses_total",
        parent_name=server.name,
        parent_port=str(served.port),
    )
    assert (statuses["http_status"], statuses["error"], statuses["route_name"]) == ("200", "", "http")
    assert (statuses["parent_kind"], statuses["parent_namespace"]) == ("Service", "default")


def series(text: str, name: str, **labels: str) -> list[dict[str, str]]:
    """Return the labels of the series of a name that have these labels, and have counted something."""
    found = []
    for line in text.splitlines():
        if not line.startswith(f"{name}{{"):
            continue
        inner, _, value = line.removeprefix(f"{name}{{").rpartition("} ")
        pairs = dict(pair.split("=", 1) for pair in inner.split('",') if "=" in pair)
        own = {key: value.strip('"') for key, value in pairs.items()}
        if own.items() >= labels.items() and float(value) > 0:
            found.append(own)
    return found
