"""The packet rules of a meshed pod, as text for `nft -f -`: pure, the same for every place that a pod runs in.

What a pod's processes send over TCP goes to the proxy's outbound port, what arrives over TCP goes to its inbound
port. Let through untouched are: what the proxy itself sends, told by its uid or by a mark on its packets (a user
namespace with a single uid has only the mark); loopback, which carries a pod's calls to itself and the proxy's to
the application; the proxy's admin and control ports; and what annotations exempt. Other protocols than TCP are
none of the mesh's business.

`redirect` rewrites outbound connections to loopback and inbound ones to the address of the interface, which is why
the proxy listens on loopback for the first and on every address for the second.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tulle.model.pod import ADMIN_PORT, CONTROL_PORT, INBOUND_PORT
from tulle.model.ports import PortSet

PROXY_UID = 2102
OUTBOUND_PORT = 4140
MARK = 0x2D4C
"""Any number would do that nobody else on the machine marks packets with."""

SKIPPED_BY_DEFAULT = PortSet.of((4567, 4568))
TABLE = "tulle"
PRIORITY = -100
"""That of destination translation: before anything that looks at where a packet goes."""


@dataclass(frozen=True, slots=True)
class Firewall:
    """What is redirected and what is not."""

    proxy_uid: int | None = PROXY_UID
    """None where the proxy has no uid of its own."""
    proxy_gid: int | None = None
    mark: int = MARK
    inbound_port: int = INBOUND_PORT
    outbound_port: int = OUTBOUND_PORT
    own_ports: tuple[int, ...] = (CONTROL_PORT, ADMIN_PORT)
    skip_inbound: PortSet = SKIPPED_BY_DEFAULT
    skip_outbound: PortSet = SKIPPED_BY_DEFAULT
    skip_subnets: tuple[str, ...] = ()
    """Networks whose connections arrive as they are."""


def ruleset(firewall: Firewall) -> str:
    """Return the rules; loading them replaces those that were there."""
    out = [
        *([f"meta skuid {firewall.proxy_uid} return"] if firewall.proxy_uid is not None else []),
        *([f"meta skgid {firewall.proxy_gid} return"] if firewall.proxy_gid is not None else []),
        f"meta mark {firewall.mark:#x} return",
        'oifname "lo" return',
        *_skip(firewall.skip_outbound, ()),
        f"meta l4proto tcp redirect to :{firewall.outbound_port}",
    ]
    arriving = [
        'iifname "lo" return',
        *_skip(firewall.skip_inbound, firewall.own_ports),
        *(f"{'ip6' if ':' in net else 'ip'} saddr {net} return" for net in firewall.skip_subnets),
        f"meta l4proto tcp redirect to :{firewall.inbound_port}",
    ]
    return "\n".join(
        [
            f"table inet {TABLE}",
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            *_chain("out", "output", out),
            *_chain("in", "prerouting", arriving),
            "}",
            "",
        ]
    )


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    return [
        f"  chain {name} {{",
        f"    type nat hook {hook} priority {PRIORITY}; policy accept;",
        *(f"    {rule}" for rule in rules),
        "  }",
    ]


def _skip(ports: PortSet, more: tuple[int, ...]) -> list[str]:
    """Return the rule that lets ports through; overlapping ranges are joined, since a set may not have them."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted((*ports.ranges, *((port, port) for port in more))):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    if not joined:
        return []
    items = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in joined)
    return [f"tcp dport {{ {items} }} return"]
