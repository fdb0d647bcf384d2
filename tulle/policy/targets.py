"""What a client's target is: a service's port, an address outside, or nothing that a policy is about.

Pure: it reads the `World` and returns values; `outbound` writes them for the wire. Which route takes a request is the
proxy's decision; which routes there are, in which order, is made here:

- Routes in the parent's namespace hold for all clients, routes of another namespace for that namespace's clients only.
  So an answer depends on the client's namespace where there are such routes, or EgressNetworks, and only there:
  `own_answers` names those namespaces, and all other clients share one answer.
- The oldest goes first, then by name; the proxy lets the first of equals win.
- A route of a kind hides the routes of the kinds after it: gRPC, HTTP, TLS, TCP. The port's `appProtocol` comes first.

An address of a pod or an external workload is for the profile to say, even where an EgressNetwork covers it: taken
for outside, it would be spoken to without mutual TLS.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tulle.model.authority import AuthorityError, ServiceAuthority, parse
from tulle.model.authorization import POLICY_GROUP, EgressNetwork
from tulle.model.policies import egress_topic, parent_name, routes_topic
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.protocol import Protocol, named, of_port
from tulle.model.route import BackendRef, Mirror, Route, RouteKind, UrlRewrite
from tulle.model.service import ObjectName, Service
from tulle.model.world import OPAQUE_PORTS, World, address_topic, service_topic
from tulle.policy import egress
from tulle.policy.egress import IpNetwork
from tulle.policy.status import accepted
from tulle.rules.traffic import DEFAULT_RETRY, NO_TRAFFIC, Traffic, read

SERVICE = ("", "Service")
EGRESS_NETWORK = (POLICY_GROUP, "EgressNetwork")
GLOBAL_EGRESS = "linkerd-egress"
"""The namespace whose EgressNetworks hold for the clients of namespaces that have none."""

_KINDS: tuple[tuple[RouteKind, Protocol], ...] = (
    ("GRPCRoute", Protocol.GRPC),
    ("HTTPRoute", Protocol.DETECT),
    ("TLSRoute", Protocol.TLS),
    ("TCPRoute", Protocol.OPAQUE),
)
TAKEN: Mapping[Protocol, tuple[RouteKind, ...]] = {
    Protocol.HTTP1: ("HTTPRoute",),
    Protocol.HTTP2: ("GRPCRoute", "HTTPRoute"),
    Protocol.GRPC: ("GRPCRoute", "HTTPRoute"),
    Protocol.TLS: ("TLSRoute",),
    Protocol.OPAQUE: ("TCPRoute",),
}
"""Which kinds of routes a declared protocol can have, the stronger first."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A service's port. `routes` are of one kind, in order; `backends` are the services that they may lead to."""

    service: ObjectName
    port: int
    protocol: Protocol
    routes: tuple[Route, ...] = ()
    traffic: Traffic = NO_TRAFFIC
    backends: Mapping[ObjectName, Traffic] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class UndefinedPort:
    """A service's address with a port that the service does not have: refused."""

    service: ObjectName
    port: int


