"""Which endpoints a name resolves to, and what an address or a name is.

Pure: it reads the `World` and returns values; a test is a list of updates and the answer they lead to.

A service that exists without a ready endpoint is *empty*: the proxy fails fast. A service that does
not exist is *unknown*: the proxy asks again. An address that is nobody's is neither: the proxy goes
to it as it is. Confusing these black-holes traffic, so they are three types.

Of a pod with addresses of both families one is named, the IPv4 one: the same pod twice would get
twice its share. Whoever asks about an IPv6 address is answered with that address.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tulle.model import profile as profile_model
from tulle.model.address import is_ipv6
from tulle.model.authority import AddressAuthority, ServiceAuthority
from tulle.model.endpoint import Endpoint, Slice
from tulle.model.external import ExternalWorkload
from tulle.model.pod import ADMIN_PORT, CONTROL_PORT, INBOUND_PORT, ZONE, Pod, TrustDomain
from tulle.model.policies import profile_topic
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.protocol import opaque_to_clients
from tulle.model.service import ObjectName, Service
from tulle.model.world import OPAQUE_PORTS, World, address_topic, service_topic

# Owner kinds whose metric label is not just their lower-case name: `job` is Prometheus's own.
_OWNER_LABELS = {"Job": "k8s_job"}


@dataclass(frozen=True, slots=True)
class Peer:
    """One address to connect to, with all that a client must know of it."""

    address: str
    port: int
    labels: tuple[tuple[str, str], ...] = ()
    identity: str | None = None
    opaque: bool = False
    h2: bool = False
    inbound_port: int | None = None
    server_name: str | None = None
    """What to ask the peer's proxy for, where that is not the identity."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No such service, or none that could have endpoints (`final`: and never will under this name)."""

    message: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """An address that several services claim."""

    message: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """The endpoints of a service, keyed by where they are."""

    service: ObjectName
    peers: dict[tuple[str, int], Peer]
    exists: bool = True


@dataclass(frozen=True, slots=True)
class ServiceProfile:
    """A name or address of a service, with the profile that is in force for the client."""

    service: ObjectName
    port: int
    opaque: bool
    profile: profile_model.ServiceProfile | None = None


@dataclass(frozen=True, slots=True)
class EndpointProfile:
    """A name or address of one endpoint."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class EmptyProfile:
    """A service's address with a port that the service does not have."""


Profile = ServiceProfile | EndpointProfile | EmptyProfile | Unknown | Ambiguous


@dataclass(frozen=True, slots=True)
class Client:
    """Where the asker is, as far as an answer depends on it; `node` is set for node-local services only."""

    zone: str | None = None
    node: str | None = None


