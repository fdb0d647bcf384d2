"""What a client is told that may not, or cannot, be served; and that the server then hears nothing of it."""

import asyncio
import contextlib

import pytest

from e2e import bridges, grpcs, http1, http2
from e2e.conftest import KIND_PORTS, Field
from e2e.http1 import Recorder, ask, get
from e2e.pods import Pod, eventually

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
    assert (response.status, response["tulle-reason"]) == (403, "unauthorized")
    assert response["connection"] != "close"


@pytest.mark.parametrize("client", ["plain-client", "client-ours"])
@pytest.mark.parametrize("protocol", KIND_PORTS)
async def test_a_port_of_each_kind_refuses_in_its_way(
    field: Field, which: str, protocol: str, client: str
) -> None:
    server, port = field[f"server-{which}"], KIND_PORTS[protocol]

    async with server.serving(Recorder(), port=port) as served:
        match protocol:
            case "HTTP/1":
                assert (await http_status(field[client], server, port)).status == 403
            case "HTTP/2":
                assert await http2_status(field[client], server, port) == "403"
            case "gRPC":
                assert await grpc_code(field[client], server, port) == "StatusCode.PERMISSION_DENIED"
            case _:
                assert await tcp_answer(field[client], server, port) == b""

        assert served.accepted == 0


async def test_a_connection_ends_when_policy_no_longer_admits_its_client(field: Field, which: str) -> None:
    server = field[f"server-{which}"]

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)

    async with server.serving(echo) as served:
        async with await field["plain-client"].connect(server.name, served.port) as stream:
            stream.write(GREETING)
            assert await stream.exactly(len(GREETING)) == GREETING

            manifest = await field.mesh.deny(server.name, served.port)
            try:
                assert await stream.rest() == b""
            finally:
                await field.mesh.remove(manifest)


async def test_a_server_that_does_not_listen_is_a_bad_gateway(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]

    response = await http_status(client, server, server.next_port())

    assert (response.status, response["connection"]) == (502, "close")
    assert response["tulle-reason"] == "connect_failed"


async def test_a_service_without_endpoints_fails_fast(field: Field) -> None:
    client = field["client-ours"]

    async with await client.connect("empty", 80) as stream:
        response = await ask(stream, get())

    assert (response.status, response["tulle-reason"]) == (504, "no_endpoints")


async def test_a_port_that_a_service_does_not_have_is_refused(field: Field) -> None:
    client = field["client-ours"]

    async with await client.connect("server-ours", 7) as stream:
        response = await ask(stream, get())

    assert (response.status, response["tulle-reason"]) == (403, "port_undefined")


async def test_a_server_that_is_no_http_server_is_a_bad_gateway(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)
        writer.write(b"\x00\x01\x02 nonsense\r\n\r\n")

    async with server.serving(babble) as served:
        response = await http_status(client, server, served.port)

    assert (response.status, response["tulle-reason"]) == (502, "bad_response")


async def test_a_server_that_hangs_up_is_a_bad_gateway(field: Field) -> None:
    client, server = field["client-ours"], field["server-ours"]

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await http1.read_head(reader)

    async with server.serving(hang_up) as served:
        response = await http_status(client, server, served.port)

        assert served.accepted == 1
    assert (response.status, response["tulle-reason"]) == (502, "connection_lost")


async def test_refusals_are_counted_by_reason(field: Field) -> None:
    server = field["deny-ours"]
    await http_status(field["plain-client"], server, server.next_port())

    text = await field.mesh.api.proxy_metrics(server.name)

    assert 'tulle_refusals_total{direction="inbound",reason="unauthorized"}' in text
    assert "inbound_http_authz_deny_total{" in text


async def test_a_connection_that_would_come_back_to_its_proxy_is_refused(field: Field, which: str) -> None:
    client = field[f"client-{which}"]

    for address, port in ((client.address, 4143), ("127.0.0.1", 4140)):
        with contextlib.suppress(ConnectionError):
            async with await client.connect(address, port) as stream:
                stream.write(get())
                assert await stream.rest() == b""
    await eventually(lambda: alive(field, client), "the proxy is alive")


async def alive(field: Field, client: Pod) -> bool:
    """Say whether a pod's proxy answers."""
    return "process_start_time_seconds" in await field.mesh.api.proxy_metrics(client.name)
