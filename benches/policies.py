"""The objects of a service with everything configured: routes, retries, time-outs, authorization, a limit.

Fifty routes to the service, of which the last takes what the generator asks for, so that all are looked at; two on
the server's side, each with its own authorization beside the Server's.
"""

from typing import Any

from benches.mesh import HTTP1, SERVER

Json = dict[str, Any]

ROUTES = 50
POLICY, GATEWAY = "policy.linkerd.io", "gateway.networking.k8s.io"
TRIES = {
    "retry.linkerd.io/http": "5xx",
    "retry.linkerd.io/limit": "2",
    "retry.linkerd.io/timeout": "2s",
    "timeout.linkerd.io/request": "10s",
    "timeout.linkerd.io/response": "5s",
}


def everything() -> list[Json]:
    """Return all of it."""
    return [*(outbound(number) for number in range(ROUTES)), *inbound()]


def outbound(number: int) -> Json:
    """Return one of the routes to the service."""
    last = number == ROUTES - 1
    path = "/" if last else f"/api/v{number}/items"
    match: Json = {"path": {"type": "PathPrefix", "value": path}}
    if number % 2 and not last:
        match["headers"] = [{"name": "x-tenant", "value": f"tenant-{number}"}]
    rule = {
        "matches": [match],
        "filters": [
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": "x-route", "value": str(number)}]},
            }
        ],
        "backendRefs": [{"name": SERVER, "port": 80}],
    }
    parent = {"group": "core", "kind": "Service", "name": SERVER, "port": 80}
    return _object(
        f"{GATEWAY}/v1",
        "HTTPRoute",
        f"route-{number}",
        {"parentRefs": [parent], "rules": [rule]},
        annotations=TRIES,
    )


def inbound() -> list[Json]:
    """Return the Server, its routes, who may use them, and how often."""
    server = {"group": POLICY, "kind": "Server", "name": SERVER}
    routes, policies = [], []
    for name, path in (("admin", "/admin"), ("all", "/")):
        rule = {"matches": [{"path": {"type": "PathPrefix", "value": path}}]}
        routes.append(
            _object(f"{POLICY}/v1beta3", "HTTPRoute", name, {"parentRefs": [server], "rules": [rule]})
        )
        required = [{"group": POLICY, "kind": "MeshTLSAuthentication", "name": "clients"}]
        target = {"group": POLICY, "kind": "HTTPRoute", "name": name}
        spec = {"targetRef": target, "requiredAuthenticationRefs": required}
        policies.append(_object(f"{POLICY}/v1alpha1", "AuthorizationPolicy", name, spec))
    limit = {
        "targetRef": server,
        "total": {"requestsPerSecond": 100_000},
        "identity": {"requestsPerSecond": 90_000},
    }
    return [
        _object(
            f"{POLICY}/v1beta3",
            "Server",
            SERVER,
            {"podSelector": {"matchLabels": {"app": SERVER}}, "port": HTTP1, "proxyProtocol": "HTTP/1"},
        ),
        _object(f"{POLICY}/v1alpha1", "MeshTLSAuthentication", "clients", {"identities": ["*"]}),
        *routes,
        *policies,
        _object(f"{POLICY}/v1alpha1", "HTTPLocalRateLimitPolicy", SERVER, limit),
    ]


def _object(
    version: str, kind: str, name: str, spec: Json, *, annotations: dict[str, str] | None = None
) -> Json:
    metadata = {"name": name, "namespace": "bench", "annotations": annotations or {}}
    source = {"file": __file__, "line": 1}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "source": source}
