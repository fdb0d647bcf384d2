"""What a tenant's proxies are told does not depend on what another tenant makes in a namespace of its own.

Upstream lets some references cross namespaces: an authentication, a backend, a parent. Who writes the reference
decides; whoever is referred to, or refers from elsewhere, changes nothing for anybody else.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.control_plane import WEB_SERVICE, open_gate, web_pod, web_slice
from tests.policy.objects import (
    RAW,
    WHERE,
    account,
    by_name,
    by_network,
    meta,
    names,
    networks,
    older,
    policy,
    rate_limit,
    route,
    rule,
    server,
    to_route,
    to_server,
)
from tulle.model.authorization import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    EgressNetwork,
    Network,
    Ref,
)
from tulle.model.pod import TrustDomain
from tulle.model.policies import Policy
from tulle.model.route import BackendRef, GrpcMatch, HttpMatch, ParentRef, PathMatch
from tulle.model.service import Namespace, ObjectName
from tulle.model.update import Changed, Object
from tulle.model.workload import LabelSelector
from tulle.model.world import World
from tulle.policy.authorizations import DefaultPolicy
from tulle.policy.index import PolicyIndex
from tulle.policy.service import InboundKey, PolicyService
from tulle.policy.targets import OutboundKey

SHOP, OTHER = "shop", "other"
POD = web_pod(labels={"app": "web"})
GROUND: tuple[Object, ...] = (POD, WEB_SERVICE, web_slice(POD), Namespace(SHOP), Namespace(OTHER))
PORTS = (8080, 9090, 4191)
OUTSIDE = "203.0.113.9"
Answers = list[object]


def answers(*objects: Object) -> Answers:
    """Return the bytes that the shop's proxies are sent: for its pod's ports, and for what it calls."""
    world = World()
    world.apply(map(Changed, objects))
    index = PolicyIndex(
        world,
        cluster_domain="cluster.local",
        cluster_networks=("10.0.0.0/8", "fd00::/8"),
        default=DefaultPolicy.ALL_UNAUTHENTICATED,
        trust=TrustDomain(),
        controller="controller.example",
    )
    service = PolicyService(index, open_gate(), cluster_domain="cluster.local", patience=0)
    said: Answers = []
    for port in PORTS:
        with service.inbound.follow(InboundKey(POD.name, port)) as view:
            said.append(view.latest.value)
    for address, port in ((WEB_SERVICE.cluster_ips[0], 80), (OUTSIDE, 443)):
        key = index.targets.shared(OutboundKey(address, port, namespace=SHOP, extended=True))
        with service.outbound.follow(key) as view:
            said.append(view.latest.value)
    return said


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


created = one_of(None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
few_names = one_of("web", "read")
somewhere = one_of(None, SHOP, OTHER)
ACCESS = tuple(each.value for each in DefaultPolicy)
PROTOCOLS = ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS")
RULES = (
    rule(),
    rule(HttpMatch(PathMatch("prefix", "/read"))),
    rule(backends=(BackendRef(Ref("", "Service", "web", SHOP), 80, 1, (), WHERE),)),
)
GRPC_RULES = (rule(), rule(GrpcMatch("Members", "Get")))


def parents(namespaces: st.SearchStrategy[str | None]) -> st.SearchStrategy[ParentRef]:
    kinds = (("", "Service"), (POLICY_GROUP, "Server"), (POLICY_GROUP, "EgressNetwork"))
    return st.builds(
        lambda kind, name, namespace, port: ParentRef(*kind, name, namespace, port),
        one_of(*kinds),
        few_names,
        namespaces,
        one_of(None, 80, 443),
    )


def policies(namespace: str, reach: st.SearchStrategy[str | None]) -> st.SearchStrategy[list[Policy]]:
    """Return what a tenant may make in its namespace; `reach` are the namespaces that its references name."""
    metas = st.builds(lambda name, age: replace(meta(name, namespace), created=age), few_names, created)
    required = st.lists(
        st.one_of(
            st.builds(by_name, few_names, reach),
            st.builds(by_network, few_names, reach),
            st.builds(account, few_names, reach),
        ),
        max_size=2,
    )
    targets = st.one_of(
        few_names.map(to_server),
        few_names.map(to_route),
        one_of(
            Ref("", "Namespace", SHOP), Ref("", "Namespace", OTHER), Ref(POLICY_GROUP, "Server", "web", SHOP)
        ),
    )
    http = st.builds(
        lambda of, rules, to: route("", *rules, meta=of, parents=tuple(to)),
        metas,
        st.lists(one_of(*RULES), max_size=2),
        st.lists(parents(reach), min_size=1, max_size=2),
    )
    grpc = st.builds(
        lambda of, rules, to: route("", *rules, meta=of, parents=tuple(to), kind="GRPCRoute"),
        metas,
        st.lists(one_of(*GRPC_RULES), max_size=1),
        st.lists(parents(reach), min_size=1, max_size=2),
    )
    bare = st.builds(
        lambda of, to, kind: route("", rule(), meta=of, parents=(to,), kind=kind),
        metas,
        parents(reach),
        one_of("TLSRoute", "TCPRoute"),
    )
    made = st.one_of(
        st.builds(
            lambda of, port, protocol, access, selector: server(
                meta=of, port=port, protocol=protocol, access_policy=access, pods=selector
            ),
            metas,
            one_of(8080, "http", 4191),
            one_of(*PROTOCOLS),
            one_of(*ACCESS),
            one_of(LabelSelector(), LabelSelector({"app": "web"})),
        ),
        st.builds(
            lambda of, target, refs: replace(policy("", target, *refs), meta=of), metas, targets, required
        ),
        st.builds(
            lambda of, one: replace(names("", one), meta=of), metas, one_of("*", "*.a.example", "b.example")
        ),
        st.builds(lambda of: replace(networks("", Network("192.0.2.0/24")), meta=of), metas),
        st.builds(lambda of, anyone: older("", meta=of, unauthenticated=anyone), metas, st.booleans()),
        st.builds(lambda of, total: replace(rate_limit("", total=total), meta=of), metas, one_of(1, 100)),
        st.builds(
            lambda of, allow: EgressNetwork(of, allow, (Network("203.0.113.0/24"),), RAW, WHERE),
            metas,
            st.booleans(),
        ),
        http,
        grpc,
        bare,
    )
    return st.lists(made, min_size=1, max_size=8)


# References to the other tenant that the shop itself wrote are its own wish; here it writes none.
mine = policies(SHOP, one_of(None, SHOP))
theirs = policies(OTHER, somewhere)


@given(own=mine, foreign=theirs, first=st.booleans())
def test_another_tenant_s_objects_change_nothing(
    own: list[Policy], foreign: list[Policy], first: bool
) -> None:
    both: Iterable[Object] = (*foreign, *own) if first else (*own, *foreign)

    assert answers(*GROUND, *both) == answers(*GROUND, *own)


SERVER_PARENT = ParentRef(POLICY_GROUP, "Server", "web", SHOP)
SERVICE_PARENT = ParentRef("", "Service", "web", SHOP)
OPEN = server(access_policy="all-unauthenticated")


@pytest.mark.parametrize(
    ("there", "made"),
    [
        ((), server()),
        ((OPEN,), policy("all", to_server())),
        ((OPEN,), older("all", unauthenticated=True)),
        ((OPEN,), rate_limit("slow", total=1)),
        ((OPEN,), route("read", RULES[1], parents=(SERVER_PARENT,))),
        ((), route("read", RULES[1], parents=(SERVICE_PARENT,))),
        ((), route("read", *GRPC_RULES, parents=(SERVICE_PARENT,), kind="GRPCRoute")),
        ((), EgressNetwork(meta("out"), False, (Network("203.0.113.0/24"),), RAW, WHERE)),
    ],
)
def test_the_same_object_has_an_effect_in_the_tenant_s_own_namespace_only(
    there: tuple[Object, ...], made: Any
) -> None:
    before = answers(*GROUND, *there)

    own = answers(*GROUND, *there, made)
    foreign = answers(*GROUND, *there, replace(made, meta=replace(made.meta, namespace=OTHER)))

    assert own != before
    assert foreign == before


def test_an_authentication_elsewhere_has_the_effect_that_the_tenant_asked_for() -> None:
    asking = (server(), policy("staff", to_server(), by_name("staff", OTHER)))

    without = answers(*GROUND, *asking)
    with_it = answers(*GROUND, *asking, names("staff", "*", namespace=OTHER))

    assert with_it != without


def test_the_order_in_which_objects_arrive_does_not_matter() -> None:
    twins = [
        route("read", RULES[1], group=group, parents=(SERVER_PARENT, SERVICE_PARENT))
        for group in (GATEWAY_GROUP, POLICY_GROUP)
    ]
    objects = (
        OPEN,
        *twins,
        names("a", "*"),
        policy("b", to_server()),
        policy("a", to_server(), by_name("a")),
    )

    assert answers(*GROUND, *objects) == answers(*GROUND, *reversed(objects))


def test_a_pod_s_namespace_is_part_of_its_name() -> None:
    namesake = replace(POD, name=ObjectName(OTHER, POD.name.name), addresses=())

    assert answers(*GROUND, namesake, server()) == answers(*GROUND, server())
