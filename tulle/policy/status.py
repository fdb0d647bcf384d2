"""Which routes, limits and egress networks count.

Pure: it reads the `World` and returns values. A route whose parent does not accept it is not sent to any proxy, so
the compilers ask `accepted` here and nowhere else. `conditions` tells people the same, and more.

One difference from upstream's conflict rule: a route conflicts only with routes that the same clients see (those of the
parent's namespace, and of its own). Otherwise whoever may make a route in some namespace could take away another's.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tulle.model.authorization import POLICY_GROUP, EgressNetwork, Network, RateLimitPolicy, Ref
from tulle.model.policies import parent_name
from tulle.model.route import ParentRef, Route
from tulle.model.service import ObjectName
from tulle.model.world import World

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

STRONGER = {
    "GRPCRoute": (),
    "HTTPRoute": ("GRPCRoute",),
    "TLSRoute": ("GRPCRoute", "HTTPRoute"),
    "TCPRoute": ("GRPCRoute", "HTTPRoute", "TLSRoute"),
}
"""Which kinds of routes on the same parent leave no room for a kind (GEP-1426)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is so, or is not; the message is for people."""

    type: str
    status: bool
    reason: str
    message: str = ""


def accepted(world: World, route: Route, parent: ParentRef, networks: Sequence[IpNetwork]) -> bool:
    """Say whether a parent takes the route; `networks` are the cluster's."""
    condition = acceptance(world, route, parent, networks)
    return condition is not None and condition.status


def acceptance(
    world: World, route: Route, parent: ParentRef, networks: Sequence[IpNetwork]
) -> Condition | None:
    """Return whether a parent takes the route and why not; None for a parent that is none of ours."""
    name = parent_name(route, parent)
    match parent.group, parent.kind:
        case ("", "Service"):
            refusal = _service_refuses(world, name, parent)
        case (group, "Server") if group == POLICY_GROUP:
            refusal = _server_refuses(world, route, name, parent)
        case (group, "EgressNetwork") if group == POLICY_GROUP:
            refusal = _egress_refuses(world, name, parent, networks)
        case _:
            return None
    if refusal:
        return Condition("Accepted", False, "NoMatchingParent", refusal)
    rival = _rival(world, route, parent)
    if rival is not None:
        text = f"{rival.kind} {rival.name} has the same parent and takes all of its traffic"
        return Condition("Accepted", False, "RouteReasonConflicted", text)
    return Condition("Accepted", True, "Accepted")


def egress_accepted(network: EgressNetwork, networks: Sequence[IpNetwork]) -> bool:
    """Say whether an EgressNetwork leaves the cluster's networks alone."""
    return not any(_overlaps(of, cluster) for of in network.networks or () for cluster in networks)


def rate_limit_of(world: World, server: ObjectName) -> RateLimitPolicy | None:
    """Return the limit that is in force on a Server: the oldest that names it."""
    limits = (of for of in world.rate_limits(server.namespace) if _limits(of.target, server))
    return next(limits, None) if world.server(server) else None


def _limits(target: Ref, server: ObjectName) -> bool:
    return target.group == POLICY_GROUP and target.kind == "Server" and target.name == server.name


def _service_refuses(world: World, name: ObjectName, parent: ParentRef) -> str:
    service = world.service(name)
    if service is None:
        return f"there is no Service {name}"
    if not service.cluster_ips or service.external_name is not None:
        return "parent service must have a ClusterIP"
    if parent.port is not None and service.port(parent.port) is None:
        return f"Service {name} has no port {parent.port}"
    return ""


def _server_refuses(world: World, route: Route, name: ObjectName, parent: ParentRef) -> str:
    if route.kind not in ("HTTPRoute", "GRPCRoute"):
        return f"a Server takes no {route.kind}"
    if name.namespace != route.meta.namespace:
        return f"Server {name} is in another namespace"
    if parent.port is not None or parent.section is not None:
        return "a Server has neither ports nor sections: leave out port and sectionName"
    return "" if world.server(name) else f"there is no Server {name}"


def _egress_refuses(world: World, name: ObjectName, parent: ParentRef, networks: Sequence[IpNetwork]) -> str:
    network = world.egress_network(name)
    if network is None:
        return f"there is no EgressNetwork {name}"
    if parent.port is None:
        return "an EgressNetwork as parent needs a port"
    return "" if egress_accepted(network, networks) else "EgressNetwork parent has not been accepted"


def _rival(world: World, route: Route, parent: ParentRef) -> Route | None:
    """Return a route of a stronger kind on the very same parent."""
    name = parent_name(route, parent)
    seen = (name.namespace, route.meta.namespace)
    for other in world.routes_of(parent.group, parent.kind, name):
        if other.kind in STRONGER[route.kind] and other.meta.namespace in seen:
            for its in other.parents:
                same = (its.group, its.kind, its.port) == (parent.group, parent.kind, parent.port)
                if same and parent_name(other, its) == name:
                    return other
    return None


def _overlaps(network: Network, cluster: IpNetwork) -> bool:
    """Say whether some address of the cluster is in the block and in none of its exceptions."""
    block = ipaddress.ip_network(network.cidr)
    if block.version != cluster.version or not block.overlaps(cluster):
        return False
    shared = max(block, cluster, key=lambda of: of.prefixlen)
    excepted = [ipaddress.ip_network(of) for of in network.excepted]
    return not any(_covers(of, shared) for of in _joined(excepted, block.version))


def _joined(networks: Iterable[IpNetwork], version: int) -> Iterator[IpNetwork]:
    if version == 4:
        yield from ipaddress.collapse_addresses(
            of for of in networks if isinstance(of, ipaddress.IPv4Network)
        )
    else:
        yield from ipaddress.collapse_addresses(
            of for of in networks if isinstance(of, ipaddress.IPv6Network)
        )


def _covers(outer: IpNetwork, inner: IpNetwork) -> bool:
    return outer.prefixlen <= inner.prefixlen and inner.network_address in outer
