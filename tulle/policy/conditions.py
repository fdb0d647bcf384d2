"""What is said about each object in its status: the conditions, and for a route those of each parent.

Pure. What decides whether an object counts is in `status`, and the proxies are sent what that says; here it is put
into words, together with everything that is left out or will not do what it looks like. Types with the prefix
`tulle.dev/` are ours and are there only when they have something to say; the others are upstream's.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tulle.model.authorization import (
    POLICY_GROUP,
    AuthorizationPolicy,
    EgressNetwork,
    RateLimitPolicy,
    Ref,
    Server,
    ServerAuthorization,
)
from tulle.model.policies import Policy, backend_name, parent_name, profiled
from tulle.model.profile import ServiceProfile
from tulle.model.protocol import Protocol, named, of_port
from tulle.model.route import (
    BackendRef,
    Filter,
    HeaderModifier,
    Mirror,
    ParentRef,
    Route,
    UnknownFilter,
    UrlRewrite,
)
from tulle.model.service import ObjectName, Service
from tulle.model.world import World
from tulle.policy.servers import Workload, of_external, of_pod, owner, selects
from tulle.policy.status import (
    Condition,
    IpNetwork,
    acceptance,
    egress_accepted,
    rate_limit_of,
)
from tulle.policy.targets import TAKEN
from tulle.rules import traffic

CONTROLLER = "linkerd.io/policy-controller"
SUPPORTED, ANNOTATED, GRANTED = "tulle.dev/Supported", "tulle.dev/Annotated", "tulle.dev/Granted"
PORTABLE, EFFECTIVE, UNOPPOSED = "tulle.dev/Portable", "tulle.dev/Effective", "tulle.dev/Unopposed"

ACCEPTED = Condition("Accepted", True, "Accepted")
RESOLVED = Condition("ResolvedRefs", True, "ResolvedRefs")
HTTP_SERVERS = ("unknown", "HTTP/1", "HTTP/2")


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """What a parent makes of a route."""

    parent: ParentRef
    namespace: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A route has `parents` where others have `conditions`."""

    conditions: tuple[Condition, ...] = ()
    parents: tuple[ParentStatus, ...] = ()


def status_of(world: World, item: Policy | Service, networks: Sequence[IpNetwork]) -> Status:
    """Return what there is to say about an object; `networks` are the cluster's."""
    match item:
        case Route():
            return Status(parents=tuple(_parents(world, item, networks)))
        case Server():
            return Status(tuple(_server(world, item)))
        case AuthorizationPolicy():
            return Status((_authorization(world, item),))
        case ServerAuthorization():
            return Status((_server_authorization(world, item),))
        case RateLimitPolicy():
            return Status(tuple(_rate_limit(world, item)))
        case EgressNetwork():
            return Status((_egress(item, networks), *_annotations(item.meta.annotations)))
        case ServiceProfile():
            return Status(tuple(_profile(world, item)))
        case Service():
            return Status((*_protocols(item), *_annotations(item.annotations)))
        case _:
            return Status()


# Routes


def _parents(world: World, route: Route, networks: Sequence[IpNetwork]) -> Iterator[ParentStatus]:
    for parent in route.parents:
        condition = acceptance(world, route, parent, networks)
        if condition is None:
            continue
        name = parent_name(route, parent)
        inbound = parent.kind == "Server"
        conditions = [condition]
        if inbound:
            conditions += _on_server(world, route, name)
        else:
            conditions.append(_resolved(world, route, parent))
            conditions += (
                *_taken(world, route, parent),
                *_profiled(world, route, parent),
                *_grants(world, route, parent),
                *_extensions(route),
            )
        conditions += (*_unsupported(route), *_annotations(route.meta.annotations))
        yield ParentStatus(parent, name.namespace, tuple(conditions))


