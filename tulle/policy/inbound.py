"""Inbound policies as wire messages.

A proxy takes a message with one invalid element for "refuse everything", so every message is built
whole: a name in `labels`, a network and an authentication in every authorization, metadata wherever
there is a place for it.
"""

from google.protobuf.duration_pb2 import Duration

from tulle.model.authorization import Network
from tulle.model.protocol import Protocol
from tulle.model.route import GrpcMatch, HeaderModifier, HttpMatch, Redirect
from tulle.policy import matches
from tulle.policy.authorizations import Authorization, Clients, Origin
from tulle.policy.servers import Failure, InboundPort, InboundRoute, RateLimit
from tulle.wire import grpc_route_pb2 as grpc_wire
from tulle.wire import http_route_pb2 as route_wire
from tulle.wire import inbound_pb2 as wire
from tulle.wire import meta_pb2
from tulle.wire.addresses import to_wire_network

DETECT_TIMEOUT = Duration(seconds=10)
FAILURE_STATUS = 500
# gRPC's INTERNAL.
FAILURE_CODE = 13


def server(port: InboundPort) -> wire.Server:
    """Build the port's policy."""
    return wire.Server(
        protocol=_protocol(port),
        authorizations=map(_authz, port.authorizations),
        labels=_labels(port.server),
    )


def _protocol(port: InboundPort) -> wire.ProxyProtocol:
    message = wire.ProxyProtocol()
    limit = _rate_limit(port.limit) if port.limit else None
    match port.protocol:
        case Protocol.DETECT:
            message.detect.CopyFrom(
                wire.ProxyProtocol.Detect(
                    timeout=DETECT_TIMEOUT,
                    http_routes=map(_http_route, port.routes),
                    http_local_rate_limit=limit,
                )
            )
        case Protocol.HTTP1:
            message.http1.CopyFrom(
                wire.ProxyProtocol.Http1(routes=map(_http_route, port.routes), local_rate_limit=limit)
            )
        case Protocol.HTTP2:
            message.http2.CopyFrom(
                wire.ProxyProtocol.Http2(routes=map(_http_route, port.routes), local_rate_limit=limit)
            )
        case Protocol.GRPC:
            message.grpc.CopyFrom(wire.ProxyProtocol.Grpc(routes=map(_grpc_route, port.routes)))
        case Protocol.TLS:
            message.tls.SetInParent()
        case Protocol.OPAQUE:
            message.opaque.SetInParent()
    return message


def _labels(origin: Origin) -> dict[str, str]:
    return {"group": origin.group, "kind": origin.kind, "name": origin.name}


def _metadata(origin: Origin) -> meta_pb2.Metadata:
    if origin.kind == "default":
        return meta_pb2.Metadata(default=origin.name)
    return meta_pb2.Metadata(
        resource=meta_pb2.Resource(group=origin.group, kind=origin.kind, name=origin.name)
    )


def _authz(authorization: Authorization) -> wire.Authz:
    return wire.Authz(
        networks=map(_network, authorization.networks),
        authentication=_authn(authorization.clients),
        labels=_labels(authorization.origin),
        metadata=_metadata(authorization.origin),
    )


def _network(network: Network) -> wire.Network:
    return wire.Network(
        net=to_wire_network(network.cidr), **{"except": map(to_wire_network, network.excepted)}
    )


def _authn(clients: Clients) -> wire.Authn:
    message = wire.Authn()
    if clients.anyone:
        message.unauthenticated.SetInParent()
    elif clients.any_tls:
        message.meshTLS.unauthenticated.SetInParent()
    else:
        named = message.meshTLS.identities
        for name in clients.names:
            named.identities.add(name=name)
        if clients.any_name:
            # A suffix without labels.
            named.suffixes.add()
        for suffix in clients.suffixes:
            named.suffixes.add(parts=suffix.split("."))
    return message


def _rate_limit(limit: RateLimit) -> wire.HttpLocalRateLimit:
    kind = wire.HttpLocalRateLimit
    message = kind(metadata=_metadata(limit.origin))
    if limit.total is not None:
        message.total.requestsPerSecond = limit.total
    if limit.identity is not None:
        message.identity.requestsPerSecond = limit.identity
    for rate, names in limit.overrides:
        clients = kind.Override.ClientIdentities(identities=[wire.Identity(name=name) for name in names])
        message.overrides.add(limit=kind.Limit(requestsPerSecond=rate), clients=clients)
    return message


def _http_route(route: InboundRoute) -> wire.HttpRoute:
    message = wire.HttpRoute(
        metadata=_metadata(route.origin),
        hosts=map(matches.host, route.hostnames),
        authorizations=map(_authz, route.authorizations),
    )
    for rule in route.rules:
        message.rules.add(
            matches=[matches.http_match(match) for match in rule.matches if isinstance(match, HttpMatch)],
            filters=map(_http_filter, rule.filters),
        )
    return message


def _grpc_route(route: InboundRoute) -> wire.GrpcRoute:
    message = wire.GrpcRoute(
        metadata=_metadata(route.origin),
        hosts=map(matches.host, route.hostnames),
        authorizations=map(_authz, route.authorizations),
    )
    for rule in route.rules:
        message.rules.add(
            matches=[matches.grpc_match(match) for match in rule.matches if isinstance(match, GrpcMatch)],
            filters=map(_grpc_filter, rule.filters),
        )
    return message


def _http_filter(of: HeaderModifier | Redirect | Failure) -> wire.HttpRoute.Filter:
    match of:
        case HeaderModifier():
            return wire.HttpRoute.Filter(request_header_modifier=matches.request_headers(of))
        case Redirect():
            return wire.HttpRoute.Filter(redirect=matches.redirect(of))
        case Failure(message):
            failure = route_wire.HttpFailureInjector(status=FAILURE_STATUS, message=message)
            return wire.HttpRoute.Filter(failure_injector=failure)


def _grpc_filter(of: HeaderModifier | Redirect | Failure) -> wire.GrpcRoute.Filter:
    match of:
        case HeaderModifier():
            return wire.GrpcRoute.Filter(request_header_modifier=matches.request_headers(of))
        case Failure(message):
            failure = grpc_wire.GrpcFailureInjector(code=FAILURE_CODE, message=message)
            return wire.GrpcRoute.Filter(failure_injector=failure)
        case Redirect():
            raise AssertionError("a gRPC route's redirect became a failure before")
