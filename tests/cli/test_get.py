import json
from typing import Any

import pytest
import yaml

from tests.cli.sockets import Server
from tulle.cli.commands.get import KINDS
from tulle.cli.main import main
from tulle.rules.kinds import POLICIES

Servers = tuple[Server, Server]
Captured = pytest.CaptureFixture[str]

ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "split", "namespace": "shop"},
    "spec": {
        "hostnames": ["a.test", "b.test"],
        "parentRefs": [{"group": "core", "kind": "Service", "name": "web", "port": 80}, {"name": "gateway"}],
    },
    "status": {
        "parents": [
            {
                "conditions": [
                    {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                    {
                        "type": "ResolvedRefs",
                        "status": "False",
                        "reason": "BackendNotFound",
                        "message": "no b",
                    },
                ]
            }
        ]
    },
}


def answer(servers: Servers, kind: str, *objects: dict[str, Any]) -> None:
    items = [{"object": item, "source": "a.yaml:3"} for item in objects]
    servers[1].answers[f"/v1/objects/{kind}"] = (200, {"items": items})


def test_a_table_has_the_first_condition_that_is_not_as_it_should_be(
    servers: Servers, capsys: Captured
) -> None:
    answer(servers, "HTTPRoute", ROUTE)

    assert main(["get", "httproutes", "-A"]) == 0

    title, row = capsys.readouterr().out.splitlines()
    assert title.split() == ["NAMESPACE", "NAME", "HOSTNAMES", "PARENTS", "CREATED", "STATUS"]
    assert row.split() == [
        "shop",
        "split",
        "a.test,b.test",
        "Service/web:80,Gateway/gateway",
        "-",
        "BackendNotFound",
    ]
    assert servers[1].asked[-1][1] == "/v1/objects/HTTPRoute"


def test_wide_says_where_and_why(servers: Servers, capsys: Captured) -> None:
    answer(servers, "HTTPRoute", ROUTE)

    assert main(["get", "HTTPRoute", "-n", "shop", "-o", "wide"]) == 0

    title, row = capsys.readouterr().out.splitlines()
    assert title.split()[-3:] == ["STATUS", "SOURCE", "MESSAGE"]
    assert row.split()[-4:] == ["BackendNotFound", "a.yaml:3", "no", "b"]
    assert servers[1].asked[-1][1] == "/v1/objects/HTTPRoute?namespace=shop"


def test_one_object_is_printed_as_it_is(servers: Servers, capsys: Captured) -> None:
    answer(servers, "HTTPRoute.policy.linkerd.io", ROUTE)

    assert main(["get", "httproutes.policy.linkerd.io", "split", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == ROUTE

    assert main(["get", "httproutes.policy.linkerd.io", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"apiVersion": "v1", "kind": "List", "items": [ROUTE]}


def test_a_name_that_is_not_there_is_an_error(servers: Servers, capsys: Captured) -> None:
    answer(servers, "Server")

    assert main(["get", "srv", "web", "-n", "shop"]) == 1

    assert 'there is no Server "web" in namespace shop' in capsys.readouterr().err


def test_a_kind_that_is_not_there_is_named_with_those_that_are(servers: Servers, capsys: Captured) -> None:
    assert main(["get", "ingress"]) == 2

    assert '"ingress" is no kind; there are servers, ' in capsys.readouterr().err


def test_every_kind_that_is_decoded_can_be_got() -> None:
    assert {kind.kind for kind in KINDS} == {*POLICIES, "Service"}
    names = [name for kind in KINDS for name in kind.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("kind", "short"),
    [
        ("Server", "srv"), ("ServerAuthorization", "saz"), ("ServerAuthorization", "serverauthz"),
        ("ServerAuthorization", "srvauthz"), ("AuthorizationPolicy", "authzpolicy"),
        ("MeshTLSAuthentication", "meshtlsauthn"), ("NetworkAuthentication", "netauthn"),
        ("NetworkAuthentication", "networkauthn"), ("ServiceProfile", "sp"),
    ],
)  # fmt: skip
def test_short_names_are_those_of_the_custom_resources(kind: str, short: str) -> None:
    assert short in next(of.names for of in KINDS if of.kind == kind)
