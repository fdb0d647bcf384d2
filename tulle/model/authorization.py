"""The objects that say who may talk to whom: decoded, one type per kind, as a source found them.

They hold what was written. What it means together (which Server owns a port, which authorizations add up) is
`tulle.policy`'s business.
"""

from dataclasses import dataclass
from typing import Literal

from tulle.model.objects import Metadata, Position, Raw
from tulle.model.service import ObjectName
from tulle.model.workload import LabelSelector

POLICY_GROUP = "policy.linkerd.io"
GATEWAY_GROUP = "gateway.networking.k8s.io"

ProxyProtocol = Literal["unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"]


@dataclass(frozen=True, slots=True)
class Ref:
    """A name of another object. The group of Kubernetes' own kinds is empty, however it was written."""

    group: str
    kind: str
    name: str
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A block of addresses without some blocks inside it, in CIDR form."""

    cidr: str
    excepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Server:
    """A port of some pods, or of some external workloads: exactly one of the two selectors is there."""

    meta: Metadata
    port: int | str
    pods: LabelSelector | None
    external_workloads: LabelSelector | None
    protocol: ProxyProtocol
    access_policy: str
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class ServerAuthorization:
    """Upstream's older form. Exactly one of `server` and `selector`; no network means the cluster's.

    `unauthenticated` needs no TLS, `unauthenticated_tls` needs TLS and no name; otherwise somebody is named.
    """

    meta: Metadata
    server: str | None
    selector: LabelSelector | None
    networks: tuple[Network, ...]
    unauthenticated: bool
    unauthenticated_tls: bool
    identities: tuple[str, ...]
    service_accounts: tuple[ObjectName, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """Whoever meets all of `required` may use the target; nobody named means everybody."""

    meta: Metadata
    target: Ref
    required: tuple[Ref, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class MeshTLSAuthentication:
    """Clients by proved name: `identities` as written (`*`, `*.suffix`, a name, `spiffe://…`), or by reference."""

    meta: Metadata
    identities: tuple[str, ...]
    refs: tuple[Ref, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class NetworkAuthentication:
    """Clients by address."""

    meta: Metadata
    networks: tuple[Network, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class RateLimitOverride:
    """One bucket that these service accounts share."""

    requests_per_second: int
    clients: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """An HTTPLocalRateLimitPolicy; no number is no limit."""

    meta: Metadata
    target: Ref
    total: int | None
    identity: int | None
    overrides: tuple[RateLimitOverride, ...]
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class EgressNetwork:
    """Addresses outside; `networks` is None where everything but the cluster's networks is meant."""

    meta: Metadata
    allow: bool
    networks: tuple[Network, ...] | None
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)
