"""Decodes routes of every kind, and ReferenceGrants.

The kinds of the Gateway API have fields that a mesh need not act on; they are kept by name in `Route.unsupported`, so
that the status can name them. A kind of policy.linkerd.io has exactly the fields that upstream acts on, and anything
else in one is a mistake.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, get_args

from tulle.model.authorization import GATEWAY_GROUP, POLICY_GROUP, Ref
from tulle.model.objects import Metadata
from tulle.model.route import (
    BackendRef,
    Filter,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Mirror,
    ParentRef,
    PathMatch,
    PathModifier,
    Redirect,
    ReferenceGrant,
    Route,
    RouteKind,
    Rule,
    UnknownFilter,
    UrlRewrite,
    ValueMatch,
)
from tulle.rules.metadata import group_of, head, kind_of
from tulle.rules.schema import (
    GATEWAY_DURATION,
    GO_DURATION,
    LABEL,
    SUBDOMAIN,
    Fields,
    Pattern,
    pattern_of,
)

ROUTE_KINDS: tuple[RouteKind, ...] = get_args(RouteKind)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
PATHS: dict[str, Literal["exact", "prefix", "regex"]] = {
    "Exact": "exact",
    "PathPrefix": "prefix",
    "RegularExpression": "regex",
}
STATUSES = (301, 302, 303, 307, 308)
MAX_WEIGHT = 1_000_000

RULE_FILTERS = ("RequestHeaderModifier", "RequestRedirect")
BACKEND_FILTERS = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect")
HTTP_FILTERS = (
    "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror",
    "ExtensionRef", "CORS", "ExternalAuth",
)  # fmt: skip
GRPC_FILTERS = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef")
NOT_ACTED_ON = ("ExtensionRef", "CORS", "ExternalAuth")

HOST = pattern_of(
    "a host name, with '*.' before it for all names under it",
    r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    253,
)
UP_TO_1024 = pattern_of("at most 1024 characters", r"[^\0]*", 1024)
HEADER_NAME = pattern_of("a name of at most 256 characters", r"[^\0]+", 256)
HEADER_VALUE = pattern_of("at most 4096 characters", r"[^\0]*", 4096)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a kind and version of route may have; `unsupported` collects what is there and not acted on."""

    kind: RouteKind
    group: str
    rule_filters: tuple[str, ...] = ()
    backend_filters: tuple[str, ...] = ()
    durations: Pattern = GATEWAY_DURATION
    timeouts: bool = False
    full_backends: bool = True
    unsupported: list[str] = field(default_factory=list)

    @property
    def gateway(self) -> bool:
        """Say whether the kind is of the Gateway API."""
        return self.group == GATEWAY_GROUP

    def leave(self, fields: Fields, *keys: str) -> None:
        """Take note of fields that are not acted on."""
        for key in keys:
            if fields.has(key):
                self.unsupported.append(fields.under(key))
                fields.wrong(key, "not acted on", "warning")


def route(fields: Fields) -> Route:
    """Decode a route of any kind and version."""
    meta = head(fields)
    group, _, version = fields.text("apiVersion", "").rpartition("/")
    written = fields.text("kind", "")
    kind: RouteKind = next((kind for kind in ROUTE_KINDS if kind == written), "HTTPRoute")
    dialect = dialect_of(kind, group, version)
    return fields.need("spec", lambda spec: route_spec(spec, meta, dialect, fields))


def dialect_of(kind: RouteKind, group: str, version: str) -> Dialect:
    """Return what a kind and version of route may have."""
    match kind:
        case "HTTPRoute" if group == POLICY_GROUP:
            return Dialect(
                kind,
                group,
                RULE_FILTERS,
                BACKEND_FILTERS,
                durations=GO_DURATION,
                timeouts=version == "v1beta3",
                full_backends=version in ("v1beta2", "v1beta3"),
            )
        case "HTTPRoute":
            return Dialect(kind, group, HTTP_FILTERS, HTTP_FILTERS, timeouts=True)
        case "GRPCRoute":
            return Dialect(kind, group, GRPC_FILTERS, GRPC_FILTERS)
        case _:
            return Dialect(kind, group)


