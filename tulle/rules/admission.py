"""Whether an object may be applied: the rules that more than one of its fields, or what a field means, decide.

Pure: a decoded object in, findings out, each with the path of the field. `decode` gives them a file and a line; a
webhook has no such thing and uses the path alone. Errors are what upstream's webhook and the API server refuse;
warnings are what they let pass and what then has no effect.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from tulle.model import objects
from tulle.model.authorization import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    AuthorizationPolicy,
    EgressNetwork,
    MeshTLSAuthentication,
    Network,
    NetworkAuthentication,
    RateLimitPolicy,
    Ref,
    ServerAuthorization,
)
from tulle.model.objects import Severity
from tulle.model.profile import RequestMatch, ServiceProfile
from tulle.model.protocol import named
from tulle.model.route import (
    BackendRef,
    Filter,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Mirror,
    PathMatch,
    Redirect,
    Route,
    Rule,
    UrlRewrite,
    ValueMatch,
)
from tulle.rules import traffic
from tulle.rules.expressions import regex_mistake
from tulle.rules.kinds import Object

ROUTE_ANNOTATIONS = ("retry.linkerd.io/", "timeout.linkerd.io/", "retry.tulle.dev/")

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_IDENTITY = re.compile(rf"(\*|{_LABEL})(\.{_LABEL})*")
SPIFFE = re.compile(r"spiffe://[-a-z0-9._]+(/(?!\.{1,2}(/|\Z))[-A-Za-z0-9._]+)*")
HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
PROFILE_NAME = re.compile(r"[^.]+\.[^.]+\.svc(\..+)")
AUTHORITY = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?(:[0-9]{{1,5}})?")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said about a field."""

    path: str
    text: str
    severity: Severity = "error"


def findings(item: Object) -> Iterator[Finding]:
    """Yield everything there is to say about an object by itself."""
    match item:
        case AuthorizationPolicy():
            yield from authorization_policy(item)
        case MeshTLSAuthentication():
            yield from mesh_tls_authentication(item)
        case NetworkAuthentication():
            yield from present(item.networks)
            yield from networks(item.networks, "spec.networks")
        case ServerAuthorization():
            yield from server_authorization(item)
        case RateLimitPolicy():
            yield from rate_limit(item)
        case EgressNetwork():
            yield from present(item.networks)
            yield from networks(item.networks or (), "spec.networks")
            yield from annotations(item.meta.annotations, ())
        case Route():
            yield from route(item)
        case ServiceProfile():
            yield from service_profile(item)
        case objects.Service():
            yield from service(item)
        case objects.Namespace():
            yield from annotations(item.meta.annotations, ())


# Authorizations


def authorization_policy(item: AuthorizationPolicy) -> Iterator[Finding]:
    """Yield what is wrong with a target, and with who is asked for."""
    target = item.target
    match target.group, target.kind:
        case ("", "Namespace"):
            if target.name != item.meta.namespace:
                text = f"expected the policy's own namespace, {item.meta.namespace}, found {target.name}"
                yield Finding("spec.targetRef.name", text)
        case (group, "Server" | "HTTPRoute") if group == POLICY_GROUP:
            pass
        case (group, "HTTPRoute" | "GRPCRoute") if group == GATEWAY_GROUP:
            pass
        case _:
            text = f"expected a Server, HTTPRoute, GRPCRoute or Namespace, found {shown(target)}"
            yield Finding("spec.targetRef.kind", text + hint(target))
    seen: Counter[str] = Counter()
    for number, ref in enumerate(item.required):
        path = f"spec.requiredAuthenticationRefs[{number}].kind"
        if (ref.group, ref.kind) not in AUTHENTICATIONS:
            expected = "a MeshTLSAuthentication, NetworkAuthentication or ServiceAccount"
            yield Finding(path, f"expected {expected}, found {shown(ref)}{hint(ref)}")
            continue
        seen[ref.kind] += 1
        if seen[ref.kind] > 1:
            yield Finding(path, f"expected at most one {ref.kind}; all of the list has to be met")
        elif seen["MeshTLSAuthentication"] and seen["ServiceAccount"]:
            yield Finding(path, "expected a MeshTLSAuthentication or a ServiceAccount, found both")


AUTHENTICATIONS = (
    (POLICY_GROUP, "MeshTLSAuthentication"),
    (POLICY_GROUP, "NetworkAuthentication"),
    ("", "ServiceAccount"),
)


def shown(ref: Ref) -> str:
    """Name a kind in a message."""
    return f"{ref.kind} of the group {ref.group}" if ref.group else f"{ref.kind} of the core group"


