"""Routes: which requests or connections to a parent go where, and what is done to them on the way.

One type for all five kinds; what a kind does not have is empty. A field that was written and is not acted on is
in `unsupported`, so that the status can say so.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from tulle.model.authorization import Ref
from tulle.model.objects import Metadata, Position, Raw
from tulle.model.service import ObjectName

RouteKind = Literal["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]


@dataclass(frozen=True, slots=True)
class ParentRef:
    """What a route belongs to: a Service, an EgressNetwork, a Server. No port means all of them."""

    group: str
    kind: str
    name: str
    namespace: str | None = None
    port: int | None = None
    section: str | None = None


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A header or a query parameter of this name with this value, or one that the whole regex matches."""

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A path."""

    kind: Literal["exact", "prefix", "regex"]
    value: str


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """All parts that are there have to match."""

    path: PathMatch | None = None
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    method: str | None = None


@dataclass(frozen=True, slots=True)
class GrpcMatch:
    """All parts that are there have to match."""

    service: str | None = None
    method: str | None = None
    headers: tuple[ValueMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderModifier:
    """What is done to a header, of a request or of a response: add, then set, then remove."""

    response: bool
    add: tuple[tuple[str, str], ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathModifier:
    """The whole path, or the part that the prefix match matched, becomes this."""

    prefix: bool
    value: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """The client is sent elsewhere; what is not said stays as the request has it."""

    scheme: str | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: int | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class UrlRewrite:
    """The request is sent on under another host or path."""

    hostname: str | None = None
    path: PathModifier | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of this share of the requests goes to another backend too, whose answer nobody waits for."""

    backend: "BackendRef"
    numerator: int = 100
    denominator: int = 100


@dataclass(frozen=True, slots=True)
class UnknownFilter:
    """A filter that is not acted on: whoever wrote it wants something done, so requests fail and say which."""

    type: str


Filter = HeaderModifier | Redirect | UrlRewrite | Mirror | UnknownFilter


@dataclass(frozen=True, slots=True)
class BackendRef:
    """Where requests go, with their share."""

    ref: Ref
    port: int | None
    weight: int
    filters: tuple[Filter, ...]
    source: Position


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of requests that one of `matches` matches; none is all of them. Zero as time-out is none."""

    matches: tuple[HttpMatch | GrpcMatch, ...]
    filters: tuple[Filter, ...]
    backends: tuple[BackendRef, ...]
    request_timeout: timedelta | None
    backend_request_timeout: timedelta | None
    source: Position


@dataclass(frozen=True, slots=True)
class Route:
    """A route of one of the kinds; the `group` tells the two kinds of HTTPRoute apart.

    `hostnames` of a TLSRoute are the names that clients ask for (SNI).
    """

    kind: RouteKind
    group: str
    meta: Metadata
    parents: tuple[ParentRef, ...]
    hostnames: tuple[str, ...]
    rules: tuple[Rule, ...]
    unsupported: tuple[str, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class ReferenceGrant:
    """Lets objects of other namespaces name objects of this one; upstream asks for none, and neither do we."""

    meta: Metadata
    sources: tuple[Ref, ...]
    targets: tuple[Ref, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)
