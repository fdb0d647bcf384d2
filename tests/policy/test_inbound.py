from typing import Any

import pytest

from tulle.model.authorization import Network
from tulle.model.protocol import Protocol
from tulle.model.route import (
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    PathMatch,
    PathModifier,
    Redirect,
    ValueMatch,
)
from tulle.policy.authorizations import (
    ANY_NAME,
    ANYONE,
    EVERYWHERE,
    Authorization,
    Clients,
    DefaultPolicy,
    Origin,
    of_default,
)
from tulle.policy.inbound import server
from tulle.policy.servers import Failure, InboundPort, InboundRoute, InboundRule, RateLimit
from tulle.wire import inbound_pb2 as wire
from tulle.wire import meta_pb2

GROUP = "policy.linkerd.io"
NETWORKS = (Network("10.0.0.0/8"),)
ALL = [{"net": {"ip": {"ipv4": 0}}}, {"net": {"ip": {"ipv6": {}}}}]
CLUSTER = [{"net": {"ip": {"ipv4": 0x0A000000}, "prefix_len": 8}}]
WEB = Origin("web", "server", GROUP)


def authz(name: str, networks: Any, authentication: Any) -> wire.Authz:
    return wire.Authz(
        networks=networks,
        authentication=authentication,
        labels={"group": "", "kind": "default", "name": name},
        metadata=meta_pb2.Metadata(default=name),
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("all-unauthenticated", [authz("all-unauthenticated", ALL, {"unauthenticated": {}})]),
        (
            "all-authenticated",
            [authz("all-authenticated", ALL, {"meshTLS": {"identities": {"suffixes": [{}]}}})],
        ),
        ("cluster-unauthenticated", [authz("cluster-unauthenticated", CLUSTER, {"unauthenticated": {}})]),
        (
            "cluster-authenticated",
            [authz("cluster-authenticated", CLUSTER, {"meshTLS": {"identities": {"suffixes": [{}]}}})],
        ),
        ("audit", [authz("audit", ALL, {"unauthenticated": {}})]),
        ("deny", []),
    ],
)
def test_a_default_policy_admits_whom_its_name_says(policy: str, expected: list[wire.Authz]) -> None:
    found = of_default(DefaultPolicy(policy), NETWORKS)
    message = server(InboundPort(Origin(policy), Protocol.DETECT, found))

    assert list(message.authorizations) == expected
    assert dict(message.labels) == {"group": "", "kind": "default", "name": policy}


def test_objects_are_named_by_group_kind_and_name() -> None:
    origin = Origin("readers", "authorizationpolicy", GROUP)
    message = server(InboundPort(WEB, Protocol.OPAQUE, (Authorization(origin, NETWORKS, ANYONE),)))

    assert dict(message.labels) == {"group": GROUP, "kind": "server", "name": "web"}
    (readers,) = message.authorizations
    assert dict(readers.labels) == {"group": GROUP, "kind": "authorizationpolicy", "name": "readers"}
    assert readers.metadata.resource == meta_pb2.Resource(
        group=GROUP, kind="authorizationpolicy", name="readers"
    )


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (ANYONE, {"unauthenticated": {}}),
        (Clients(any_tls=True), {"meshTLS": {"unauthenticated": {}}}),
        (ANY_NAME, {"meshTLS": {"identities": {"suffixes": [{}]}}}),
        (
            Clients(names=("web.example", "spiffe://a/b"), suffixes=("staff.example",)),
            {
                "meshTLS": {
                    "identities": {
                        "identities": [{"name": "web.example"}, {"name": "spiffe://a/b"}],
                        "suffixes": [{"parts": ["staff", "example"]}],
                    }
                }
            },
        ),
    ],
)
def test_clients_are_written_as_the_permit_that_means_them(clients: Clients, expected: Any) -> None:
    message = server(InboundPort(WEB, Protocol.TLS, (Authorization(Origin("a"), EVERYWHERE, clients),)))

    assert message.authorizations[0].authentication == wire.Authn(**expected)


def test_networks_keep_their_exceptions() -> None:
    office = Network("192.0.2.0/24", ("192.0.2.7/32",))
    message = server(InboundPort(WEB, Protocol.TLS, (Authorization(Origin("a"), (office,), ANYONE),)))

    (network,) = message.authorizations[0].networks
    assert network.net.prefix_len == 24
    assert [(each.ip.ipv4 & 0xFF, each.prefix_len) for each in getattr(network, "except")] == [(7, 32)]


