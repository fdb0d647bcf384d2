"""Whatever objects there are, a proxy can use the policy that they lead to."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.control_plane import WEB_SERVICE, world_of
from tests.policy.objects import WHERE
from tests.policy.validation import problems
from tulle.model.authorization import GATEWAY_GROUP, POLICY_GROUP, EgressNetwork, Network, Ref
from tulle.model.objects import Metadata
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
    RouteKind,
    Rule,
    UnknownFilter,
    UrlRewrite,
    ValueMatch,
)
from tulle.model.service import Namespace, ObjectName, Service, ServicePort
from tulle.model.update import Object
from tulle.policy import outbound
from tulle.policy.targets import OutboundKey, TargetIndex, Unknown
from tulle.rules import traffic

NETWORKS = (ip_network("10.0.0.0/8"),)
KEYS = (
    OutboundKey("10.78.0.5", 80),
    OutboundKey("10.78.0.5", 9999),
    OutboundKey("192.0.2.7", 443),
    OutboundKey(authority="web.shop.svc.cluster.local:80"),
)
CASES = 400


def some(values: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=most).map(tuple)


NAMESPACES = st.sampled_from(["shop", "depot", "linkerd-egress"])
NAMES = st.sampled_from(["web", "canary", "gone", "elsewhere"])
HOSTS = st.sampled_from(["web.example", "*.example", "a.b.c"])
TOKENS = st.sampled_from(["x-a", "X-B", "content-type"])
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)
PATHS = st.sampled_from(["/", "/a", "/a/b"])
DURATIONS = st.none() | st.timedeltas(timedelta(), timedelta(hours=1))
NUMBERS = ("", "0", "1", "-1", "3", "70000", "nan", "0.5", "101", "10s", "1.5s", "0s", "5ms", "9999999999d")
WORDS = ("5xx", "gateway-error,429", "600", "500-400", "unavailable", "cancelled,internal", "nonsense")
TEXTS = st.sampled_from([*NUMBERS, *WORDS, "true", "on", "off", "consecutive", "unified"])
KEYS_OF_ANNOTATIONS = st.sampled_from(
    [
        traffic.RETRY_HTTP,
        traffic.RETRY_GRPC,
        traffic.RETRY_LIMIT,
        traffic.RETRY_TIMEOUT,
        traffic.TIMEOUT + "request",
        traffic.TIMEOUT + "response",
        traffic.TIMEOUT + "idle",
        traffic.ACCRUAL,
        traffic.ACCRUAL + "-consecutive-max-failures",
        traffic.ACCRUAL + "-consecutive-min-penalty",
        traffic.ACCRUAL + "-consecutive-max-penalty",
        traffic.ACCRUAL + "-consecutive-jitter-ratio",
        traffic.SUCCESS_RATE + "threshold",
        traffic.SUCCESS_RATE + "window",
        traffic.SUCCESS_RATE + "min-requests",
        traffic.HONOR_RETRY_AFTER,
        traffic.PENALIZE,
        traffic.PENALTY,
        traffic.MAX_RETRY_AFTER,
        traffic.DEFAULT_RETRY,
        traffic.ALLOW_HEADERS,
    ]
)
ANNOTATIONS = st.dictionaries(KEYS_OF_ANNOTATIONS, TEXTS, max_size=5)
BREAKERS = ANNOTATIONS.map(lambda found: found | {traffic.ACCRUAL: "unified", traffic.PENALIZE: "true"})
PAIRS = st.tuples(TOKENS, VALUES)
MATCHES = st.builds(ValueMatch, TOKENS, VALUES) | st.builds(ValueMatch, TOKENS, st.just("a|b"), st.just(True))
MODIFIERS = st.builds(PathModifier, st.booleans(), PATHS | st.just(""))
REFS = st.builds(
    Ref,
    st.sampled_from(["", POLICY_GROUP, "example.org"]),
    st.sampled_from(["Service", "Service", "Service", "EgressNetwork", "Bucket"]),
    NAMES,
    st.none() | NAMESPACES,
)
BARE_BACKENDS = st.builds(
    BackendRef,
    REFS,
    st.none() | st.just(80),
    st.sampled_from([0, 0, 1, 1_000_000]),
    st.just(()),
    st.just(WHERE),
)
FILTERS: st.SearchStrategy[Filter] = st.one_of(
    st.builds(HeaderModifier, st.booleans(), some(PAIRS), some(PAIRS), some(TOKENS)),
    st.builds(
        Redirect,
        st.none() | st.sampled_from(["http", "https"]),
        st.none() | st.just("new.example"),
        st.none() | MODIFIERS,
        st.none() | st.integers(1, 65535),
        st.none() | st.sampled_from([301, 302, 303, 307, 308]),
    ),
    st.builds(UrlRewrite, st.none() | st.just("new.example"), st.none() | MODIFIERS),
    st.builds(Mirror, BARE_BACKENDS, st.integers(0, 100), st.just(100)),
    st.builds(UnknownFilter, st.just("ExtensionRef")),
)
BACKENDS = st.builds(lambda of, filters: replace(of, filters=filters), BARE_BACKENDS, some(FILTERS, 2))
HTTP_MATCHES = st.builds(
    HttpMatch,
    st.none() | st.builds(PathMatch, st.sampled_from(["exact", "prefix"]), PATHS),
    some(MATCHES),
    some(MATCHES),
    st.none() | st.sampled_from(["GET", "PATCH"]),
)
GRPC_MATCHES = st.builds(GrpcMatch, st.none() | st.just("a.B"), st.none() | st.just("Get"), some(MATCHES))
PARENTS = st.builds(
    ParentRef,
    st.just(""),
    st.just("Service"),
    st.just("web"),
    st.just("shop"),
    st.none() | st.sampled_from([80, 443]),
) | st.builds(
    ParentRef, st.just(POLICY_GROUP), st.just("EgressNetwork"), st.just("all"), NAMESPACES, st.just(443)
)


def routes(kinds: list[RouteKind], rules: st.SearchStrategy[Any]) -> st.SearchStrategy[Route]:
    return st.builds(
        Route,
        kind=st.sampled_from(kinds),
        group=st.just(GATEWAY_GROUP),
        meta=st.builds(Metadata, st.sampled_from("abc"), NAMESPACES, st.just({}), ANNOTATIONS),
        parents=some(PARENTS, 2),
        hostnames=some(HOSTS),
        rules=rules,
        unsupported=st.just(()),
        raw=st.just({}),
        source=st.just(WHERE),
    )


def rules_of(matches: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return some(
        st.builds(Rule, some(matches), some(FILTERS), some(BACKENDS), DURATIONS, DURATIONS, st.just(WHERE))
    )


ONE_RULE = st.builds(
    lambda backends: (Rule((), (), tuple(backends), None, None, WHERE),),
    st.lists(BARE_BACKENDS, min_size=1, max_size=3),
)
ROUTES = st.one_of(
    routes(["HTTPRoute"], rules_of(HTTP_MATCHES)),
    routes(["GRPCRoute"], rules_of(GRPC_MATCHES)),
    routes(["TLSRoute", "TCPRoute"], ONE_RULE),
)
BLOCKS = st.none() | st.just((Network("192.0.2.0/24", ("192.0.2.8/29",)),))
EGRESS = st.builds(
    lambda namespace, allow, blocks, annotations: EgressNetwork(
        Metadata("all", namespace, {}, annotations), allow, blocks, {}, WHERE
    ),
    NAMESPACES,
    st.booleans(),
    BLOCKS,
    ANNOTATIONS | BREAKERS,
)
SERVICES = st.builds(
    lambda annotations, declared: replace(
        WEB_SERVICE,
        annotations=annotations,
        ports=(ServicePort(80, "http", "http", app_protocol=declared), ServicePort(443, "more")),
    ),
    ANNOTATIONS | BREAKERS,
    st.sampled_from([None, None, None, "http", "http2", "grpc", "https", "tcp", "odd"]),
)
CANARY = st.builds(
    lambda annotations: Service(ObjectName("shop", "canary"), annotations=annotations), BREAKERS
)
ELSEWHERE = Service(ObjectName("depot", "elsewhere"), external_name="db.example.org")
NAMESPACE = st.builds(
    lambda value: Namespace("shop", {traffic.DEFAULT_RETRY: value}), st.sampled_from(["on", "off", "?"])
)
WORLDS = st.builds(
    lambda *parts: [*parts[:3], *parts[3], *parts[4], ELSEWHERE],
    SERVICES,
    CANARY,
    NAMESPACE,
    some(EGRESS),
    some(ROUTES, 5),
)


@settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WORLDS, st.sampled_from(KEYS), st.sampled_from(["", "shop", "depot"]), st.booleans())
def test_every_policy_is_one_that_a_stock_proxy_accepts(
    objects: list[Object], key: OutboundKey, namespace: str, extended: bool
) -> None:
    index = TargetIndex(world_of(*objects), cluster_domain="cluster.local", cluster_networks=NETWORKS)
    target, _ = index.find(index.shared(replace(key, namespace=namespace, extended=extended)))
    if isinstance(target, Unknown):
        return

    policy = outbound.policy(target, cluster_domain="cluster.local", extended=extended)

    assert problems(policy, extended=extended) == []
