"""What a change of a policy or route touches, and in which order look-ups answer."""

from dataclasses import replace

import pytest

from tests.control_plane import world_of
from tests.policy.objects import meta, server
from tulle.model.authorization import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    AuthorizationPolicy,
    EgressNetwork,
    MeshTLSAuthentication,
    NetworkAuthentication,
    RateLimitPolicy,
    Ref,
    ServerAuthorization,
)
from tulle.model.external import ExternalWorkload
from tulle.model.objects import Metadata, Position
from tulle.model.policies import (
    Policy,
    egress_topic,
    external_topic,
    parent_name,
    policy_topic,
    profile_topic,
    routes_topic,
    topics_of,
)
from tulle.model.profile import ServiceProfile
from tulle.model.route import ParentRef, ReferenceGrant, Route, RouteKind
from tulle.model.service import Namespace, ObjectName
from tulle.model.update import Changed, Removed, key_of
from tulle.model.world import World, address_topic

HERE = Position("a.yaml", 1)
WEB = ObjectName("shop", "web")
SERVICE = ParentRef("", "Service", "web")
TARGET = Ref(POLICY_GROUP, "Server", "web")


def route(name: str, *parents: ParentRef, kind: RouteKind = "HTTPRoute", group: str = GATEWAY_GROUP) -> Route:
    return Route(kind, group, meta(name), parents, (), (), (), {}, HERE)


def egress(name: str = "out", namespace: str = "shop") -> EgressNetwork:
    return EgressNetwork(meta(name, namespace), True, None, {}, HERE)


def workload(*addresses: str) -> ExternalWorkload:
    return ExternalWorkload(meta("vm"), "vm", "vm", (), addresses, True, {}, HERE)


@pytest.mark.parametrize(
    ("item", "topics"),
    [
        (server(), {policy_topic("shop")}),
        (
            ServerAuthorization(meta("a"), "web", None, (), True, False, (), (), {}, HERE),
            {policy_topic("shop")},
        ),
        (AuthorizationPolicy(meta("a"), TARGET, (), {}, HERE), {policy_topic("shop")}),
        (MeshTLSAuthentication(meta("a", "bank"), ("*",), (), {}, HERE), {policy_topic("bank")}),
        (NetworkAuthentication(meta("a"), (), {}, HERE), {policy_topic("shop")}),
        (RateLimitPolicy(meta("a"), TARGET, None, None, (), {}, HERE), {policy_topic("shop")}),
        (egress(), {egress_topic()}),
        (ReferenceGrant(meta("a"), (), (), {}, HERE), set()),
        (ServiceProfile(meta("web.shop.svc.x", "bank"), (), None, (), {}, HERE), {profile_topic(WEB)}),
        (workload(), {external_topic("shop"), policy_topic("shop")}),
        (route("a", SERVICE), {routes_topic(WEB)}),
        (route("a", replace(SERVICE, namespace="bank")), {routes_topic(ObjectName("bank", "web"))}),
        (
            route("a", ParentRef(POLICY_GROUP, "Server", "web"), SERVICE),
            {policy_topic("shop"), routes_topic(WEB)},
        ),
        (route("a", ParentRef(POLICY_GROUP, "EgressNetwork", "out")), {egress_topic()}),
        (route("a", ParentRef(GATEWAY_GROUP, "Gateway", "web")), set()),
    ],
)
def test_a_change_touches_whatever_it_has_a_say_in_and_so_does_its_end(
    item: Policy, topics: set[str]
) -> None:
    world = World()

    assert topics_of(item) == topics
    assert world.apply([Changed(item)]) == topics
    assert world.policies() == (item,)
    assert world.apply([Removed(key_of(item))]) == topics
    assert world.policies() == ()


def test_a_route_that_gets_another_parent_touches_both() -> None:
    world = world_of(route("a", SERVICE))
    moved = route("a", replace(SERVICE, name="db"))

    assert world.apply([Changed(moved)]) == {routes_topic(WEB), routes_topic(ObjectName("shop", "db"))}
    assert world.routes_of("", "Service", WEB) == ()
    assert world.routes_of("", "Service", ObjectName("shop", "db")) == (moved,)


def test_routes_of_one_name_and_several_kinds_live_beside_each_other() -> None:
    routes = [
        route("a", SERVICE),
        route("a", SERVICE, group=POLICY_GROUP),
        route("a", SERVICE, kind="GRPCRoute"),
    ]

    world = world_of(*routes)

    assert len(world.routes()) == 3
    assert world.route(POLICY_GROUP, "HTTPRoute", ObjectName("shop", "a")) == routes[1]


def test_look_ups_answer_in_order_of_age_and_what_has_none_comes_last() -> None:
    def of(name: str, created: str | None) -> Policy:
        return replace(server(name), meta=Metadata(name, "shop", {}, {}, created))

    old, new = of("z", "2025-01-01T00:00:00Z"), of("a", "2026-01-01T00:00:00Z")
    first, second = of("x", None), of("y", None)

    world = world_of(new, second, old, first)

    assert world.servers("shop") == (old, new, first, second)
    world.apply([Removed(key_of(first))])
    assert world.servers("shop") == (old, new, second)
    assert world.servers("bank") == ()


def test_an_external_workload_is_found_by_its_addresses() -> None:
    world = world_of(workload("192.0.2.1"))

    touched = world.apply([Changed(workload("192.0.2.2"))])

    assert touched >= {address_topic("192.0.2.1"), address_topic("192.0.2.2")}
    assert world.external_workload_at("192.0.2.1", "shop") is None
    assert world.external_workload_at("192.0.2.2", "shop") == workload("192.0.2.2")
    assert world.external_workload_at("192.0.2.2", "bank") is None
    assert world.claimants("192.0.2.2") == {"shop"}


def test_a_namespace_has_a_say_in_the_policies_and_networks_in_it() -> None:
    world = world_of(egress(namespace="shop"))

    assert world.apply([Changed(Namespace("shop"))]) >= {policy_topic("shop"), egress_topic()}
    assert egress_topic() not in world.apply([Changed(Namespace("bank"))])


def test_a_parent_without_a_namespace_is_in_the_route_s() -> None:
    item = route("a", SERVICE)

    assert parent_name(item, SERVICE) == WEB
    assert parent_name(item, replace(SERVICE, namespace="bank")) == ObjectName("bank", "web")
