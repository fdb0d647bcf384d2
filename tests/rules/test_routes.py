from dataclasses import replace
from datetime import timedelta

import pytest

from tulle.model.authorization import GATEWAY_GROUP, POLICY_GROUP, Ref
from tulle.model.objects import Position
from tulle.model.route import (
    BackendRef,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Mirror,
    ParentRef,
    PathMatch,
    PathModifier,
    Redirect,
    ReferenceGrant,
    Route,
    Rule,
    UnknownFilter,
    UrlRewrite,
    ValueMatch,
)
from tulle.rules.decode import decode

HERE = Position("a.yaml", 1)


def route(text: str, kind: str = "HTTPRoute", version: str = f"{GATEWAY_GROUP}/v1") -> Route:
    whole = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\nspec: {text}\n"
    (found,) = decode([("a.yaml", whole)], whole=False).accepted()
    assert isinstance(found, Route)
    return found


def rule(text: str, kind: str = "HTTPRoute", version: str = f"{GATEWAY_GROUP}/v1") -> Rule:
    """Decode a rule; where it and its backends are written is not the question here."""
    (found,) = route(f"{{rules: [{text}]}}", kind, version).rules
    backends = tuple(replace(of, source=HERE) for of in found.backends)
    return replace(found, backends=backends, source=HERE)


def backend(name: str, port: int | None = 80, weight: int = 1, namespace: str | None = None) -> BackendRef:
    return BackendRef(Ref("", "Service", name, namespace), port, weight, (), HERE)


def test_a_route_without_rules_takes_everything() -> None:
    (everything,) = route("{}").rules

    assert replace(everything, source=HERE) == Rule((), (), (), None, None, HERE)
    assert route("{rules: []}").rules == ()


def test_a_parent_without_a_group_is_of_the_routes_own_group() -> None:
    parents = "{parentRefs: [{name: a}, {group: core, kind: service, name: b, namespace: bank, port: 80, sectionName: x}]}"

    gateway = route(parents)
    policy = route(parents, version=f"{POLICY_GROUP}/v1beta3")

    service = ParentRef("", "Service", "b", "bank", 80, "x")
    assert gateway.parents == (ParentRef(GATEWAY_GROUP, "Gateway", "a"), service)
    assert policy.parents == (ParentRef(POLICY_GROUP, "Gateway", "a"), service)


def test_matches_have_the_defaults_of_the_gateway_api() -> None:
    text = """{matches: [
      {path: {value: /a}, method: GET},
      {path: {type: Exact}, headers: [{name: x, value: ''}], queryParams: [{type: RegularExpression, name: q, value: 'a|b'}]},
    ]}"""

    assert rule(text).matches == (
        HttpMatch(PathMatch("prefix", "/a"), method="GET"),
        HttpMatch(PathMatch("exact", "/"), (ValueMatch("x", ""),), (ValueMatch("q", "a|b", regex=True),)),
    )


def test_every_filter_of_the_gateway_api_is_read() -> None:
    text = """{filters: [
      {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: a, value: b}], set: [{name: c, value: d}], remove: [e]}},
      {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [e]}},
      {type: RequestRedirect, requestRedirect: {scheme: https, hostname: x.test, port: 8443, statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /z}}},
      {type: URLRewrite, urlRewrite: {hostname: y.test, path: {type: ReplaceFullPath, replaceFullPath: /f}}},
      {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}, fraction: {numerator: 1, denominator: 1000}}},
      {type: ExtensionRef, extensionRef: {group: x, kind: y, name: z}},
    ]}"""

    *filters, mirror, unknown = rule(text).filters

    assert filters == [
        HeaderModifier(response=False, add=(("a", "b"),), set=(("c", "d"),), remove=("e",)),
        HeaderModifier(response=True, remove=("e",)),
        Redirect("https", "x.test", PathModifier(prefix=True, value="/z"), 8443, 308),
        UrlRewrite("y.test", PathModifier(prefix=False, value="/f")),
    ]
    assert isinstance(mirror, Mirror)
    assert replace(mirror, backend=replace(mirror.backend, source=HERE)) == Mirror(backend("copy"), 1, 1000)
    assert unknown == UnknownFilter("ExtensionRef")


def test_a_redirect_without_a_status_is_the_302_of_its_definition() -> None:
    text = "{filters: [{type: RequestRedirect, requestRedirect: {hostname: x.test}}]}"

    assert rule(text).filters == (Redirect(hostname="x.test", status=302),)


def test_the_first_versions_of_upstreams_route_send_to_the_namespace_default() -> None:
    old, new = f"{POLICY_GROUP}/v1alpha1", f"{POLICY_GROUP}/v1beta2"
    text = "{backendRefs: [{name: web, port: 80}]}"

    assert rule(text, version=old).backends == (backend("web", namespace="default"),)
    assert rule(text, version=new).backends == (backend("web"),)


@pytest.mark.parametrize(
    ("version", "written", "seconds"),
    [
        (f"{POLICY_GROUP}/v1beta3", "1h30m0.5s", 5400.5),
        (f"{POLICY_GROUP}/v1beta3", "'0'", 0),
        (f"{POLICY_GROUP}/v1beta3", "1ns", 0.000001),
        (f"{POLICY_GROUP}/v1beta3", ".5m", 30),
        (f"{GATEWAY_GROUP}/v1", "1h30m", 5400),
        (f"{GATEWAY_GROUP}/v1", "250ms", 0.25),
        (f"{GATEWAY_GROUP}/v1", "0s", 0),
    ],
)
def test_durations_are_read_as_their_api_writes_them(version: str, written: str, seconds: float) -> None:
    found = rule(f"{{timeouts: {{request: {written}}}}}", version=version)

    assert found.request_timeout == timedelta(seconds=seconds)
    assert found.backend_request_timeout is None


def test_a_grpc_route_matches_services_and_methods() -> None:
    text = "{matches: [{method: {service: a.B, method: C}, headers: [{name: x, value: y}]}, {method: {method: D}}]}"

    assert rule(text, "GRPCRoute").matches == (
        GrpcMatch("a.B", "C", (ValueMatch("x", "y"),)),
        GrpcMatch(None, "D"),
    )


def test_what_nobody_acts_on_is_kept_by_name() -> None:
    text = "{useDefaultGateways: All, rules: [{name: x, retry: {attempts: 1}, backendRefs: [{name: b, port: 1, filters: [{type: CORS, cors: {}}]}]}]}"

    assert route(text).unsupported == (
        "spec.useDefaultGateways",
        "spec.rules[0].name",
        "spec.rules[0].retry",
        "spec.rules[0].backendRefs[0].filters[0] (CORS)",
    )


def test_a_grant_names_who_may_name_what() -> None:
    text = (
        f"apiVersion: {GATEWAY_GROUP}/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: a, namespace: shop}}\n"
        f"spec: {{from: [{{group: {GATEWAY_GROUP}, kind: HTTPRoute, namespace: bank}}], to: [{{group: '', kind: Service}}]}}\n"
    )

    (found,) = decode([("a.yaml", text)]).accepted()

    assert isinstance(found, ReferenceGrant)
    assert found.sources == (Ref(GATEWAY_GROUP, "HTTPRoute", "", "bank"),)
    assert found.targets == (Ref("", "Service", ""),)