class DestinationIndex:
    """Answers from the world as it is at the moment of asking."""

    def __init__(self, world: World, trust: TrustDomain, *, cluster_domain: str) -> None:
        self._world = world
        self._trust = trust
        self._domain = cluster_domain

    def resolve(
        self, authority: ServiceAuthority, client: Client
    ) -> tuple[Resolution | Unknown, frozenset[str]]:
        """Return the service's ready endpoints and the topics that the answer depends on."""
        topics = frozenset({service_topic(authority.service)})
        service = self._world.service(authority.service)
        if service is None:
            return Unknown(f"no service {authority.service}"), topics
        if service.external_name is not None:
            return Unknown(f"{authority.service} is of type ExternalName", final=True), topics
        endpoints = self._endpoints(service, authority)
        if service.local_traffic_only:
            endpoints = ((endpoint, port) for endpoint, port in endpoints if endpoint.node == client.node)
        near = _near(list(endpoints), client.zone)
        peers = (self._peer(endpoint, port, client) for endpoint, port in _one_per_pod(near))
        return Resolution(authority.service, {(peer.address, peer.port): peer for peer in peers}), topics

    def profile(
        self, authority: ServiceAuthority | AddressAuthority, namespace: str = ""
    ) -> tuple[Profile, frozenset[str]]:
        """Return what a name or an address is to clients of a namespace, and the topics that the answer depends on."""
        if isinstance(authority, AddressAuthority):
            return self._address_profile(authority, namespace)
        topics = frozenset({service_topic(authority.service), profile_topic(authority.service)})
        service = self._world.service(authority.service)
        if service is None:
            return Unknown(f"no service {authority.service}"), topics
        if service.external_name is not None:
            return Unknown(f"{authority.service} is of type ExternalName", final=True), topics
        if authority.hostname is None:
            return self._service_profile(service, authority.port, namespace), topics
        found = next(_one_per_pod(self._endpoints(service, authority)), None)
        if found is None:
            return Unknown(f"no ready {authority.hostname} in service {authority.service}"), topics
        return EndpointProfile(self._peer(*found, Client())), topics

    def own_answers(self, authority: ServiceAuthority | AddressAuthority) -> frozenset[str]:
        """Return the namespaces whose clients get a profile of their own."""
        service = self._service_of(authority)
        if service is None:
            return (
                self._world.claimants(authority.address)
                if isinstance(authority, AddressAuthority)
                else frozenset()
            )
        return frozenset({of.meta.namespace for of in self._world.profiles_of(service)} - {service.namespace})

    def _service_of(self, authority: ServiceAuthority | AddressAuthority) -> ObjectName | None:
        if isinstance(authority, ServiceAuthority):
            return authority.service
        services = self._world.services_at(authority.address)
        return services[0].name if services else None

    def is_local_only(self, service: ObjectName) -> bool:
        """Tell whether the service's traffic stays on the client's node."""
        known = self._world.service(service)
        return known is not None and known.local_traffic_only

    def zone_of(self, pod: ObjectName | None) -> str | None:
        """Return the zone of a pod, None where it is not known."""
        known = self._world.pod(pod) if pod else None
        return known.zone if known else None

    def _address_profile(self, authority: AddressAuthority, namespace: str) -> tuple[Profile, frozenset[str]]:
        services = self._world.services_at(authority.address)
        about = {topic(of.name) for of in services for topic in (service_topic, profile_topic)}
        topics = frozenset({address_topic(authority.address)} | about)
        if len(services) > 1:
            names = ", ".join(str(service.name) for service in services)
            return Ambiguous(f"{authority.address} is the address of several services: {names}"), topics
        if services and services[0].port(authority.port) is None:
            return EmptyProfile(), topics
        if services:
            return self._service_profile(services[0], authority.port, namespace), topics
        pod = self._world.pod_at(authority.address)
        external = self._world.external_workload_at(authority.address, namespace)
        # A pod's address is a fact, an external workload's is what somebody wrote.
        if external is not None and (pod is None or pod.terminating):
            peer = self._external_peer(authority.address, authority.port, external, Client())
            return EndpointProfile(peer), topics
        if pod is None:
            return EndpointProfile(Peer(authority.address, authority.port)), topics
        endpoint = Endpoint(authority.address, pod=pod.name, node=pod.node, zone=pod.zone)
        return EndpointProfile(self._pod_peer(endpoint, authority.port, pod, Client())), topics

    def _service_profile(self, service: Service, port: int, client: str) -> ServiceProfile:
        defined = service.port(port)
        opaque = opaque_to_clients(
            service, port, defined.app_protocol if defined else None, self._world.opaque_ports(service)
        )
        name = f"{service.name.name}.{service.name.namespace}.svc.{self._domain}"
        profiles = (
            self._world.profile(ObjectName(namespace, name)) for namespace in (client, service.name.namespace)
        )
        return ServiceProfile(service.name, port, opaque, next(filter(None, profiles), None))

    def _endpoints(self, service: Service, authority: ServiceAuthority) -> Iterator[tuple[Endpoint, int]]:
        defined = service.port(authority.port)
        for of in self._world.slices(service.name):
            # A port that the service does not define is the endpoint's own, as upstream has it.
            number = _target(of, defined.name) if defined else authority.port
            if number is None:
                continue
            for endpoint in of.endpoints:
                if endpoint.ready and authority.hostname in (None, endpoint.hostname):
                    yield endpoint, number

    def _peer(self, endpoint: Endpoint, port: int, client: Client) -> Peer:
        external = self._world.external_workload(endpoint.external) if endpoint.external else None
        if external is not None:
            return self._external_peer(endpoint.address, port, external, client)
        pod = self._world.pod(endpoint.pod) if endpoint.pod else None
        if pod is None:
            return Peer(endpoint.address, port, _zone_labels(endpoint.zone, client))
        return self._pod_peer(endpoint, port, pod, client)

    def _pod_peer(self, endpoint: Endpoint, port: int, pod: Pod, client: Client) -> Peer:
        labels = (*self._pod_labels(pod), *_zone_labels(endpoint.zone or pod.zone, client))
        if not pod.reached_through_proxy(port):
            return Peer(endpoint.address, port, labels)
        # The proxy answers these two itself, on its own listeners.
        of_proxy = port in (ADMIN_PORT, CONTROL_PORT)
        opaque = pod.is_opaque(port)
        return Peer(
            endpoint.address,
            port,
            labels,
            identity=self._trust.identity(pod.name.namespace, pod.service_account),
            opaque=opaque,
            h2=not opaque and port != ADMIN_PORT,
            inbound_port=None if of_proxy else INBOUND_PORT,
        )

    def _external_peer(self, address: str, port: int, of: ExternalWorkload, client: Client) -> Peer:
        """Return an external workload, which always has a proxy; its name is its certificate's, not ours."""
        annotated = of.meta.annotations.get(OPAQUE_PORTS)
        ports = DEFAULT_OPAQUE_PORTS if annotated is None else PortSet.parse(annotated)
        opaque = ports.contains(port, {each.name: each.port for each in of.ports if each.name})
        labels = (("namespace", of.meta.namespace), ("external_workload", of.meta.name))
        return Peer(
            address,
            port,
            (*labels, *_zone_labels(of.meta.labels.get(ZONE), client)),
            identity=of.identity,
            opaque=opaque,
            h2=not opaque,
            inbound_port=INBOUND_PORT,
            server_name=of.server_name,
        )

    def _pod_labels(self, pod: Pod) -> Iterator[tuple[str, str]]:
        yield "namespace", pod.name.namespace
        yield "pod", pod.name.name
        yield "serviceaccount", pod.service_account
        if pod.owner:
            yield _OWNER_LABELS.get(pod.owner.kind, pod.owner.kind.lower()), pod.owner.name
        if pod.meshed:
            yield "control_plane_ns", self._trust.control_namespace
        if template_hash := pod.labels.get("pod-template-hash"):
            yield "pod_template_hash", template_hash


