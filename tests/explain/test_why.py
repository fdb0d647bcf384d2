"""The decision path of a request, from manifests."""

import pytest

from tulle.explain import words
from tulle.explain.answer import Explanation, Question
from tulle.explain.folder import compiled
from tulle.explain.ground import Ground
from tulle.explain.why import explain
from tulle.model.errors import NotFound, SettingError
from tulle.rules.decode import decode

SHOP = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}, annotations: {linkerd.io/inject: enabled}}
spec: {serviceAccountName: web, containers: [{name: main, command: [sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: shop, labels: {app: plain}}
spec: {containers: [{name: main, command: [sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}, annotations: {linkerd.io/inject: enabled}}
spec: {serviceAccountName: cart, containers: [{name: main, command: [sleep], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: many, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: a, port: 8080}, {name: b, port: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: set, namespace: shop}
spec: {clusterIP: None, selector: {app: cart}, ports: [{port: 8080}]}
"""
ACCOUNTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: shop}
"""
SERVER = """
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: cart, namespace: shop}
spec: {podSelector: {matchLabels: {app: cart}}, port: 8080}
"""
FOR_WEB = """
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: cart-for-web, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: cart}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: web}]
"""
ROUTES = """
---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: core, kind: Service, name: cart}]
  rules:
  - matches: [{path: {value: /new}}, {headers: [{name: x-staff, value: "yes"}]}]
    backendRefs: [{name: many, port: 8080}]
  - backendRefs: [{name: cart, port: 80, weight: 9}, {name: many, port: 8080, weight: 1}]
"""
GROUPS = ("gateway.networking.k8s.io/v1", "policy.linkerd.io/v1beta2")
BOTH_GROUPS = "".join(
    f"""
---
apiVersion: {group}
kind: HTTPRoute
metadata: {{name: same, namespace: shop}}
spec:
  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: cart}}]
  rules: [{{matches: [{{path: {{value: {path}}}}}]}}]
"""
    for group, path in zip(GROUPS, ("/a", "/b"), strict=True)
)
PROFILE = """
---
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: cart.shop.svc.cluster.local, namespace: shop}
spec:
  routes:
  - {name: read, condition: {method: GET}, isRetryable: true, timeout: 250ms}
  dstOverrides: [{authority: "many.shop.svc.cluster.local:8080", weight: "1"}]
"""
EGRESS = """
---
apiVersion: policy.linkerd.io/v1alpha1
kind: EgressNetwork
metadata: {name: outside, namespace: shop}
spec: {trafficPolicy: Deny}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: outside, port: 80}]
  hostnames: [good.example.com]
  rules: [{}]
"""


def ground(*texts: str) -> Ground:
    """Compile texts."""
    return compiled(
        decode(
            [("accounts.yaml", ACCOUNTS), ("shop.yaml", SHOP), ("policy.yaml", "".join(texts) or "# none")]
        ).accepted()
    )


def why(of: Ground, source: str, target: str, path: str = "/", **more: object) -> Explanation:
    """Ask."""
    return explain(of, Question(source, target, path, **more))  # type: ignore[arg-type]


def test_without_policies_the_default_policy_lets_everybody_in() -> None:
    said = why(ground(), "web", "cart")

    [branch] = said.branches
    [inbound] = branch.inbound
    assert said.allowed
    assert (said.target.address.startswith("10.78."), said.target.port) == (True, 80)
    assert branch.endpoints == ("cart at 10.77.0.4:8080",)
    assert inbound.server.name == "all-unauthenticated"
    assert inbound.identity == "web.shop.serviceaccount.identity.linkerd.cluster.local"


def test_a_server_denies_and_names_what_it_looked_at() -> None:
    said = why(ground(SERVER, FOR_WEB), "plain", "cart.shop.svc.cluster.local")

    inbound = said.branches[0].inbound[0]
    assert not said.allowed
    assert inbound.refusal is not None
    assert (inbound.refusal.reason, inbound.refusal.status) == ("unauthorized", 403)
    assert str(inbound.server) == "Server shop/cart (policy.yaml:3)"
    steps = {(step.object.name, step.verdict): step.why for step in inbound.steps if step.object}
    assert steps["cart-for-web", "skipped"] == "it asks for mesh TLS"


def test_the_authorization_that_admits_is_named_with_its_place() -> None:
    said = why(ground(SERVER, FOR_WEB), "web", "cart")

    admitted = said.branches[0].inbound[0].authorization
    assert str(admitted) == "AuthorizationPolicy shop/cart-for-web (policy.yaml:9)"


def test_weights_become_shares_and_a_match_says_what_it_beat() -> None:
    of = ground(ROUTES)

    any_request, staff = why(of, "web", "cart"), why(of, "web", "cart", headers=(("x-staff", "yes"),))

    assert [(branch.backend.name, branch.share) for branch in any_request.branches] == [
        ("cart", 0.9),
        ("many", 0.1),
    ]
    assert [branch.backend.name for branch in staff.branches] == ["many"]
    assert any_request.outbound is not None
    skipped = any_request.outbound.steps[0]
    assert skipped.why == "the path is not /new or below, and the header x-staff differs or is missing"
    assert any_request.outbound.route is not None
    assert any_request.outbound.route.source == "policy.yaml:3"


def test_a_service_profile_rules_before_routes() -> None:
    said = why(ground(ROUTES, PROFILE), "web", "cart")

    assert said.outbound is not None
    assert str(said.outbound.route) == "ServiceProfile shop/cart.shop.svc.cluster.local (policy.yaml:14)"
    assert [branch.backend.name for branch in said.branches] == ["many"]


def test_one_denied_backend_denies_its_share() -> None:
    of = ground(SERVER.replace("8080", "8081"), ROUTES.replace("port: 8080", "port: 8081"))

    said = why(of, "plain", "cart"), why(of, "web", "cart")

    # Without a proxy no route is asked; with one, a tenth goes to a port that nobody may use.
    assert [each.allowed for each in said] == [True, False]
    assert words.summary(said[1]) == "denied for 10 % of requests: web → cart, GET /"


@pytest.mark.parametrize("target", ["set:8080", "10.77.0.4:8080", "[fd77::4]:8080"])
def test_an_address_of_a_pod_is_gone_to_straight(target: str) -> None:
    said = why(ground(SERVER, FOR_WEB), "web", target)

    assert said.allowed
    assert said.outbound is None
    assert said.branches[0].inbound[0].identity is not None


def test_what_has_no_endpoint_is_refused_as_that() -> None:
    said = why(ground(), "web", "nobody")

    refusal = words.first_refusal(said)
    assert refusal is not None
    assert (said.allowed, refusal.reason) == (False, "no_endpoints")


def test_an_undefined_port_is_refused() -> None:
    refusal = words.first_refusal(why(ground(), "web", "cart:81"))

    assert refusal is not None
    assert refusal.reason == "port_undefined"


def test_grpc_is_refused_in_its_own_words() -> None:
    grpc = SHOP.replace("ports: [{port: 80, targetPort", "ports: [{port: 80, appProtocol: grpc, targetPort")
    files = [("accounts.yaml", ACCOUNTS), ("shop.yaml", grpc), ("policy.yaml", SERVER)]

    said = why(compiled(decode(files).accepted()), "web", "cart", "/shop.Cart/Get")

    refusal = words.first_refusal(said)
    assert refusal is not None
    assert (said.asked.kind, said.asked.method) == ("grpc", "POST")
    assert (refusal.status, refusal.grpc_status, refusal.reason) == (200, 7, "unauthorized")


def test_a_connection_is_authorized_as_one() -> None:
    of = ground(SERVER, FOR_WEB)

    assert why(of, "web", "cart", tcp=True).allowed
    assert not why(of, "plain", "cart", tcp=True).allowed


def test_a_name_outside_stands_for_an_address() -> None:
    said = why(ground(), "web", "api.example.com:443")

    assert said.allowed
    assert (
        said.target.remark
        == "api.example.com is outside; it is taken to be at 198.51.100.1, say --address for another"
    )
    assert why(ground(), "web", "api.example.com:443", address="203.0.113.9").branches[0].endpoints == (
        "203.0.113.9:443",
    )


def test_an_egress_network_has_a_say_about_addresses_outside() -> None:
    said = why(ground(EGRESS), "web", "api.example.com", address="203.0.113.9")

    refusal = words.first_refusal(said)
    assert refusal is not None
    assert said.outbound is not None
    assert (refusal.status, str(said.outbound.policy)) == (403, "EgressNetwork shop/outside (policy.yaml:3)")
    assert why(ground(EGRESS), "web", "good.example.com", address="203.0.113.9").allowed


def test_routes_of_two_groups_with_one_name_are_told_apart() -> None:
    of = ground(SERVER, FOR_WEB, BOTH_GROUPS)

    written = [
        step.object.source
        for inbound in why(of, "web", "cart", path="/a").branches[0].inbound
        for step in inbound.steps
        if step.object and step.object.kind == "HTTPRoute"
    ]

    lines = [
        "".join((SERVER, FOR_WEB, BOTH_GROUPS)).splitlines().index(f"apiVersion: {of}") + 1 for of in GROUPS
    ]
    assert written == [f"policy.yaml:{line}" for line in lines]


def test_a_skipped_port_passes_by_the_proxy() -> None:
    skipping = SHOP.replace("enabled}", 'enabled, config.linkerd.io/skip-outbound-ports: "80"}', 1)
    of = compiled(decode([("accounts.yaml", ACCOUNTS), ("shop.yaml", skipping)]).accepted())

    said = why(of, "web", "cart")

    assert said.straight == "web skips port 80 (config.linkerd.io/skip-outbound-ports)"
    assert said.branches[0].inbound[0].identity is None


@pytest.mark.parametrize("name", ["shop/web", "Pod/web", "shop/pod/web", "web.shop", "10.77.0.2", "fd77::2"])
def test_a_client_has_several_names(name: str) -> None:
    assert why(ground(), name, "cart").client.name == "web"


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ("nobody", "cart", 'no workload is called "nobody"; there are: cart, plain, web'),
        ("web", "card", 'no service is called "card" in namespace shop; there are: cart, many, nobody, set'),
        (
            "web",
            "card.shop",
            'no service is called "card.shop" in namespace shop; there are: cart, many, nobody, set',
        ),
        (
            "web",
            "cart.depot.svc",
            'no service is called "cart.depot.svc" in namespace depot; there are: none',
        ),
        (
            "web",
            "cart.depot.svc.cluster.local",
            'no service is called "cart.depot.svc.cluster.local" in namespace depot; there are: none',
        ),
    ],
)
def test_a_name_that_is_not_there_is_told_with_those_that_are(source: str, target: str, text: str) -> None:
    with pytest.raises(NotFound) as caught:
        why(ground(), source, target)

    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("target", "more", "text"),
    [
        ("many", {}, "shop/many has these ports: 8080, 8081; write many:PORT"),
        ("cart:http", {}, '"cart:http": "http" is not a port'),
        ("cart", {"method": "GE T"}, "that is no request: invalid HTTP method"),
        ("cart", {"path": "doc"}, '"doc" is no path; it begins with /'),
        (
            "http://cart/doc",
            {},
            '"http://cart/doc": the path is asked about by itself: --path /doc',
        ),
    ],
)
def test_a_question_that_makes_no_sense_says_why(target: str, more: dict[str, str], text: str) -> None:
    with pytest.raises(SettingError) as caught:
        why(ground(), "web", target, **more)

    assert str(caught.value) == text
