"""The compiled state: a world, and the answers that proxies in it would get."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tulle.destination import translate
from tulle.destination.index import DestinationIndex, ServiceProfile
from tulle.explain.answer import Reference
from tulle.lib.stream import Gate
from tulle.lib.views import Refused
from tulle.model.authority import AddressAuthority
from tulle.model.objects import Raw
from tulle.model.pod import TrustDomain
from tulle.model.service import ObjectName
from tulle.model.update import Changed, Object
from tulle.model.world import World
from tulle.policy.authorizations import DefaultPolicy
from tulle.policy.index import PolicyIndex
from tulle.policy.service import InboundKey, PolicyService

CLUSTER_DOMAIN = "cluster.local"
CLUSTER_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
"""Upstream's default: the private networks."""
CONTROLLER_ACCOUNT = "linkerd-destination"

SourceKey = tuple[str, str, str, str]
"""Group, kind in lower case, namespace and name: two groups have an HTTPRoute."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a decision stands on: the very answers that the proxies are sent."""

    world: World
    policy: PolicyService
    destination: DestinationIndex
    trust: TrustDomain = field(default_factory=TrustDomain)
    domain: str = CLUSTER_DOMAIN
    sources: Mapping[SourceKey, str] = field(default_factory=dict)
    """Where objects are written that the world itself does not know it of."""
    places: Mapping[SourceKey, tuple[str, str]] = field(default_factory=dict)
    """All kinds as they are spelt, and where; filled for one question."""

    def outbound(self, address: str, port: int, namespace: str) -> bytes | None:
        """Return what a client of a namespace is sent for an address; None where no policy is about it."""
        host = f"[{address}]" if ":" in address else address
        with self.policy.outbound.follow(self.policy.key_of(f"{host}:{port}", namespace)) as view:
            answer = view.latest.value
        return None if answer is None or isinstance(answer, Refused) else answer

    def profile(self, address: str, port: int, namespace: str) -> bytes | None:
        """Return the service profile that a client of a namespace is sent beside the policy."""
        found, _ = self.destination.profile(AddressAuthority(address, port), namespace)
        if not isinstance(found, ServiceProfile):
            return None
        return translate.profile(found, cluster_domain=self.domain)

    def inbound(self, pod: ObjectName, port: int) -> bytes | None:
        """Return what a pod's proxy is sent for a port; None where the pod is not known."""
        with self.policy.inbound.follow(InboundKey(pod, port)) as view:
            answer = view.latest.value
        return None if answer is None or isinstance(answer, Refused) else answer

    def described(self) -> "Ground":
        """Return this with the places of all objects that the world has now."""
        places = {key: (SPELLINGS.get(key[1], key[1]), source) for key, source in self.sources.items()}
        for item in self.world.policies():
            kind = str(item.raw.get("kind", type(item).__name__))
            key = source_key(item.raw, item.meta.namespace, item.meta.name)
            places[key] = kind, str(item.source)
        return replace(self, places=places)

    def reference(self, group: str, kind: str, namespace: str, name: str) -> Reference:
        """Return an object by name, with its kind as people write it and the place where it is written."""
        key = "" if group == CORE else group, kind.lower(), namespace, name
        spelling, source = self.places.get(key, (SPELLINGS.get(kind.lower(), kind), None))
        return Reference(spelling, name, namespace, source)


CORE = "core"
"""What the wire calls the group that manifests leave empty."""

SPELLINGS = {"service": "Service"}
"""The wire's spelling is lower case where upstream's is."""


def ground(
    objects: Iterable[Object],
    sources: Mapping[SourceKey, str],
    *,
    default: DefaultPolicy = DefaultPolicy.ALL_UNAUTHENTICATED,
) -> Ground:
    """Compile objects as a controller with these settings would."""
    world, trust, gate = World(), TrustDomain(), Gate()
    world.apply(Changed(each) for each in objects)
    gate.open()
    index = PolicyIndex(
        world,
        cluster_domain=CLUSTER_DOMAIN,
        cluster_networks=CLUSTER_NETWORKS,
        default=default,
        trust=trust,
        controller=trust.identity(trust.control_namespace, CONTROLLER_ACCOUNT),
    )
    policy = PolicyService(index, gate, cluster_domain=CLUSTER_DOMAIN, patience=0)
    return Ground(
        world,
        policy,
        DestinationIndex(world, trust, cluster_domain=CLUSTER_DOMAIN),
        trust,
        CLUSTER_DOMAIN,
        sources,
    )


def source_key(raw: Raw, namespace: str, name: str) -> SourceKey:
    """Return what an object's place is known by."""
    group, _, _ = str(raw.get("apiVersion", "")).rpartition("/")
    return group, str(raw.get("kind", "")).lower(), namespace, name
