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