def hint(ref: Ref) -> str:
    """Return the end of a message for a kind whose group was left out."""
    kinds = ("Server", "MeshTLSAuthentication", "NetworkAuthentication", "EgressNetwork")
    return f"; write group: {POLICY_GROUP}" if not ref.group and ref.kind in kinds else ""


def mesh_tls_authentication(item: MeshTLSAuthentication) -> Iterator[Finding]:
    """Yield names that nobody can prove, and references to what proves no name."""
    for number, identity in enumerate(item.identities):
        if not (DNS_IDENTITY.fullmatch(identity) or SPIFFE.fullmatch(identity)):
            expected = (
                "a name such as web.shop.serviceaccount.identity.linkerd.cluster.local, '*', a name with "
            )
            yield Finding(
                f"spec.identities[{number}]",
                f"expected {expected}'*.' before it, or spiffe://domain/path; found {identity}",
            )
    for number, ref in enumerate(item.refs):
        path = f"spec.identityRefs[{number}]"
        if (ref.group, ref.kind) not in (("", "ServiceAccount"), ("", "Namespace")):
            yield Finding(f"{path}.kind", f"expected ServiceAccount or Namespace, found {shown(ref)}")
        elif ref.kind == "Namespace" and ref.namespace is not None:
            yield Finding(f"{path}.namespace", "a Namespace is in no namespace; leave it out")


def server_authorization(item: ServerAuthorization) -> Iterator[Finding]:
    """Yield ways of letting clients in that exclude each other."""
    yield from networks(item.networks, "spec.client.networks")
    named_clients = bool(item.identities or item.service_accounts)
    if item.unauthenticated and (item.unauthenticated_tls or named_clients):
        yield Finding("spec.client.unauthenticated", "expected no meshTLS beside unauthenticated")
    if item.unauthenticated_tls and named_clients:
        text = "expected neither identities nor serviceAccounts beside unauthenticatedTLS"
        yield Finding("spec.client.meshTLS.unauthenticatedTLS", text)
    if not (item.unauthenticated or item.unauthenticated_tls or named_clients):
        yield Finding("spec.client", "lets nobody in: name identities or serviceAccounts", "warning")
    for number, identity in enumerate(item.identities):
        if not DNS_IDENTITY.fullmatch(identity):
            path = f"spec.client.meshTLS.identities[{number}]"
            yield Finding(path, f"expected a DNS name, '*', or a name with '*.' before it; found {identity}")


def present(given: tuple[Network, ...] | None) -> Iterator[Finding]:
    """Yield an empty list of networks."""
    if given == ():
        yield Finding("spec.networks", "expected at least one network, found none")


def networks(given: Iterable[Network], path: str) -> Iterator[Finding]:
    """Yield exceptions that leave nothing, or that except nothing."""
    for number, network in enumerate(given):
        for index, excepted in enumerate(network.excepted):
            if not network.cidr:
                continue
            whole, part = ipaddress.ip_network(network.cidr), ipaddress.ip_network(excepted)
            where = f"{path}[{number}].except[{index}]"
            if inside(whole, part):
                yield Finding(where, f"leaves nothing of {network.cidr}: {excepted} covers it")
            elif not inside(part, whole):
                yield Finding(where, f"expected a block inside {network.cidr}, found {excepted}")


IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def inside(inner: IpNetwork, outer: IpNetwork) -> bool:
    """Say whether a block lies in another."""
    return (
        inner.version == outer.version
        and outer.prefixlen <= inner.prefixlen
        and inner.network_address in outer
    )


def rate_limit(item: RateLimitPolicy) -> Iterator[Finding]:
    """Yield limits on what has none, and limits that another one makes pointless."""
    if (item.target.group, item.target.kind) != (POLICY_GROUP, "Server"):
        text = f"expected a Server, found {shown(item.target)}{hint(item.target)}"
        yield Finding("spec.targetRef.kind", text)
    limits = [("spec.total", item.total), ("spec.identity", item.identity)]
    for number, override in enumerate(item.overrides):
        limits.append((f"spec.overrides[{number}]", override.requests_per_second))
        for index, client in enumerate(override.clients):
            if (client.group, client.kind) != ("", "ServiceAccount"):
                path = f"spec.overrides[{number}].clientRefs[{index}].kind"
                yield Finding(path, f"expected ServiceAccount, found {shown(client)}")
    for path, limit in limits:
        if limit == 0:
            yield Finding(f"{path}.requestsPerSecond", "expected a whole number of at least 1, found 0")
        elif limit is not None and item.total and limit > item.total:
            text = f"expected at most the total, {item.total}, found {limit}"
            yield Finding(f"{path}.requestsPerSecond", text)


