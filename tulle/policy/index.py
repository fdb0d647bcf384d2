"""Which policy applies to a port of a pod, and to an address or name that a client connects to.

Pure: it reads the `World` and returns values. It decides which defaults and annotations apply; what
they let in or where they lead, request by request, is the proxy's decision.

Precedence of the default policy: the pod's annotation (the workload's own, else the namespace's, as
injection copied it), else the namespace's, else the mesh's. A value that is no policy's name counts
as absent and is reported, never as "deny": upstream does the same.
"""

import ipaddress
from dataclasses import dataclass
from enum import Enum

from tulle.model.authority import AuthorityError, ServiceAuthority, parse
from tulle.model.pod import ADMIN_PORT, Pod
from tulle.model.ports import PortSet
from tulle.model.protocol import Protocol, named, of_port
from tulle.model.service import ObjectName, Service
from tulle.model.world import World, address_topic, pod_topic, service_topic

DEFAULT_POLICY = "config.linkerd.io/default-inbound-policy"
REQUIRE_IDENTITY = "config.linkerd.io/proxy-require-identity-inbound-ports"


class DefaultPolicy(Enum):
    """What holds for a port that no Server selects; the values are upstream's names."""

    ALL_UNAUTHENTICATED = "all-unauthenticated"
    ALL_AUTHENTICATED = "all-authenticated"
    CLUSTER_UNAUTHENTICATED = "cluster-unauthenticated"
    CLUSTER_AUTHENTICATED = "cluster-authenticated"
    DENY = "deny"
    AUDIT = "audit"

    @property
    def requiring_identity(self) -> "DefaultPolicy":
        """Return the policy that also demands a mesh identity."""
        return _REQUIRING.get(self, self)


_REQUIRING = {
    DefaultPolicy.ALL_UNAUTHENTICATED: DefaultPolicy.ALL_AUTHENTICATED,
    DefaultPolicy.CLUSTER_UNAUTHENTICATED: DefaultPolicy.CLUSTER_AUTHENTICATED,
}


@dataclass(frozen=True, slots=True)
class InboundPort:
    """`probe_paths` are the HTTP probes on this port; `admin` is the proxy's own port."""

    policy: DefaultPolicy
    opaque: bool = False
    probe_paths: tuple[str, ...] = ()
    admin: bool = False


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A service's port."""

    service: ObjectName
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class UndefinedPort:
    """A service's address with a port that the service does not have: refused."""

    service: ObjectName
    port: int


@dataclass(frozen=True, slots=True)
class Egress:
    """An address outside the cluster's networks: forwarded to as it is."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing that a policy is about."""

    message: str


@dataclass(frozen=True, slots=True)
class OutboundKey:
    """What a client asks about: an address with a port, or an authority as it wrote it."""

    address: str = ""
    port: int = 0
    authority: str = ""


Outbound = ServiceTarget | UndefinedPort | Egress | Unknown


class PolicyIndex:
    """Answers from the world as it is at the moment of asking."""

    def __init__(
        self, world: World, *, cluster_domain: str, cluster_networks: tuple[str, ...], default: DefaultPolicy
    ) -> None:
        self._world = world
        self._domain = cluster_domain
        self._networks = tuple(ipaddress.ip_network(network) for network in cluster_networks)
        self._default = default

    def inbound(self, name: ObjectName, port: int) -> tuple[InboundPort | Unknown, frozenset[str]]:
        """Return what applies to the pod's port, and the topics that the answer depends on."""
        topics = frozenset({pod_topic(name)})
        pod = self._world.pod(name)
        if pod is None:
            return Unknown(f"no pod {name}"), topics
        policy = self._default_of(pod)
        required = pod.annotations.get(REQUIRE_IDENTITY)
        if required and PortSet.parse(required).contains(port, pod.ports):
            policy = policy.requiring_identity
        if port == ADMIN_PORT:
            return InboundPort(policy, admin=True), topics
        paths = sorted({probe.path.partition("?")[0] for probe in pod.probes if probe.port == port})
        return InboundPort(policy, opaque=pod.is_opaque(port), probe_paths=tuple(paths)), topics

    def outbound(self, key: OutboundKey) -> tuple[Outbound, frozenset[str]]:
        """Return where the client's target leads, and the topics that the answer depends on."""
        if key.authority:
            return self._by_authority(key.authority)
        services = self._world.services_at(key.address)
        topics = frozenset({address_topic(key.address)} | {service_topic(of.name) for of in services})
        if services:
            return self._service(services[0], key.port), topics
        if self._world.pod_at(key.address) is None and not self._in_cluster(key.address):
            return Egress(key.address, key.port), topics
        return Unknown(f"{key.address} is no service's address"), topics

    def mistakes(self, target: ServiceTarget) -> str | None:
        """Say what of the service's settings is not understood, if anything."""
        service = self._world.service(target.service)
        port = service.port(target.port) if service else None
        if port and port.app_protocol and named(port.app_protocol) is None:
            return f"appProtocol {port.app_protocol!r} is not known; the protocol is detected"
        return None

    def _by_authority(self, text: str) -> tuple[Outbound, frozenset[str]]:
        try:
            authority = parse(text, self._domain)
        except AuthorityError as error:
            return Unknown(str(error)), frozenset()
        if not isinstance(authority, ServiceAuthority) or authority.hostname is not None:
            return Unknown(f"{text!r} is not a service's name"), frozenset()
        topics = frozenset({service_topic(authority.service)})
        service = self._world.service(authority.service)
        if service is None or service.external_name is not None:
            return Unknown(f"no service {authority.service}"), topics
        return self._service(service, authority.port), topics

    def _service(self, service: Service, number: int) -> Outbound:
        port = service.port(number)
        if port is None:
            return UndefinedPort(service.name, number)
        protocol = of_port(service, number, port.app_protocol, self._world.opaque_ports(service))
        return ServiceTarget(service.name, number, protocol)

    def _default_of(self, pod: Pod) -> DefaultPolicy:
        inherited = self._world.namespace_annotation(pod.name.namespace, DEFAULT_POLICY)
        for value in (pod.annotations.get(DEFAULT_POLICY), inherited):
            if value in _POLICY_NAMES:
                return DefaultPolicy(value)
        return self._default

    def _in_cluster(self, address: str) -> bool:
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._networks)


_POLICY_NAMES = frozenset(policy.value for policy in DefaultPolicy)
