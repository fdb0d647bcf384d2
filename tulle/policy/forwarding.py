"""Routes of outbound policies as wire messages: what is done to a request, and where it may go.

Whatever cannot be done fails for its own share and says why, in the answer that the client gets: a backend that is not
there keeps its weight and answers 500 (connections: refused), a filter that nobody acts on fails its rule. Dropping
such a part in silence would send traffic where nobody wanted it.

At least two backends that all have weight 0 are never sent, since stock proxies break on them; Gateway API wants such a
rule to fail, so one failing backend takes their place. A lone backend is used whatever its weight.

`extended` says that the proxy understands what is ours. For one that does not, a rewrite becomes a failure that names
it, a mirror is left out, and so are the fields that upstream does not know.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tulle.model.route import (
    BackendRef,
    Filter,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Mirror,
    Redirect,
    Route,
    Rule,
    UnknownFilter,
    UrlRewrite,
)
from tulle.policy import matches
from tulle.policy.backends import Parent, broken, resolve, resource, to_itself, weighted
from tulle.rules.traffic import NO_TIMEOUTS, Retry, Traffic, read
from tulle.wire import grpc_route_pb2 as grpc_wire
from tulle.wire import http_route_pb2 as route_wire
from tulle.wire import meta_pb2, opaque_route_pb2, tls_route_pb2
from tulle.wire import outbound_pb2 as wire

MAX_REQUEST_BYTES = 64 * 1024
RETRY_BACKOFF = wire.ExponentialBackoff(
    min_backoff=Duration(nanos=25_000_000), max_backoff=Duration(nanos=250_000_000), jitter_ratio=1.0
)
FAILURE_STATUS = 500
FAILURE_CODE = 13
"""gRPC's INTERNAL."""

_CODE_FIELDS = {
    "cancelled": "cancelled",
    "deadline-exceeded": "deadine_exceeded",
    "resource-exhausted": "resource_exhausted",
    "internal": "internal",
    "unavailable": "unavailable",
}


def http_route(route: Route, parent: Parent) -> wire.HttpRoute:
    """Write an HTTPRoute."""
    return wire.HttpRoute(
        metadata=_route_metadata(route),
        hosts=map(matches.host, route.hostnames),
        rules=[_http_rule(rule, route, parent) for rule in route.rules],
    )


def grpc_route(route: Route, parent: Parent) -> wire.GrpcRoute:
    """Write a GRPCRoute."""
    return wire.GrpcRoute(
        metadata=_route_metadata(route),
        hosts=map(matches.host, route.hostnames),
        rules=[_grpc_rule(rule, route, parent) for rule in route.rules],
    )


def tls_route(route: Route, parent: Parent) -> wire.TlsRoute:
    """Write a TLSRoute, which has one rule."""
    return wire.TlsRoute(
        metadata=_route_metadata(route),
        snis=map(_sni, route.hostnames),
        rules=[wire.TlsRoute.Rule(backends=_tcp_distribution(wire.TlsRoute, route.rules[0], parent))],
    )


def tcp_route(route: Route, parent: Parent) -> wire.OpaqueRoute:
    """Write a TCPRoute, which has one rule."""
    return wire.OpaqueRoute(
        metadata=_route_metadata(route),
        rules=[wire.OpaqueRoute.Rule(backends=_tcp_distribution(wire.OpaqueRoute, route.rules[0], parent))],
    )


def default_http_rule(parent: Parent) -> wire.HttpRoute.Rule:
    """Write what becomes of a request without any route."""
    rule = wire.HttpRoute.Rule(matches=[matches.ANY_PATH], backends=to_itself(wire.HttpRoute, parent.itself))
    _settle(rule, Traffic(), None, parent, _http_retry(parent.traffic.http_retry))
    return rule


def default_grpc_rule(parent: Parent) -> wire.GrpcRoute.Rule:
    """Write what becomes of a call without any route."""
    rule = wire.GrpcRoute.Rule(
        matches=[matches.grpc_match(GrpcMatch())], backends=to_itself(wire.GrpcRoute, parent.itself)
    )
    _settle(rule, Traffic(), None, parent, _grpc_retry(parent.traffic.grpc_retry))
    return rule


