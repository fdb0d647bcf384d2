"""A Server lets in whom its authorizations name, and tells everybody else so in the protocol of the port."""

import asyncio

import pytest

from e2e.conftest import OPAQUE_PORT, Field, Pair
from e2e.pods import eventually
from e2e.policy.rules import SPEAKERS, allow, allow_names, applied, fresh, identity, joined, owned, server

COMBINED = (
    ("unknown", "HTTP/1"),
    ("unknown", "HTTP/2"),
    ("unknown", "gRPC"),
    ("unknown", "bytes"),
    ("HTTP/1", "HTTP/1"),
    ("HTTP/2", "HTTP/2"),
    ("gRPC", "gRPC"),
    ("opaque", "bytes"),
    ("TLS", "TLS"),
)


@pytest.mark.parametrize(("protocol", "spoken"), COMBINED, ids=lambda each: each.replace("/", ""))
async def test_a_server_serves_whom_it_names_and_refuses_all_others(
    field: Field, pair: Pair, protocol: str, spoken: str
) -> None:
    port = pair.server.next_port()
    name, speaker = fresh("server"), SPEAKERS[spoken]
    text = joined(server(name, pair.server, port, protocol), allow_names(name, identity(pair.client)))

    async def knock(client: str) -> str:
        try:
            return await speaker.knock(field[client], pair.server, port)
        except (ConnectionError, asyncio.IncompleteReadError):
            return "closed"

    async def in_force() -> bool:
        return await knock("plain-client") == speaker.refused

    async with applied(field, text), speaker.serving(pair.server, port) as served:
        await owned(field, pair.server, port, name)
        await eventually(in_force, f"{name} is in force")
        heard = served.accepted

        assert await knock("plain-client") == speaker.refused
        assert await knock("deny-ours") == speaker.refused
        assert served.accepted == heard
        assert await knock(pair.client.name) == speaker.served


@pytest.mark.parametrize("kind", ["detected", "opaque"])
async def test_a_live_connection_ends_when_its_client_is_no_longer_named(
    field: Field, pair: Pair, kind: str
) -> None:
    name = fresh("server")
    port = OPAQUE_PORT if kind == "opaque" else pair.server.next_port()

    async with SPEAKERS["bytes"].serving(pair.server, port) as served:
        async with await pair.client.connect(pair.server.name, port) as stream:
            stream.write(b"\x00\x01 bytes")
            assert await stream.exactly(8) == b"\x00\x01 bytes"

            async with applied(field, server(name, pair.server, port)):
                assert await stream.rest() == b""
                await eventually(lambda: not served.tasks, "the server's side has ended, too")


async def test_a_live_connection_stays_when_its_client_is_named_otherwise(field: Field, pair: Pair) -> None:
    first, second = fresh("server"), fresh("server")
    port = pair.server.next_port()
    me = identity(pair.client)
    before = joined(server(first, pair.server, port, "opaque"), allow_names(first, me))

    async with applied(field, before), SPEAKERS["bytes"].serving(pair.server, port):
        await owned(field, pair.server, port, first)
        async with await pair.client.connect(pair.server.name, port) as stream:
            stream.write(b"\x00\x01 one")
            assert await stream.exactly(6) == b"\x00\x01 one"

            async with applied(field, allow(second, target=first, by="nobody-of-this-name")):
                stream.write(b" two")
                assert await stream.exactly(4) == b" two"


REFS = """
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {{name: {name}}}
spec: {{identityRefs: [{ref}]}}
"""
TAIL = "serviceaccount.identity.linkerd.cluster.local"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("*", True),
        (f"*.default.{TAIL}", True),
        (f"*.other.{TAIL}", False),
        (f"client-ours.other.{TAIL}", False),
        ("spiffe://cluster.local/ns/default/sa/client-ours", False),
        ("kind: ServiceAccount, name: client-ours", True),
        ("kind: ServiceAccount, name: client-ours, namespace: default", True),
        ("kind: Namespace, name: default", True),
        ("kind: ServiceAccount, name: deny-ours", False),
    ],
)
async def test_an_identity_is_meant_by_name_suffix_or_reference(
    field: Field, which: str, written: str, meant: bool
) -> None:
    of, client = field[f"server-{which}"], field["client-ours"]
    port, name, speaker = of.next_port(), fresh("named"), SPEAKERS["HTTP/1"]
    by = (
        joined(REFS.format(name=name, ref=f"{{{written}}}"), allow(name, target=name, by=name))
        if ":" in written and "/" not in written
        else allow_names(name, written)
    )

    async def in_force() -> bool:
        return await speaker.knock(field["plain-client"], of, port) == speaker.refused

    async with applied(field, joined(server(name, of, port), by)), speaker.serving(of, port):
        await owned(field, of, port, name)
        await eventually(in_force, f"{name} is in force")

        assert await speaker.knock(client, of, port) == (speaker.served if meant else speaker.refused)
