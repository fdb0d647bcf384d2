"""What holds for one port of one workload: which Server owns it, who is let in, by which routes, how often.

The oldest Server whose selector and port fit owns the port (then the first by name); the others have no say. Its
protocol alone decides how the port is read. A port that no Server owns falls to the default policy: the workload's
annotation, else its namespace's, else the mesh's. A value that is no policy's name counts as absent and is
reported, never as "deny": upstream does the same.

Routes count where the Server accepted them and its protocol has their kind. Where one is attached, a request that
none matches is not found, and probes need a route like everybody else.

The proxy's own port is special: the controller reads its metrics by identity, and anyone may ask whether it lives,
whatever the policy says. These are routes with authorizations of their own, in front of all others.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tulle.model.authorization import POLICY_GROUP, Network, Server
from tulle.model.external import ExternalWorkload
from tulle.model.pod import ADMIN_PORT, Pod, TrustDomain
from tulle.model.policies import parent_name
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.protocol import Protocol
from tulle.model.route import (
    Filter,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Mirror,
    PathMatch,
    Redirect,
    Route,
    UnknownFilter,
    UrlRewrite,
)
from tulle.model.service import ObjectName
from tulle.model.world import OPAQUE_PORTS, World, policy_topic
from tulle.policy.authorizations import (
    ANYONE,
    EVERYWHERE,
    POLICY_NAMES,
    Authorization,
    Authorizer,
    Clients,
    DefaultPolicy,
    Origin,
    of_default,
)
from tulle.policy.status import accepted, rate_limit_of

DEFAULT_POLICY = "config.linkerd.io/default-inbound-policy"
REQUIRE_IDENTITY = "config.linkerd.io/proxy-require-identity-inbound-ports"
ADMIN_PORT_NAME = "linkerd-admin"
READINESS_PATHS = ("/live", "/ready")
METRICS_PATH = "/metrics"

_PROTOCOLS = {
    "unknown": Protocol.DETECT,
    "HTTP/1": Protocol.HTTP1,
    "HTTP/2": Protocol.HTTP2,
    "gRPC": Protocol.GRPC,
    "opaque": Protocol.OPAQUE,
    "TLS": Protocol.TLS,
}
_HTTP = (Protocol.DETECT, Protocol.HTTP1, Protocol.HTTP2)


@dataclass(frozen=True, slots=True)
class Failure:
    """In place of a filter that cannot be done here: whoever wrote it wants something done, so requests fail."""

    message: str


InboundFilter = HeaderModifier | Redirect | Failure


@dataclass(frozen=True, slots=True)
class InboundRule:
    """No match is every request."""

    matches: tuple[HttpMatch | GrpcMatch, ...]
    filters: tuple[InboundFilter, ...] = ()


@dataclass(frozen=True, slots=True)
class InboundRoute:
    """Lets in whom its authorizations name, besides those of the Server."""

    origin: Origin
    rules: tuple[InboundRule, ...]
    hostnames: tuple[str, ...] = ()
    authorizations: tuple[Authorization, ...] = ()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Requests a second: of all, of each identity, and of those that share one bucket in place of the latter."""

    origin: Origin
    total: int | None
    identity: int | None
    overrides: tuple[tuple[int, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class InboundPort:
    """All that a proxy is told about a port; without routes every request is served by the Server's authorizations."""

    server: Origin
    protocol: Protocol
    authorizations: tuple[Authorization, ...]
    routes: tuple[InboundRoute, ...] = ()
    limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """What a pod and an external workload have in common; a name may stand for several ports."""

    name: ObjectName
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    ports: frozenset[tuple[str, int]]
    opaque: PortSet
    probes: Mapping[int, frozenset[str]] = field(default_factory=dict)
    external: bool = False

    def in_set(self, ports: PortSet, port: int) -> bool:
        """Tell whether a set of numbers and names has the port."""
        return ports.contains(port) or any((name, port) in self.ports for name in ports.names)


def of_pod(pod: Pod) -> Workload:
    """Return what policy needs of a pod."""
    admin = {(ADMIN_PORT_NAME, ADMIN_PORT)} if pod.meshed else set()
    named = {*pod.ports.items(), *pod.further_ports, *admin}
    probes: dict[int, set[str]] = {}
    for probe in pod.probes:
        probes.setdefault(probe.port, set()).add(probe.path.partition("?")[0])
    return Workload(
        name=pod.name,
        labels=pod.labels,
        annotations=pod.annotations,
        ports=frozenset(named),
        opaque=pod.opaque_ports,
        probes={port: frozenset(paths) for port, paths in probes.items()},
    )


def of_external(workload: ExternalWorkload, world: World) -> Workload:
    """Return what policy needs of an external workload; nobody probes one through its proxy."""
    meta = workload.meta
    opaque = meta.annotations.get(OPAQUE_PORTS)
    if opaque is None:
        opaque = world.namespace_annotation(meta.namespace, OPAQUE_PORTS)
    return Workload(
        name=workload.name,
        labels=meta.labels,
        annotations=meta.annotations,
        ports=frozenset(
            (port.name, port.port) for port in workload.ports if port.name and port.protocol == "TCP"
        ),
        opaque=DEFAULT_OPAQUE_PORTS if opaque is None else PortSet.parse(opaque),
        external=True,
    )


@dataclass(frozen=True, slots=True)
class Ground:
    """What the mesh's own settings say; `controller` is the identity that may always read metrics."""

    default: DefaultPolicy
    cluster: tuple[Network, ...]
    trust: TrustDomain
    controller: str


class PortPolicy:
    """Finds what holds for a port; `topics` are what the answer depends on, besides the workload itself."""

    def __init__(self, world: World, ground: Ground, workload: Workload, port: int) -> None:
        self._world = world
        self._ground = ground
        self._workload = workload
        self._port = port
        self._authorizer = Authorizer(world, ground.trust, ground.cluster)

    def find(self) -> InboundPort:
        """Return what holds."""
        server = owner(self._world.servers(self._workload.name.namespace), self._workload, self._port)
        return self._unowned() if server is None else self._owned(server)

    @property
    def topics(self) -> frozenset[str]:
        """Name what `find` looked at."""
        asked = self._authorizer.asked | {self._workload.name.namespace}
        return frozenset(map(policy_topic, asked))

    def _unowned(self) -> InboundPort:
        policy = self._default()
        opaque = self._workload.in_set(self._workload.opaque, self._port) and self._port != ADMIN_PORT
        return InboundPort(
            Origin(policy.value),
            Protocol.OPAQUE if opaque else Protocol.DETECT,
            of_default(policy, self._ground.cluster),
            () if opaque else tuple(self._built_in()),
        )

    def _default(self) -> DefaultPolicy:
        annotations = self._workload.annotations
        inherited = self._world.namespace_annotation(self._workload.name.namespace, DEFAULT_POLICY)
        named = (value for value in (annotations.get(DEFAULT_POLICY), inherited) if value in POLICY_NAMES)
        value = next(named, None)
        policy = self._ground.default if value is None else DefaultPolicy(value)
        required = annotations.get(REQUIRE_IDENTITY)
        if required and self._workload.in_set(PortSet.parse(required), self._port):
            return policy.requiring_identity
        return policy

    def _owned(self, server: Server) -> InboundPort:
        protocol = _PROTOCOLS[server.protocol]
        if self._port == ADMIN_PORT and protocol not in _HTTP:
            # The proxy serves HTTP there whatever somebody calls it, and readiness is a route.
            protocol = Protocol.DETECT
        return InboundPort(
            Origin(server.meta.name, "server", POLICY_GROUP),
            protocol,
            self._authorizer.of_server(server),
            tuple(self._routes(server, protocol)),
            self._limit(server) if protocol in _HTTP else None,
        )

    def _routes(self, server: Server, protocol: Protocol) -> Iterator[InboundRoute]:
        if protocol in (Protocol.OPAQUE, Protocol.TLS):
            return
        kind = "GRPCRoute" if protocol is Protocol.GRPC else "HTTPRoute"
        attached = self._world.routes_of(POLICY_GROUP, "Server", server.name)
        routes = [
            self._route(route) for route in attached if route.kind == kind and self._takes(server, route)
        ]
        if routes:
            if self._port == ADMIN_PORT:
                yield from self._admin()
            yield from routes
        elif protocol is not Protocol.GRPC:
            yield from self._built_in()

    def _takes(self, server: Server, route: Route) -> bool:
        return any(
            (parent.group, parent.kind, parent_name(route, parent)) == (POLICY_GROUP, "Server", server.name)
            and accepted(self._world, route, parent, ())
            for parent in route.parents
        )

    def _route(self, route: Route) -> InboundRoute:
        meta = route.meta
        rules = (InboundRule(rule.matches, tuple(_filters(rule.filters, route.kind))) for rule in route.rules)
        return InboundRoute(
            Origin(meta.name, route.kind, route.group),
            tuple(rules),
            route.hostnames,
            self._authorizer.of_route(meta.namespace, route.group, route.kind, meta.name),
        )

    def _built_in(self) -> Iterator[InboundRoute]:
        if self._port == ADMIN_PORT:
            yield from self._admin()
        elif paths := self._workload.probes.get(self._port):
            yield _get("probe", sorted(paths), Authorization(Origin("probe"), EVERYWHERE, ANYONE))
        yield InboundRoute(Origin("default"), (InboundRule((HttpMatch(PathMatch("prefix", "/")),)),))

    def _admin(self) -> Iterator[InboundRoute]:
        yield _get("probe", READINESS_PATHS, Authorization(Origin("probe"), EVERYWHERE, ANYONE))
        reader = Clients(names=(self._ground.controller,))
        yield _get("metrics", (METRICS_PATH,), Authorization(Origin("controller"), EVERYWHERE, reader))

    def _limit(self, server: Server) -> RateLimit | None:
        policy = rate_limit_of(self._world, server.name)
        if policy is None:
            return None
        of = self._authorizer.service_accounts
        return RateLimit(
            Origin(policy.meta.name, "HTTPLocalRateLimitPolicy", POLICY_GROUP),
            policy.total,
            policy.identity,
            tuple(
                (each.requests_per_second, of(each.clients, policy.meta.namespace))
                for each in policy.overrides
            ),
        )


def owner(servers: Iterable[Server], workload: Workload, port: int) -> Server | None:
    """Return the Server that owns a workload's port: the first, by age, that selects it."""
    return next((server for server in servers if selects(server, workload, port)), None)


def selects(server: Server, workload: Workload, port: int) -> bool:
    """Tell whether a Server means this port of this workload."""
    selector = server.external_workloads if workload.external else server.pods
    if selector is None or not selector.matches(workload.labels):
        return False
    if isinstance(server.port, int):
        return server.port == port
    return (server.port, port) in workload.ports


def _get(name: str, paths: Iterable[str], authorization: Authorization) -> InboundRoute:
    matches = tuple(HttpMatch(PathMatch("exact", path), method="GET") for path in paths)
    return InboundRoute(Origin(name), (InboundRule(matches),), authorizations=(authorization,))


def _filters(filters: Iterable[Filter], kind: str) -> Iterator[InboundFilter]:
    for each in filters:
        match each:
            case HeaderModifier(response=True) | Mirror():
                # Neither has a place in what a proxy is told about its own ports; the route's status says so.
                continue
            case HeaderModifier():
                yield each
            case Redirect() if kind == "HTTPRoute":
                yield each
            case Redirect():
                yield Failure("the filter RequestRedirect is not for gRPC")
            case UrlRewrite():
                yield Failure("the filter URLRewrite is not for a Server's routes")
            case UnknownFilter(type):
                yield Failure(f"the filter {type} is not known")
