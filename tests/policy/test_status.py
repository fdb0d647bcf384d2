"""What is said of each object, from manifests to conditions; and that what is said is what decides."""

import ipaddress
from typing import get_args

import pytest

from tests.control_plane import WEB_SERVICE, web_pod, world_of
from tulle.model.policies import Policy
from tulle.model.route import Route
from tulle.model.service import ObjectName, Service, ServicePort
from tulle.model.update import Object
from tulle.model.world import World
from tulle.policy.conditions import Status, status_of
from tulle.policy.status import Condition, accepted, rate_limit_of
from tulle.rules.decode import decode

CLUSTER = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
POLICY = "policy.linkerd.io"
GATEWAY = "gateway.networking.k8s.io"

SERVER = "podSelector: {matchLabels: {app: web}}\n  port: http"
ON_WEB = "parentRefs: [{group: core, kind: Service, name: web, port: 80}]"
ON_SERVER = "parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]"
TO_WEB = "rules: [{backendRefs: [{name: web, port: 80}]}]"


def manifest(
    kind: str, name: str, spec: str, *, group: str = POLICY, namespace: str = "shop", head: str = ""
) -> Object:
    versions = {"Server": "v1beta3", "ServerAuthorization": "v1beta1", "ServiceProfile": "v1alpha2"}
    newest = "v1beta3" if kind == "HTTPRoute" else "v1alpha1"
    version = "v1" if group == GATEWAY else versions.get(kind, newest)
    text = (
        f"apiVersion: {group}/{version}\nkind: {kind}\n"
        f"metadata: {{name: {name}, namespace: {namespace}{head}}}\nspec:\n  {spec}\n"
    )
    (found,) = decode([("a.yaml", text)], whole=False).accepted()
    assert isinstance(found, get_args(Policy))
    return found  # type: ignore[return-value]


def route(name: str, spec: str, kind: str = "HTTPRoute", namespace: str = "shop", head: str = "") -> Object:
    return manifest(kind, name, spec, group=GATEWAY, namespace=namespace, head=head)


def server(name: str, spec: str = SERVER, head: str = "") -> Object:
    return manifest("Server", name, spec, head=head)


def status(item: Object, *others: Object) -> Status:
    world = world_of(WEB_SERVICE, web_pod(labels={"app": "web"}), item, *others)
    return status_of(world, item, CLUSTER)  # type: ignore[arg-type]


def conditions(item: Object, *others: Object) -> list[Condition]:
    """Return an object's conditions, or those of a route's only parent."""
    said = status(item, *others)
    if isinstance(item, Route):
        (parent,) = said.parents
        return list(parent.conditions)
    return list(said.conditions)


ACCEPTED = Condition("Accepted", True, "Accepted")
RESOLVED = Condition("ResolvedRefs", True, "ResolvedRefs")


def refused(reason: str, message: str) -> Condition:
    return Condition("Accepted", False, reason, message)


# Routes


def test_a_route_to_a_service_that_is_there_is_accepted_and_resolved() -> None:
    assert conditions(route("r", f"{ON_WEB}\n  {TO_WEB}")) == [ACCEPTED, RESOLVED]
    assert conditions(route("r", ON_SERVER), server("web")) == [ACCEPTED]


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ("{group: core, kind: Service, name: wed}", "there is no Service shop/wed"),
        ("{group: core, kind: Service, name: bare}", "parent service must have a ClusterIP"),
        ("{group: core, kind: Service, name: away}", "parent service must have a ClusterIP"),
        ("{group: core, kind: Service, name: web, port: 81}", "Service shop/web has no port 81"),
        ("{group: policy.linkerd.io, kind: Server, name: wed}", "there is no Server shop/wed"),
        (
            "{group: policy.linkerd.io, kind: Server, name: web, namespace: bank}",
            "Server bank/web is in another namespace",
        ),
        (
            "{group: policy.linkerd.io, kind: Server, name: web, port: 80}",
            "a Server has neither ports nor sections: leave out port and sectionName",
        ),
        (
            "{group: policy.linkerd.io, kind: EgressNetwork, name: out, port: 80}",
            "there is no EgressNetwork shop/out",
        ),
        (
            "{group: policy.linkerd.io, kind: EgressNetwork, name: inside, port: 80}",
            "EgressNetwork parent has not been accepted",
        ),
    ],
)
def test_a_parent_that_cannot_take_a_route_says_why(parent: str, message: str) -> None:
    inside = manifest("EgressNetwork", "inside", "{trafficPolicy: Deny, networks: [{cidr: 10.9.0.0/16}]}")
    bare = Service(ObjectName("shop", "bare"), (ServicePort(80),))
    away = Service(ObjectName("shop", "away"), (ServicePort(80),), ("10.78.0.9",), external_name="x.test")
    item = route("r", f"parentRefs: [{parent}]")

    assert conditions(item, server("web"), inside, bare, away)[0] == refused("NoMatchingParent", message)


