"""What a tenant's proxies are told does not depend on what another tenant makes in a namespace of its own.

Upstream lets some references cross namespaces: an authentication, a backend, a parent. Who writes the reference
decides; whoever is referred to, or refers from elsewhere, changes nothing for anybody else.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies

from tests.control_plane import WEB_SERVICE, open_gate, web_pod, web_slice
from tests.policy.drawn import GRPC_RULES, OTHER, RULES, SHOP, external_workload, one_of, policies, somewhere
from tests.policy.objects import (
    RAW,
    WHERE,
    by_name,
    meta,
    names,
    older,
    policy,
    rate_limit,
    route,
    server,
    to_server,
)
from tulle.model.authorization import GATEWAY_GROUP, POLICY_GROUP, EgressNetwork, Network
from tulle.model.pod import TrustDomain
from tulle.model.policies import Policy
from tulle.model.route import ParentRef
from tulle.model.service import Namespace, ObjectName
from tulle.model.update import Changed, Object, Removed, Update, key_of
from tulle.model.world import World
from tulle.policy.authorizations import DefaultPolicy
from tulle.policy.index import PolicyIndex
from tulle.policy.service import InboundKey, PolicyService
from tulle.policy.targets import OutboundKey

POD = web_pod(labels={"app": "web"})
GROUND: tuple[Object, ...] = (POD, WEB_SERVICE, web_slice(POD), Namespace(SHOP), Namespace(OTHER))
PORTS = (8080, 9090, 4191)
OUTSIDE = "203.0.113.9"
Answers = list[object]


def service_of(world: World) -> tuple[PolicyIndex, PolicyService]:
    index = PolicyIndex(
        world,
        cluster_domain="cluster.local",
        cluster_networks=("10.0.0.0/8", "fd00::/8"),
        default=DefaultPolicy.ALL_UNAUTHENTICATED,
        trust=TrustDomain(),
        controller="controller.example",
    )
    return index, PolicyService(index, open_gate(), cluster_domain="cluster.local", patience=0)


def answers(*objects: Object) -> Answers:
    """Return the bytes that the shop's proxies are sent: for its pod's ports, and for what it calls."""
    world = World()
    world.apply(map(Changed, objects))
    index, service = service_of(world)
    said: Answers = []
    for port in PORTS:
        with service.inbound.follow(InboundKey(POD.name, port)) as view:
            said.append(view.latest.value)
    for address, port in ((WEB_SERVICE.cluster_ips[0], 80), (OUTSIDE, 443)):
        key = index.targets.shared(OutboundKey(address, port, namespace=SHOP, extended=True))
        with service.outbound.follow(key) as view:
            said.append(view.latest.value)
    return said


# References to the other tenant that the shop itself wrote are its own wish; here it writes none.
mine = policies(SHOP, one_of(None, SHOP))
theirs = policies(OTHER, somewhere)


@given(own=mine, foreign=theirs, first=strategies.booleans())
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
        ((), external_workload(meta("vm"), OUTSIDE)),
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


@given(
    changes=strategies.lists(
        strategies.tuples(
            strategies.booleans(), strategies.one_of(policies(SHOP, somewhere), policies(OTHER, somewhere))
        ),
        max_size=6,
    )
)
def test_who_follows_an_answer_hears_of_every_change_of_it(changes: list[tuple[bool, list[Policy]]]) -> None:
    world = World()
    # An authentication elsewhere is what an answer may depend on without a sign in its own namespace.
    asking = (server(), policy("staff", to_server(), by_name("web", OTHER)))
    world.apply(map(Changed, (*GROUND, *asking)))
    _, service = service_of(world)
    inbound = [InboundKey(POD.name, port) for port in PORTS]
    outbound = [OutboundKey(WEB_SERVICE.cluster_ips[0], 80, namespace=SHOP, extended=True)]

    with ExitStack() as followed:
        views = [followed.enter_context(service.inbound.follow(key)) for key in inbound]
        views += [followed.enter_context(service.outbound.follow(key)) for key in outbound]
        for there, objects in changes:
            made: list[Update] = [Changed(of) if there else Removed(key_of(of)) for of in objects]
            service.touch(set(world.apply(made)))

            _, fresh = service_of(world)
            for view, key in zip(views, (*inbound, *outbound), strict=True):
                of = fresh.inbound if isinstance(key, InboundKey) else fresh.outbound
                with of.follow(key) as expected:  # type: ignore[arg-type]
                    assert view.latest.value == expected.latest.value