# Routes


def route(item: Route) -> Iterator[Finding]:
    """Yield what is wrong with a route of any kind."""
    yield from parents(item)
    if item.kind in ("HTTPRoute", "GRPCRoute"):
        outbound = {("", "Service"), (POLICY_GROUP, "EgressNetwork")}
        strict = any((parent.group, parent.kind) in outbound for parent in item.parents)
        yield from annotations(item.meta.annotations, ROUTE_ANNOTATIONS if strict else ())
    elif len(item.rules) != 1:
        yield Finding("spec.rules", f"expected exactly one rule, found {len(item.rules)}")
    for number, rule in enumerate(item.rules):
        yield from route_rule(rule, item, f"spec.rules[{number}]")


def parents(item: Route) -> Iterator[Finding]:
    """Yield parents that cannot be told apart or that lack a port."""
    seen = set()
    for number, parent in enumerate(item.parents):
        path = f"spec.parentRefs[{number}]"
        if (parent.group, parent.kind) == (POLICY_GROUP, "EgressNetwork") and parent.port is None:
            yield Finding(f"{path}.port", "missing; an EgressNetwork as parent needs a port")
        if not parent.group and parent.kind in ("Server", "EgressNetwork"):
            yield Finding(f"{path}.group", f"there is no core {parent.kind}; write group: {POLICY_GROUP}")
        key = (parent.group, parent.kind, parent.namespace or item.meta.namespace, parent.name)
        full = (*key, parent.port, parent.section)
        if item.group == GATEWAY_GROUP and full in seen:
            text = f"{parent.kind} {parent.name} is here twice; give each another port or sectionName"
            yield Finding(path, text)
        seen.add(full)


def route_rule(rule: Rule, item: Route, path: str) -> Iterator[Finding]:
    """Yield what is wrong with a rule."""
    for number, match in enumerate(rule.matches):
        yield from route_match(match, f"{path}.matches[{number}]")
    yield from filters(rule.filters, item, path)
    for number, backend in enumerate(rule.backends):
        where = f"{path}.backendRefs[{number}]"
        yield from backend_port(backend, item, where)
        yield from filters(backend.filters, item, where)
    yield from timeouts(rule, path)


def backend_port(backend: BackendRef, item: Route, path: str) -> Iterator[Finding]:
    """Yield a Service without a port: there is nothing to send requests to."""
    if (backend.ref.group, backend.ref.kind) == ("", "Service") and backend.port is None:
        refused = item.group == GATEWAY_GROUP and item.kind in ("HTTPRoute", "GRPCRoute")
        text = "missing; a Service as backend needs a port"
        if refused:
            yield Finding(f"{path}.port", text)
        else:
            yield Finding(f"{path}.port", f"{text}, and fails without", "warning")


def timeouts(rule: Rule, path: str) -> Iterator[Finding]:
    """Yield time-outs that cannot be."""
    request, backend = rule.request_timeout, rule.backend_request_timeout
    for key, value in (("request", request), ("backendRequest", backend)):
        if value is not None and value < timedelta():
            yield Finding(f"{path}.timeouts.{key}", "expected a duration of at least 0, found a negative one")
    if request and backend and timedelta() < request < backend:
        longest, found = request.total_seconds(), backend.total_seconds()
        text = f"expected at most timeouts.request, {longest:g}s, found {found:g}s"
        yield Finding(f"{path}.timeouts.backendRequest", text)


def route_match(match: HttpMatch | GrpcMatch, path: str) -> Iterator[Finding]:
    """Yield what no request can match."""
    yield from values(match.headers, f"{path}.headers", headers=True)
    if isinstance(match, HttpMatch):
        yield from values(match.query, f"{path}.queryParams", headers=False)
        if match.path is not None:
            yield from path_match(match.path, f"{path}.path.value")


def path_match(match: PathMatch, path: str) -> Iterator[Finding]:
    """Yield a path that no request has."""
    if match.kind == "regex":
        yield from expression(match.value, path)
    elif not match.value.startswith("/"):
        yield Finding(path, f'expected a path that begins with "/", found "{match.value}"')


def expression(text: str, path: str) -> Iterator[Finding]:
    """Yield what is wrong with a regular expression."""
    if mistake := regex_mistake(text):
        yield Finding(path, f'"{text}" is no regular expression: {mistake}')


