"""Routes of clients, as the messages that their proxies get."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from tests.control_plane import WEB, WEB_SERVICE, world_of
from tests.policy.objects import WHERE, meta, route, rule
from tests.policy.validation import problems
from tulle.model.authorization import GATEWAY_GROUP, POLICY_GROUP, EgressNetwork, Network, Ref
from tulle.model.protocol import Protocol
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
    Route,
    UnknownFilter,
    UrlRewrite,
    ValueMatch,
)
from tulle.model.service import Namespace, ObjectName, Service, ServicePort
from tulle.model.update import Object
from tulle.model.world import routes_topic, service_topic
from tulle.policy import outbound
from tulle.policy.targets import Egress, OutboundKey, ServiceTarget, TargetIndex, UndefinedPort, Unknown
from tulle.wire import outbound_pb2 as wire

NETWORKS = (ip_network("10.0.0.0/8"),)
PARENT = ParentRef("", "Service", "web")
KEY = OutboundKey("10.78.0.5", 80)
OUTSIDE = "192.0.2.7"
CANARY = Service(ObjectName("shop", "canary"), ports=(ServicePort(80),), cluster_ips=("10.78.0.6",))
ELSEWHERE = Service(ObjectName("depot", "web"), ports=(ServicePort(80),), cluster_ips=("10.78.0.7",))
ANY = {"path": {"prefix": "/"}}


def to(
    name: str, weight: int = 1, *, port: int | None = 80, namespace: str | None = None, **more: Any
) -> BackendRef:
    ref = Ref(more.get("group", ""), more.get("kind", "Service"), name, namespace)
    return BackendRef(ref, port, weight, more.get("filters", ()), WHERE)


def find(*objects: Object, key: OutboundKey = KEY) -> ServiceTarget | Egress:
    index = TargetIndex(world_of(*objects), cluster_domain="cluster.local", cluster_networks=NETWORKS)
    target, _ = index.find(index.shared(key))
    assert isinstance(target, ServiceTarget | Egress)
    return target


def compile(*objects: Object, key: OutboundKey = KEY, extended: bool = True) -> wire.OutboundPolicy:
    target = find(*objects, key=key)
    policy = outbound.policy(target, cluster_domain="cluster.local", extended=extended)
    assert problems(policy, extended=extended) == []
    return policy


def http(*objects: Object, key: OutboundKey = KEY, extended: bool = True) -> list[wire.HttpRoute]:
    policy = compile(WEB_SERVICE, *objects, key=key, extended=extended)
    assert policy.protocol.detect.http1 == wire.ProxyProtocol.Http1(
        routes=policy.protocol.detect.http2.routes,
        failure_accrual=policy.protocol.detect.http2.failure_accrual
        if policy.protocol.detect.http2.HasField("failure_accrual")
        else None,
    )
    return list(policy.protocol.detect.http1.routes)


def web(*rules: Any, **changes: Any) -> Route:
    return route(changes.pop("name", "web"), *rules, **{"parents": (PARENT,)} | changes)


def backend(name: str = "web", namespace: str = "shop", port: int = 80) -> dict[str, Any]:
    return {
        "metadata": {
            "resource": {
                "group": "core",
                "kind": "Service",
                "name": name,
                "namespace": namespace,
                "port": port,
            }
        },
        "balancer": {
            "discovery": {"dst": {"path": f"{name}.{namespace}.svc.cluster.local:{port}"}},
            "peak_ewma": {"default_rtt": {"nanos": 30_000_000}, "decay": {"seconds": 10}},
        },
        "queue": {"capacity": 100, "failfast_timeout": {"seconds": 3}},
    }


def broken(message: str) -> dict[str, Any]:
    return {
        "backend": {
            "metadata": {"default": "invalid"},
            "queue": {"capacity": 100, "failfast_timeout": {"seconds": 3}},
        },
        "filters": [{"failure_injector": {"status": 500, "message": message}}],
    }


def resource(name: str = "web", kind: str = "HTTPRoute", namespace: str = "shop") -> dict[str, Any]:
    return {"resource": {"group": GATEWAY_GROUP, "kind": kind, "name": name, "namespace": namespace}}


ITSELF = {"first_available": {"backends": [{"backend": backend()}]}}


def weighted(*choices: tuple[dict[str, Any], int]) -> dict[str, Any]:
    return {
        "random_available": {
            "backends": [{"backend": choice, "weight": weight} for choice, weight in choices]
        }
    }


# Which backends


def test_traffic_is_split_by_weight() -> None:
    split = web(rule(backends=(to("web", 90), to("canary", 10))))

    assert http(CANARY, split) == [
        wire.HttpRoute(
            metadata=resource(),
            rules=[
                {
                    "matches": [ANY],
                    "backends": weighted(({"backend": backend()}, 90), ({"backend": backend("canary")}, 10)),
                }
            ],
        )
    ]


def test_a_rule_without_backends_leads_to_the_parent() -> None:
    assert http(web(rule())) == [
        wire.HttpRoute(metadata=resource(), rules=[{"matches": [ANY], "backends": ITSELF}])
    ]


def test_a_backend_may_be_in_another_namespace() -> None:
    (found,) = http(ELSEWHERE, web(rule(backends=(to("web", namespace="depot"),))))

    assert found.rules[0].backends == wire.HttpRoute.Distribution(
        **weighted(({"backend": backend(namespace="depot")}, 1))
    )


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (to("gone", 3), "Service shop/gone not found"),
        (to("canary", 3, port=None), "backend Service shop/canary has no port in the route"),
        (
            to("bucket", 3, group="example.org", kind="Bucket"),
            "Bucket shop/bucket cannot be a backend: kind Bucket.example.org is not supported",
        ),
        (
            to("web", 3, group=POLICY_GROUP, kind="EgressNetwork"),
            "EgressNetwork shop/web can be a backend of its own routes only",
        ),
    ],
)
def test_a_backend_that_is_not_there_fails_with_its_weight_and_says_why(
    ref: BackendRef, message: str
) -> None:
    (found,) = http(CANARY, web(rule(backends=(to("canary", 1), ref))))

    assert found.rules[0].backends == wire.HttpRoute.Distribution(
        **weighted(({"backend": backend("canary")}, 1), (broken(message), 3))
    )


def test_backends_that_all_have_weight_0_are_one_that_fails() -> None:
    (found,) = http(CANARY, web(rule(backends=(to("web", 0), to("canary", 0)))))

    assert found.rules[0].backends == wire.HttpRoute.Distribution(
        **weighted((broken("every backend of the rule has weight 0"), 1))
    )


def test_a_lone_backend_is_used_whatever_its_weight() -> None:
    (found,) = http(CANARY, web(rule(backends=(to("canary", 0),))))

    assert found.rules[0].backends == wire.HttpRoute.Distribution(
        **weighted(({"backend": backend("canary")}, 0))
    )


def test_an_answer_depends_on_the_services_that_its_routes_name() -> None:
    split = web(rule(backends=(to("gone"),), filters=(Mirror(to("copy")),)))
    index = TargetIndex(
        world_of(WEB_SERVICE, split), cluster_domain="cluster.local", cluster_networks=NETWORKS
    )

    _, topics = index.find(KEY)

    names = (ObjectName("shop", name) for name in ("web", "gone", "copy"))
    assert {*map(service_topic, names), routes_topic(WEB)} <= topics


# What is matched


def test_matches_say_what_the_route_says() -> None:
    match = HttpMatch(
        PathMatch("exact", "/book"),
        (ValueMatch("x-staff", "yes"), ValueMatch("x-kind", "a|b", regex=True)),
        (ValueMatch("day", "1"), ValueMatch("hour", r"\d+", regex=True)),
        "POST",
    )
    odd = HttpMatch(PathMatch("regex", "/v[12]/.*"), method="PURGE")

    (found,) = http(web(rule(match, odd), hostnames=("web.example", "*.shop.example")))

    assert found == wire.HttpRoute(
        metadata=resource(),
        hosts=[{"exact": "web.example"}, {"suffix": {"reverse_labels": ["example", "shop"]}}],
        rules=[
            {
                "matches": [
                    {
                        "path": {"exact": "/book"},
                        "headers": [{"name": "x-staff", "exact": b"yes"}, {"name": "x-kind", "regex": "a|b"}],
                        "query_params": [{"name": "day", "exact": "1"}, {"name": "hour", "regex": r"\d+"}],
                        "method": {"registered": "POST"},
                    },
                    {"path": {"regex": "/v[12]/.*"}, "method": {"unregistered": "PURGE"}},
                ],
                "backends": ITSELF,
            }
        ],
    )


# What is done


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            HeaderModifier(False, add=(("a", "1"),), set=(("b", "2"),), remove=("c",)),
            {
                "request_header_modifier": {
                    "add": {"headers": [{"name": "a", "value": b"1"}]},
                    "set": {"headers": [{"name": "b", "value": b"2"}]},
                    "remove": ["c"],
                }
            },
        ),
        (HeaderModifier(True, remove=("server",)), {"response_header_modifier": {"remove": ["server"]}}),
        (
            Redirect("https", "new.example", PathModifier(True, "/v2"), 8443, 308),
            {
                "redirect": {
                    "scheme": {"registered": "HTTPS"},
                    "host": "new.example",
                    "path": {"prefix": "/v2"},
                    "port": 8443,
                    "status": 308,
                }
            },
        ),
        (Redirect(path=PathModifier(False, "/gone")), {"redirect": {"path": {"full": "/gone"}}}),
        (
            UrlRewrite("inside.example", PathModifier(True, "/")),
            {"url_rewrite": {"host": "inside.example", "path": {"prefix": "/"}}},
        ),
        (UrlRewrite(path=PathModifier(True, "")), {"url_rewrite": {"path": {"prefix": "/"}}}),
        (Mirror(to("canary")), {"request_mirror": {"backend": backend("canary")}}),
        (
            Mirror(to("canary"), 1, 8),
            {
                "request_mirror": {
                    "backend": backend("canary"),
                    "ratio": {"numerator": 1, "denominator": 8},
                }
            },
        ),
        (
            UnknownFilter("ExtensionRef"),
            {"failure_injector": {"status": 500, "message": "filter ExtensionRef is not supported"}},
        ),
    ],
)
def test_a_filter_is_sent_for_the_rule_and_for_a_backend(given: Filter, expected: Any) -> None:
    (found,) = http(CANARY, web(rule(filters=(given,), backends=(to("web", filters=(given,)),))))

    assert found.rules[0] == wire.HttpRoute.Rule(
        matches=[ANY],
        filters=[expected],
        backends=weighted(({"backend": backend(), "filters": [expected]}, 1)),
    )


def test_a_proxy_without_the_capability_gets_a_failure_for_a_rewrite_and_no_mirror() -> None:
    filters = (UrlRewrite(path=PathModifier(False, "/x")), Mirror(to("canary")))
    quick = replace(rule(filters=filters), backend_request_timeout=timedelta(seconds=1))
    off = with_annotations(web(quick), {"retry.tulle.dev/default": "off"})

    (found,) = http(CANARY, off, extended=False)
    (ours,) = http(CANARY, off)

    message = "this proxy cannot apply the filter URLRewrite"
    assert found.rules[0] == wire.HttpRoute.Rule(
        matches=[ANY],
        filters=[{"failure_injector": {"status": 500, "message": message}}],
        backends=ITSELF,
    )
    assert ours.rules[0] == wire.HttpRoute.Rule(
        matches=[ANY],
        filters=[
            {"url_rewrite": {"path": {"full": "/x"}}},
            {"request_mirror": {"backend": backend("canary")}},
        ],
        backends=ITSELF,
        backend_request_timeout={"seconds": 1},
        no_default_retry=True,
    )


def test_a_mirror_to_nowhere_is_left_out() -> None:
    (found,) = http(web(rule(filters=(Mirror(to("gone")),))))

    assert found.rules[0] == wire.HttpRoute.Rule(matches=[ANY], backends=ITSELF)


# Time-outs, retries, breakers


def with_annotations(item: Any, annotations: dict[str, str]) -> Any:
    if isinstance(item, Service):
        return replace(item, annotations=annotations)
    return replace(item, meta=replace(item.meta, annotations=annotations))


def rule_of(service: Service, *routes: Route) -> wire.HttpRoute.Rule:
    policy = compile(service, *routes)
    return policy.protocol.detect.http1.routes[0].rules[0]


def test_a_service_s_time_outs_hold_until_its_route_has_one() -> None:
    service = with_annotations(
        WEB_SERVICE, {"timeout.linkerd.io/request": "10s", "timeout.linkerd.io/idle": "1m"}
    )
    own = with_annotations(web(rule()), {"timeout.linkerd.io/response": "300ms"})
    ruled = web(replace(rule(), request_timeout=timedelta(seconds=2)))
    zero = web(replace(rule(), request_timeout=timedelta()))
    both = with_annotations(ruled, {"timeout.linkerd.io/request": "4s"})

    def timeouts(*routes: Route) -> Any:
        return rule_of(service, *routes).timeouts

    kind = type(timeouts())
    of_service = kind(request={"seconds": 10}, idle={"seconds": 60})
    assert timeouts() == of_service
    assert timeouts(web(rule())) == of_service
    assert timeouts(zero) == of_service
    assert timeouts(own) == kind(response={"nanos": 300_000_000})
    assert timeouts(ruled) == kind(request={"seconds": 2})
    assert timeouts(both) == kind(request={"seconds": 4})


def test_retries_are_the_route_s_else_the_service_s() -> None:
    service = with_annotations(WEB_SERVICE, {"retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "3"})
    own = with_annotations(
        web(rule()), {"retry.linkerd.io/http": "429,502-503", "retry.linkerd.io/timeout": "1s"}
    )
    more = {
        "max_request_bytes": 65536,
        "backoff": {
            "min_backoff": {"nanos": 25_000_000},
            "max_backoff": {"nanos": 250_000_000},
            "jitter_ratio": 1.0,
        },
    }
    inherited = wire.HttpRoute.Retry(
        max_retries=3, conditions={"status_ranges": [{"start": 500, "end": 599}]}, **more
    )

    assert not rule_of(WEB_SERVICE).HasField("retry")
    assert rule_of(service).retry == inherited
    assert rule_of(service, web(rule())).retry == inherited
    assert rule_of(service, own).retry == wire.HttpRoute.Retry(
        max_retries=1,
        conditions={"status_ranges": [{"start": 429, "end": 429}, {"start": 502, "end": 503}]},
        timeout={"seconds": 1},
        **more,
    )


def test_the_default_retry_is_turned_off_nearest_first() -> None:
    off = with_annotations(web(rule()), {"retry.tulle.dev/default": "off"})
    on = with_annotations(web(rule()), {"retry.tulle.dev/default": "on"})
    service = with_annotations(WEB_SERVICE, {"retry.tulle.dev/default": "off"})
    namespace = Namespace("shop", {"retry.tulle.dev/default": "off"})

    def is_off(*objects: Object) -> bool:
        return compile(*objects).protocol.detect.http1.routes[0].rules[0].no_default_retry

    assert not is_off(WEB_SERVICE, web(rule()))
    assert is_off(WEB_SERVICE, off)
    assert is_off(service, web(rule()))
    assert not is_off(service, on)
    assert is_off(WEB_SERVICE, web(rule()), namespace)
    assert is_off(WEB_SERVICE, namespace)


def test_request_headers_may_be_allowed_to_change_a_request_s_settings() -> None:
    allowed = with_annotations(WEB_SERVICE, {"policy.tulle.dev/allow-l5d-request-headers": "true"})

    assert rule_of(allowed).allow_l5d_request_headers
    assert not rule_of(WEB_SERVICE).allow_l5d_request_headers


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (
            {"balancer.linkerd.io/failure-accrual": "consecutive"},
            {
                "consecutive_failures": {
                    "max_failures": 7,
                    "backoff": {
                        "min_backoff": {"seconds": 1},
                        "max_backoff": {"seconds": 60},
                        "jitter_ratio": 0.5,
                    },
                }
            },
        ),
        (
            {
                "balancer.linkerd.io/failure-accrual": "unified",
                "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold": "0.5",
                "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after": "true",
                "balancer.linkerd.io/failure-accrual-consecutive-max-failures": "0",
            },
            {
                "unified": {
                    "success_rate_threshold": 0.5,
                    "decay": {"seconds": 10},
                    "min_requests": 5,
                    "max_consecutive_failures": 0,
                    "backoff": {
                        "min_backoff": {"seconds": 1},
                        "max_backoff": {"seconds": 60},
                        "jitter_ratio": 0.5,
                        "respect_retry_after_hint": True,
                    },
                }
            },
        ),
    ],
)
def test_a_breaker_is_the_service_s(annotations: dict[str, str], expected: Any) -> None:
    detect = compile(with_annotations(WEB_SERVICE, annotations)).protocol.detect

    assert detect.http1.failure_accrual == wire.FailureAccrual(**expected)
    assert detect.http2.failure_accrual == detect.http1.failure_accrual


def test_a_mistake_in_a_group_of_annotations_voids_the_group_and_is_reported() -> None:
    service = with_annotations(
        WEB_SERVICE,
        {
            "balancer.linkerd.io/failure-accrual": "consecutive",
            "balancer.linkerd.io/failure-accrual-consecutive-max-penalty": "0",
            "timeout.linkerd.io/request": "5s",
        },
    )
    index = TargetIndex(world_of(service), cluster_domain="cluster.local", cluster_networks=NETWORKS)
    target, _ = index.find(KEY)

    detect = compile(service).protocol.detect

    assert not detect.http1.HasField("failure_accrual")
    assert detect.http1.routes[0].rules[0].timeouts.request.seconds == 5
    assert any("max-penalty" in mistake for mistake in index.mistakes(target))


def test_a_service_s_endpoints_are_penalised_wherever_it_is_a_backend() -> None:
    canary = with_annotations(CANARY, {"balancer.alpha.linkerd.io/penalize-failures": "true"})

    (found,) = http(canary, web(rule(backends=(to("canary"),))))

    balancer = found.rules[0].backends.random_available.backends[0].backend.backend.balancer
    assert balancer.penalty_peak_ewma == wire.Backend.BalanceP2c.PenaltyPeakEwma(
        default_rtt={"nanos": 30_000_000},
        decay={"seconds": 10},
        penalty={"seconds": 5},
        max_retry_after={"seconds": 300},
        penalty_decay={"seconds": 10},
    )


# The other kinds


def test_a_grpc_route_matches_services_and_methods() -> None:
    calls = web(
        rule(GrpcMatch("shop.Members", "Get"), GrpcMatch(headers=(ValueMatch("x", "1"),))),
        rule(backends=(to("gone"),)),
        kind="GRPCRoute",
    )
    service = with_annotations(WEB_SERVICE, {"retry.linkerd.io/grpc": "unavailable,deadline-exceeded"})

    policy = compile(service, calls)

    retry = {
        "max_retries": 1,
        "max_request_bytes": 65536,
        "conditions": {"unavailable": True, "deadine_exceeded": True},
        "backoff": {
            "min_backoff": {"nanos": 25_000_000},
            "max_backoff": {"nanos": 250_000_000},
            "jitter_ratio": 1.0,
        },
    }
    failing = broken("")["backend"]
    failure = {"failure_injector": {"code": 13, "message": "Service shop/gone not found"}}
    assert policy.protocol == wire.ProxyProtocol(
        grpc={
            "routes": [
                {
                    "metadata": resource(kind="GRPCRoute"),
                    "rules": [
                        {
                            "matches": [
                                {"rpc": {"service": "shop.Members", "method": "Get"}},
                                {"rpc": {}, "headers": [{"name": "x", "exact": b"1"}]},
                            ],
                            "backends": ITSELF,
                            "retry": retry,
                        },
                        {
                            "matches": [{"rpc": {}}],
                            "backends": weighted(({"backend": failing, "filters": [failure]}, 1)),
                            "retry": retry,
                        },
                    ],
                }
            ]
        }
    )


def test_tls_routes_go_by_name_and_a_lost_backend_is_invalid() -> None:
    first = web(
        rule(backends=(to("canary"),)), name="a", kind="TLSRoute", hostnames=("a.example", "*.b.example")
    )
    second = web(rule(backends=(to("gone"),)), name="b", kind="TLSRoute")

    policy = compile(WEB_SERVICE, CANARY, first, second)

    invalid = [{"invalid": {"message": "Service shop/gone not found"}}]
    assert policy.protocol == wire.ProxyProtocol(
        tls={
            "routes": [
                {
                    "metadata": resource("a", "TLSRoute"),
                    "snis": [{"exact": "a.example"}, {"suffix": {"reverse_labels": ["example", "b"]}}],
                    "rules": [{"backends": weighted(({"backend": backend("canary")}, 1))}],
                },
                {
                    "metadata": resource("b", "TLSRoute"),
                    "rules": [{"backends": weighted(({**broken(""), "filters": invalid}, 1))}],
                },
            ]
        }
    )


def test_only_the_oldest_tcp_route_is_used() -> None:
    old = web(rule(backends=(to("canary"),)), kind="TCPRoute", meta=meta("z", created="2026-01-01T00:00:00Z"))
    new = web(rule(), kind="TCPRoute", meta=meta("a", created="2026-02-01T00:00:00Z"))

    policy = compile(WEB_SERVICE, CANARY, new, old)

    assert policy.protocol == wire.ProxyProtocol(
        opaque={
            "routes": [
                {
                    "metadata": resource("z", "TCPRoute"),
                    "rules": [{"backends": weighted(({"backend": backend("canary")}, 1))}],
                }
            ]
        }
    )


@pytest.mark.parametrize(
    ("declared", "kinds", "protocol", "used"),
    [
        (None, ("TCPRoute", "TLSRoute", "HTTPRoute", "GRPCRoute"), Protocol.GRPC, "GRPCRoute"),
        (None, ("TCPRoute", "TLSRoute", "HTTPRoute"), Protocol.DETECT, "HTTPRoute"),
        (None, ("TCPRoute", "TLSRoute"), Protocol.TLS, "TLSRoute"),
        (None, ("TCPRoute",), Protocol.OPAQUE, "TCPRoute"),
        ("http", ("HTTPRoute",), Protocol.HTTP1, "HTTPRoute"),
        ("http", ("TCPRoute",), Protocol.HTTP1, None),
        ("kubernetes.io/h2c", ("HTTPRoute", "GRPCRoute"), Protocol.GRPC, "GRPCRoute"),
        ("kubernetes.io/h2c", ("HTTPRoute",), Protocol.HTTP2, "HTTPRoute"),
        ("grpc", ("HTTPRoute",), Protocol.HTTP2, "HTTPRoute"),
        ("grpc", (), Protocol.GRPC, None),
        ("https", ("TLSRoute", "TCPRoute"), Protocol.TLS, "TLSRoute"),
        ("tcp", ("TCPRoute",), Protocol.OPAQUE, "TCPRoute"),
        ("kubernetes.io/ws", ("HTTPRoute",), Protocol.HTTP1, "HTTPRoute"),
        ("smoke-signals", ("TLSRoute",), Protocol.TLS, "TLSRoute"),
    ],
)
def test_the_port_s_protocol_and_the_strongest_kind_of_route_decide(
    declared: str | None, kinds: tuple[str, ...], protocol: Protocol, used: str | None
) -> None:
    service = replace(WEB_SERVICE, ports=(replace(WEB_SERVICE.ports[0], app_protocol=declared),))
    # Ports differ, so that no route is refused for another one's sake.
    parents = {"HTTPRoute": PARENT, "GRPCRoute": replace(PARENT, port=80)}
    routes = [web(rule(), kind=kind, parents=(parents.get(kind, PARENT),)) for kind in kinds]

    found = find(service, *routes)

    assert found.protocol is protocol
    assert {route.kind for route in found.routes} == ({used} if used else set())


# Whose routes


def names_seen(*objects: Object, namespace: str = "") -> list[str]:
    found = find(WEB_SERVICE, *objects, key=replace(KEY, namespace=namespace))
    return [f"{route.meta.namespace}/{route.meta.name}" for route in found.routes]


def test_a_consumer_s_route_holds_for_its_own_namespace_only() -> None:
    producer = web(rule(), name="b")
    consumer = web(rule(), meta=meta("a", "depot"), parents=(replace(PARENT, namespace="shop"),))

    assert names_seen(producer, consumer) == ["shop/b"]
    assert names_seen(producer, consumer, namespace="shop") == ["shop/b"]
    assert names_seen(producer, consumer, namespace="depot") == ["depot/a", "shop/b"]
    assert names_seen(producer, consumer, namespace="other") == ["shop/b"]


def test_only_clients_with_routes_of_their_own_have_an_answer_of_their_own() -> None:
    consumer = web(rule(), meta=meta("a", "depot"), parents=(replace(PARENT, namespace="shop"),))
    index = TargetIndex(
        world_of(WEB_SERVICE, web(rule()), consumer),
        cluster_domain="cluster.local",
        cluster_networks=NETWORKS,
    )

    def shared(namespace: str) -> str:
        return index.shared(replace(KEY, namespace=namespace)).namespace

    assert [shared(namespace) for namespace in ("shop", "depot", "other")] == ["", "depot", ""]


def test_a_consumer_s_backend_without_a_namespace_is_in_the_parent_s() -> None:
    consumer = web(
        rule(backends=(to("web"),)), meta=meta("a", "depot"), parents=(replace(PARENT, namespace="shop"),)
    )

    (found,) = http(ELSEWHERE, consumer, key=replace(KEY, namespace="depot"))

    assert found.rules[0].backends == wire.HttpRoute.Distribution(**weighted(({"backend": backend()}, 1)))


def test_the_oldest_route_goes_first_then_by_name() -> None:
    old = web(rule(), meta=meta("z", created="2026-01-01T00:00:00Z"))
    new = web(rule(), meta=meta("a", created="2026-02-01T00:00:00Z"))
    folder = web(rule(), name="m")

    assert names_seen(new, old, folder) == ["shop/z", "shop/a", "shop/m"]


def test_a_parent_without_a_port_is_every_port_of_the_service() -> None:
    both = replace(WEB_SERVICE, ports=(*WEB_SERVICE.ports, ServicePort(81, "admin")))
    on_81 = web(rule(), name="on-81", parents=(replace(PARENT, port=81),))
    on_all = web(rule(), name="on-all")

    def names(port: int) -> list[str]:
        found = find(both, on_81, on_all, key=replace(KEY, port=port))
        return [route.meta.name for route in found.routes]

    assert names(80) == ["on-all"]
    assert names(81) == ["on-81", "on-all"]


def test_a_route_that_its_parent_does_not_accept_is_not_sent() -> None:
    absent = web(rule(), parents=(replace(PARENT, port=99),))

    (found,) = http(absent)

    assert found == wire.HttpRoute(
        metadata={"default": "http"}, rules=[{"matches": [ANY], "backends": ITSELF}]
    )


# Egress


def egress(
    name: str = "all", *, allow: bool = True, namespace: str = "shop", **changes: Any
) -> EgressNetwork:
    fields: dict[str, Any] = {
        "meta": meta(name, namespace, created=changes.pop("created", None)),
        "allow": allow,
        "networks": None,
        "raw": {},
        "source": WHERE,
    }
    return EgressNetwork(**fields | changes)


def outside(
    *objects: Object, port: int = 443, namespace: str = "shop", address: str = OUTSIDE
) -> wire.OutboundPolicy:
    return compile(*objects, key=OutboundKey(address, port, namespace=namespace))


def network_of(*objects: Object, namespace: str = "shop", address: str = OUTSIDE) -> str | None:
    found = find(*objects, key=OutboundKey(address, 443, namespace=namespace))
    assert isinstance(found, Egress)
    return str(found.network.name) if found.network else None


def test_a_namespace_with_networks_of_its_own_sees_no_others() -> None:
    own = egress("small", networks=(Network("198.51.100.0/24"),))
    everyone = egress("everyone", namespace="linkerd-egress")

    assert network_of(own, everyone) is None
    assert network_of(own, everyone, address="198.51.100.9") == "shop/small"
    assert network_of(own, everyone, namespace="depot") == "linkerd-egress/everyone"
    assert network_of(own, namespace="depot") is None


def test_the_smallest_block_around_the_address_wins_then_the_oldest_then_the_name() -> None:
    big = egress("big", networks=(Network("192.0.0.0/8"),))
    small = egress("small", networks=(Network("203.0.113.0/24"), Network("192.0.2.0/24")))
    but = egress("but", networks=(Network("192.0.2.0/24", ("192.0.2.128/25",)),))
    without = egress("without", networks=(Network("192.0.2.0/25", (f"{OUTSIDE}/32",)),))
    twin = egress("an-older-twin", networks=small.networks)

    assert network_of(big, small) == "shop/small"
    assert network_of(big, small, but) == "shop/but"
    assert network_of(big, small, without) == "shop/small"
    assert network_of(big, small, twin) == "shop/an-older-twin"


def test_without_networks_everything_but_the_cluster_is_meant() -> None:
    index = TargetIndex(world_of(egress()), cluster_domain="cluster.local", cluster_networks=NETWORKS)

    inside, _ = index.find(OutboundKey("10.1.2.3", 443, namespace="shop"))

    assert isinstance(inside, Unknown)
    assert network_of(egress()) == "shop/all"
    assert network_of(egress(), address="2001:db8::7") == "shop/all"


EGRESS = {
    "resource": {
        "group": POLICY_GROUP,
        "kind": "EgressNetwork",
        "name": "all",
        "namespace": "shop",
        "port": 443,
    }
}
FORWARD = {
    "metadata": EGRESS,
    "forward": {"addr": {"ip": {"ipv4": 0xC0000207}, "port": 443}, "weight": 10_000},
    "queue": {"capacity": 100, "failfast_timeout": {"seconds": 3}},
}
TO_ADDRESS = {"first_available": {"backends": [{"backend": FORWARD}]}}
ON_EGRESS = ParentRef(POLICY_GROUP, "EgressNetwork", "all", port=443)


def test_an_egress_network_that_allows_forwards_what_no_route_takes() -> None:
    hosted = route("docs", rule(), hostnames=("docs.example",), parents=(ON_EGRESS,))

    assert outside(egress(), hosted) == wire.OutboundPolicy(
        metadata=EGRESS,
        protocol={
            "detect": {
                "timeout": {"seconds": 10},
                **{
                    kind: {
                        "routes": [
                            {
                                "metadata": resource("docs"),
                                "hosts": [{"exact": "docs.example"}],
                                "rules": [{"matches": [ANY], "backends": TO_ADDRESS}],
                            },
                            {
                                "metadata": {"default": "http-egress-allow"},
                                "rules": [{"matches": [ANY], "backends": TO_ADDRESS}],
                            },
                        ]
                    }
                    for kind in ("http1", "http2")
                },
                "opaque": {
                    "routes": [
                        {"metadata": {"default": "tcp-egress-allow"}, "rules": [{"backends": TO_ADDRESS}]}
                    ]
                },
            }
        },
    )


def test_an_egress_network_that_denies_refuses_in_every_protocol() -> None:
    denying = egress(allow=False)
    forbidden = [{"backends": {"empty": {}}, "filters": [{"forbidden": {}}]}]
    message = "the egress network refuses what no route allows"

    detect = outside(denying).protocol.detect
    calls = outside(denying, route("calls", rule(), kind="GRPCRoute", parents=(ON_EGRESS,))).protocol.grpc
    names = outside(
        denying, route("names", rule(backends=(to("web"),)), kind="TLSRoute", parents=(ON_EGRESS,))
    ).protocol.tls

    assert list(detect.http1.routes) == [
        wire.HttpRoute(
            metadata={"default": "http-egress-deny"},
            rules=[
                {
                    "matches": [ANY],
                    "filters": [{"failure_injector": {"status": 403, "message": message}}],
                    "backends": {"empty": {}},
                }
            ],
        )
    ]
    assert list(detect.opaque.routes) == [
        wire.OpaqueRoute(metadata={"default": "tcp-egress-deny"}, rules=forbidden)
    ]
    assert calls.routes[-1] == wire.GrpcRoute(
        metadata={"default": "grpc-egress-deny"},
        rules=[
            {
                "matches": [{"rpc": {}}],
                "filters": [{"failure_injector": {"code": 7, "message": message}}],
                "backends": {"empty": {}},
            }
        ],
    )
    assert names.routes[-1] == wire.TlsRoute(metadata={"default": "tls-egress-deny"}, rules=forbidden)


def test_an_egress_network_is_a_backend_of_its_own_routes() -> None:
    itself = to("all", group=POLICY_GROUP, kind="EgressNetwork", port=None)
    hosted = route("docs", rule(backends=(itself,)), parents=(ON_EGRESS,))

    (first, _) = outside(egress(allow=False), hosted).protocol.detect.http1.routes

    assert first.rules[0].backends == wire.HttpRoute.Distribution(**weighted(({"backend": FORWARD}, 1)))


def test_a_port_of_an_egress_network_may_be_opaque() -> None:
    opaque = egress(
        meta=replace(meta("all"), annotations={"config.linkerd.io/opaque-ports": "443"}), allow=False
    )

    assert outside(opaque).protocol.WhichOneof("kind") == "opaque"


def test_a_port_that_the_service_does_not_have_takes_no_routes() -> None:
    index = TargetIndex(
        world_of(WEB_SERVICE, web(rule())), cluster_domain="cluster.local", cluster_networks=NETWORKS
    )

    assert index.find(replace(KEY, port=99))[0] == UndefinedPort(WEB, 99)
