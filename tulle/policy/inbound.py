"""Inbound policies as wire messages.

A proxy takes a message with one invalid element for "refuse everything", so every message is built
whole: a name in `labels`, a network and an authentication in every authorization, metadata wherever
there is a place for it.

The proxy's own port is special: the controller reads its metrics by identity, and anyone may ask
whether it lives, whatever the default policy says. These are routes with authorizations of their
own; the default policy's authorizations hold for every path beside them.
"""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from tulle.policy.index import DefaultPolicy, InboundPort
from tulle.wire import http_route_pb2 as route_wire
from tulle.wire import http_types_pb2, meta_pb2
from tulle.wire import inbound_pb2 as wire
from tulle.wire.addresses import to_wire_network

DETECT_TIMEOUT = Duration(seconds=10)
EVERYWHERE = ("0.0.0.0/0", "::/0")
READINESS_PATHS = ("/live", "/ready")
METRICS_PATH = "/metrics"
_CLUSTER = (DefaultPolicy.CLUSTER_UNAUTHENTICATED, DefaultPolicy.CLUSTER_AUTHENTICATED)
_AUTHENTICATED = (DefaultPolicy.ALL_AUTHENTICATED, DefaultPolicy.CLUSTER_AUTHENTICATED)


def server(port: InboundPort, *, cluster_networks: tuple[str, ...], controller: str) -> wire.Server:
    """Build the port's policy; `controller` is the identity that may always read metrics."""
    message = wire.Server(
        authorizations=_default_authorizations(port.policy, cluster_networks),
        labels={"group": "", "kind": "default", "name": port.policy.value},
    )
    if port.opaque:
        message.protocol.opaque.SetInParent()
        return message
    message.protocol.detect.timeout.CopyFrom(DETECT_TIMEOUT)
    if port.admin:
        message.protocol.detect.http_routes.extend(
            [_probe_route(READINESS_PATHS), _metrics_route(controller)]
        )
    elif port.probe_paths:
        message.protocol.detect.http_routes.append(_probe_route(port.probe_paths))
    message.protocol.detect.http_routes.append(_default_route())
    return message


def _default_authorizations(policy: DefaultPolicy, cluster_networks: tuple[str, ...]) -> Iterable[wire.Authz]:
    if policy is DefaultPolicy.DENY:
        return ()
    networks = cluster_networks if policy in _CLUSTER else EVERYWHERE
    authn = wire.Authn()
    if policy in _AUTHENTICATED:
        # A suffix without labels: every name that the mesh's own authority signed.
        authn.meshTLS.identities.suffixes.add()
    else:
        authn.unauthenticated.SetInParent()
    return (_authz(policy.value, networks, authn),)


def _authz(name: str, networks: Iterable[str], authn: wire.Authn) -> wire.Authz:
    return wire.Authz(
        networks=[wire.Network(net=to_wire_network(network)) for network in networks],
        authentication=authn,
        labels={"group": "", "kind": "default", "name": name},
        metadata=meta_pb2.Metadata(default=name),
    )


def _default_route() -> wire.HttpRoute:
    match = route_wire.HttpRouteMatch(path=route_wire.PathMatch(prefix="/"))
    return wire.HttpRoute(
        metadata=meta_pb2.Metadata(default="default"), rules=[wire.HttpRoute.Rule(matches=[match])]
    )


def _probe_route(paths: Iterable[str]) -> wire.HttpRoute:
    anyone = wire.Authn()
    anyone.unauthenticated.SetInParent()
    return _get_route("probe", paths, _authz("probe", EVERYWHERE, anyone))


def _metrics_route(controller: str) -> wire.HttpRoute:
    authn = wire.Authn()
    authn.meshTLS.identities.identities.add(name=controller)
    return _get_route("metrics", (METRICS_PATH,), _authz("controller", EVERYWHERE, authn))


def _get_route(name: str, paths: Iterable[str], authorization: wire.Authz) -> wire.HttpRoute:
    method = http_types_pb2.HttpMethod(registered=http_types_pb2.HttpMethod.GET)
    matches = [
        route_wire.HttpRouteMatch(path=route_wire.PathMatch(exact=path), method=method) for path in paths
    ]
    return wire.HttpRoute(
        metadata=meta_pb2.Metadata(default=name),
        authorizations=[authorization],
        rules=[wire.HttpRoute.Rule(matches=matches)],
    )
