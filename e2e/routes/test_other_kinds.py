"""Routes of calls, of TLS by name and of bytes; splits by profile."""

import asyncio
import ssl

from e2e import bridges, grpcs
from e2e.conftest import Field
from e2e.pods import Handler, Pod, eventually
from e2e.routes.rig import answering, asking, is_from, manifests, service, until

GRPC_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: {name}, port: 80}}]
  rules:
  - matches: [{{method: {{service: tulle.test.Echo, method: Unary}}}}]
    backendRefs: [{{name: {name}, port: 80}}]
  - matches: [{{method: {{service: tulle.test.Echo, method: Both}}}}]
    backendRefs: [{{name: lost, port: 80}}]
"""
TLS_ROUTES = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: by-name-exact}
spec:
  parentRefs: [{group: "", kind: Service, name: by-name, port: 80}]
  hostnames: [one.example]
  rules: [{backendRefs: [{name: tls-one, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: by-name-suffix}
spec:
  parentRefs: [{group: "", kind: Service, name: by-name, port: 80}]
  hostnames: ["*.two.example"]
  rules: [{backendRefs: [{name: tls-two, port: 80}]}]
"""
TCP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: bytes}
spec:
  parentRefs: [{group: "", kind: Service, name: bytes, port: 80}]
  rules: [{backendRefs: [{name: bytes-there, port: 80}]}]
"""
PROFILE = """
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: %s.default.svc.cluster.local}
spec:
  routes: [{name: everything, condition: {pathRegex: ".*"}}]
  dstOverrides: [{authority: override.default.svc.cluster.local, weight: "1"}]
"""


def hello(name: str) -> bytes:
    """Return what a client sends first that wants to speak TLS with a name."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a peer ended")


def saying(text: bytes) -> Handler:
    """Return a server that waits for a first byte and says a word."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(text)
            await writer.drain()
            await reader.read(-1)

    return handler


async def first_word(client: Pod, host: str, sent: bytes, *, port: int = 80) -> bytes:
    """Return the first bytes that come back; none where the connection is refused or closed."""
    try:
        async with await client.connect(host, port) as stream:
            stream.write(sent)
            return await stream.read(16)
    except (OSError, TimeoutError):
        return b""


async def hears(client: Pod, host: str, sent: bytes, word: bytes) -> None:
    """Return when a connection is answered with a word."""

    async def is_right() -> bool:
        return await first_word(client, host, sent) == word

    await eventually(is_right, f"{host} answers {word!r}")


async def test_calls_go_by_their_method(field: Field, which: str) -> None:
    client, server = field[f"client-{which}"], field["balanced-1"]
    name = f"calls-{which}"
    async with (
        grpcs.server() as (_, address),
        bridges.out_of(server, address) as served,
        manifests(field, name, service(name, "balanced-1", served.port), GRPC_ROUTE.format(name=name)),
        bridges.into(client, name, 80) as entrance,
    ):

        async def outcome(method: str) -> str:
            async with grpcs.channel(entrance) as channel:
                return (await grpcs.unary(channel, b"x", method=f"/{grpcs.SERVICE}/{method}")).code

        async def is_routed() -> bool:
            return await outcome("Spread") != "StatusCode.OK" and await outcome("Unary") == "StatusCode.OK"

        await eventually(is_routed, "only the named methods are let through")
        lost = await outcome("Both")

    assert lost != "StatusCode.OK"


async def test_tls_goes_by_the_name_that_the_client_asks_for(field: Field, which: str) -> None:
    client, one, two = (field[name] for name in (f"client-{which}", "balanced-1", "balanced-2"))
    async with one.serving(saying(b"one")) as first, two.serving(saying(b"two")) as second:
        texts = [
            service("by-name", "balanced-1", first.port),
            service("tls-one", "balanced-1", first.port),
            service("tls-two", "balanced-2", second.port),
            TLS_ROUTES,
        ]
        async with manifests(field, "by-name", *texts):
            await hears(client, "by-name", hello("a.two.example"), b"two")
            words = [
                await first_word(client, "by-name", hello(name)) for name in ("one.example", "three.example")
            ]

    assert words == [b"one", b""]


async def test_bytes_go_where_the_tcp_route_leads(field: Field, which: str) -> None:
    client, here, there = (field[name] for name in (f"client-{which}", "balanced-1", "balanced-2"))
    async with here.serving(saying(b"here")) as first, there.serving(saying(b"there")) as second:
        texts = [
            service("bytes", "balanced-1", first.port),
            service("bytes-there", "balanced-2", second.port),
            TCP_ROUTE,
        ]
        async with manifests(field, "bytes", *texts):
            await hears(client, "bytes", b"\x00\x01", b"there")


async def test_a_profile_s_override_sends_requests_elsewhere(field: Field, which: str) -> None:
    client, here, there = (field[name] for name in (f"client-{which}", "balanced-1", "balanced-2"))
    async with answering(here) as (first, _), answering(there) as (second, recorder):
        name = f"profiled-{which}"
        texts = [
            service(name, "balanced-1", first.port),
            service("override", "balanced-2", second.port),
            PROFILE % name,
        ]
        async with manifests(field, name, *texts):
            await until(asking(client, name, "/path"), is_from(there), "the override answers")

    assert recorder.seen[-1].target == "/path"


async def test_a_profile_may_come_and_go_while_the_service_is_used(field: Field) -> None:
    """A stock proxy keeps to what it found first for as long as a destination is in use."""
    client, here, there = (field[name] for name in ("client-ours", "balanced-1", "balanced-2"))
    async with answering(here) as (first, _), answering(there) as (second, _):
        services = [
            service("changing", "balanced-1", first.port),
            service("override", "balanced-2", second.port),
        ]
        async with manifests(field, "changing", *services):
            await until(asking(client, "changing"), is_from(here), "the service answers")
            async with manifests(field, "profile", PROFILE % "changing"):
                await until(asking(client, "changing"), is_from(there), "the override answers")
            await until(asking(client, "changing"), is_from(here), "the service answers again")