def _taken(world: World, route: Route, parent: ParentRef) -> Iterator[Condition]:
    """Yield that what a Service is declared to speak leaves no room for this kind of route."""
    service = world.service(parent_name(route, parent)) if parent.kind == "Service" else None
    if service is None:
        return
    opaque = world.opaque_ports(service)
    numbers = [of for of in service.ports if parent.port in (None, of.port)]
    spoken = {of.port: of_port(service, of.port, of.app_protocol, opaque) for of in numbers}
    useless = [
        f"{port} ({protocol.value})"
        for port, protocol in spoken.items()
        if protocol is not Protocol.DETECT and route.kind not in TAKEN[protocol]
    ]
    if useless and len(useless) == len(spoken):
        text = f"no {route.kind} can be on what is spoken at the Service's ports: {', '.join(useless)}"
        yield Condition(EFFECTIVE, False, "ProtocolMismatch", text)


def _profiled(world: World, route: Route, parent: ParentRef) -> Iterator[Condition]:
    """Yield that a profile decides instead, for everybody or for the clients of its namespace."""
    service = parent_name(route, parent)
    if parent.kind != "Service" or route.kind not in ("HTTPRoute", "GRPCRoute"):
        return
    for profile in world.profiles_of(service):
        if (profile.routes or profile.overrides) and profile.meta.namespace in (
            service.namespace,
            route.meta.namespace,
        ):
            text = f"ServiceProfile {profile.name} has routes or dstOverrides, and goes before every {route.kind}"
            yield Condition(EFFECTIVE, False, "ProfilePrecedes", text)
            return


def _resolved(world: World, route: Route, parent: ParentRef) -> Condition:
    """Return whether every backend is there; requests for one that is not fail, in its share."""
    for backend in _backends(route):
        name = backend_name(route, parent, backend)
        match backend.ref.group, backend.ref.kind:
            case ("", "Service"):
                service = world.service(name)
                if service is None or service.external_name is not None:
                    return _unresolved("BackendNotFound", f"there is no Service {name}")
                if backend.port is None:
                    return _unresolved("BackendNotFound", f"Service {name} needs a port here")
                if service.port(backend.port) is None:
                    return _unresolved("BackendNotFound", f"Service {name} has no port {backend.port}")
            case (group, "EgressNetwork") if group == POLICY_GROUP:
                if (parent.kind, parent_name(route, parent)) != ("EgressNetwork", name):
                    return _unresolved("InvalidKind", f"EgressNetwork {name} is not the parent")
            case _:
                return _unresolved("InvalidKind", f"{backend.ref.kind} {name} cannot be a backend")
    return RESOLVED


def _unresolved(reason: str, message: str) -> Condition:
    return Condition("ResolvedRefs", False, reason, message)


def _backends(route: Route) -> Iterator[BackendRef]:
    for rule in route.rules:
        yield from rule.backends
    for of in _filters(route):
        if isinstance(of, Mirror):
            yield of.backend


def _filters(route: Route) -> Iterator[Filter]:
    for rule in route.rules:
        yield from rule.filters
        for backend in rule.backends:
            yield from backend.filters


def _grants(world: World, route: Route, parent: ParentRef) -> Iterator[Condition]:
    """Yield that a ReferenceGrant is missing, which other implementations of the Gateway API ask for."""
    for backend in _backends(route):
        name = backend_name(route, parent, backend)
        if name.namespace == route.meta.namespace or (backend.ref.group, backend.ref.kind) != ("", "Service"):
            continue
        if not any(
            _has(grant.sources, route.group, route.kind, route.meta.namespace)
            and any(
                (of.group, of.kind) == ("", "Service") and of.name in ("", name.name) for of in grant.targets
            )
            for grant in world.reference_grants(name.namespace)
        ):
            text = f"no ReferenceGrant lets {route.kind} {route.name} name Service {name}; it is used all the same"
            yield Condition(GRANTED, False, "RefNotPermitted", text)
            return


def _has(sources: Iterable[Ref], group: str, kind: str, namespace: str) -> bool:
    return any((of.group, of.kind, of.namespace) == (group, kind, namespace) for of in sources)


