"""Authorization by route and by network, and what stays open under it."""

import socket

import pytest

from e2e import bridges, grpcs
from e2e.conftest import Field, Pair
from e2e.http1 import Message, Recorder, answer, ask, get
from e2e.pods import Pod, eventually
from e2e.policy.rules import NAMES, allow, allow_names, applied, fresh, identity, joined, owned, server

GATEWAY = "gateway.networking.k8s.io"
HTTP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: {server}}}]
  rules: [{{matches: [{{method: {method}, path: {{type: PathPrefix, value: {path}}}}}]{filters}}}]
"""
GRPC_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: {server}}}]
  rules: [{{matches: [{{method: {{service: {service}, method: {method}}}}}]}}]
"""
NETWORK = """
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {{name: {name}}}
spec: {{networks: [{{cidr: {cidr}, except: ["{excepted}"]}}]}}
"""
HEADER = (
    ", filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-route, value: read}]}}]"
)
MOVED = (
    ", filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, "
    "replaceFullPath: /read}, statusCode: 302}}]"
)


def http_route(name: str, of: str, path: str, *, method: str = "GET", filters: str = "") -> str:
    return HTTP_ROUTE.format(name=name, server=of, path=path, method=method, filters=filters)


def allow_route(name: str, route: str, by: str, kind: str = "HTTPRoute") -> str:
    return allow(name, target=route, by=by, kind=kind, group=GATEWAY)


async def asked(client: Pod, of: Pod, port: int, path: str, *, family: int = socket.AF_INET) -> Message:
    async with await client.connect(of.name, port, family=family) as stream:
        return await ask(stream, get(path))


async def test_each_route_lets_in_whom_its_own_policies_name_besides_those_of_the_server(
    field: Field, pair: Pair
) -> None:
    port, name = pair.server.next_port(), fresh("routed")
    client, other = pair.client, field["deny-ours"]
    read, write, old = f"{name}-read", f"{name}-write", f"{name}-old"
    text = joined(
        server(name, pair.server, port, "HTTP/1"),
        http_route(read, name, "/read", filters=HEADER),
        http_route(write, name, "/write"),
        http_route(old, name, "/old", filters=MOVED),
        NAMES.format(name=f"{name}-reader", identities=identity(client)),
        NAMES.format(name=f"{name}-writer", identities=identity(other)),
        allow_route(read, read, f"{name}-reader"),
        allow_route(old, old, f"{name}-reader"),
        allow(name, target=name, by=f"{name}-writer"),
    )
    recorder = Recorder()

    async def status(who: Pod, path: str) -> int:
        return (await asked(who, pair.server, port, path)).status

    async def in_force() -> bool:
        return await status(client, "/elsewhere") == 404

    async with applied(field, text), pair.server.serving(recorder, port=port):
        await eventually(in_force, "the routes are in force")
        recorder.seen.clear()

        assert [await status(client, path) for path in ("/read/all", "/write", "/readall")] == [200, 403, 404]
        assert [await status(other, path) for path in ("/read", "/write/x")] == [200, 200]
        assert await status(field["plain-client"], "/read") == 403
        moved = await asked(client, pair.server, port, "/old")

    assert (moved.status, (moved["location"] or "").endswith("/read")) == (302, True)
    assert [(of.target, of["x-route"]) for of in recorder.seen] == [
        ("/read/all", "read"),
        ("/read", "read"),
        ("/write/x", None),
    ]


async def test_each_method_of_a_grpc_service_has_its_own_clients(field: Field, pair: Pair) -> None:
    port, name = pair.server.next_port(), fresh("routed")
    text = joined(
        server(name, pair.server, port, "gRPC"),
        GRPC_ROUTE.format(name=f"{name}-one", server=name, service=grpcs.SERVICE, method="Unary"),
        GRPC_ROUTE.format(name=f"{name}-two", server=name, service=grpcs.SERVICE, method="Wait"),
        NAMES.format(name=f"{name}-client", identities=identity(pair.client)),
        allow_route(name, f"{name}-one", f"{name}-client", "GRPCRoute"),
    )

    async def code(client: Pod, method: str) -> str:
        async with bridges.into(client, pair.server.name, port) as entrance:
            async with grpcs.channel(entrance) as channel:
                return (await grpcs.unary(channel, b"x", method=f"/{grpcs.SERVICE}/{method}", timeout=5)).code

    async def in_force() -> bool:
        return await code(pair.client, "Wait") == "StatusCode.PERMISSION_DENIED"

    async with applied(field, text), grpcs.server() as (_, address):
        async with bridges.out_of(pair.server, address, port=port):
            await eventually(in_force, "the routes are in force")

            assert await code(pair.client, "Unary") == "StatusCode.OK"
            assert await code(pair.client, "Nothing") == "StatusCode.NOT_FOUND"
            assert await code(field["plain-client"], "Unary") == "StatusCode.PERMISSION_DENIED"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
