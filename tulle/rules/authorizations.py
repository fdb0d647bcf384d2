"""Decodes the kinds that say who may talk to whom: Servers, authorizations, authentications, limits, egress networks.

What a single field may hold is checked here; what the fields of an object mean together is `rules.admission`'s.
"""

import ipaddress
from typing import get_args

from tulle.model.authorization import (
    AuthorizationPolicy,
    EgressNetwork,
    MeshTLSAuthentication,
    Network,
    NetworkAuthentication,
    ProxyProtocol,
    RateLimitOverride,
    RateLimitPolicy,
    Server,
    ServerAuthorization,
)
from tulle.model.objects import Metadata
from tulle.model.service import ObjectName
from tulle.model.workload import LabelSelector
from tulle.rules.metadata import head, local_ref, ref, selector
from tulle.rules.schema import LABEL, SUBDOMAIN, Fields, shown

PROXY_PROTOCOLS: tuple[ProxyProtocol, ...] = get_args(ProxyProtocol)
ACCESS_POLICIES = (
    "deny", "all-unauthenticated", "all-authenticated", "cluster-unauthenticated", "cluster-authenticated", "audit",
)  # fmt: skip


def server(fields: Fields) -> Server:
    """Decode a Server."""
    meta = head(fields)
    return fields.need("spec", lambda spec: server_spec(spec, meta, fields))


def server_spec(spec: Fields, meta: Metadata, whole: Fields) -> Server:
    """Decode a Server's own part; each version has one more field than the one before."""
    version = whole.text("apiVersion", "").rpartition("/")[2]
    if version in ("v1beta2", "v1beta3"):
        spec.one_of("podSelector", "externalWorkloadSelector")
    elif not spec.has("podSelector"):
        spec.missing("podSelector", "a selector of labels")
    if not spec.has("port"):
        spec.missing("port", "a port number or the name of a container's port")
    pods = spec.inside("podSelector", selector, None)
    external = spec.inside("externalWorkloadSelector", selector, None) if version >= "v1beta2" else None
    return Server(
        meta=meta,
        port=spec.port_or_name("port", 1),
        pods=pods if pods or external else LabelSelector(),
        external_workloads=external,
        protocol=spec.choice("proxyProtocol", PROXY_PROTOCOLS, "unknown"),
        access_policy=spec.choice("accessPolicy", ACCESS_POLICIES, "deny")
        if version == "v1beta3"
        else "deny",
        raw=whole.raw(),
        source=whole.position,
    )


def server_authorization(fields: Fields) -> ServerAuthorization:
    """Decode a ServerAuthorization."""
    meta = head(fields)
    return fields.need("spec", lambda spec: server_authorization_spec(spec, meta, fields))


def server_authorization_spec(spec: Fields, meta: Metadata, whole: Fields) -> ServerAuthorization:
    """Decode a ServerAuthorization's own part."""
    name, labels = spec.need("server", authorized_server)
    networks, unauthenticated, mesh = spec.need("client", authorized_client)
    unauthenticated_tls, identities, accounts = mesh
    return ServerAuthorization(
        meta=meta,
        server=name,
        selector=labels,
        networks=networks,
        unauthenticated=unauthenticated,
        unauthenticated_tls=unauthenticated_tls,
        identities=identities,
        service_accounts=tuple(
            ObjectName(space or meta.namespace, account_name) for space, account_name in accounts
        ),
        raw=whole.raw(),
        source=whole.position,
    )


def authorized_server(fields: Fields) -> tuple[str | None, LabelSelector | None]:
    """Decode which Servers are meant."""
    fields.one_of("name", "selector")
    return fields.text("name", None, SUBDOMAIN), fields.inside("selector", selector, None)


Mesh = tuple[bool, tuple[str, ...], tuple[tuple[str | None, str], ...]]


def authorized_client(fields: Fields) -> tuple[tuple[Network, ...], bool, Mesh]:
    """Decode who is let in."""
    nobody: Mesh = (False, (), ())
    return (
        fields.each("networks", network),
        fields.boolean("unauthenticated", False),
        fields.inside("meshTLS", authorized_mesh, nobody),
    )


def authorized_mesh(fields: Fields) -> Mesh:
    """Decode which meshed clients are let in."""
    return (
        fields.boolean("unauthenticatedTLS", False),
        fields.texts("identities"),
        fields.each("serviceAccounts", account),
    )


def account(fields: Fields) -> tuple[str | None, str]:
    """Decode a service account's namespace and name."""
    return fields.text("namespace", None, LABEL), fields.need_text("name", SUBDOMAIN)