@dataclass(frozen=True, slots=True)
class Egress:
    """An address outside the cluster's networks: forwarded to as it is, unless its EgressNetwork says otherwise."""

    address: str
    port: int
    network: EgressNetwork | None = None
    protocol: Protocol = Protocol.DETECT
    routes: tuple[Route, ...] = ()
    traffic: Traffic = NO_TRAFFIC
    backends: Mapping[ObjectName, Traffic] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing that a policy is about."""

    message: str


Outbound = ServiceTarget | UndefinedPort | Egress | Unknown


@dataclass(frozen=True, slots=True)
class OutboundKey:
    """What a client asks about, an address with a port or an authority as it wrote it; who asks, where it matters.

    `extended` says that the client's proxy understands what we have beside upstream's routes.
    """

    address: str = ""
    port: int = 0
    authority: str = ""
    namespace: str = ""
    extended: bool = False


class TargetIndex:
    """Answers from the world as it is at the moment of asking."""

    def __init__(self, world: World, *, cluster_domain: str, cluster_networks: tuple[IpNetwork, ...]) -> None:
        self._world = world
        self._domain = cluster_domain
        self._networks = cluster_networks

    def shared(self, key: OutboundKey) -> OutboundKey:
        """Return the key whose answer this client gets, without its namespace where that makes no difference."""
        return key if key.namespace in self.own_answers(key) else replace(key, namespace="")

    def own_answers(self, key: OutboundKey) -> frozenset[str]:
        """Return the namespaces whose clients get an answer of their own."""
        service = self._service_of(key)
        if service is not None:
            attached = self._world.routes_of(*SERVICE, service.name)
            return frozenset({of.meta.namespace for of in attached} - {service.name.namespace})
        networks = self._world.egress_networks() if key.address else ()
        routes = [route for of in networks for route in self._world.routes_of(*EGRESS_NETWORK, of.name)]
        own = {of.meta.namespace for of in networks} | {of.meta.namespace for of in routes}
        return self._world.claimants(key.address) | own

    def find(self, key: OutboundKey) -> tuple[Outbound, frozenset[str]]:
        """Return where the client's target leads, and the topics that the answer depends on."""
        if key.authority:
            return self._by_authority(key)
        services = self._world.services_at(key.address)
        topics = frozenset({address_topic(key.address)} | {service_topic(of.name) for of in services})
        if services:
            target, further = self._service(services[0], key.port, key.namespace)
            return target, topics | further
        workload = self._world.external_workload_at(key.address, key.namespace)
        if self._world.pod_at(key.address) or workload:
            return Unknown(f"{key.address} is a workload's address"), topics
        target, further = self._outside(key)
        return target, topics | further

    def mistakes(self, target: Outbound) -> tuple[str, ...]:
        """Say what of the settings of a target and its routes is not understood."""
        match target:
            case ServiceTarget():
                service = self._world.service(target.service)
                port = service.port(target.port) if service else None
                name = port.app_protocol if port else None
                unknown = name is not None and named(name) is None
                found = [f"appProtocol {name!r} is not known; the protocol is detected"] if unknown else []
                found += _mistakes("", service.annotations if service else {})
            case Egress(network=network):
                found = _mistakes("", network.meta.annotations if network else {})
            case _:
                return ()
        for route in target.routes:
            found += _mistakes(f"{route.kind} {route.name}: ", route.meta.annotations)
        return tuple(found)

    def _service_of(self, key: OutboundKey) -> Service | None:
        if not key.authority:
            return next(iter(self._world.services_at(key.address)), None)
        try:
            authority = parse(key.authority, self._domain)
        except AuthorityError:
            return None
        return self._world.service(authority.service) if isinstance(authority, ServiceAuthority) else None

    def _by_authority(self, key: OutboundKey) -> tuple[Outbound, frozenset[str]]:
        try:
            authority = parse(key.authority, self._domain)
        except AuthorityError as error:
            return Unknown(str(error)), frozenset()
        if not isinstance(authority, ServiceAuthority) or authority.hostname is not None:
            return Unknown(f"{key.authority!r} is not a service's name"), frozenset()
        topics = frozenset({service_topic(authority.service)})
        service = self._world.service(authority.service)
        if service is None or service.external_name is not None:
            return Unknown(f"no service {authority.service}"), topics
        target, further = self._service(service, authority.port, key.namespace)
        return target, topics | further

    def _service(self, service: Service, number: int, client: str) -> tuple[Outbound, frozenset[str]]:
        port = service.port(number)
        topics = frozenset({routes_topic(service.name)})
        if port is None:
            return UndefinedPort(service.name, number), topics
        declared = of_port(service, number, port.app_protocol, self._world.opaque_ports(service))
        routes = list(self._routes(SERVICE, service.name, number, client))
        protocol, routes = _of_one_kind(declared, routes)
        names = set(_services_named(routes, service.name.namespace))
        target = ServiceTarget(
            service.name, number, protocol, tuple(routes), self._traffic(service), self._known(names)
        )
        return target, topics | {service_topic(name) for name in names}

    def _outside(self, key: OutboundKey) -> tuple[Outbound, frozenset[str]]:
        topics = frozenset({egress_topic()})
        network = self._network(key)
        if network is None:
            if any(ipaddress.ip_address(key.address) in of for of in self._networks):
                return Unknown(f"{key.address} is no service's address"), topics
            return Egress(key.address, key.port), topics
        routes = list(self._routes(EGRESS_NETWORK, network.name, key.port, key.namespace))
        annotated = network.meta.annotations.get(OPAQUE_PORTS)
        opaque = DEFAULT_OPAQUE_PORTS if annotated is None else PortSet.parse(annotated)
        declared = Protocol.OPAQUE if opaque.contains(key.port) else Protocol.DETECT
        protocol, routes = _of_one_kind(declared, routes)
        names = set(_services_named(routes, network.name.namespace))
        target = Egress(
            key.address,
            key.port,
            network,
            protocol,
            tuple(routes),
            self._inherit(read(network.meta.annotations)[0], network.name.namespace),
            self._known(names),
        )
        return target, topics | {service_topic(name) for name in names}

    def _routes(self, parent: tuple[str, str], name: ObjectName, port: int, client: str) -> Iterable[Route]:
        for route in self._world.routes_of(*parent, name):
            if route.meta.namespace not in (name.namespace, client):
                continue
            its = (of for of in route.parents if (of.group, of.kind) == parent and of.port in (None, port))
            if any(
                parent_name(route, of) == name and accepted(self._world, route, of, self._networks)
                for of in its
            ):
                yield route

    def _network(self, key: OutboundKey) -> EgressNetwork | None:
        """Return the EgressNetwork for an address, of those that the client sees."""
        everywhere = self._world.egress_networks()
        own = [of for of in everywhere if of.meta.namespace == key.namespace]
        seen = own or [of for of in everywhere if of.meta.namespace == GLOBAL_EGRESS]
        return egress.around(key.address, seen, self._networks)

    def _known(self, names: Iterable[ObjectName]) -> Mapping[ObjectName, Traffic]:
        services = ((name, self._world.service(name)) for name in sorted(names))
        return {
            name: read(service.annotations)[0]
            for name, service in services
            if service is not None and service.external_name is None
        }

    def _traffic(self, service: Service) -> Traffic:
        return self._inherit(read(service.annotations)[0], service.name.namespace)

    def _inherit(self, traffic: Traffic, namespace: str) -> Traffic:
        if traffic.default_retry is not None:
            return traffic
        inherited = self._world.namespace_annotation(namespace, DEFAULT_RETRY)
        return traffic if inherited is None else replace(traffic, default_retry=inherited != "off")


