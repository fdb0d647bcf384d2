"""Who comes to a proxy's own port without the right certificate is turned away before a byte reaches the application."""

import asyncio
import contextlib
import ssl

import pytest

from e2e import credentials
from e2e.conftest import Field
from e2e.credentials import Identity
from e2e.http1 import Recorder, get
from e2e.pods import Pod, Stream

INBOUND_PORT = 4143
NAME = "{}.default.serviceaccount.identity.linkerd.cluster.local"


async def call(
    field: Field, server: Pod, port: int, context: ssl.SSLContext, name: str, words: bytes
) -> bytes:
    """Come to a proxy's own port as a peer does; return what it answers, empty where it turns the peer away."""
    async with await field["plain-client"].connect(server.address, INBOUND_PORT) as stream:
        try:
            async with asyncio.timeout(15):
                await stream.writer.start_tls(context, server_hostname=name)
                stream.write(words)
                return await Stream(stream.reader, stream.writer).read()
        except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
            return b""


def presented(field: Field, which: str) -> Identity | None:
    """Return what a bad peer shows."""
    mesh, name = credentials.of_mesh(field.mesh), NAME.format("client-ours")
    match which:
        case "no certificate":
            return None
        case "foreign root":
            return credentials.issue(credentials.foreign(), name)
        case _:
            return credentials.issue(mesh, name, expired=True)


async def test_a_peer_with_a_certificate_of_the_mesh_is_served(field: Field, which: str) -> None:
    server = field[f"server-{which}"]
    identity = credentials.issue(credentials.of_mesh(field.mesh), NAME.format("client-ours"))
    context = credentials.client(credentials.roots(field.mesh), identity)
    recorder = Recorder()

    async with server.serving(recorder) as served:
        words = credentials.header(served.port) + get()
        received = await call(field, server, served.port, context, NAME.format(server.name), words)

    assert received.startswith(b"HTTP/1.1 200")
    assert recorder.seen[0]["l5d-client-id"] == NAME.format("client-ours")


@pytest.mark.parametrize("bad", ["no certificate", "foreign root", "expired"])
async def test_a_peer_that_proves_nothing_is_turned_away(field: Field, which: str, bad: str) -> None:
    server = field[f"server-{which}"]
    context = credentials.client(credentials.roots(field.mesh), presented(field, bad))

    async with server.serving(Recorder()) as served:
        words = credentials.header(served.port) + get()
        received = await call(field, server, served.port, context, NAME.format(server.name), words)

        assert received == b""
        assert served.accepted == 0


@pytest.mark.parametrize(
    ("name", "alpn", "cut"),
    [
        (NAME.format("somebody-else"), True, slice(None)),
        (None, False, slice(None)),
        (None, True, slice(len(credentials.PREFACE) - 1, None)),
    ],
    ids=["another name", "no transport protocol", "no preface"],
)
async def test_a_peer_that_wants_something_else_is_turned_away(
    field: Field, which: str, name: str | None, alpn: bool, cut: slice
) -> None:
    server = field[f"server-{which}"]
    identity = credentials.issue(credentials.of_mesh(field.mesh), NAME.format("client-ours"))
    context = credentials.client(credentials.roots(field.mesh), identity, alpn=alpn)

    async with server.serving(Recorder()) as served:
        words = credentials.header(served.port)[cut] + get()
        wanted = name or NAME.format(server.name)
        received = await call(field, server, served.port, context, wanted, words)

        assert received == b""
        assert served.accepted == 0


async def test_plaintext_to_the_proxys_own_port_is_turned_away(field: Field, which: str) -> None:
    server = field[f"server-{which}"]

    async with server.serving(Recorder()) as served:
        async with await field["plain-client"].connect(server.address, INBOUND_PORT) as stream:
            stream.write(get(host=f"{server.name}:{served.port}"))
            with contextlib.suppress(ConnectionError):
                assert await stream.rest() == b""

        assert served.accepted == 0


async def test_tls_that_is_not_the_meshes_reaches_the_server_untouched(field: Field, which: str) -> None:
    own = credentials.foreign()
    identity = credentials.issue(own, "shop.example")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    credentials.load(server_side, identity)
    server_side.set_alpn_protocols(["spdy/0"])
    client_side = ssl.create_default_context(cadata=own.chain)
    client_side.set_alpn_protocols(["spdy/0", "x" * 200])

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(server_side)
        writer.write(await reader.readexactly(4))
        await writer.drain()

    server = field[f"server-{which}"]
    async with server.serving(handler) as served:
        for client in ("plain-client", "client-ours", f"client-{which}"):
            async with await field[client].connect(server.name, served.port) as stream:
                await stream.writer.start_tls(client_side, server_hostname="shop.example")
                assert stream.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "spdy/0"
                await stream.send(b"ping")
                assert await stream.exactly(4) == b"ping"
