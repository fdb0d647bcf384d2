"""HTTPRoutes on Services: who gets a request, and what is done to it on the way."""

import pytest

from e2e import http1
from e2e.conftest import Field
from e2e.pods import eventually
from e2e.routes.rig import answering, asking, is_from, is_status, manifests, service, until

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: {name}, port: 80}}]
  rules: {rules}
"""
SPLIT_REQUESTS = 400


def route(name: str, rules: str, *, namespace: str = "default") -> str:
    """Return a route of a service."""
    return ROUTE.format(name=name, namespace=namespace, rules=rules)


async def test_requests_are_split_by_weight(field: Field, which: str) -> None:
    client, stable, canary = (field[name] for name in (f"client-{which}", "balanced-1", "balanced-2"))
    async with answering(stable) as (first, _), answering(canary) as (second, _):
        split = route(
            "split",
            "[{backendRefs: [{name: stable, port: 80, weight: 90}, {name: canary, port: 80, weight: 10}]}]",
        )
        services = [
            service("split", "balanced-1", first.port),
            service("stable", "balanced-1", first.port),
            service("canary", "balanced-2", second.port),
        ]
        async with manifests(field, "split", *services, split):
            await until(asking(client, "split"), is_from(canary), "a request reaches the canary")

            counts = {stable.name: 0, canary.name: 0}
            async with await client.connect("split", 80) as stream:
                for _ in range(SPLIT_REQUESTS):
                    answer = await http1.ask(stream, http1.get(host="split"))
                    counts[answer.body.decode()] += 1

    # Forty are expected; less than 15 or more than 75 happens once in a hundred thousand runs.
    assert sum(counts.values()) == SPLIT_REQUESTS
    assert 15 <= counts[canary.name] <= 75


async def test_staff_see_the_canary_by_a_header(field: Field, which: str) -> None:
    client, stable, canary = (field[name] for name in (f"client-{which}", "balanced-1", "balanced-2"))
    rules = """
  - matches: [{headers: [{name: x-staff, value: "yes"}]}]
    backendRefs: [{name: staff-canary, port: 80}]
  - backendRefs: [{name: staff, port: 80}]"""
    async with answering(stable) as (first, _), answering(canary) as (second, _):
        services = [
            service("staff", "balanced-1", first.port),
            service("staff-canary", "balanced-2", second.port),
        ]
        async with manifests(field, "staff", *services, route("staff", rules)):
            await until(asking(client, "staff", x_staff="yes"), is_from(canary), "staff reach the canary")

            answers = [await asking(client, "staff", x_staff=value)() for value in ("no", "yes", "no")]

    assert [answer.body.decode() for answer in answers] == ["balanced-1", "balanced-2", "balanced-1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_client_is_redirected_with_every_status(field: Field, which: str, status: int) -> None:
    client, server = field[f"client-{which}"], field["balanced-1"]
    rules = f"""
  - matches: [{{path: {{type: PathPrefix, value: /old}}}}]
    filters:
    - type: RequestRedirect
      requestRedirect:
        scheme: https
        hostname: new.example
        port: 8443
        path: {{type: ReplacePrefixMatch, replacePrefixMatch: /new}}
        statusCode: {status}
  - {{}}"""
    async with answering(server) as (served, recorder):
        name = f"moved-{status}-{which}"
        async with manifests(field, name, service(name, "balanced-1", served.port), route(name, rules)):
            answer = await until(
                asking(client, name, "/old/page?day=1"), is_status(status), "it is redirected"
            )
            other = await asking(client, name, "/other")()

    assert answer["location"] == "https://new.example:8443/new/page?day=1"
    assert other.status == 200
    assert all(not each.target.startswith("/old") for each in recorder.seen[-1:])


async def test_headers_are_changed_on_both_ways(field: Field, which: str) -> None:
    client, server = field[f"client-{which}"], field["balanced-1"]
    rules = """
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        add: [{name: x-added, value: "two"}]
        set: [{name: x-set, value: "new"}]
        remove: [x-removed]
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set: [{name: x-answer, value: "changed"}]
        remove: [x-secret]"""
    async with answering(server, "x-answer: plain\r\nx-secret: 1\r\n") as (served, recorder):
        async with manifests(
            field, "headers", service("headers", "balanced-1", served.port), route("headers", rules)
        ):
            ask = asking(client, "headers", x_added="one", x_set="old", x_removed="gone")
            answer = await until(
                ask, lambda message: message["x-answer"] == "changed", "the answer is changed"
            )

    assert answer["x-secret"] is None
    asked = recorder.seen[-1]
    assert [asked[name] for name in ("x-added", "x-set", "x-removed")] == ["one, two", "new", None]


async def test_a_backend_that_does_not_exist_fails_its_share_and_is_named(field: Field, which: str) -> None:
    client, server = field[f"client-{which}"], field["balanced-1"]
    rules = """
  - matches: [{path: {value: /lost}}]
    backendRefs: [{name: nowhere, port: 80}]
  - backendRefs: [{name: partly, port: 80}]"""
    async with answering(server) as (served, recorder):
        async with manifests(
            field, "partly", service("partly", "balanced-1", served.port), route("partly", rules)
        ):
            answer = await until(asking(client, "partly", "/lost"), is_status(500), "the lost backend fails")
            other = await asking(client, "partly", "/found")()

    assert "Service default/nowhere not found" in (answer["l5d-proxy-error"] or "")
    assert is_from(server)(other)
    assert [each.target for each in recorder.seen if each.target == "/lost"] == []


async def test_a_service_leads_to_another_namespace(field: Field, which: str) -> None:
    client, server = field[f"client-{which}"], field["balanced-2"]
    rules = "[{backendRefs: [{name: here, namespace: default, port: 80}]}]"
    async with answering(server) as (served, _):
        texts = [
            "{apiVersion: v1, kind: Namespace, metadata: {name: depot}}",
            service("front", "nothing", 9, namespace="depot"),
            service("here", "balanced-2", served.port),
            route("front", rules, namespace="depot"),
        ]
        async with manifests(field, "depot", *texts):
            await until(asking(client, "front.depot"), is_from(server), "the other namespace's pod answers")


async def test_what_no_route_takes_is_not_found(field: Field, which: str) -> None:
    client, server = field[f"client-{which}"], field["balanced-1"]
    rules = "[{matches: [{method: GET, path: {type: Exact, value: /only}, queryParams: [{name: day, value: '1'}]}]}]"
    async with answering(server) as (served, _):
        async with manifests(field, "only", service("only", "balanced-1", served.port), route("only", rules)):
            await until(asking(client, "only", "/else"), is_status(404), "nothing takes the request")
            found = await asking(client, "only", "/only?day=1")()
            wrong = await asking(client, "only", "/only?day=2")()

    assert (found.status, wrong.status) == (200, 404)


async def test_a_rewrite_is_made_or_refused_and_a_mirror_made_or_left_out(field: Field, which: str) -> None:
    """A stock proxy knows neither; it is told to refuse what it cannot rewrite."""
    client, server, mirror = (field[name] for name in (f"client-{which}", "balanced-1", "balanced-2"))
    name = f"rewritten-{which}"
    rules = f"""
  - matches: [{{path: {{value: /old}}}}]
    filters:
    - type: URLRewrite
      urlRewrite: {{hostname: new.example, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /new}}}}
  - matches: [{{path: {{value: /copied}}}}]
    filters:
    - type: RequestMirror
      requestMirror: {{backendRef: {{name: {name}-copy, port: 80}}}}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{set: [{{name: x-routed, value: "yes"}}]}}"""
    async with answering(server) as (served, recorder), answering(mirror) as (copy, copies):
        texts = [
            service(name, "balanced-1", served.port),
            service(f"{name}-copy", "balanced-2", copy.port),
            route(name, rules),
        ]
        async with manifests(field, name, *texts):
            copied = asking(client, name, "/copied?x=1")
            await until(copied, lambda message: message["x-routed"] == "yes", "the routes are in force")
            rewritten = await asking(client, name, "/old/page?day=1")()
            if which == "ours":
                await eventually(lambda: bool(copies.seen), "a copy arrives")

    assert recorder.seen[0].target == "/copied?x=1"
    if which == "ours":
        assert is_from(server)(rewritten)
        assert (recorder.seen[-1].target, recorder.seen[-1]["host"]) == ("/new/page?day=1", "new.example")
        assert {each.target for each in copies.seen} == {"/copied?x=1"}
    else:
        assert rewritten.status == 500
        assert rewritten["l5d-proxy-error"] == "this proxy cannot apply the filter URLRewrite"
        assert copies.seen == []