async def test_a_network_lets_in_its_addresses_but_for_the_exceptions(
    field: Field, which: str, family: int
) -> None:
    of = field[f"server-{which}"]
    welcome, unwelcome = field["plain-server"], field["plain-client"]
    port, name = of.next_port(), fresh("network")
    four = family == socket.AF_INET
    text = joined(
        server(name, of, port),
        NETWORK.format(
            name=name,
            cidr="10.77.0.0/16" if four else "fd77::/64",
            excepted=unwelcome.address if four else unwelcome.address6,
        ),
        allow(name, target=name, by=name, authentication="NetworkAuthentication"),
    )

    async def status(client: Pod) -> int:
        return (await asked(client, of, port, "/", family=family)).status

    async def in_force() -> bool:
        return await status(unwelcome) == 403

    async with applied(field, text), of.serving(Recorder(), port=port):
        await eventually(in_force, "the network's policy is in force")

        assert await status(welcome) == 200
        assert await status(unwelcome) == 403


async def test_an_authentication_that_is_not_there_lets_nobody_in(field: Field, which: str) -> None:
    of, client = field[f"server-{which}"], field["client-ours"]
    port, name = of.next_port(), fresh("missing")
    text = joined(server(name, of, port), allow(name, target=name, by=f"{name}-later"))

    async def status() -> int:
        return (await asked(client, of, port, "/")).status

    async def refused() -> bool:
        return await status() == 403

    async def served() -> bool:
        return await status() == 200

    async with applied(field, text), of.serving(Recorder(), port=port):
        await owned(field, of, port, name)
        await eventually(refused, "nobody is let in")
        async with applied(field, NAMES.format(name=f"{name}-later", identities=identity(client))):
            await eventually(served, "the client is let in as soon as the authentication is there")
        await eventually(refused, "and not any more when it is gone")


async def test_audit_lets_everybody_in(field: Field, which: str) -> None:
    of = field[f"deny-{which}"]
    port, name = of.next_port(), fresh("audit")
    text = server(name, of, port).replace("port:", "accessPolicy: audit, port:")

    async with of.serving(Recorder(answer(b"in")), port=port):
        assert (await asked(field["plain-client"], of, port, "/")).status == 403
        async with applied(field, text):
            await owned(field, of, port, name)

            async def served() -> bool:
                return (await asked(field["plain-client"], of, port, "/")).body == b"in"

            await eventually(served, "anybody is let in")


async def test_the_metrics_say_by_which_objects_a_request_was_let_in(field: Field, which: str) -> None:
    of, client = field[f"server-{which}"], field["client-ours"]
    port, name = of.next_port(), fresh("named")
    text = joined(
        server(name, of, port, "HTTP/1"),
        http_route(f"{name}-read", name, "/read"),
        allow_names(name, identity(client)),
    )

    async def in_force() -> bool:
        return (await asked(client, of, port, "/")).status == 404

    async with applied(field, text), of.serving(Recorder(), port=port):
        await eventually(in_force, "the route is in force")
        await asked(client, of, port, "/read")
        await asked(field["plain-client"], of, port, "/read")

        counted = await field.mesh.api.proxy_metrics(of.name)

    srv = f'srv_group="policy.linkerd.io",srv_kind="server",srv_name="{name}",srv_port="{port}"'
    route = f'route_group="{GATEWAY}",route_kind="HTTPRoute",route_name="{name}-read"'
    authz = f'authz_group="policy.linkerd.io",authz_kind="authorizationpolicy",authz_name="{name}"'
    allowed = [line for line in counted.splitlines() if line.startswith("inbound_http_authz_allow_total{")]
    denied = [line for line in counted.splitlines() if line.startswith("inbound_http_authz_deny_total{")]
    assert any(srv in line and route in line and authz in line for line in allowed)
    assert any(srv in line and route in line for line in denied)