def test_a_parent_that_is_none_of_ours_has_no_status() -> None:
    assert status(route("r", "parentRefs: [{name: gateway}]")).parents == ()


@pytest.mark.parametrize(
    ("kind", "rivals"),
    [
        ("GRPCRoute", ()),
        ("HTTPRoute", ("GRPCRoute",)),
        ("TLSRoute", ("GRPCRoute", "HTTPRoute")),
        ("TCPRoute", ("GRPCRoute", "HTTPRoute", "TLSRoute")),
    ],
)
def test_routes_give_way_to_stronger_kinds_on_the_same_parent(kind: str, rivals: tuple[str, ...]) -> None:
    for other in {"GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"} - {kind}:
        rival = route("other", f"{ON_WEB}\n  {TO_WEB}", other)

        (found, *_) = conditions(route("r", f"{ON_WEB}\n  {TO_WEB}", kind), rival)

        assert found.reason == ("RouteReasonConflicted" if other in rivals else "Accepted")


def test_a_route_on_another_port_is_no_rival() -> None:
    rival = route("other", ON_WEB.replace(", port: 80", ""), "GRPCRoute")

    assert conditions(route("r", ON_WEB), rival)[0] == ACCEPTED


def test_a_route_of_another_tenant_takes_nothing_away() -> None:
    theirs = route("r", ON_WEB.replace("name: web", "name: web, namespace: shop"), "GRPCRoute", "bank")
    ours = route("r", ON_WEB)

    assert conditions(ours, theirs)[0] == ACCEPTED
    assert conditions(theirs, ours)[0] == ACCEPTED


def test_a_route_gives_way_to_its_own_namespace_and_to_that_of_the_parent() -> None:
    elsewhere = ON_WEB.replace("name: web", "name: web, namespace: shop")
    item = route("r", elsewhere, namespace="bank")

    assert conditions(item, route("g", ON_WEB, "GRPCRoute"))[0].reason == "RouteReasonConflicted"
    assert conditions(item, route("g", elsewhere, "GRPCRoute", "bank"))[0].reason == "RouteReasonConflicted"


@pytest.mark.parametrize(
    ("backend", "reason", "message"),
    [
        ("{name: gone, port: 80}", "BackendNotFound", "there is no Service shop/gone"),
        ("{name: web, port: 81}", "BackendNotFound", "Service shop/web has no port 81"),
        ("{name: web, port: 80, namespace: bank}", "BackendNotFound", "there is no Service bank/web"),
        ("{group: x, kind: Bucket, name: b}", "InvalidKind", "Bucket shop/b cannot be a backend"),
        (
            "{group: policy.linkerd.io, kind: EgressNetwork, name: out}",
            "InvalidKind",
            "EgressNetwork shop/out is not the parent",
        ),
    ],
)
def test_a_backend_that_is_not_there_is_named(backend: str, reason: str, message: str) -> None:
    item = route("r", f"{ON_WEB}\n  rules: [{{backendRefs: [{backend}]}}]")

    assert conditions(item)[:2] == [ACCEPTED, Condition("ResolvedRefs", False, reason, message)]


def test_an_egress_network_is_a_backend_of_its_own_routes() -> None:
    out = manifest("EgressNetwork", "out", "{trafficPolicy: Deny}")
    ref = "{group: policy.linkerd.io, kind: EgressNetwork, name: out, port: 443}"
    item = route("r", f"parentRefs: [{ref}]\n  rules: [{{backendRefs: [{ref}]}}]")

    assert conditions(item, out) == [ACCEPTED, RESOLVED]


def test_fields_and_filters_that_are_not_acted_on_are_in_the_status() -> None:
    field = route("r", f"{ON_WEB}\n  rules: [{{retry: {{attempts: 1}}}}]")
    extension = route(
        "r", f"{ON_WEB}\n  rules: [{{filters: [{{type: ExtensionRef, extensionRef: {{name: x}}}}]}}]"
    )
    rewrite = route("r", f"{ON_WEB}\n  rules: [{{filters: [{{type: URLRewrite, urlRewrite: {{}}}}]}}]")

    assert conditions(field)[2:] == [
        Condition("tulle.dev/Supported", False, "UnsupportedField", "not acted on: spec.rules[0].retry")
    ]
    assert [of.reason for of in conditions(extension)[2:]] == ["UnsupportedFilter"]
    assert [(of.type, of.reason) for of in conditions(rewrite)[2:]] == [
        ("tulle.dev/Portable", "NeedsExtension")
    ]