def _extensions(route: Route) -> Iterator[Condition]:
    """Yield what only a proxy of ours can do."""
    words = {
        UrlRewrite: "with URLRewrite requests fail (500)",
        Mirror: "with RequestMirror no copy is sent",
    }
    found = [words[kind] for kind in words if any(isinstance(of, kind) for of in _filters(route))]
    if found:
        text = f"at a proxy without the extension: {'; '.join(found)}"
        yield Condition(PORTABLE, False, "NeedsExtension", text)


def _unsupported(route: Route) -> Iterator[Condition]:
    """Yield fields and filters that are not acted on."""
    failing = sorted({of.type for of in _filters(route) if isinstance(of, UnknownFilter)})
    if failing:
        text = f"requests fail because of filters that are not supported: {', '.join(failing)}"
        yield Condition(SUPPORTED, False, "UnsupportedFilter", text)
    elif route.unsupported:
        yield Condition(SUPPORTED, False, "UnsupportedField", f"not acted on: {', '.join(route.unsupported)}")


def _on_server(world: World, route: Route, name: ObjectName) -> Iterator[Condition]:
    """Yield what of a route a Server has no use for."""
    server = world.server(name)
    if server is None:
        return
    protocols = ("gRPC",) if route.kind == "GRPCRoute" else HTTP_SERVERS
    if server.protocol not in protocols:
        text = f"a {route.kind} needs a proxyProtocol of {' or '.join(protocols)}; Server {name} has {server.protocol}"
        yield Condition(EFFECTIVE, False, "ProtocolMismatch", text)
        return
    useless = {
        "ResponseHeaderModifier": any(
            isinstance(of, HeaderModifier) and of.response for of in _filters(route)
        ),
        "RequestMirror": any(isinstance(of, Mirror) for of in _filters(route)),
        "URLRewrite (requests fail)": any(isinstance(of, UrlRewrite) for of in _filters(route)),
        "backendRefs": any(rule.backends for rule in route.rules),
        "timeouts": any(rule.request_timeout or rule.backend_request_timeout for rule in route.rules),
    }
    found = [name for name, there in useless.items() if there]
    if found:
        text = f"with a Server as parent these do nothing: {', '.join(found)}"
        yield Condition(EFFECTIVE, False, "NotForServers", text)


# Servers and authorizations


def _server(world: World, server: Server) -> Iterator[Condition]:
    """Yield whether a Server owns what it selects; an older one, or the first by name, has it otherwise."""
    namespace = server.meta.namespace
    workloads: list[Workload] = [of_pod(pod) for pod in world.pods() if pod.name.namespace == namespace]
    workloads += [of_external(of, world) for of in world.external_workloads(namespace)]
    owned, lost = 0, defaultdict[str, list[str]](list)
    for workload in workloads:
        for port in _ports(server, workload):
            if not selects(server, workload, port):
                continue
            first = owner(world.servers(namespace), workload, port)
            if first is None or first.name == server.name:
                owned += 1
            else:
                lost[first.meta.name].append(f"{workload.name.name}:{port}")
    if lost:
        words = [f"Server {name} has {', '.join(sorted(ports)[:3])}" for name, ports in sorted(lost.items())]
        text = f"{'; '.join(words)}: the oldest one that selects a port has it, then the first by name"
        if owned:
            yield ACCEPTED
            yield Condition(UNOPPOSED, False, "PartlyOverlapped", text)
        else:
            yield Condition("Accepted", False, "ServerConflicted", text)
    else:
        yield Condition(
            "Accepted", True, "Accepted", "" if owned else "no port of a running workload is selected"
        )


def _ports(server: Server, workload: Workload) -> set[int]:
    if isinstance(server.port, int):
        return {server.port}
    return {number for name, number in workload.ports if name == server.port}


