"""The texts that make the network: for `ip -batch -` and `nft -f -`. Pure.

One bridge in a namespace of its own joins all pods. No rule about pods is loaded there, because bridged packets may
pass the rules of the namespace that owns the bridge; every such rule is in a pod. Cluster addresses are translated
in each pod, after the mesh's redirects, so what the mesh lets through still finds a service: to a random ready
endpoint, and refused at once where there is none.
"""

from collections.abc import Iterable, Mapping

from tulle.local.addresses import (
    BRIDGE,
    POD_NETWORK,
    POD_NETWORK_6,
    SERVICE_NETWORK,
    SERVICE_NETWORK_6,
    Pair,
)
from tulle.local.endpoints import Endpoint, PodFacts, endpoints, pods_behind
from tulle.model.objects import Service
from tulle.rules.firewall import PRIORITY

TABLE = "services"


def bridge_batch() -> str:
    """Return the commands that make the bridge, run in its namespace.

    Without a hardware address of its own it would take that of one of its pods, and another one when that leaves.
    """
    return _lines(
        "link set lo up",
        f"link add br0 address {mac(BRIDGE)} type bridge",
        f"addr add {BRIDGE[0]}/{POD_NETWORK.prefixlen} dev br0",
        f"addr add {BRIDGE[1]}/{POD_NETWORK_6.prefixlen} dev br0 nodad",
        "link set br0 up",
    )


def link_batch(addresses: Pair, pod_namespace: str) -> str:
    """Return the commands that join a pod to the bridge, run in the bridge's namespace."""
    return _lines(
        f"link add {link_name(addresses)} type veth peer name eth0 address {mac(addresses)} netns {pod_namespace}",
        f"link set {link_name(addresses)} master br0 up",
    )


def unlink_batch(addresses: Pair) -> str:
    """Return the command that takes a pod off the bridge: the kernel alone would take its time."""
    return _lines(f"link del {link_name(addresses)}")


def link_name(addresses: Pair) -> str:
    """Return the name of a pod's end at the bridge."""
    return "v" + addresses[0].removeprefix("10.77.").replace(".", "-")


def mac(addresses: Pair) -> str:
    """Return a pod's hardware address: the same for the same address, since neighbours remember it."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in addresses[0].split("."))


def pod_batch(addresses: Pair, ways_out: Iterable[str] = ()) -> str:
    """Return the commands that give a pod its addresses, run in the pod's namespace.

    Unless there are ways out only the mesh's networks have a route: anything else fails at once instead of after a
    time-out.
    """
    return _lines(
        "link set lo up",
        f"addr add {addresses[0]}/{POD_NETWORK.prefixlen} dev eth0",
        f"addr add {addresses[1]}/{POD_NETWORK_6.prefixlen} dev eth0 nodad",
        "link set eth0 up",
        f"route add {SERVICE_NETWORK} via {BRIDGE[0]}",
        f"route add {SERVICE_NETWORK_6} via {BRIDGE[1]}",
        *ways_out,
    )


def service_rules(services: Iterable[Service], assigned: Mapping[str, Pair], pods: Iterable[PodFacts]) -> str:
    """Return the rules that translate cluster addresses, run in every pod; `assigned` is by namespace/name."""
    known = tuple(pods)
    translations = [
        rule
        for service in services
        for rule in _translations(
            service, assigned.get(f"{service.meta.namespace}/{service.meta.name}"), known
        )
    ]
    return _lines(
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        "  chain translate {",
        f"    type nat hook output priority {PRIORITY + 10}; policy accept;",
        *(f"    {rule}" for rule in translations),
        "  }",
        "  chain refuse {",
        "    type filter hook output priority 0; policy accept;",
        *(
            f"    {family} daddr {network} {what}"
            for family, network in (("ip", SERVICE_NETWORK), ("ip6", SERVICE_NETWORK_6))
            for what in ("meta l4proto tcp reject with tcp reset", "reject")
        ),
        "  }",
        "}",
    )


def _translations(service: Service, addresses: Pair | None, pods: tuple[PodFacts, ...]) -> list[str]:
    if addresses is None:
        return []
    behind = pods_behind(service, pods)
    return [
        f"{family} daddr {address} {port.protocol.lower()} dport {port.port} "
        f"dnat {family} to numgen random mod {len(found)} map {{ {_choices(found)} }}"
        for version, family, address in ((4, "ip", addresses[0]), (6, "ip6", addresses[1]))
        for port in service.ports
        if port.protocol != "SCTP" and (found := endpoints(behind, port, version=version))
    ]


def _choices(found: tuple[Endpoint, ...]) -> str:
    return ", ".join(f"{number} : {end.address} . {end.port}" for number, end in enumerate(found))


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)
