"""Folders of policies by chance, and requests that they are about.

The workloads are always the same, so that one mesh can be given the policies of one folder after another: `web` and
`jobs` are meshed clients, `plain` has no proxy, `alpha`, `beta` and `gamma` serve. What is drawn is everything that a
user may write about them: Servers, authorizations of both kinds, routes on Servers and on Services.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tulle.explain.answer import Question

Json = dict[str, Any]

NAMESPACE = "default"
PORT = 8080
CLIENTS = ("web", "jobs", "plain")
SERVERS = ("alpha", "beta", "gamma")
PATHS = ("/", "/a", "/a/b", "/a/b/c", "/ab", "/items/7", "/items/x", "/health")
METHODS = ("GET", "POST", "PUT", "DELETE")
HEADERS = (("x-staff", "yes"), ("x-staff", "no"), ("x-tier", "gold"), ("x-tier", "silver"))
QUERIES = ("", "?color=blue", "?color=red", "?color=blue&n=1")
POLICY = "policy.linkerd.io"
GATEWAY = "gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class Case:
    """One folder's policies, and what is asked of them."""

    policies: str
    questions: tuple[Question, ...]


def workloads(command: list[str], annotations: dict[str, str] | None = None) -> str:
    """Return the manifests of what is always there."""
    documents: list[Json] = []
    for name in (*CLIENTS, *SERVERS):
        inject = "disabled" if name == "plain" else "enabled"
        documents += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "labels": {"app": name, "side": "server" if name in SERVERS else "client"},
                    "annotations": (annotations or {}) | {"linkerd.io/inject": inject},
                },
                "spec": {
                    "serviceAccountName": name,
                    "containers": [
                        {
                            "name": "main",
                            "command": command,
                            "ports": [{"name": "http", "containerPort": PORT}],
                        }
                    ],
                },
            },
        ]
        if name in SERVERS:
            spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": PORT}]}
            documents.append(
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
            )
    return yaml.safe_dump_all(documents, sort_keys=False)


def case(seed: int, questions: int, *, ways: bool = True) -> Case:
    """Return the folder of a seed; without `ways` nothing is said about which way requests go."""
    chance = random.Random(seed)
    drawn = _Drawn(chance, ways)
    documents = list(drawn.documents())
    return Case(
        yaml.safe_dump_all(documents, sort_keys=False) if documents else "# nothing\n",
        tuple(_question(chance) for _ in range(questions)),
    )


def _question(chance: random.Random) -> Question:
    return Question(
        chance.choice(CLIENTS),
        f"{chance.choice(SERVERS)}:{PORT}",
        chance.choice(PATHS) + chance.choice(QUERIES),
        chance.choice(METHODS),
        tuple(chance.sample(HEADERS, chance.choice((0, 0, 1, 1, 2)))),
    )


