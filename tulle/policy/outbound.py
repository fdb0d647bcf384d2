"""Outbound policies as wire messages.

Every part that a proxy demands is in every message: metadata on policy, route and backend, a queue
(whose values the proxies ignore), all four fields of a detecting policy, exactly one rule in a route
that carries bytes. A policy without them would refuse all traffic to its target.

A service with routes has only these, so a request that none of them takes is answered 404. An EgressNetwork has, after
its routes, one more for all the rest: to the address, or refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tulle.model.authorization import EgressNetwork
from tulle.model.protocol import Protocol
from tulle.model.route import Route
from tulle.policy import backends, forwarding
from tulle.policy.backends import QUEUE, Parent, default, to_itself
from tulle.policy.targets import Egress, ServiceTarget, UndefinedPort
from tulle.rules.traffic import Accrual
from tulle.wire import destination_pb2
from tulle.wire import outbound_pb2 as wire
from tulle.wire.addresses import to_wire_port

DETECT_TIMEOUT = Duration(seconds=10)
WEIGHT = 10_000
FORBIDDEN_STATUS = 403
FORBIDDEN_CODE = 7
DENIED = "the egress network refuses what no route allows"


def policy(
    target: ServiceTarget | UndefinedPort | Egress, *, cluster_domain: str, extended: bool
) -> wire.OutboundPolicy:
    """Build the policy for a target; `extended` says that the proxy understands our part of the contract."""
    match target:
        case ServiceTarget():
            return _service(target, cluster_domain, extended)
        case UndefinedPort():
            return _undefined_port(target)
        case Egress():
            return _egress(target, cluster_domain, extended)


def _service(target: ServiceTarget, domain: str, extended: bool) -> wire.OutboundPolicy:
    name, traffic = target.service, target.traffic
    itself = backends.service_backend(name, target.port, traffic.penalty, domain)
    parent = Parent(name.namespace, itself, traffic, target.backends, domain, extended)
    protocol = _protocol(target, parent, _OF_SERVICE)
    return wire.OutboundPolicy(metadata=itself.metadata, protocol=protocol)


def _egress(target: Egress, domain: str, extended: bool) -> wire.OutboundPolicy:
    network = target.network
    metadata = backends.egress_metadata(network.name, target.port) if network else default("egress-fallback")
    forward = destination_pb2.WeightedAddr(addr=to_wire_port(target.address, target.port), weight=WEIGHT)
    itself = wire.Backend(metadata=metadata, forward=forward, queue=QUEUE)
    namespace, name = (network.meta.namespace, network.name) if network else ("", None)
    parent = Parent(namespace, itself, target.traffic, target.backends, domain, extended, name)
    return wire.OutboundPolicy(metadata=metadata, protocol=_protocol(target, parent, _rest_of(network)))


@dataclass(frozen=True, slots=True)
class _Rest:
    """The route for what no other takes: what it is called, and whether it is there beside other routes."""

    http: str
    grpc: str
    tls: str
    tcp: str
    beside: bool = False
    refused: bool = False


_OF_SERVICE = _Rest("http", "http", "tls", "opaq")
_FALLBACK = _Rest("egress-fallback", "egress-fallback", "egress-fallback", "egress-fallback")
_ALLOW = _Rest("http-egress-allow", "grpc-egress-allow", "tls-egress-allow", "tcp-egress-allow", beside=True)
_DENY = _Rest(
    "http-egress-deny", "grpc-egress-deny", "tls-egress-deny", "tcp-egress-deny", beside=True, refused=True
)


def _rest_of(network: EgressNetwork | None) -> _Rest:
    if network is None:
        return _FALLBACK
    return _ALLOW if network.allow else _DENY


def _protocol(target: ServiceTarget | Egress, parent: Parent, rest: _Rest) -> wire.ProxyProtocol:
    message = wire.ProxyProtocol()
    accrual = _accrual(parent.traffic.accrual)
    match target.protocol:
        case Protocol.DETECT:
            message.detect.timeout.CopyFrom(DETECT_TIMEOUT)
            http = list(_http_routes(target.routes, parent, rest))
            message.detect.http1.CopyFrom(wire.ProxyProtocol.Http1(routes=http, failure_accrual=accrual))
            message.detect.http2.CopyFrom(wire.ProxyProtocol.Http2(routes=http, failure_accrual=accrual))
            message.detect.opaque.routes.extend(_tcp_routes((), parent, rest))
        case Protocol.HTTP1:
            http = list(_http_routes(target.routes, parent, rest))
            message.http1.CopyFrom(wire.ProxyProtocol.Http1(routes=http, failure_accrual=accrual))
        case Protocol.HTTP2:
            http = list(_http_routes(target.routes, parent, rest))
            message.http2.CopyFrom(wire.ProxyProtocol.Http2(routes=http, failure_accrual=accrual))
        case Protocol.GRPC:
            grpc = _grpc_routes(target.routes, parent, rest)
            message.grpc.CopyFrom(wire.ProxyProtocol.Grpc(routes=grpc, failure_accrual=accrual))
        case Protocol.TLS:
            message.tls.routes.extend(_tls_routes(target.routes, parent, rest))
        case Protocol.OPAQUE:
            message.opaque.routes.extend(_tcp_routes(target.routes, parent, rest))
    return message


def _http_routes(routes: tuple[Route, ...], parent: Parent, rest: _Rest) -> Iterator[wire.HttpRoute]:
    yield from (forwarding.http_route(route, parent) for route in routes)
    if rest.beside or not routes:
        rule = forwarding.default_http_rule(parent)
        if rest.refused:
            rule = wire.HttpRoute.Rule(
                matches=rule.matches,
                filters=[forwarding.http_failure(DENIED, FORBIDDEN_STATUS)],
                backends=_nowhere(wire.HttpRoute),
            )
        yield wire.HttpRoute(metadata=default(rest.http), rules=[rule])


def _grpc_routes(routes: tuple[Route, ...], parent: Parent, rest: _Rest) -> Iterator[wire.GrpcRoute]:
    yield from (forwarding.grpc_route(route, parent) for route in routes)
    if rest.beside or not routes:
        rule = forwarding.default_grpc_rule(parent)
        if rest.refused:
            rule = wire.GrpcRoute.Rule(
                matches=rule.matches,
                filters=[forwarding.grpc_failure(DENIED, FORBIDDEN_CODE)],
                backends=_nowhere(wire.GrpcRoute),
            )
        yield wire.GrpcRoute(metadata=default(rest.grpc), rules=[rule])


def _tls_routes(routes: tuple[Route, ...], parent: Parent, rest: _Rest) -> Iterator[wire.TlsRoute]:
    yield from (forwarding.tls_route(route, parent) for route in routes)
    if rest.beside or not routes:
        yield wire.TlsRoute(metadata=default(rest.tls), rules=[_tcp_rule(wire.TlsRoute, parent, rest)])


def _tcp_routes(routes: tuple[Route, ...], parent: Parent, rest: _Rest) -> Iterator[wire.OpaqueRoute]:
    """Yield one route: what carries bytes has nothing that a choice could go by."""
    if routes:
        yield forwarding.tcp_route(routes[0], parent)
    else:
        yield wire.OpaqueRoute(metadata=default(rest.tcp), rules=[_tcp_rule(wire.OpaqueRoute, parent, rest)])


def _tcp_rule(of: Any, parent: Parent, rest: _Rest) -> Any:
    if rest.refused:
        return of.Rule(backends=_nowhere(of), filters=[_forbidden(of)])
    return of.Rule(backends=to_itself(of, parent.itself))


def _undefined_port(target: UndefinedPort) -> wire.OutboundPolicy:
    of = wire.OpaqueRoute
    rule = of.Rule(backends=_nowhere(of), filters=[_forbidden(of)])
    message = wire.ProxyProtocol()
    message.opaque.routes.append(of(metadata=default("undefined-port"), rules=[rule]))
    metadata = backends.service_metadata(target.service, target.port)
    return wire.OutboundPolicy(metadata=metadata, protocol=message)


def _nowhere(of: Any) -> Any:
    distribution = of.Distribution()
    distribution.empty.SetInParent()
    return distribution


def _forbidden(of: Any) -> Any:
    refusal = of.Filter()
    refusal.forbidden.SetInParent()
    return refusal


def _accrual(of: Accrual | None) -> wire.FailureAccrual | None:
    if of is None:
        return None
    rate = of.success_rate
    backoff = wire.ExponentialBackoff(
        min_backoff=of.min_penalty,
        max_backoff=of.max_penalty,
        jitter_ratio=of.jitter_ratio,
        respect_retry_after_hint=rate is not None and rate.honor_retry_after,
    )
    if rate is None:
        return wire.FailureAccrual(
            consecutive_failures=wire.FailureAccrual.ConsecutiveFailures(
                max_failures=of.max_failures, backoff=backoff
            )
        )
    return wire.FailureAccrual(
        unified=wire.FailureAccrual.Unified(
            success_rate_threshold=rate.threshold,
            decay=rate.window,
            min_requests=rate.min_requests,
            max_consecutive_failures=of.max_failures,
            backoff=backoff,
        )
    )
