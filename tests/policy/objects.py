"""Policy objects of the shop, for tests: what every one of them must say is said once, here."""

from typing import Any

from tulle.model.authorization import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    AuthorizationPolicy,
    MeshTLSAuthentication,
    Network,
    NetworkAuthentication,
    RateLimitOverride,
    RateLimitPolicy,
    Ref,
    Server,
    ServerAuthorization,
)
from tulle.model.external import ExternalWorkload, WorkloadPort
from tulle.model.objects import Metadata, Position
from tulle.model.route import BackendRef, Filter, GrpcMatch, HttpMatch, ParentRef, Route, Rule
from tulle.model.service import ObjectName
from tulle.model.workload import LabelSelector

WHERE = Position("policy.yaml", 1)
RAW: dict[str, object] = {}
SHOP = "shop"


def meta(name: str, namespace: str = SHOP, *, created: str | None = None, **labels: str) -> Metadata:
    return Metadata(name, namespace, labels, {}, created)


def server(name: str = "web", port: int | str = 8080, **changes: Any) -> Server:
    fields: dict[str, Any] = {
        "meta": meta(name),
        "port": port,
        "pods": LabelSelector({"app": "web"}),
        "external_workloads": None,
        "protocol": "unknown",
        "access_policy": "deny",
        "raw": RAW,
        "source": WHERE,
    }
    return Server(**fields | changes)


def policy(name: str, target: Ref, *required: Ref, namespace: str = SHOP) -> AuthorizationPolicy:
    return AuthorizationPolicy(meta(name, namespace), target, required, RAW, WHERE)


def to_server(name: str = "web") -> Ref:
    return Ref(POLICY_GROUP, "Server", name)


def to_route(name: str, kind: str = "HTTPRoute", group: str = GATEWAY_GROUP) -> Ref:
    return Ref(group, kind, name)


def by_name(name: str, namespace: str | None = None) -> Ref:
    return Ref(POLICY_GROUP, "MeshTLSAuthentication", name, namespace)


def by_network(name: str, namespace: str | None = None) -> Ref:
    return Ref(POLICY_GROUP, "NetworkAuthentication", name, namespace)


def account(name: str, namespace: str | None = None) -> Ref:
    return Ref("", "ServiceAccount", name, namespace)


def names(
    name: str, *identities: str, refs: tuple[Ref, ...] = (), namespace: str = SHOP
) -> MeshTLSAuthentication:
    return MeshTLSAuthentication(meta(name, namespace), identities, refs, RAW, WHERE)


def networks(name: str, *blocks: Network, namespace: str = SHOP) -> NetworkAuthentication:
    return NetworkAuthentication(meta(name, namespace), blocks, RAW, WHERE)


def older(name: str, **changes: Any) -> ServerAuthorization:
    """Return a ServerAuthorization of the Server `web`, that lets nobody in unless told."""
    fields: dict[str, Any] = {
        "meta": meta(name),
        "server": "web",
        "selector": None,
        "networks": (),
        "unauthenticated": False,
        "unauthenticated_tls": False,
        "identities": (),
        "service_accounts": (),
        "raw": RAW,
        "source": WHERE,
    }
    return ServerAuthorization(**fields | changes)


def rate_limit(
    name: str,
    *,
    total: int | None = None,
    identity: int | None = None,
    overrides: tuple[RateLimitOverride, ...] = (),
    created: str | None = None,
) -> RateLimitPolicy:
    return RateLimitPolicy(meta(name, created=created), to_server(), total, identity, overrides, RAW, WHERE)


def rule(
    *matches: HttpMatch | GrpcMatch, filters: tuple[Filter, ...] = (), backends: tuple[BackendRef, ...] = ()
) -> Rule:
    return Rule(matches, filters, backends, None, None, WHERE)


def route(name: str, *rules: Rule, **changes: Any) -> Route:
    """Return an HTTPRoute of the Server `web`."""
    fields: dict[str, Any] = {
        "kind": "HTTPRoute",
        "group": GATEWAY_GROUP,
        "meta": meta(name),
        "parents": (ParentRef(POLICY_GROUP, "Server", "web"),),
        "hostnames": (),
        "rules": rules,
        "unsupported": (),
        "raw": RAW,
        "source": WHERE,
    }
    return Route(**fields | changes)


def outside(name: str, *ports: WorkloadPort, **labels: str) -> ExternalWorkload:
    identity = f"{name}.example"
    return ExternalWorkload(meta(name, **labels), identity, identity, ports, ("192.0.2.1",), True, RAW, WHERE)


def identity(name: str, namespace: str = SHOP) -> str:
    return f"{name}.{namespace}.serviceaccount.identity.linkerd.cluster.local"


def object_name(name: str, namespace: str = SHOP) -> ObjectName:
    return ObjectName(namespace, name)