def route_spec(spec: Fields, meta: Metadata, dialect: Dialect, whole: Fields) -> Route:
    """Decode a route's own part."""
    for key, count in (("parentRefs", 32), ("hostnames", 16), ("rules", 16)):
        spec.at_most(key, count)
    if dialect.gateway:
        dialect.leave(spec, "useDefaultGateways")
    hostnames = spec.texts("hostnames", HOST) if dialect.kind != "TCPRoute" else ()
    parents = spec.each("parentRefs", lambda inner: parent_ref(inner, dialect))
    everything = Rule((), (), (), None, None, whole.position)
    rules = spec.each("rules", lambda inner: rule(inner, dialect))
    return Route(
        kind=dialect.kind,
        group=dialect.group,
        meta=meta,
        parents=parents,
        hostnames=hostnames,
        rules=rules if spec.has("rules") or dialect.kind not in ("HTTPRoute", "GRPCRoute") else (everything,),
        unsupported=tuple(dialect.unsupported),
        raw=whole.raw(),
        source=whole.position,
    )


def parent_ref(fields: Fields, dialect: Dialect) -> ParentRef:
    """Decode a parent; which group is meant without one depends on the route's own."""
    kind = kind_of(fields, "Gateway")
    if kind in ("Service", "EgressNetwork"):
        dialect.leave(fields, "sectionName")
    return ParentRef(
        group=group_of(fields, dialect.group),
        kind=kind,
        name=fields.need_text("name", SUBDOMAIN),
        namespace=fields.text("namespace", None, LABEL),
        port=fields.integer("port", None, low=1, high=65535),
        section=fields.text("sectionName", None, SUBDOMAIN),
    )


def rule(fields: Fields, dialect: Dialect) -> Rule:
    """Decode a rule."""
    if dialect.gateway:
        dialect.leave(fields, "name")
    if dialect.kind in ("TLSRoute", "TCPRoute"):
        fields.at_most("backendRefs", 16)
        fields.least("backendRefs")
        backends = fields.each("backendRefs", lambda inner: backend_ref(inner, dialect))
        return Rule((), (), backends, None, None, fields.position)
    for key, count in (("matches", 64 if dialect.gateway else 8), ("filters", 16), ("backendRefs", 16)):
        fields.at_most(key, count)
    if dialect.gateway:
        dialect.leave(fields, "sessionPersistence", "retry")
    read_match = grpc_match if dialect.kind == "GRPCRoute" else http_match
    request, backend = timeouts(fields, dialect)
    return Rule(
        matches=fields.each("matches", read_match),
        filters=fields.each("filters", lambda inner: any_filter(inner, dialect, dialect.rule_filters)),
        backends=fields.each("backendRefs", lambda inner: backend_ref(inner, dialect)),
        request_timeout=request,
        backend_request_timeout=backend,
        source=fields.position,
    )


def timeouts(fields: Fields, dialect: Dialect) -> tuple[timedelta | None, timedelta | None]:
    """Decode how long a request may take, and how long one try of it."""
    if not dialect.timeouts:
        return None, None

    def both(inner: Fields) -> tuple[timedelta | None, timedelta | None]:
        return inner.duration("request", dialect.durations), inner.duration(
            "backendRequest", dialect.durations
        )

    return fields.inside("timeouts", both, (None, None))


# Matches


def http_match(fields: Fields) -> HttpMatch:
    """Decode a match of an HTTPRoute."""
    fields.at_most("headers", 16)
    fields.at_most("queryParams", 16)
    return HttpMatch(
        path=fields.inside("path", path_match, None),
        headers=fields.each("headers", value_match),
        query=fields.each("queryParams", value_match),
        method=fields.choice("method", METHODS, None),
    )


