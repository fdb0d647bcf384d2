"""The way out of a mesh: what may take it, and how sockets come to where they are connected."""

import asyncio
import contextlib
import socket
import struct

import dns.message
import dns.rcode
import dns.rrset
import pytest

from tulle.local import outside
from tulle.local.names import Zone, failed, fitted, is_outside
from tulle.serve import dns as server

QUESTION = dns.message.make_query("www.example.org", "A").to_wire()


@pytest.mark.parametrize(
    ("address", "leaves"),
    [
        ("203.0.113.9", True),
        ("192.168.7.7", True),
        ("2001:db8::9", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("10.77.3.4", False),
        ("10.78.0.1", False),
        ("fd77::4", False),
    ],
)
def test_only_what_is_outside_may_be_reached(address: str, *, leaves: bool) -> None:
    assert outside.may_leave(address) is leaves


def test_name_servers_are_read_as_the_c_library_reads_them() -> None:
    text = "# nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\nnameserver\nnameserver ::1\n"

    assert outside.resolvers(text) == ["192.0.2.2", "::1"]


def test_only_names_of_several_parts_beyond_the_cluster_are_asked_outside() -> None:
    known = Zone({"web.shop.svc.cluster.local": {"A": ["10.78.0.1"]}})

    def beyond(name: str) -> bool:
        return is_outside(known, dns.message.make_query(name, "A").to_wire())

    assert beyond("www.example.org")
    assert not beyond("web")
    assert not beyond("web.shop.svc.cluster.local")
    assert not beyond("nobody.shop.svc.cluster.local")
    assert not is_outside(known, b"\x00")


def test_a_reply_that_is_too_long_says_that_there_is_more() -> None:
    reply = dns.message.make_response(dns.message.from_wire(QUESTION))
    addresses = [f"192.0.2.{number}" for number in range(200)]
    reply.answer.append(dns.rrset.from_text_list("www.example.org.", 5, "IN", "A", addresses))
    whole = reply.to_wire()

    short = fitted(whole, QUESTION, 512)

    assert len(short) <= 512
    assert dns.message.from_wire(short).flags & 0x0200
    assert fitted(whole, QUESTION, None) == whole


async def test_a_socket_of_the_supervisor_is_connected_by_somebody_else() -> None:
    here, there = outside.open_supply()
    there.setblocking(False)
    with here, there, socket.create_server(("127.0.0.1", 0)) as listener:
        supplying = asyncio.create_task(outside.supply(here))
        taken = await asyncio.gather(*(outside.take(there, "127.0.0.1") for _ in range(20)))
        for each in taken:
            assert each is not None
            await asyncio.get_running_loop().sock_connect(each, listener.getsockname())
            each.close()
        supplying.cancel()


async def test_a_name_outside_is_asked_of_the_next_server_when_one_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reply = dns.message.make_response(dns.message.from_wire(QUESTION)).to_wire()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        assert await reader.readexactly(length) == QUESTION
        writer.write(struct.pack("!H", len(reply)) + reply)
        writer.close()

    here, there = outside.open_supply()
    there.setblocking(False)
    listening = await asyncio.start_server(answer, "127.0.0.2", 0)
    monkeypatch.setattr(server, "NAMES_PORT", listening.sockets[0].getsockname()[1])
    with here, there:
        async with listening:
            supplying = asyncio.create_task(outside.supply(here))

            said = await server.Outside(there, ["127.0.0.1", "127.0.0.2"]).ask(QUESTION)

            supplying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supplying
    assert said == reply


def test_nobody_to_ask_is_a_failure_not_an_absent_name() -> None:
    assert dns.message.from_wire(failed(QUESTION)).rcode() == dns.rcode.SERVFAIL