def _target(of: Slice, name: str) -> int | None:
    return next((port.number for port in of.ports if port.name == name), None)


def _near(endpoints: list[tuple[Endpoint, int]], zone: str | None) -> list[tuple[Endpoint, int]]:
    """Return the endpoints that are meant for the client's zone, if there is a hint on every one and any is."""
    if zone is None or not all(endpoint.hints for endpoint, _ in endpoints):
        return endpoints
    return [found for found in endpoints if zone in found[0].hints] or endpoints


def _one_per_pod(endpoints: Iterable[tuple[Endpoint, int]]) -> Iterator[tuple[Endpoint, int]]:
    chosen: dict[tuple[object, ...], tuple[Endpoint, int]] = {}
    for endpoint, port in endpoints:
        who = (
            endpoint.pod,
            endpoint.external,
            None if endpoint.pod or endpoint.external else endpoint.address,
            port,
        )
        if who not in chosen or is_ipv6(chosen[who][0].address):
            chosen[who] = (endpoint, port)
    yield from chosen.values()


def _zone_labels(zone: str | None, client: Client) -> tuple[tuple[str, str], ...]:
    if zone is None:
        return (("zone_locality", "unknown"),)
    locality = "unknown" if client.zone is None else "local" if client.zone == zone else "remote"
    return (("zone", zone), ("zone_locality", locality))