def _mistakes(who: str, annotations: Mapping[str, str]) -> list[str]:
    return [f"{who}{key}: {text}; its group is left out" for key, text in read(annotations)[1]]


def extensions(routes: Iterable[Route]) -> tuple[str, ...]:
    """Name what in the routes only our own proxy can do."""
    return tuple(
        f"{route.kind} {route.name}: {'URLRewrite' if isinstance(of, UrlRewrite) else 'RequestMirror'}"
        for route in routes
        for rule in route.rules
        for of in (*rule.filters, *(of for backend in rule.backends for of in backend.filters))
        if isinstance(of, UrlRewrite | Mirror)
    )


def backend_name(backend: BackendRef, parent: str) -> ObjectName:
    """Return what a backend is called; without a namespace it is in the parent's, as upstream has it."""
    return ObjectName(backend.ref.namespace or parent, backend.ref.name)


def _of_one_kind(declared: Protocol, routes: list[Route]) -> tuple[Protocol, list[Route]]:
    """Return what is spoken, and the routes of the strongest kind that can take it."""
    if declared is Protocol.DETECT:
        for kind, protocol in _KINDS:
            if found := [route for route in routes if route.kind == kind]:
                return protocol, found
        return declared, []
    for kind in TAKEN[declared]:
        if found := [route for route in routes if route.kind == kind]:
            if declared in (Protocol.HTTP2, Protocol.GRPC):
                return Protocol.GRPC if kind == "GRPCRoute" else Protocol.HTTP2, found
            return declared, found
    return declared, []


def _services_named(routes: Iterable[Route], parent: str) -> Iterable[ObjectName]:
    for route in routes:
        for rule in route.rules:
            mirrors = (of.backend for of in rule.filters if isinstance(of, Mirror))
            nested = (of.backend for to in rule.backends for of in to.filters if isinstance(of, Mirror))
            for backend in (*rule.backends, *mirrors, *nested):
                if (backend.ref.group, backend.ref.kind) == SERVICE:
                    yield backend_name(backend, parent)