def http_failure(message: str, status: int = FAILURE_STATUS) -> wire.HttpRoute.Filter:
    """Write a filter that answers with a failure."""
    return wire.HttpRoute.Filter(
        failure_injector=route_wire.HttpFailureInjector(status=status, message=message)
    )


def grpc_failure(message: str, code: int = FAILURE_CODE) -> wire.GrpcRoute.Filter:
    """Write a filter that answers with a failure."""
    return wire.GrpcRoute.Filter(failure_injector=grpc_wire.GrpcFailureInjector(code=code, message=message))


def _http_rule(rule: Rule, route: Route, parent: Parent) -> wire.HttpRoute.Rule:
    own = read(route.meta.annotations)[0]
    message = wire.HttpRoute.Rule(
        matches=[matches.http_match(of) for of in rule.matches if isinstance(of, HttpMatch)]
        or [matches.ANY_PATH],
        filters=_http_filters(rule.filters, parent),
        backends=_distribution(wire.HttpRoute, rule, parent, _http_filters, http_failure),
    )
    _settle(message, own, rule, parent, _http_retry(own.http_retry or parent.traffic.http_retry))
    return message


def _grpc_rule(rule: Rule, route: Route, parent: Parent) -> wire.GrpcRoute.Rule:
    own = read(route.meta.annotations)[0]
    found = [matches.grpc_match(of) for of in rule.matches if isinstance(of, GrpcMatch)]
    message = wire.GrpcRoute.Rule(
        matches=found or [matches.grpc_match(GrpcMatch())],
        filters=_grpc_filters(rule.filters, parent),
        backends=_distribution(wire.GrpcRoute, rule, parent, _grpc_filters, grpc_failure),
    )
    _settle(message, own, rule, parent, _grpc_retry(own.grpc_retry or parent.traffic.grpc_retry))
    return message


def _settle(message: Any, own: Traffic, rule: Rule | None, parent: Parent, retry: Any) -> None:
    """Add time-outs, retries and permissions, which rules of both kinds have alike.

    One time-out on the route puts all of the parent's out of force, as upstream has it.
    """
    request = own.timeouts.request or (rule.request_timeout if rule else None) or None
    timeouts = own.timeouts
    if not request and timeouts == NO_TIMEOUTS:
        timeouts = parent.traffic.timeouts
        request = timeouts.request
    for name, value in (("request", request), ("response", timeouts.response), ("idle", timeouts.idle)):
        if value:
            getattr(message.timeouts, name).FromTimedelta(value)
    if retry is not None:
        message.retry.CopyFrom(retry)
    allowed = own.allow_headers if own.allow_headers is not None else parent.traffic.allow_headers
    message.allow_l5d_request_headers = bool(allowed)
    if parent.extended:
        if rule is not None and rule.backend_request_timeout:
            message.backend_request_timeout.FromTimedelta(rule.backend_request_timeout)
        wanted = own.default_retry if own.default_retry is not None else parent.traffic.default_retry
        message.no_default_retry = wanted is False


def _http_retry(retry: Retry | None) -> wire.HttpRoute.Retry | None:
    if retry is None:
        return None
    conditions = wire.HttpRoute.Retry.Conditions(
        status_ranges=[
            wire.HttpRoute.Retry.Conditions.StatusRange(start=start, end=end) for start, end in retry.statuses
        ]
    )
    return wire.HttpRoute.Retry(
        max_retries=retry.limit,
        max_request_bytes=MAX_REQUEST_BYTES,
        conditions=conditions,
        timeout=_duration(retry.timeout),
        backoff=RETRY_BACKOFF,
    )


def _grpc_retry(retry: Retry | None) -> wire.GrpcRoute.Retry | None:
    if retry is None:
        return None
    flags = {_CODE_FIELDS[code]: True for code in retry.codes}
    return wire.GrpcRoute.Retry(
        max_retries=retry.limit,
        max_request_bytes=MAX_REQUEST_BYTES,
        conditions=wire.GrpcRoute.Retry.Conditions(**flags),
        timeout=_duration(retry.timeout),
        backoff=RETRY_BACKOFF,
    )


def _http_filters(filters: Iterable[Filter], parent: Parent) -> list[wire.HttpRoute.Filter]:
    return [message for of in filters if (message := _http_filter(of, parent)) is not None]


