"""Policy objects as the manifests that would make them."""

from collections.abc import Iterable
from typing import Any

import yaml

from tulle.model.authorization import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    AuthorizationPolicy,
    NetworkAuthentication,
    Ref,
    Server,
)
from tulle.model.objects import Metadata
from tulle.model.route import GrpcMatch, HttpMatch, PathMatch, Route

Written = Server | AuthorizationPolicy | NetworkAuthentication | Route
Json = dict[str, Any]

PATHS = {"exact": "Exact", "prefix": "PathPrefix", "regex": "RegularExpression"}


def text(objects: Iterable[Written]) -> str:
    """Return documents that can be appended to a file of manifests."""
    documents = (
        yaml.safe_dump(manifest(each), sort_keys=False, default_flow_style=None, width=110)
        for each in objects
    )
    return "".join(f"---\n{document}" for document in documents)


def manifest(of: Written) -> Json:
    """Return one object as it is written."""
    match of:
        case Server():
            return _object("v1beta3", "Server", of.meta, _server(of))
        case AuthorizationPolicy():
            spec = {
                "targetRef": _ref(of.target),
                "requiredAuthenticationRefs": [_ref(ref) for ref in of.required],
            }
            return _object("v1alpha1", "AuthorizationPolicy", of.meta, spec)
        case NetworkAuthentication():
            networks = [{"cidr": network.cidr} for network in of.networks]
            return _object("v1alpha1", "NetworkAuthentication", of.meta, {"networks": networks})
        case Route():
            version = "v1" if of.group == GATEWAY_GROUP else "v1beta3"
            return _object(version, of.kind, of.meta, _route(of), of.group)


def _object(version: str, kind: str, meta: Metadata, spec: Json, group: str = POLICY_GROUP) -> Json:
    return {
        "apiVersion": f"{group}/{version}",
        "kind": kind,
        "metadata": {"name": meta.name, "namespace": meta.namespace},
        "spec": spec,
    }


def _server(of: Server) -> Json:
    assert of.pods is not None, "what is written here selects pods"
    spec: Json = {"podSelector": {"matchLabels": dict(of.pods.labels)}, "port": of.port}
    if of.protocol != "unknown":
        spec["proxyProtocol"] = of.protocol
    if of.access_policy != "deny":
        spec["accessPolicy"] = of.access_policy
    return spec


def _ref(of: Ref) -> Json:
    group = {"group": of.group} if of.group else {}
    namespace = {"namespace": of.namespace} if of.namespace else {}
    return {**group, "kind": of.kind, "name": of.name, **namespace}


def _route(of: Route) -> Json:
    parents = [{"group": parent.group, "kind": parent.kind, "name": parent.name} for parent in of.parents]
    matches = [[_match(each) for each in rule.matches] for rule in of.rules]
    return {"parentRefs": parents, "rules": [{"matches": each} if each else {} for each in matches]}


def _match(of: HttpMatch | GrpcMatch) -> Json:
    if isinstance(of, GrpcMatch):
        named = {"service": of.service, "method": of.method}
        return {"method": {key: value for key, value in named.items() if value}}
    path = of.path or PathMatch("prefix", "/")
    return {
        "path": {"type": PATHS[path.kind], "value": path.value},
        **({"method": of.method} if of.method else {}),
    }
