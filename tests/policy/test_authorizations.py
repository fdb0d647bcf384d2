import pytest

from tests.control_plane import world_of
from tests.policy.objects import (
    account,
    by_name,
    by_network,
    identity,
    meta,
    names,
    networks,
    object_name,
    older,
    policy,
    server,
    to_route,
    to_server,
)
from tulle.model.authorization import Network, Ref
from tulle.model.pod import TrustDomain
from tulle.model.update import Object
from tulle.model.workload import LabelSelector
from tulle.policy.authorizations import (
    ANY_NAME,
    ANYONE,
    EVERYWHERE,
    Authorization,
    Authorizer,
    Clients,
    Origin,
    clients_of,
)

CLUSTER = (Network("10.0.0.0/8"),)
OFFICE = Network("192.0.2.0/24", ("192.0.2.7/32",))
GROUP = "policy.linkerd.io"


def authorizer(*objects: Object) -> Authorizer:
    return Authorizer(world_of(*objects), TrustDomain(), CLUSTER)


def admitted(*objects: Object) -> list[tuple[Clients, tuple[Network, ...]]]:
    """Return whom the Server `web` lets in, among these objects."""
    found = authorizer(server(), *objects).of_server(server())
    return [(each.clients, each.networks) for each in found]


def test_nobody_is_let_in_whom_nothing_names() -> None:
    assert admitted() == []


def test_a_policy_without_requirements_lets_everybody_in() -> None:
    assert admitted(policy("all", to_server())) == [(ANYONE, EVERYWHERE)]


def test_identity_and_network_have_to_be_met_both() -> None:
    web = names("web", "web.example")
    office = networks("office", OFFICE)

    assert admitted(web, office, policy("both", to_server(), by_name("web"), by_network("office"))) == [
        (Clients(names=("web.example",)), (OFFICE,))
    ]
    assert admitted(web, policy("name", to_server(), by_name("web"))) == [
        (Clients(names=("web.example",)), EVERYWHERE)
    ]
    assert admitted(office, policy("network", to_server(), by_network("office"))) == [(ANYONE, (OFFICE,))]


@pytest.mark.parametrize(
    "required",
    [
        (by_name("absent"),),
        (by_network("absent"),),
        (by_network("office"), by_name("absent")),
        (by_name("web"), by_network("absent")),
        (by_name("web"), by_name("web")),
        (by_name("web"), account("web")),
        (by_network("office"), by_network("office")),
        (Ref("example.org", "MeshTLSAuthentication", "web"),),
        (Ref("", "Secret", "web"),),
        (by_name("web", "other"),),
    ],
)
def test_a_requirement_in_doubt_lets_nobody_in(required: tuple[Ref, ...]) -> None:
    there = (names("web", "web.example"), networks("office", OFFICE))

    assert admitted(*there, policy("doubtful", to_server(), *required)) == []


def test_an_authentication_that_names_nobody_lets_nobody_in() -> None:
    nobody = policy("nobody", to_server(), by_name("empty"))

    assert admitted(names("empty"), nobody) == []
    assert admitted(names("empty", refs=(Ref("example.org", "Robot", "r"),)), nobody) == []
    assert admitted(networks("empty"), policy("nowhere", to_server(), by_network("empty"))) == []


def test_identities_are_exact_names_suffixes_or_any() -> None:
    assert clients_of(["web.example", "*.shop.example", "spiffe://a/b"]) == Clients(
        names=("web.example", "spiffe://a/b"), suffixes=("shop.example",)
    )
    assert clients_of(["*"]) == ANY_NAME


def test_references_become_the_names_that_workloads_prove() -> None:
    refs = (account("web"), account("till", "bank"), Ref("", "Namespace", "staff"))
    there = names("known", refs=refs)

    assert admitted(there, policy("known", to_server(), by_name("known"))) == [
        (
            Clients(
                names=(identity("web"), identity("till", "bank")),
                suffixes=("staff.serviceaccount.identity.linkerd.cluster.local",),
            ),
            EVERYWHERE,
        )
    ]
    assert admitted(policy("account", to_server(), account("web"))) == [
        (Clients(names=(identity("web"),)), EVERYWHERE)
    ]


def test_an_authentication_may_stand_in_another_namespace_which_the_answer_then_depends_on() -> None:
    there = names("staff", "*", namespace="people")
    asker = authorizer(server(), there, policy("staff", to_server(), by_name("staff", "people")))

    found = asker.of_server(server())

    assert [each.clients for each in found] == [ANY_NAME]
    assert asker.asked == {"shop", "people"}


def test_policies_of_another_namespace_have_no_say() -> None:
    assert admitted(policy("all", to_server(), namespace="other")) == []
    assert admitted(policy("all", Ref(GROUP, "Server", "web", "other"))) == []


def test_the_namespace_as_target_means_every_server_in_it() -> None:
    assert admitted(policy("all", Ref("", "Namespace", "shop"))) == [(ANYONE, EVERYWHERE)]
    assert admitted(policy("all", Ref("", "Namespace", "other"))) == []


def test_all_that_have_a_say_add_up_the_server_s_own_policy_last() -> None:
    of = server(access_policy="cluster-authenticated")
    objects = (of, older("a", unauthenticated=True), policy("b", to_server()), policy("c", to_server("x")))

    assert authorizer(*objects).of_server(of) == (
        Authorization(Origin("a", "serverauthorization", GROUP), CLUSTER, ANYONE),
        Authorization(Origin("b", "authorizationpolicy", GROUP), EVERYWHERE, ANYONE),
        Authorization(Origin("cluster-authenticated"), CLUSTER, ANY_NAME),
    )


def test_an_access_policy_that_is_none_admits_nobody() -> None:
    of = server(access_policy="allow-all")

    assert authorizer(of).of_server(of) == ()


def test_a_server_authorization_finds_its_server_by_name_or_by_its_labels() -> None:
    labelled = server(meta=meta("web", tier="front"))
    by_label = older("a", server=None, selector=LabelSelector({"tier": "front"}), unauthenticated=True)
    elsewhere = older("b", server="till", unauthenticated=True)

    assert len(authorizer(by_label, elsewhere).of_server(labelled)) == 1
    assert authorizer(by_label, elsewhere).of_server(server()) == ()


def test_a_server_authorization_s_clients() -> None:
    assert admitted(older("a", unauthenticated_tls=True)) == [(Clients(any_tls=True), CLUSTER)]
    assert admitted(older("a", identities=("*",), networks=(OFFICE,))) == [(ANY_NAME, (OFFICE,))]
    assert admitted(older("a", service_accounts=(object_name("web"),))) == [
        (Clients(names=(identity("web"),)), CLUSTER)
    ]
    assert admitted(older("a")) == []


def test_a_route_s_policies_are_those_that_target_its_kind_in_its_group() -> None:
    objects = (
        policy("right", to_route("read")),
        policy("other-name", to_route("write")),
        policy("other-group", to_route("read", group=GROUP)),
        policy("other-kind", to_route("read", "GRPCRoute")),
        policy("server", to_server()),
    )

    found = authorizer(*objects).of_route("shop", "gateway.networking.k8s.io", "HTTPRoute", "read")

    assert [each.origin.name for each in found] == ["right"]
