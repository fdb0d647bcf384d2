"""What of a pod's traffic goes past its proxy, as arguments of `tulle-proxy init`, which writes the packet rules.

What a pod's processes send over TCP goes to the proxy's outbound port, what arrives over TCP goes to its inbound
port. Let through untouched are: what the proxy itself sends, told by its uid or by a mark on its packets (a user
namespace with a single uid has only the mark); loopback, which carries a pod's calls to itself and the proxy's to
the application; the proxy's admin and control ports; and what annotations exempt.
"""

from dataclasses import dataclass

from tulle.model.pod import ADMIN_PORT, CONTROL_PORT, INBOUND_PORT
from tulle.model.ports import PortSet

PROXY_UID = 2102
OUTBOUND_PORT = 4140
MARK = 0x2D4C
"""Any number would do that nobody else on the machine marks packets with."""

SKIPPED_BY_DEFAULT = PortSet.of((4567, 4568))
PRIORITY = -100
"""Of the rules' chains: that of destination translation, before anything that looks at where a packet goes."""


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


def arguments(firewall: Firewall) -> tuple[str, ...]:
    """Return what `tulle-proxy init` is told."""
    inbound = ",".join((*map(str, firewall.own_ports), *_ranges(firewall.skip_inbound)))
    uid = "none" if firewall.proxy_uid is None else str(firewall.proxy_uid)
    gid = () if firewall.proxy_gid is None else (f"--proxy-gid={firewall.proxy_gid}",)
    return (
        f"--incoming-proxy-port={firewall.inbound_port}",
        f"--outgoing-proxy-port={firewall.outbound_port}",
        f"--proxy-uid={uid}",
        *gid,
        f"--mark={firewall.mark}",
        f"--inbound-ports-to-ignore={inbound}",
        f"--outbound-ports-to-ignore={','.join(_ranges(firewall.skip_outbound))}",
        f"--subnets-to-ignore={','.join(firewall.skip_subnets)}",
    )


def _ranges(ports: PortSet) -> list[str]:
    return [str(first) if first == last else f"{first}-{last}" for first, last in ports.ranges]