def path_match(fields: Fields) -> PathMatch:
    """Decode a match of a path."""
    kind = fields.choice("type", tuple(PATHS), "PathPrefix")
    return PathMatch(PATHS[kind], fields.text("value", "/", UP_TO_1024))


def value_match(fields: Fields) -> ValueMatch:
    """Decode a match of a header or a query parameter."""
    regex = fields.choice("type", ("Exact", "RegularExpression"), "Exact") == "RegularExpression"
    if not fields.has("value"):
        fields.missing("value", "a text")
    return ValueMatch(fields.need_text("name", HEADER_NAME), fields.text("value", "", HEADER_VALUE), regex)


def grpc_match(fields: Fields) -> GrpcMatch:
    """Decode a match of a GRPCRoute."""
    fields.at_most("headers", 16)
    service, method = fields.inside("method", grpc_method, (None, None))
    return GrpcMatch(service, method, fields.each("headers", value_match))


def grpc_method(fields: Fields) -> tuple[str | None, str | None]:
    """Decode a service and a method; only exact ones can be told apart by a proxy."""
    if fields.choice("type", ("Exact", "RegularExpression"), "Exact") == "RegularExpression":
        fields.wrong("type", "RegularExpression is not supported for gRPC methods; use Exact")
    service, method = fields.text("service", None, UP_TO_1024), fields.text("method", None, UP_TO_1024)
    if not service and not method:
        fields.missing_one("service or method")
    return service, method


# Backends and filters


def backend_ref(fields: Fields, dialect: Dialect) -> BackendRef:
    """Decode a backend. The first versions of policy.linkerd.io had a name and a port only."""
    name = fields.need_text("name", SUBDOMAIN)
    port = fields.integer("port", None, low=1, high=65535)
    if not dialect.full_backends:
        space = fields.text("namespace", "default", LABEL)
        return BackendRef(Ref("", "Service", name, space), port, 1, (), fields.position)
    filters: tuple[Filter, ...] = ()
    if dialect.backend_filters:
        fields.at_most("filters", 16)
        filters = fields.each("filters", lambda inner: any_filter(inner, dialect, dialect.backend_filters))
    return BackendRef(
        ref=Ref(group_of(fields), kind_of(fields, "Service"), name, fields.text("namespace", None, LABEL)),
        port=port,
        weight=fields.integer("weight", 1, high=MAX_WEIGHT),
        filters=filters,
        source=fields.position,
    )


def any_filter(fields: Fields, dialect: Dialect, types: tuple[str, ...]) -> Filter:
    """Decode a filter: its type, and under the name of the type what it does."""
    if not fields.has("type"):
        fields.missing("type", " or ".join(types))
    kind = fields.choice("type", types, None)
    if kind is None:
        fields.known(*(field_of(each) for each in HTTP_FILTERS))
        return UnknownFilter("")
    if kind in NOT_ACTED_ON:
        fields.known(field_of(kind))
        dialect.unsupported.append(f"{fields.path} ({kind})")
        fields.wrong("type", f"{kind} is not acted on: requests that it applies to fail", "warning")
        return UnknownFilter(kind)
    if not fields.has(field_of(kind)):
        fields.missing(field_of(kind), f"a mapping, because type is {kind}")
        return UnknownFilter(kind)
    match kind:
        case "RequestHeaderModifier" | "ResponseHeaderModifier":
            response = kind.startswith("Response")
            return fields.need(field_of(kind), lambda inner: header_modifier(inner, response))
        case "RequestRedirect":
            return fields.need(field_of(kind), redirect)
        case "URLRewrite":
            return fields.need(field_of(kind), url_rewrite)
        case _:
            return fields.need(field_of(kind), lambda inner: mirror(inner, dialect))


def field_of(kind: str) -> str:
    """Return the field in which a type of filter has its settings."""
    return {"URLRewrite": "urlRewrite", "CORS": "cors"}.get(kind, kind[:1].lower() + kind[1:])