def _http_filter(of: Filter, parent: Parent) -> wire.HttpRoute.Filter | None:
    kind = wire.HttpRoute.Filter
    match of:
        case HeaderModifier(response=True):
            return kind(response_header_modifier=matches.response_headers(of))
        case HeaderModifier():
            return kind(request_header_modifier=matches.request_headers(of))
        case Redirect():
            return kind(redirect=matches.redirect(of))
        case UrlRewrite() if not parent.extended:
            return http_failure("this proxy cannot apply the filter URLRewrite")
        case UrlRewrite():
            path = matches.path_modifier(of.path) if of.path else None
            return kind(url_rewrite=route_wire.UrlRewrite(host=of.hostname or "", path=path))
        case Mirror():
            mirror = _mirror(of, parent)
            return None if mirror is None else kind(request_mirror=mirror)
        case UnknownFilter(type=name):
            return http_failure(f"filter {name} is not supported")


def _grpc_filters(filters: Iterable[Filter], parent: Parent) -> list[wire.GrpcRoute.Filter]:
    return [message for of in filters if (message := _grpc_filter(of, parent)) is not None]


def _grpc_filter(of: Filter, parent: Parent) -> wire.GrpcRoute.Filter | None:
    kind = wire.GrpcRoute.Filter
    match of:
        case HeaderModifier(response=True) if not parent.extended:
            return None
        case HeaderModifier(response=True):
            return kind(response_header_modifier=matches.response_headers(of))
        case HeaderModifier():
            return kind(request_header_modifier=matches.request_headers(of))
        case Mirror():
            mirror = _mirror(of, parent)
            return None if mirror is None else kind(request_mirror=mirror)
        case Redirect() | UrlRewrite():
            return grpc_failure(f"filter {type(of).__name__} is not for calls")
        case UnknownFilter(type=name):
            return grpc_failure(f"filter {name} is not supported")


def _mirror(of: Mirror, parent: Parent) -> wire.RequestMirror | None:
    """Write a mirror; one without a place to go to is left out, since it must never harm a request."""
    backend = resolve(of.backend, parent)
    if not parent.extended or isinstance(backend, str):
        return None
    whole = of.numerator == of.denominator
    ratio = None if whole else route_wire.Ratio(numerator=of.numerator, denominator=of.denominator)
    return wire.RequestMirror(backend=backend, ratio=ratio)


def _distribution(
    of: Any,
    rule: Rule,
    parent: Parent,
    filters: Callable[[Iterable[Filter], Parent], list[Any]],
    failure: Callable[[str], Any],
) -> Any:
    """Return where requests go; a backend that fails does so by the filter that `failure` makes."""
    if not rule.backends:
        return to_itself(of, parent.itself)
    if why := _nowhere(rule.backends):
        return weighted(of, [(of.RouteBackend(backend=broken(), filters=[failure(why)]), 1)])
    choices: list[tuple[Any, int]] = []
    for ref in rule.backends:
        backend = resolve(ref, parent)
        if isinstance(backend, str):
            choice = of.RouteBackend(backend=broken(), filters=[failure(backend)])
        else:
            choice = of.RouteBackend(backend=backend, filters=filters(ref.filters, parent))
        choices.append((choice, ref.weight))
    return weighted(of, choices)


def _tcp_distribution(of: Any, rule: Rule, parent: Parent) -> Any:
    def refused(message: str) -> Any:
        return of.Filter(invalid=opaque_route_pb2.Invalid(message=message))

    return _distribution(of, rule, parent, lambda *_: [], refused)


def _nowhere(backends: Sequence[BackendRef]) -> str:
    if len(backends) > 1 and not any(backend.weight for backend in backends):
        return "every backend of the rule has weight 0"
    return ""


def _sni(name: str) -> tls_route_pb2.SniMatch:
    if name.startswith(matches.WILDCARD):
        suffix = tls_route_pb2.SniMatch.Suffix(reverse_labels=matches.reverse_labels(name))
        return tls_route_pb2.SniMatch(suffix=suffix)
    return tls_route_pb2.SniMatch(exact=name)


def _route_metadata(route: Route) -> meta_pb2.Metadata:
    return resource(route.group, route.kind, route.name)


def _duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message