def values(given: Iterable[ValueMatch], path: str, *, headers: bool) -> Iterator[Finding]:
    """Yield what is wrong with matches of headers or query parameters."""
    for number, match in enumerate(given):
        where = f"{path}[{number}]"
        if headers and not HEADER_NAME.fullmatch(match.name):
            yield Finding(f"{where}.name", f'expected the name of a header, found "{match.name}"')
        if match.regex:
            yield from expression(match.value, f"{where}.value")
        elif headers and not HEADER_VALUE.fullmatch(match.value):
            yield Finding(f"{where}.value", "expected the value of a header: printable ASCII")


def filters(given: Iterable[Filter], item: Route, path: str) -> Iterator[Finding]:
    """Yield what is wrong with filters."""
    for number, of in enumerate(given):
        where = f"{path}.filters[{number}]"
        match of:
            case HeaderModifier():
                key = "responseHeaderModifier" if of.response else "requestHeaderModifier"
                yield from header_modifier(of, f"{where}.{key}")
            case Redirect(path=change) if change is not None and not change.value.startswith("/"):
                key = "replacePrefixMatch" if change.prefix else "replaceFullPath"
                text = f'expected a path that begins with "/", found "{change.value}"'
                yield Finding(f"{where}.requestRedirect.path.{key}", text)
            case UrlRewrite(path=change) if change is not None and not change.value.startswith("/"):
                if change.prefix and not change.value:
                    continue
                key = "replacePrefixMatch" if change.prefix else "replaceFullPath"
                text = f'expected a path that begins with "/", found "{change.value}"'
                yield Finding(f"{where}.urlRewrite.path.{key}", text)
            case Mirror():
                yield from backend_port(of.backend, item, f"{where}.requestMirror.backendRef")


def header_modifier(of: HeaderModifier, path: str) -> Iterator[Finding]:
    """Yield headers that cannot be written."""
    for key, pairs in (("add", of.add), ("set", of.set)):
        for number, (name, value) in enumerate(pairs):
            if not HEADER_NAME.fullmatch(name):
                yield Finding(
                    f"{path}.{key}[{number}].name", f'expected the name of a header, found "{name}"'
                )
            if not HEADER_VALUE.fullmatch(value):
                yield Finding(
                    f"{path}.{key}[{number}].value", "expected the value of a header: printable ASCII"
                )
    for number, name in enumerate(of.remove):
        if not HEADER_NAME.fullmatch(name):
            yield Finding(f"{path}.remove[{number}]", f'expected the name of a header, found "{name}"')


def annotations(given: Mapping[str, str], refused: tuple[str, ...]) -> Iterator[Finding]:
    """Yield traffic annotations that mean nothing; those that begin with one of `refused` are errors."""
    for key, text in traffic.read(given)[1]:
        severity: Severity = "error" if refused and key.startswith(refused) else "warning"
        yield Finding(f"metadata.annotations[{key}]", text, severity)


# Services and their profiles


def service(item: objects.Service) -> Iterator[Finding]:
    """Yield protocols that nobody knows, and settings that are not understood."""
    for number, port in enumerate(item.ports):
        if port.app_protocol and named(port.app_protocol) is None:
            text = f"{port.app_protocol} is not known; what is spoken will be detected"
            yield Finding(f"spec.ports[{number}].appProtocol", text, "warning")
    yield from annotations(item.meta.annotations, ())


def service_profile(item: ServiceProfile) -> Iterator[Finding]:
    """Yield a name that is no service's, and conditions and durations that cannot be."""
    if not PROFILE_NAME.fullmatch(item.meta.name):
        text = (
            f"expected the full name of a service, such as web.shop.svc.cluster.local, found {item.meta.name}"
        )
        yield Finding("metadata.name", text)
    for number, of in enumerate(item.routes):
        path = f"spec.routes[{number}]"
        yield from profile_condition(of.condition, f"{path}.condition")
        if of.timeout is not None and of.timeout < timedelta():
            yield Finding(f"{path}.timeout", "expected a duration of at least 0, found a negative one")
    if item.budget is not None and item.budget.ttl <= timedelta():
        yield Finding("spec.retryBudget.ttl", "expected a duration above 0")
    for number, override in enumerate(item.overrides):
        if not AUTHORITY.fullmatch(override.authority):
            text = f"expected a service's name with or without a port, found {override.authority}"
            yield Finding(f"spec.dstOverrides[{number}].authority", text)


def profile_condition(match: RequestMatch, path: str) -> Iterator[Finding]:
    """Yield expressions that are none."""
    if match.path_regex is not None:
        yield from expression(match.path_regex, f"{path}.pathRegex")
    for key, inner in (("all", match.all_of), ("any", match.any_of)):
        for number, of in enumerate(inner):
            yield from profile_condition(of, f"{path}.{key}[{number}]")
    if match.negated is not None:
        yield from profile_condition(match.negated, f"{path}.not")