def header_modifier(fields: Fields, response: bool) -> HeaderModifier:
    """Decode what is done to headers."""
    for key in ("add", "set", "remove"):
        fields.at_most(key, 16)
    return HeaderModifier(
        response=response,
        add=fields.each("add", header),
        set=fields.each("set", header),
        remove=fields.texts("remove", HEADER_NAME),
    )


def header(fields: Fields) -> tuple[str, str]:
    """Decode a header's name and value."""
    if not fields.has("value"):
        fields.missing("value", "a text")
    return fields.need_text("name", HEADER_NAME), fields.text("value", "", HEADER_VALUE)


def redirect(fields: Fields) -> Redirect:
    """Decode where a client is sent."""
    status = fields.integer("statusCode", 302, low=100, high=599)
    if status not in STATUSES:
        fields.wrong("statusCode", f"expected {', '.join(map(str, STATUSES))}, found {status}")
    return Redirect(
        scheme=fields.choice("scheme", ("http", "https"), None),
        hostname=fields.text("hostname", None, SUBDOMAIN),
        path=fields.inside("path", path_modifier, None),
        port=fields.integer("port", None, low=1, high=65535),
        status=status,
    )


def url_rewrite(fields: Fields) -> UrlRewrite:
    """Decode under which name and path a request is sent on."""
    path = fields.inside("path", path_modifier, None)
    return UrlRewrite(fields.text("hostname", None, SUBDOMAIN), path)


def path_modifier(fields: Fields) -> PathModifier:
    """Decode what becomes of a path."""
    if not fields.has("type"):
        fields.missing("type", "ReplaceFullPath or ReplacePrefixMatch")
    prefix = fields.choice("type", ("ReplaceFullPath", "ReplacePrefixMatch"), None) == "ReplacePrefixMatch"
    key = "replacePrefixMatch" if prefix else "replaceFullPath"
    if not fields.has(key):
        fields.missing(key, "a path that begins with '/'")
    return PathModifier(prefix, fields.text(key, "/", UP_TO_1024))


def mirror(fields: Fields, dialect: Dialect) -> Mirror:
    """Decode where copies go, and of which share."""
    target = fields.need("backendRef", lambda inner: mirror_target(inner, dialect))
    if fields.has("percent") and fields.has("fraction"):
        fields.wrong("fraction", "expected one of percent or fraction, but percent is here too")
    part, whole = fields.inside("fraction", fraction, (fields.integer("percent", 100, high=100), 100))
    return Mirror(target, part, whole)


def mirror_target(fields: Fields, dialect: Dialect) -> BackendRef:
    """Decode a backend without weight and filters."""
    plain = Dialect(dialect.kind, dialect.group)
    return backend_ref(fields, plain)


def fraction(fields: Fields) -> tuple[int, int]:
    """Decode a share."""
    whole = fields.integer("denominator", 100, low=1)
    if not fields.has("numerator"):
        fields.missing("numerator", "a whole number")
    part = fields.integer("numerator", 0)
    if part > whole:
        fields.wrong("numerator", f"expected at most the denominator, {whole}, found {part}")
    return part, whole


# Grants


def reference_grant(fields: Fields) -> ReferenceGrant:
    """Decode a ReferenceGrant."""
    meta = head(fields)
    return fields.need("spec", lambda spec: reference_grant_spec(spec, meta, fields))


def reference_grant_spec(spec: Fields, meta: Metadata, whole: Fields) -> ReferenceGrant:
    """Decode a ReferenceGrant's own part."""
    spec.least("from")
    spec.least("to")
    return ReferenceGrant(
        meta=meta,
        sources=spec.each("from", granted_source),
        targets=spec.each("to", granted_target),
        raw=whole.raw(),
        source=whole.position,
    )


def granted_source(fields: Fields) -> Ref:
    """Decode who may name; that is every object of a kind in a namespace."""
    return Ref(group_of(fields), kind_of(fields), "", fields.need_text("namespace", LABEL))


def granted_target(fields: Fields) -> Ref:
    """Decode what may be named; no name is every one."""
    return Ref(group_of(fields), kind_of(fields), fields.text("name", "", SUBDOMAIN))