class _Drawn:
    def __init__(self, chance: random.Random, ways: bool) -> None:
        self._chance = chance
        self._ways = ways
        self._count = 0

    def documents(self) -> Iterator[Json]:
        chance = self._chance
        for target in SERVERS:
            if chance.random() < 0.7:
                yield from self._protected(target)
            for _ in range(chance.choice((0, 0, 1, 1, 2)) if self._ways else 0):
                yield self._outbound(target)

    # Who is let in

    def _protected(self, target: str) -> Iterator[Json]:
        chance = self._chance
        for _ in range(chance.choice((1, 1, 1, 2))):
            name = self._name("server")
            selector = chance.choice(({"app": target}, {"app": target}, {"app": target, "side": "server"}))
            access = chance.choice(
                ("deny", "deny", "deny", "all-authenticated", "all-unauthenticated", "audit")
            )
            spec = {
                "podSelector": {"matchLabels": selector},
                "port": chance.choice((PORT, PORT, "http")),
                "proxyProtocol": chance.choice(("unknown", "HTTP/1", "HTTP/1")),
                "accessPolicy": access,
            }
            yield self._object("Server", name, spec, "v1beta3")
            server = {"group": POLICY, "kind": "Server", "name": name}
            targets = [server]
            for _ in range(chance.choice((0, 0, 1, 2))):
                route = self._name("in")
                yield self._inbound(route, server)
                targets.append({"group": POLICY, "kind": "HTTPRoute", "name": route})
            for _ in range(chance.choice((0, 1, 2, 3))):
                yield from self._authorization(chance.choice(targets))
            if chance.random() < 0.2:
                yield self._server_authorization(name)

    def _inbound(self, name: str, server: Json) -> Json:
        rules = [self._rule(outbound=False) for _ in range(self._chance.choice((1, 1, 2)))]
        return self._object("HTTPRoute", name, {"parentRefs": [server], "rules": rules}, "v1beta3")

    def _authorization(self, target: Json) -> Iterator[Json]:
        chance = self._chance
        required: list[Json] = []
        match chance.randrange(5):
            case 0:
                required.append({"kind": "ServiceAccount", "name": chance.choice(CLIENTS)})
            case 1 | 2:
                name = self._name("tls")
                yield self._object("MeshTLSAuthentication", name, self._who(), "v1alpha1")
                required.append({"group": POLICY, "kind": "MeshTLSAuthentication", "name": name})
            case 3:
                required.append({"group": POLICY, "kind": "MeshTLSAuthentication", "name": "nobody-wrote-it"})
            case _:
                pass
        if chance.random() < 0.4:
            name = self._name("net")
            yield self._object("NetworkAuthentication", name, {"networks": [self._network()]}, "v1alpha1")
            required.append({"group": POLICY, "kind": "NetworkAuthentication", "name": name})
        if chance.random() < 0.1:
            target = {"group": "", "kind": "Namespace", "name": NAMESPACE}
        spec = {"targetRef": target, "requiredAuthenticationRefs": required}
        yield self._object("AuthorizationPolicy", self._name("authz"), spec, "v1alpha1")

    def _who(self) -> Json:
        name = f"{self._chance.choice(CLIENTS)}.{NAMESPACE}.serviceaccount.identity.linkerd.cluster.local"
        return self._chance.choice(
            (
                {"identities": [name]},
                {"identities": ["*"]},
                {"identities": [f"*.{NAMESPACE}.serviceaccount.identity.linkerd.cluster.local"]},
                {"identities": ["*.elsewhere.serviceaccount.identity.linkerd.cluster.local"]},
                {"identityRefs": [{"kind": "ServiceAccount", "name": self._chance.choice(CLIENTS)}]},
                {"identityRefs": [{"kind": "Namespace", "name": NAMESPACE}]},
            )
        )

    def _network(self) -> Json:
        return self._chance.choice(
            (
                {"cidr": "10.0.0.0/8"},
                {"cidr": "0.0.0.0/0"},
                {"cidr": "192.0.2.0/24"},
                {"cidr": "10.0.0.0/8", "except": ["10.77.0.0/16"]},
            )
        )

    def _server_authorization(self, server: str) -> Json:
        account = {"serviceAccounts": [{"name": self._chance.choice(CLIENTS)}]}
        client: Json = self._chance.choice(
            (
                {"unauthenticated": True, "networks": [self._network()]},
                {"meshTLS": {"unauthenticatedTLS": True}},
                {"meshTLS": {"identities": ["*"]}},
                {"meshTLS": account},
            )
        )
        spec = {"server": {"name": server}, "client": client}
        return self._object("ServerAuthorization", self._name("saz"), spec, "v1beta1")

    # Which way requests go

    def _outbound(self, target: str) -> Json:
        chance = self._chance
        parent: Json = {"group": "core", "kind": "Service", "name": target}
        if chance.random() < 0.6:
            parent["port"] = chance.choice((PORT, PORT, PORT, 9999))
        group, version = chance.choice(((POLICY, "v1beta3"), (GATEWAY, "v1")))
        rules = [self._rule(outbound=True) for _ in range(chance.choice((1, 1, 2, 3)))]
        spec: Json = {"parentRefs": [parent], "rules": rules}
        if group == GATEWAY:
            for rule in rules:
                if "filters" not in rule and chance.random() < 0.15:
                    rule["filters"] = [{"type": "URLRewrite", "urlRewrite": self._rewrite(rule)}]
        if chance.random() < 0.25:
            spec["hostnames"] = chance.sample((target, f"{target}.example", "*.example", "alpha"), 2)
        return self._object("HTTPRoute", self._name("out"), spec, version, group)

    def _rule(self, *, outbound: bool) -> Json:
        chance = self._chance
        matches = [self._match() for _ in range(chance.choice((0, 1, 1, 1, 2)))]
        rule: Json = {"matches": matches} if matches else {}
        redirected = chance.random() < 0.12
        if redirected:
            rule["filters"] = [{"type": "RequestRedirect", "requestRedirect": self._redirect(matches)}]
        elif chance.random() < 0.3:
            headers = {"set": [{"name": "x-tier", "value": "platinum"}], "remove": ["x-staff"]}
            rule["filters"] = [{"type": "RequestHeaderModifier", "requestHeaderModifier": headers}]
        if outbound and not redirected:
            rule["backendRefs"] = self._backends()
        return rule

    def _redirect(self, matches: list[Json]) -> Json:
        chance = self._chance
        prefixed = matches and all(each.get("path", {}).get("type") == "PathPrefix" for each in matches)
        path: Json = {"type": "ReplaceFullPath", "replaceFullPath": "/moved"}
        if prefixed and chance.random() < 0.5:
            path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
        return {"hostname": "elsewhere.example", "path": path, "statusCode": chance.choice((301, 302))}

    def _rewrite(self, rule: Json) -> Json:
        matches = rule.get("matches", [])
        if matches and all(each.get("path", {}).get("type") == "PathPrefix" for each in matches):
            return {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}
        return {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/rewritten"}}

    def _backends(self) -> list[Json]:
        chance = self._chance
        backends: list[Json] = []
        for name in chance.sample((*SERVERS, "missing"), chance.choice((0, 1, 1, 2, 2, 3))):
            backends.append({"name": name, "port": PORT, "weight": chance.choice((0, 1, 1, 1, 9))})
        return backends

    def _match(self) -> Json:
        chance = self._chance
        match: Json = {}
        if chance.random() < 0.85:
            match["path"] = chance.choice(
                (
                    {"type": "Exact", "value": chance.choice(PATHS)},
                    {"type": "PathPrefix", "value": chance.choice(PATHS)},
                    {"type": "PathPrefix", "value": chance.choice(PATHS)},
                    {
                        "type": "RegularExpression",
                        "value": chance.choice(("/items/[0-9]+", "/a.*", "/health")),
                    },
                )
            )
        if chance.random() < 0.3:
            name, value = chance.choice(HEADERS)
            pattern = {"type": "RegularExpression", "name": name, "value": "y.*|gold"}
            match["headers"] = [chance.choice(({"name": name, "value": value}, pattern))]
        if chance.random() < 0.2:
            match["queryParams"] = [{"name": "color", "value": chance.choice(("blue", "red"))}]
        if chance.random() < 0.3:
            match["method"] = chance.choice(METHODS)
        return match

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what}-{self._count}"

    def _object(self, kind: str, name: str, spec: Json, version: str, group: str = POLICY) -> Json:
        return {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}
