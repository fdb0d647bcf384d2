"""How pods reach what is outside, with `--egress`: over sockets of the machine's network, with no packet rule there.

A socket belongs for ever to the network that it was made in. So the supervisor, which stays in the machine's network,
makes sockets that lead nowhere yet, and the gateway, which stands in the mesh's, connects them. TCP is carried, and
questions for names; nothing else finds a way out. No rule of the machine changes, so this needs no root either.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path

from tulle.local.addresses import BRIDGE, POD_NETWORK, POD_NETWORK_6, SERVICE_NETWORK, SERVICE_NETWORK_6

PORT = 4150
"""Where the gateway takes over what goes outside."""
SO_ORIGINAL_DST = 80
"""From linux/netfilter_ipv4.h, and the same number for IPv6."""
RESOLVER_FILE = Path("/etc/resolv.conf")
MAX_RESOLVERS = 3
"""As many as the C library asks."""
SPARE_BYTES = 4096
"""Of messages that wait for the gateway, so that few sockets are made before they are wanted."""

INSIDE = (POD_NETWORK, POD_NETWORK_6, SERVICE_NETWORK, SERVICE_NETWORK_6)
FAMILIES = (socket.AF_INET, socket.AF_INET6)


def rules() -> str:
    """Return the rules of the bridge's namespace: what is routed to nobody inside goes to the gateway."""
    lines = ["table inet egress {", "  chain arriving {", "    type nat hook prerouting priority dstnat;"]
    for family, version in (("ip", 4), ("ip6", 6)):
        networks = ", ".join(str(network) for network in INSIDE if network.version == version)
        lines.append(
            f'    iifname "br0" {family} daddr != {{ {networks} }} meta l4proto tcp redirect to :{PORT}'
        )
    return "\n".join([*lines, "  }", "}", ""])


def routes() -> tuple[str, ...]:
    """Return the commands that give a pod a way to the bridge for everything, for `ip -batch -`."""
    return tuple(f"route add default via {address}" for address in BRIDGE)


def wanted(connection: socket.socket) -> tuple[str, int] | None:
    """Return where a connection that was led to the gateway wanted to go; None for nowhere that we lead to."""
    try:
        if connection.family == socket.AF_INET:
            raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
            address, port = socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
        else:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            address, port = socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big")
    except OSError:
        return None  # It was made to the gateway itself.
    return (address, port) if may_leave(address) else None


def may_leave(address: str) -> bool:
    """Say whether an address is one outside: not this machine's loopback, not the mesh, and somebody's."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return False
    if parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast:
        return False
    return not any(parsed in network for network in INSIDE if network.version == parsed.version)


def resolvers(text: str) -> list[str]:
    """Return the name servers of a resolv.conf."""
    found = [
        line.split()[1] for line in text.splitlines() if line.startswith("nameserver") and line.split()[1:]
    ]
    return found[:MAX_RESOLVERS]


def open_supply() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's end and the gateway's, between which sockets go over."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SPARE_BYTES)
    here.setblocking(False)
    return here, there


async def supply(control: socket.socket) -> None:
    """Hand over sockets, as many as are taken, until cancelled."""
    while True:
        await _writable(control)
        made = [socket.socket(family) for family in _families()]
        try:
            socket.send_fds(control, [b"."], [each.fileno() for each in made])
        except BlockingIOError:
            continue
        finally:
            for each in made:
                each.close()


async def take(control: socket.socket, address: str) -> socket.socket | None:
    """Return a socket for an address, or None where the machine has none of its family."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        await _readable(control)
        try:
            _, descriptors, _, _ = socket.recv_fds(control, 1, len(FAMILIES))
        except BlockingIOError:
            continue  # Another connection was faster.
        return _of(family, [socket.socket(fileno=descriptor) for descriptor in descriptors])


def _of(family: int, handed: Iterable[socket.socket]) -> socket.socket | None:
    found = None
    for each in handed:
        if each.family == family and found is None:
            each.setblocking(False)
            found = each
        else:
            each.close()
    return found


def _families() -> tuple[socket.AddressFamily, ...]:
    return FAMILIES if socket.has_ipv6 else FAMILIES[:1]


async def _readable(control: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    # A descriptor of its own: a loop has one reader for each, and several connections may wait.
    with control.dup() as mine:
        ready = loop.create_future()
        loop.add_reader(mine, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_reader(mine)


async def _writable(control: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(control, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(control)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