@pytest.mark.parametrize(
    ("protocol", "kind", "good"),
    [
        (None, "TCPRoute", True),
        ("mongo", "HTTPRoute", True),
        ("http", "HTTPRoute", True),
        ("http", "GRPCRoute", False),
        ("grpc", "HTTPRoute", True),
        ("tls", "TLSRoute", True),
        ("https", "HTTPRoute", False),
        ("linkerd.io/opaque", "HTTPRoute", False),
        ("tcp", "TCPRoute", True),
    ],
)
def test_a_route_of_a_kind_that_a_port_cannot_have_says_so(
    protocol: str | None, kind: str, good: bool
) -> None:
    service = Service(ObjectName("shop", "db"), (ServicePort(80, app_protocol=protocol),), ("10.78.0.9",))
    rules = "rules: [{backendRefs: [{name: db, port: 80}]}]"
    item = route("r", f"{ON_WEB.replace('web', 'db')}\n  {rules}", kind)

    said = [of.reason for of in conditions(item, service)]

    assert said == ["Accepted", "ResolvedRefs"] + ([] if good else ["ProtocolMismatch"])


def test_a_profile_with_routes_goes_before_routes_and_they_say_so() -> None:
    name = "web.shop.svc.cluster.local"
    routes = "routes: [{name: r, condition: {method: GET}}]"
    item = route("r", ON_WEB)

    decides = manifest("ServiceProfile", name, routes, group="linkerd.io")
    empty = manifest("ServiceProfile", name, "routes: []", group="linkerd.io")
    elsewhere = manifest("ServiceProfile", name, routes, group="linkerd.io", namespace="bank")

    assert [of.reason for of in conditions(item, decides)] == ["Accepted", "ResolvedRefs", "ProfilePrecedes"]
    assert conditions(item, empty) == [ACCEPTED, RESOLVED]
    assert conditions(item, elsewhere) == [ACCEPTED, RESOLVED]


def test_a_missing_grant_is_said_and_costs_nothing() -> None:
    other = Service(ObjectName("bank", "web"), (ServicePort(80),), ("10.78.0.9",))
    item = route("r", f"{ON_WEB}\n  rules: [{{backendRefs: [{{name: web, namespace: bank, port: 80}}]}}]")
    grant = manifest(
        "ReferenceGrant",
        "g",
        f"{{from: [{{group: {GATEWAY}, kind: HTTPRoute, namespace: shop}}], to: [{{group: '', kind: Service}}]}}",
        group=GATEWAY,
        namespace="bank",
    )

    assert [of.reason for of in conditions(item, other)] == ["Accepted", "ResolvedRefs", "RefNotPermitted"]
    assert conditions(item, other, grant) == [ACCEPTED, RESOLVED]


def test_what_a_server_has_no_use_for_is_in_the_status_of_its_routes() -> None:
    item = route(
        "r", f"{ON_SERVER}\n  rules: [{{timeouts: {{request: 1s}}, backendRefs: [{{name: web, port: 80}}]}}]"
    )

    useless = conditions(item, server("web"))[1]
    mismatch = conditions(item, server("web", SERVER + "\n  proxyProtocol: gRPC"))[1]

    assert (useless.reason, useless.message) == (
        "NotForServers",
        "with a Server as parent these do nothing: backendRefs, timeouts",
    )
    assert mismatch.reason == "ProtocolMismatch"


# Servers and authorizations


def test_the_server_that_another_one_hides_says_so() -> None:
    first, second = server("a"), server("b", SERVER.replace("http", "8080"))

    assert conditions(first, second) == [ACCEPTED]
    (found,) = conditions(second, first)
    assert (found.status, found.reason) == (False, "ServerConflicted")
    assert found.message.startswith("Server a has web-0:8080: ")


def test_an_older_server_goes_before_a_younger_one_of_an_earlier_name() -> None:
    older = server("b", head=", creationTimestamp: '2025-01-01T00:00:00Z'")
    younger = server("a", head=", creationTimestamp: '2026-01-01T00:00:00Z'")

    assert conditions(older, younger) == [ACCEPTED]
    assert conditions(younger, older)[0].reason == "ServerConflicted"


def test_a_server_of_nothing_yet_is_accepted() -> None:
    (found,) = conditions(server("a", "podSelector: {matchLabels: {app: db}}\n  port: 80"))

    assert (found.status, found.message) == (True, "no port of a running workload is selected")


def test_an_authorization_whose_authentication_is_missing_lets_nobody_in_and_says_so() -> None:
    authn = manifest("MeshTLSAuthentication", "web", "identities: ['*']")
    item = manifest(
        "AuthorizationPolicy",
        "a",
        "targetRef: {group: policy.linkerd.io, kind: Server, name: web}\n  requiredAuthenticationRefs: "
        "[{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: web}]",
    )

    assert conditions(item) == [refused("TargetNotFound", "there is no Server web")]
    assert conditions(item, server("web")) == [
        refused(
            "AuthenticationNotFound", "there is no MeshTLSAuthentication shop/web, so this lets nobody in"
        )
    ]
    assert conditions(item, server("web"), authn) == [ACCEPTED]