LIMIT = RateLimit(Origin("slow", "HTTPLocalRateLimitPolicy", GROUP), 100, 10, ((20, ("web.example",)),))
WIRE_LIMIT = wire.HttpLocalRateLimit(
    metadata={"resource": {"group": GROUP, "kind": "HTTPLocalRateLimitPolicy", "name": "slow"}},
    total={"requestsPerSecond": 100},
    identity={"requestsPerSecond": 10},
    overrides=[{"limit": {"requestsPerSecond": 20}, "clients": {"identities": [{"name": "web.example"}]}}],
)
DEFAULT = InboundRoute(Origin("default"), (InboundRule((HttpMatch(PathMatch("prefix", "/")),)),))
WIRE_DEFAULT = wire.HttpRoute(
    metadata={"default": "default"}, rules=[{"matches": [{"path": {"prefix": "/"}}]}]
)
TEN_SECONDS = {"seconds": 10}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (
            Protocol.DETECT,
            {
                "detect": {
                    "timeout": TEN_SECONDS,
                    "http_routes": [WIRE_DEFAULT],
                    "http_local_rate_limit": WIRE_LIMIT,
                }
            },
        ),
        (Protocol.HTTP1, {"http1": {"routes": [WIRE_DEFAULT], "local_rate_limit": WIRE_LIMIT}}),
        (Protocol.HTTP2, {"http2": {"routes": [WIRE_DEFAULT], "local_rate_limit": WIRE_LIMIT}}),
    ],
)
def test_http_carries_routes_and_a_limit(protocol: Protocol, expected: Any) -> None:
    message = server(InboundPort(WEB, protocol, (), (DEFAULT,), LIMIT))

    assert message.protocol == wire.ProxyProtocol(**expected)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (Protocol.DETECT, {"detect": {"timeout": TEN_SECONDS}}),
        (Protocol.HTTP1, {"http1": {}}),
        (Protocol.HTTP2, {"http2": {}}),
        (Protocol.GRPC, {"grpc": {}}),
        (Protocol.TLS, {"tls": {}}),
        (Protocol.OPAQUE, {"opaque": {}}),
    ],
)
def test_every_protocol_has_its_own_kind(protocol: Protocol, expected: Any) -> None:
    assert server(InboundPort(WEB, protocol, ())).protocol == wire.ProxyProtocol(**expected)


def test_an_http_route_says_hosts_matches_filters_and_authorizations() -> None:
    match = HttpMatch(
        PathMatch("exact", "/a"), (ValueMatch("x-a", "1"),), (ValueMatch("q", ".+", True),), "GET"
    )
    filters = (
        HeaderModifier(False, add=(("x-b", "2"),), remove=("x-c",)),
        Redirect("https", "b.example", PathModifier(False, "/b"), 8443, 307),
        Failure("no such filter"),
    )
    route = InboundRoute(
        Origin("read", "HTTPRoute", GROUP),
        (InboundRule((match,), filters),),
        ("a.example", "*.b.example"),
        (Authorization(Origin("probe"), NETWORKS, ANYONE),),
    )

    (message,) = server(InboundPort(WEB, Protocol.HTTP1, (), (route,))).protocol.http1.routes

    assert message == wire.HttpRoute(
        metadata={"resource": {"group": GROUP, "kind": "HTTPRoute", "name": "read"}},
        hosts=[{"exact": "a.example"}, {"suffix": {"reverse_labels": ["example", "b"]}}],
        authorizations=[authz("probe", CLUSTER, {"unauthenticated": {}})],
        rules=[
            {
                "matches": [
                    {
                        "path": {"exact": "/a"},
                        "headers": [{"name": "x-a", "exact": b"1"}],
                        "query_params": [{"name": "q", "regex": ".+"}],
                        "method": {"registered": "GET"},
                    }
                ],
                "filters": [
                    {
                        "request_header_modifier": {
                            "add": {"headers": [{"name": "x-b", "value": b"2"}]},
                            "remove": ["x-c"],
                        }
                    },
                    {
                        "redirect": {
                            "scheme": {"registered": "HTTPS"},
                            "host": "b.example",
                            "path": {"full": "/b"},
                            "port": 8443,
                            "status": 307,
                        }
                    },
                    {"failure_injector": {"status": 500, "message": "no such filter"}},
                ],
            }
        ],
    )


def test_a_grpc_route_says_services_and_methods() -> None:
    rules = (InboundRule((GrpcMatch("Members", "Get"),), (Failure("no such filter"),)),)
    route = InboundRoute(Origin("read", "GRPCRoute", GROUP), rules)

    (message,) = server(InboundPort(WEB, Protocol.GRPC, (), (route,))).protocol.grpc.routes

    assert message == wire.GrpcRoute(
        metadata={"resource": {"group": GROUP, "kind": "GRPCRoute", "name": "read"}},
        rules=[
            {
                "matches": [{"rpc": {"service": "Members", "method": "Get"}}],
                "filters": [{"failure_injector": {"code": 13, "message": "no such filter"}}],
            }
        ],
    )