def authorization_policy(fields: Fields) -> AuthorizationPolicy:
    """Decode an AuthorizationPolicy."""
    meta = head(fields)
    return fields.need("spec", lambda spec: authorization_policy_spec(spec, meta, fields))


def authorization_policy_spec(spec: Fields, meta: Metadata, whole: Fields) -> AuthorizationPolicy:
    """Decode an AuthorizationPolicy's own part. An empty list means everybody, so it has to be written."""
    if not spec.has("requiredAuthenticationRefs"):
        spec.missing("requiredAuthenticationRefs", "a list; an empty one lets everybody in")
    return AuthorizationPolicy(
        meta=meta,
        target=spec.need("targetRef", local_ref),
        required=spec.each("requiredAuthenticationRefs", ref),
        raw=whole.raw(),
        source=whole.position,
    )


def mesh_tls_authentication(fields: Fields) -> MeshTLSAuthentication:
    """Decode a MeshTLSAuthentication."""
    meta = head(fields)
    return fields.need("spec", lambda spec: mesh_tls_spec(spec, meta, fields))


def mesh_tls_spec(spec: Fields, meta: Metadata, whole: Fields) -> MeshTLSAuthentication:
    """Decode a MeshTLSAuthentication's own part."""
    there = spec.one_of("identities", "identityRefs")
    if there:
        spec.least(there)
    return MeshTLSAuthentication(
        meta=meta,
        identities=spec.texts("identities"),
        refs=spec.each("identityRefs", ref),
        raw=whole.raw(),
        source=whole.position,
    )


def network_authentication(fields: Fields) -> NetworkAuthentication:
    """Decode a NetworkAuthentication."""
    meta = head(fields)
    return fields.need(
        "spec",
        lambda spec: NetworkAuthentication(
            meta, spec.each("networks", network), raw=fields.raw(), source=fields.position
        ),
    )


def network(fields: Fields) -> Network:
    """Decode a block of addresses and what is not in it."""
    if not fields.has("cidr"):
        fields.missing("cidr", "a block of addresses such as 10.0.0.0/8")
    excepted = [cidr(fields, "except", text) for text in fields.texts("except")]
    return Network(cidr(fields, "cidr", fields.text("cidr", "")), tuple(filter(None, excepted)))


def cidr(fields: Fields, key: str, text: str) -> str:
    """Return a block in CIDR form; one address is a block too."""
    try:
        return str(ipaddress.ip_network(text, strict=False)) if text else ""
    except ValueError:
        fields.wrong(key, f"expected a block of addresses such as 10.0.0.0/8, found {shown(text)}")
        return ""


def rate_limit(fields: Fields) -> RateLimitPolicy:
    """Decode an HTTPLocalRateLimitPolicy."""
    meta = head(fields)
    return fields.need("spec", lambda spec: rate_limit_spec(spec, meta, fields))


def rate_limit_spec(spec: Fields, meta: Metadata, whole: Fields) -> RateLimitPolicy:
    """Decode an HTTPLocalRateLimitPolicy's own part."""
    return RateLimitPolicy(
        meta=meta,
        target=spec.need("targetRef", local_ref),
        total=spec.inside("total", requests_per_second, None),
        identity=spec.inside("identity", requests_per_second, None),
        overrides=spec.each("overrides", override),
        raw=whole.raw(),
        source=whole.position,
    )


def requests_per_second(fields: Fields) -> int:
    """Decode a number of requests."""
    if not fields.has("requestsPerSecond"):
        fields.missing("requestsPerSecond", "a whole number")
    return fields.integer("requestsPerSecond", 1)


def override(fields: Fields) -> RateLimitOverride:
    """Decode the limit of some clients."""
    fields.least("clientRefs")
    return RateLimitOverride(requests_per_second(fields), fields.each("clientRefs", ref))


def egress_network(fields: Fields) -> EgressNetwork:
    """Decode an EgressNetwork."""
    meta = head(fields)
    return fields.need("spec", lambda spec: egress_network_spec(spec, meta, fields))


def egress_network_spec(spec: Fields, meta: Metadata, whole: Fields) -> EgressNetwork:
    """Decode an EgressNetwork's own part."""
    if not spec.has("trafficPolicy"):
        spec.missing("trafficPolicy", "Allow or Deny")
    return EgressNetwork(
        meta=meta,
        allow=spec.choice("trafficPolicy", ("Allow", "Deny"), "Deny") == "Allow",
        networks=spec.each("networks", network) if spec.has("networks") else None,
        raw=whole.raw(),
        source=whole.position,
    )