@pytest.mark.parametrize("group", [POLICY, GATEWAY])
def test_an_authorization_finds_its_route_by_group_too(group: str) -> None:
    item = manifest(
        "AuthorizationPolicy",
        "a",
        f"targetRef: {{group: {group}, kind: HTTPRoute, name: r}}\n  requiredAuthenticationRefs: []",
    )

    assert conditions(item, route("r", ON_WEB))[0].status is (group == GATEWAY)


def test_a_server_authorization_needs_a_server_and_somebody() -> None:
    item = manifest("ServerAuthorization", "a", "server: {name: web}\n  client: {unauthenticated: true}")
    nobody = manifest("ServerAuthorization", "a", "server: {name: web}\n  client: {networks: []}")

    assert conditions(item)[0].reason == "TargetNotFound"
    assert conditions(item, server("web")) == [ACCEPTED]
    assert conditions(nobody, server("web"))[0].reason == "NobodyNamed"


def limit(name: str, head: str = "") -> Object:
    spec = "targetRef: {group: policy.linkerd.io, kind: Server, name: web}\n  total: {requestsPerSecond: 9}"
    return manifest("HTTPLocalRateLimitPolicy", name, spec, head=head)


def test_one_limit_holds_for_a_server_and_the_others_say_which() -> None:
    first, second = limit("a"), limit("b")
    world = world_of(server("web"), first, second)

    assert conditions(first) == [refused("NoMatchingTarget", "there is no Server shop/web")]
    assert conditions(first, second, server("web")) == [ACCEPTED]
    assert conditions(second, first, server("web")) == [
        refused("RateLimitReasonAlreadyExists", "a limits Server shop/web already")
    ]
    assert rate_limit_of(world, ObjectName("shop", "web")) == first


def test_a_limit_on_what_is_not_http_says_that_it_does_nothing() -> None:
    found = conditions(limit("a"), server("web", SERVER + "\n  proxyProtocol: opaque"))

    assert [of.reason for of in found] == ["Accepted", "ProtocolMismatch"]


# Networks outside, services, profiles


@pytest.mark.parametrize(
    ("networks", "good"),
    [
        ("[{cidr: 192.0.2.0/24}]", True),
        ("[{cidr: 10.1.0.0/16}]", False),
        ("[{cidr: 0.0.0.0/0}]", False),
        ("[{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}]", True),
        ("[{cidr: 0.0.0.0/0, except: [10.0.0.0/9, 10.128.0.0/9]}]", True),
        ("[{cidr: 0.0.0.0/0, except: [10.0.0.0/9]}]", False),
        ("[{cidr: '::/0', except: ['fd00::/8']}]", True),
    ],
)
def test_an_egress_network_must_leave_the_cluster_alone(networks: str, good: bool) -> None:
    item = manifest("EgressNetwork", "out", f"trafficPolicy: Deny\n  networks: {networks}")

    overlap = refused("EgressReasonNetworkOverlap", "networks overlap with clusterNetworks")
    assert conditions(item) == [ACCEPTED if good else overlap]


def test_a_service_says_which_protocol_and_annotation_it_was_given_in_vain() -> None:
    service = Service(
        ObjectName("shop", "db"),
        (ServicePort(27017, app_protocol="mongo"), ServicePort(80, app_protocol="http")),
        annotations={"timeout.linkerd.io/request": "soon"},
    )

    assert [(of.reason, of.status) for of in conditions(service)] == [
        ("UnknownAppProtocol", False),
        ("InvalidAnnotation", False),
    ]
    assert conditions(service)[0].message.endswith("mongo (port 27017)")
    assert conditions(WEB_SERVICE) == []


def test_a_profile_of_no_service_says_so() -> None:
    item = manifest("ServiceProfile", "web.shop.svc.cluster.local", "routes: []", group="linkerd.io")
    lost = manifest("ServiceProfile", "web.bank.svc.cluster.local", "routes: []", group="linkerd.io")

    assert conditions(item) == [ACCEPTED]
    assert conditions(lost) == [refused("ServiceNotFound", "there is no Service bank/web")]


def test_what_the_status_says_is_what_the_compilers_are_told() -> None:
    routes = [
        route("g", ON_WEB, "GRPCRoute"),
        route("h", ON_WEB),
        route("t", f"{ON_WEB}\n  {TO_WEB}", "TCPRoute"),
    ]
    world: World = world_of(WEB_SERVICE, *routes)

    for item in routes:
        assert isinstance(item, Route)
        (parent,) = status_of(world, item, CLUSTER).parents
        assert accepted(world, item, parent.parent, CLUSTER) is parent.conditions[0].status