def _authorization(world: World, policy: AuthorizationPolicy) -> Condition:
    target, namespace = policy.target, policy.meta.namespace
    name = ObjectName(namespace, target.name)
    match target.kind:
        case "Namespace":
            found = target.name == namespace
        case "Server":
            found = world.server(name) is not None
        case kind:
            found = world.route(target.group, kind, name) is not None
    if not found:
        return Condition("Accepted", False, "TargetNotFound", f"there is no {target.kind} {target.name}")
    for ref in policy.required:
        wanted = ObjectName(ref.namespace or namespace, ref.name)
        there: object = True
        if ref.kind == "MeshTLSAuthentication":
            there = world.mesh_tls_authentication(wanted)
        elif ref.kind == "NetworkAuthentication":
            there = world.network_authentication(wanted)
        if there is None:
            text = f"there is no {ref.kind} {wanted}, so this lets nobody in"
            return Condition("Accepted", False, "AuthenticationNotFound", text)
    return ACCEPTED


def _server_authorization(world: World, item: ServerAuthorization) -> Condition:
    servers = world.servers(item.meta.namespace)
    if not any(
        of.meta.name == item.server or (item.selector is not None and item.selector.matches(of.meta.labels))
        for of in servers
    ):
        return Condition("Accepted", False, "TargetNotFound", "no Server is selected")
    if not (item.unauthenticated or item.unauthenticated_tls or item.identities or item.service_accounts):
        return Condition("Accepted", False, "NobodyNamed", "lets nobody in: no client is named")
    return ACCEPTED


def _rate_limit(world: World, item: RateLimitPolicy) -> Iterator[Condition]:
    name = ObjectName(item.meta.namespace, item.target.name)
    server = world.server(name) if item.target.kind == "Server" else None
    if server is None:
        text = f"there is no {item.target.kind} {name}"
        yield Condition("Accepted", False, "NoMatchingTarget", text)
        return
    first = rate_limit_of(world, name)
    if first is not None and first.name != item.name:
        text = f"{first.meta.name} limits Server {name} already"
        yield Condition("Accepted", False, "RateLimitReasonAlreadyExists", text)
        return
    yield ACCEPTED
    if server.protocol not in HTTP_SERVERS:
        text = f"a limit needs a proxyProtocol of {' or '.join(HTTP_SERVERS)}; Server {name} has {server.protocol}"
        yield Condition(EFFECTIVE, False, "ProtocolMismatch", text)


# Services, profiles and networks outside


def _egress(item: EgressNetwork, networks: Sequence[IpNetwork]) -> Condition:
    if egress_accepted(item, networks):
        return ACCEPTED
    return Condition("Accepted", False, "EgressReasonNetworkOverlap", "networks overlap with clusterNetworks")


def _profile(world: World, item: ServiceProfile) -> Iterator[Condition]:
    service = profiled(item)
    if service is None or world.service(service) is None:
        yield Condition(
            "Accepted", False, "ServiceNotFound", f"there is no Service {service or item.meta.name}"
        )
    else:
        yield ACCEPTED
    spec = item.raw.get("spec")
    if isinstance(spec, dict) and spec.get("opaquePorts"):
        text = "not acted on: spec.opaquePorts; annotate the Service instead"
        yield Condition(SUPPORTED, False, "UnsupportedField", text)


def _protocols(service: Service) -> Iterator[Condition]:
    unknown = [
        f"{of.app_protocol} (port {of.port})"
        for of in service.ports
        if of.app_protocol and named(of.app_protocol) is None
    ]
    if unknown:
        text = f"not known, so that what is spoken is detected: {', '.join(unknown)}"
        yield Condition(SUPPORTED, False, "UnknownAppProtocol", text)


def _annotations(given: Mapping[str, str]) -> Iterator[Condition]:
    mistakes = traffic.read(given)[1]
    if mistakes:
        text = "; ".join(f"{key}: {what}" for key, what in mistakes)
        yield Condition(ANNOTATED, False, "InvalidAnnotation", f"{text}; what belongs to it is left out")
