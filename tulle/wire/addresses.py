"""Addresses as the wire writes them: numbers, the first octet the most significant."""

import ipaddress

from tulle.wire import net_pb2


def to_wire(address: str) -> net_pb2.IPAddress:
    """Write an address."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return net_pb2.IPAddress(ipv4=int(parsed))
    first, last = divmod(int(parsed), 1 << 64)
    return net_pb2.IPAddress(ipv6=net_pb2.IPv6(first=first, last=last))


def to_wire_port(address: str, port: int) -> net_pb2.TcpAddress:
    """Write an address with a port."""
    return net_pb2.TcpAddress(ip=to_wire(address), port=port)


def to_wire_network(network: str) -> net_pb2.IPNetwork:
    """Write a network."""
    parsed = ipaddress.ip_network(network)
    return net_pb2.IPNetwork(ip=to_wire(str(parsed.network_address)), prefix_len=parsed.prefixlen)


def from_wire(address: net_pb2.IPAddress) -> str | None:
    """Return the address in its usual spelling, None where the message has none."""
    if address.HasField("ipv4"):
        return str(ipaddress.IPv4Address(address.ipv4))
    if address.HasField("ipv6"):
        return str(ipaddress.IPv6Address(address.ipv6.first << 64 | address.ipv6.last))
    return None
