from typing import Any

import pytest

from tulle.policy.inbound import server
from tulle.policy.index import DefaultPolicy, InboundPort
from tulle.wire import inbound_pb2 as wire
from tulle.wire import meta_pb2

CONTROLLER = "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local"
NETWORKS = ("10.0.0.0/8",)
ALL = [{"net": {"ip": {"ipv4": 0}}}, {"net": {"ip": {"ipv6": {}}}}]
CLUSTER = [{"net": {"ip": {"ipv4": 0x0A000000}, "prefix_len": 8}}]
ANYONE: Any = {"unauthenticated": {}}
ANY_IDENTITY: Any = {"meshTLS": {"identities": {"suffixes": [{}]}}}
DEFAULT_ROUTE = wire.HttpRoute(
    metadata={"default": "default"}, rules=[{"matches": [{"path": {"prefix": "/"}}]}]
)


def build(port: InboundPort) -> wire.Server:
    return server(port, cluster_networks=NETWORKS, controller=CONTROLLER)


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
        ("all-unauthenticated", [authz("all-unauthenticated", ALL, ANYONE)]),
        ("all-authenticated", [authz("all-authenticated", ALL, ANY_IDENTITY)]),
        ("cluster-unauthenticated", [authz("cluster-unauthenticated", CLUSTER, ANYONE)]),
        ("cluster-authenticated", [authz("cluster-authenticated", CLUSTER, ANY_IDENTITY)]),
        ("audit", [authz("audit", ALL, ANYONE)]),
        ("deny", []),
    ],
)
def test_a_default_policy_admits_whom_its_name_says(policy: str, expected: list[wire.Authz]) -> None:
    message = build(InboundPort(DefaultPolicy(policy)))

    assert list(message.authorizations) == expected
    assert dict(message.labels) == {"group": "", "kind": "default", "name": policy}


def test_a_port_is_detected_with_the_default_route() -> None:
    message = build(InboundPort(DefaultPolicy.DENY))

    assert message.protocol == wire.ProxyProtocol(
        detect={"timeout": {"seconds": 10}, "http_routes": [DEFAULT_ROUTE]}
    )


def test_an_opaque_port_has_no_routes() -> None:
    message = build(InboundPort(DefaultPolicy.DENY, opaque=True, probe_paths=("/live",)))

    assert message.protocol == wire.ProxyProtocol(opaque={})


def test_probes_are_open_to_anyone_and_the_rest_of_the_port_is_not() -> None:
    message = build(InboundPort(DefaultPolicy.DENY, probe_paths=("/live", "/ready")))

    probe, default = message.protocol.detect.http_routes
    assert probe == wire.HttpRoute(
        metadata={"default": "probe"},
        authorizations=[authz("probe", ALL, ANYONE)],
        rules=[
            {
                "matches": [
                    {"path": {"exact": "/live"}, "method": {"registered": "GET"}},
                    {"path": {"exact": "/ready"}, "method": {"registered": "GET"}},
                ]
            }
        ],
    )
    assert default == DEFAULT_ROUTE
    assert not message.authorizations


@pytest.mark.parametrize("policy", list(DefaultPolicy))
def test_the_proxy_s_own_port_always_admits_the_controller_to_metrics_and_anyone_to_readiness(
    policy: DefaultPolicy,
) -> None:
    message = build(InboundPort(policy, admin=True))

    probe, metrics, default = message.protocol.detect.http_routes
    assert [match.path.exact for match in probe.rules[0].matches] == ["/live", "/ready"]
    assert list(probe.authorizations) == [authz("probe", ALL, ANYONE)]
    assert [match.path.exact for match in metrics.rules[0].matches] == ["/metrics"]
    only_controller = {"meshTLS": {"identities": {"identities": [{"name": CONTROLLER}]}}}
    assert list(metrics.authorizations) == [authz("controller", ALL, only_controller)]
    assert default == DEFAULT_ROUTE
    assert [of.metadata.default for of in message.authorizations] == [
        policy.value for _ in range(policy is not DefaultPolicy.DENY)
    ]
