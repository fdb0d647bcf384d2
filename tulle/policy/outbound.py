"""Outbound policies as wire messages.

Every part that a proxy demands is in every message: metadata on policy, route and backend, a queue
(whose values the proxies ignore), all four fields of a detecting policy, exactly one rule in a route
that carries bytes. A policy without them would refuse all traffic to its target.
"""

from google.protobuf.duration_pb2 import Duration

from tulle.model.protocol import Protocol
from tulle.model.service import ObjectName
from tulle.policy.index import Egress, ServiceTarget, UndefinedPort
from tulle.wire import destination_pb2, meta_pb2
from tulle.wire import grpc_route_pb2 as grpc_wire
from tulle.wire import http_route_pb2 as route_wire
from tulle.wire import outbound_pb2 as wire
from tulle.wire.addresses import to_wire_port

DETECT_TIMEOUT = Duration(seconds=10)
QUEUE = wire.Queue(capacity=100, failfast_timeout=Duration(seconds=3))
EWMA = wire.Backend.BalanceP2c.PeakEwma(default_rtt=Duration(nanos=30_000_000), decay=Duration(seconds=10))
WEIGHT = 10_000


def policy(target: ServiceTarget | UndefinedPort | Egress, *, cluster_domain: str) -> wire.OutboundPolicy:
    """Build the policy for a target."""
    match target:
        case ServiceTarget():
            return _service(target, cluster_domain)
        case UndefinedPort():
            return _undefined_port(target)
        case Egress():
            return _egress(target)


def _service(target: ServiceTarget, cluster_domain: str) -> wire.OutboundPolicy:
    metadata = _service_metadata(target.service, target.port)
    backend = wire.Backend(metadata=metadata, queue=QUEUE)
    host = f"{target.service.name}.{target.service.namespace}.svc.{cluster_domain}"
    backend.balancer.discovery.dst.path = f"{host}:{target.port}"
    backend.balancer.peak_ewma.CopyFrom(EWMA)
    return wire.OutboundPolicy(metadata=metadata, protocol=_protocol(target.protocol, backend))


def _protocol(kind: Protocol, backend: wire.Backend) -> wire.ProxyProtocol:
    message = wire.ProxyProtocol()
    match kind:
        case Protocol.DETECT:
            _detect(message, _http_route("http", backend), _opaque_route("opaq", backend))
        case Protocol.HTTP1:
            message.http1.routes.append(_http_route("http", backend))
        case Protocol.HTTP2:
            message.http2.routes.append(_http_route("http", backend))
        case Protocol.GRPC:
            message.grpc.routes.append(_grpc_route("http", backend))
        case Protocol.TLS:
            message.tls.routes.append(_tls_route("tls", backend))
        case Protocol.OPAQUE:
            message.opaque.routes.append(_opaque_route("opaq", backend))
    return message


def _detect(message: wire.ProxyProtocol, http: wire.HttpRoute, opaque: wire.OpaqueRoute) -> None:
    message.detect.timeout.CopyFrom(DETECT_TIMEOUT)
    message.detect.http1.routes.append(http)
    message.detect.http2.routes.append(http)
    message.detect.opaque.routes.append(opaque)


def _undefined_port(target: UndefinedPort) -> wire.OutboundPolicy:
    distribution = wire.OpaqueRoute.Distribution()
    distribution.empty.SetInParent()
    refusal = wire.OpaqueRoute.Filter()
    refusal.forbidden.SetInParent()
    route = wire.OpaqueRoute(
        metadata=_default("undefined-port"),
        rules=[wire.OpaqueRoute.Rule(backends=distribution, filters=[refusal])],
    )
    message = wire.ProxyProtocol()
    message.opaque.routes.append(route)
    return wire.OutboundPolicy(metadata=_service_metadata(target.service, target.port), protocol=message)


def _egress(target: Egress) -> wire.OutboundPolicy:
    metadata = _default("egress-fallback")
    forward = destination_pb2.WeightedAddr(addr=to_wire_port(target.address, target.port), weight=WEIGHT)
    backend = wire.Backend(metadata=metadata, forward=forward, queue=QUEUE)
    message = wire.ProxyProtocol()
    _detect(message, _http_route("egress-fallback", backend), _opaque_route("egress-fallback", backend))
    return wire.OutboundPolicy(metadata=metadata, protocol=message)


def _http_route(name: str, backend: wire.Backend) -> wire.HttpRoute:
    first = wire.HttpRoute.Distribution.FirstAvailable(
        backends=[wire.HttpRoute.RouteBackend(backend=backend)]
    )
    rule = wire.HttpRoute.Rule(
        matches=[route_wire.HttpRouteMatch(path=route_wire.PathMatch(prefix="/"))],
        backends=wire.HttpRoute.Distribution(first_available=first),
    )
    return wire.HttpRoute(metadata=_default(name), rules=[rule])


def _grpc_route(name: str, backend: wire.Backend) -> wire.GrpcRoute:
    first = wire.GrpcRoute.Distribution.FirstAvailable(
        backends=[wire.GrpcRoute.RouteBackend(backend=backend)]
    )
    rule = wire.GrpcRoute.Rule(
        matches=[grpc_wire.GrpcRouteMatch(rpc=grpc_wire.GrpcRpcMatch())],
        backends=wire.GrpcRoute.Distribution(first_available=first),
    )
    return wire.GrpcRoute(metadata=_default(name), rules=[rule])


def _tls_route(name: str, backend: wire.Backend) -> wire.TlsRoute:
    first = wire.TlsRoute.Distribution.FirstAvailable(backends=[wire.TlsRoute.RouteBackend(backend=backend)])
    rule = wire.TlsRoute.Rule(backends=wire.TlsRoute.Distribution(first_available=first))
    return wire.TlsRoute(metadata=_default(name), rules=[rule])


def _opaque_route(name: str, backend: wire.Backend) -> wire.OpaqueRoute:
    first = wire.OpaqueRoute.Distribution.FirstAvailable(
        backends=[wire.OpaqueRoute.RouteBackend(backend=backend)]
    )
    rule = wire.OpaqueRoute.Rule(backends=wire.OpaqueRoute.Distribution(first_available=first))
    return wire.OpaqueRoute(metadata=_default(name), rules=[rule])


def _default(name: str) -> meta_pb2.Metadata:
    return meta_pb2.Metadata(default=name)


def _service_metadata(service: ObjectName, port: int) -> meta_pb2.Metadata:
    return meta_pb2.Metadata(
        resource=meta_pb2.Resource(
            group="core", kind="Service", name=service.name, namespace=service.namespace, port=port
        )
    )
