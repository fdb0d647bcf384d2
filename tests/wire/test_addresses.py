import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from tulle.wire import net_pb2
from tulle.wire.addresses import from_wire, to_wire, to_wire_network, to_wire_port


def test_the_first_octet_is_the_most_significant() -> None:
    assert to_wire("10.0.0.1").ipv4 == 0x0A000001
    assert to_wire("fd77::5").ipv6 == net_pb2.IPv6(first=0xFD77_0000_0000_0000, last=5)
    assert to_wire_port("10.0.0.1", 80) == net_pb2.TcpAddress(ip=to_wire("10.0.0.1"), port=80)
    assert to_wire_network("10.0.0.0/8").prefix_len == 8


@given(st.ip_addresses())
def test_every_address_is_read_as_it_was_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert from_wire(to_wire(str(address))) == str(address)


def test_a_message_without_an_address_has_none() -> None:
    assert from_wire(net_pb2.IPAddress()) is None
