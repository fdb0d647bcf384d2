"""What a client is told that may not, or cannot, be served; and that the server then hears nothing of it."""

import asyncio
import contextlib

import pytest

from e2e import bridges, grpcs, http1, http2
from e2e.conftest import OPAQUE_PORT, Field
from e2e.http1 import Recorder, ask, get
from e2e.pods import Pod, eventually
from e2e.policy.rules import applied, fresh, owned
from e2e.policy.rules import server as one_server

GREETING = b"\x00\x01 not HTTP\r\n"


async def http_status(client: Pod, server: Pod, port: int) -> http1.Message:
    """Return the answer to an HTTP/1 request."""
    async with await client.connect(server.name, port) as stream:
        return await ask(stream, get())


async def http2_status(client: Pod, server: Pod, port: int) -> str | None:
    """Return the status of an HTTP/2 request."""
    async with await client.connect(server.name, port) as stream:
        return (await http2.Client(stream).ask())[":status"]


async def grpc_code(client: Pod, server: Pod, port: int) -> str:
    """Return the code of a gRPC call."""
    async with bridges.into(client, server.name, port) as entrance, grpcs.channel(entrance) as channel:
        return (await grpcs.unary(channel, b"x")).code


async def tcp_answer(client: Pod, server: Pod, port: int) -> bytes:
    """Return what comes back over a connection that is not HTTP."""
    async with await client.connect(server.name, port) as stream:
        stream.write(GREETING)
        return await stream.rest()


@pytest.mark.parametrize("policy", ["deny", "all-authenticated"])
async def test_a_client_that_policy_does_not_admit_is_told_so_in_its_protocol(
    field: Field, which: str, policy: str
) -> None:
    client, server = field["plain-client"], field[f"{policy}-{which}"]

    async with server.serving(Recorder()) as served:
        assert (await http_status(client, server, served.port)).status == 403
        assert await http2_status(client, server, served.port) == "403"
        assert await grpc_code(client, server, served.port) == "StatusCode.PERMISSION_DENIED"
        assert await tcp_answer(client, server, served.port) == b""

        assert served.accepted == 0


async def test_a_client_with_a_name_is_admitted_where_a_name_is_enough(field: Field, which: str) -> None:
    server = field[f"all-authenticated-{which}"]

    async with server.serving(Recorder()) as served:
        response = await http_status(field["client-ours"], server, served.port)

    assert response.body == b"hello"


async def test_a_client_with_a_name_is_told_why_it_is_refused(field: Field) -> None:
    server = field["deny-ours"]

    async with server.serving(Recorder()) as served:
        response = await http_status(field["client-ours"], server, served.port)

        assert served.accepted == 0
    assert (response.status, response.reason) == (403, "unauthorized")
    assert response["connection"] != "close"


async def test_an_opaque_port_is_closed_to_who_is_not_admitted(field: Field, which: str) -> None:
    client, server = field["plain-client"], field[f"all-authenticated-{which}"]

    async with server.serving(Recorder(), port=OPAQUE_PORT) as served:
        assert await tcp_answer(client, server, served.port) == b""
        assert served.accepted == 0

        response = await http_status(field["client-ours"], server, served.port)
    assert response.body == b"hello"


async def test_a_response_that_lasts_ends_when_its_client_is_no_longer_let_in(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]
    port, name = server.next_port(), fresh("closed")

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await writer.drain()
        await reader.read(-1)

    async with server.serving(stream, port=port), await client.connect(server.name, port) as connection:
        connection.write(get())
        await connection.exactly(len(b"HTTP/1.1 200"))

        async with applied(field, one_server(name, server, port)):
            await owned(field, server, port, name)
            received = await connection.rest()

    assert b"\r\n0\r\n" not in received
    text = await field.mesh.api.proxy_metrics(server.name)
    assert 'reason="revoked"' in text


async def test_a_server_that_does_not_listen_is_waited_for_and_then_given_up(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]

    response = await http_status(client, server, server.next_port())

    assert (response.status, response.reason) == (504, "fail_fast")


async def test_a_service_without_endpoints_fails_fast(field: Field) -> None:
    client = field["client-ours"]

    async with await client.connect("empty", 80) as stream:
        response = await ask(stream, get())

    assert (response.status, response.reason) == (504, "no_endpoints")


async def test_a_port_that_a_service_does_not_have_is_refused(field: Field, which: str) -> None:
    client = field[f"client-{which}"]

    async with await client.connect("server-ours", 7) as stream:
        stream.write(get())
        assert await stream.rest() == b""

    if which == "ours":
        text = await field.mesh.api.proxy_metrics(client.name)
        assert 'reason="port_undefined"' in text


async def test_a_server_that_is_no_http_server_is_a_bad_gateway(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)
        writer.write(b"\x00\x01\x02 nonsense\r\n\r\n")

    async with server.serving(babble) as served:
        response = await http_status(client, server, served.port)

    assert (response.status, response.reason) == (502, "bad_response")


async def test_a_server_that_hangs_up_is_a_bad_gateway(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)

    async with server.serving(hang_up) as served:
        response = await http_status(client, server, served.port)

        assert served.accepted == 1
    assert (response.status, response.reason) == (502, "connection_lost")


async def test_refusals_are_counted_by_reason(field: Field) -> None:
    server = field["deny-ours"]
    await http_status(field["plain-client"], server, server.next_port())

    text = await field.mesh.api.proxy_metrics(server.name)

    assert 'tulle_refusals_total{direction="inbound",phase="policy",reason="unauthorized",' in text
    assert "inbound_http_authz_deny_total{" in text


async def test_a_connection_that_would_come_back_to_its_proxy_is_refused(field: Field, which: str) -> None:
    client = field[f"client-{which}"]

    for address, port in ((client.address, 4143), ("127.0.0.1", 4140)):
        with contextlib.suppress(ConnectionError):
            async with await client.connect(address, port) as stream:
                stream.write(get())
                # The stock proxy takes it for a server that does not answer.
                assert (await stream.rest())[:10] in (b"", b"HTTP/1.1 5")
    await eventually(lambda: alive(field, client), "the proxy is alive")


async def alive(field: Field, client: Pod) -> bool:
    """Say whether a pod's proxy answers."""
    return "process_start_time_seconds" in await field.mesh.api.proxy_metrics(client.name)
