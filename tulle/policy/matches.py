"""What routes of both directions have in common, as wire messages: hosts, matches and the plain filters."""

from collections.abc import Iterable

from tulle.model.route import (
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    PathMatch,
    PathModifier,
    Redirect,
    ValueMatch,
)
from tulle.wire import grpc_route_pb2 as grpc_wire
from tulle.wire import http_route_pb2 as wire
from tulle.wire import http_types_pb2 as types

ANY_PATH = wire.HttpRouteMatch(path=wire.PathMatch(prefix="/"))
WILDCARD = "*."
_METHODS = frozenset(types.HttpMethod.Registered.keys())
_SCHEMES = {"http": types.Scheme.HTTP, "https": types.Scheme.HTTPS}


def reverse_labels(wildcard: str) -> list[str]:
    """Return what the wire calls the suffix of `*.a.b`: b, a."""
    return wildcard.removeprefix(WILDCARD).split(".")[::-1]


def host(name: str) -> wire.HostMatch:
    """Translate one of a route's hostnames."""
    if name.startswith(WILDCARD):
        return wire.HostMatch(suffix=wire.HostMatch.Suffix(reverse_labels=reverse_labels(name)))
    return wire.HostMatch(exact=name)


def http_match(match: HttpMatch) -> wire.HttpRouteMatch:
    """Translate what a request has to be like."""
    message = wire.HttpRouteMatch(
        path=_path(match.path) if match.path else None,
        headers=map(header, match.headers),
        query_params=[
            wire.QueryParamMatch(name=of.name, **{"regex" if of.regex else "exact": of.value})
            for of in match.query
        ],
    )
    if match.method is not None:
        message.method.CopyFrom(method(match.method))
    return message


def grpc_match(match: GrpcMatch) -> grpc_wire.GrpcRouteMatch:
    """Translate what a call has to be like; without a service or method it is any."""
    rpc = grpc_wire.GrpcRpcMatch(service=match.service or "", method=match.method or "")
    return grpc_wire.GrpcRouteMatch(rpc=rpc, headers=map(header, match.headers))


def header(match: ValueMatch) -> wire.HeaderMatch:
    """Translate a header's match."""
    if match.regex:
        return wire.HeaderMatch(name=match.name, regex=match.value)
    return wire.HeaderMatch(name=match.name, exact=match.value.encode())


def method(name: str) -> types.HttpMethod:
    """Translate a method, which may be one that nobody registered."""
    if name in _METHODS:
        return types.HttpMethod(registered=name)
    return types.HttpMethod(unregistered=name)


def request_headers(of: HeaderModifier) -> wire.RequestHeaderModifier:
    """Translate what is done to a request's headers."""
    return wire.RequestHeaderModifier(add=_headers(of.add), set=_headers(of.set), remove=of.remove)


def response_headers(of: HeaderModifier) -> wire.ResponseHeaderModifier:
    """Translate what is done to a response's headers."""
    return wire.ResponseHeaderModifier(add=_headers(of.add), set=_headers(of.set), remove=of.remove)


def redirect(of: Redirect) -> wire.RequestRedirect:
    """Translate where the client is sent."""
    return wire.RequestRedirect(
        scheme=_scheme(of.scheme) if of.scheme else None,
        host=of.hostname or "",
        path=path_modifier(of.path) if of.path else None,
        port=of.port or 0,
        status=of.status or 0,
    )


def path_modifier(of: PathModifier) -> wire.PathModifier:
    """Translate a new path; the Gateway API also writes the root as nothing, proxies want the slash."""
    path = of.value if of.value.startswith("/") else f"/{of.value}"
    return wire.PathModifier(prefix=path) if of.prefix else wire.PathModifier(full=path)


def _path(match: PathMatch) -> wire.PathMatch:
    match match.kind:
        case "exact":
            return wire.PathMatch(exact=match.value)
        case "prefix":
            return wire.PathMatch(prefix=match.value)
        case "regex":
            return wire.PathMatch(regex=match.value)


def _scheme(name: str) -> types.Scheme:
    known = _SCHEMES.get(name.lower())
    return types.Scheme(unregistered=name) if known is None else types.Scheme(registered=known)


def _headers(pairs: Iterable[tuple[str, str]]) -> types.Headers | None:
    headers = [types.Headers.Header(name=name, value=value.encode()) for name, value in pairs]
    return types.Headers(headers=headers) if headers else None
