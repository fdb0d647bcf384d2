"""Who may use a port or a route, from all the objects that have a say in it.

Authorizations only allow, and any one of them is enough; so leaving one out is always safe, and everything here
that is not understood in full is left out: a policy whose authentication is not there, or is of a kind that
nobody knows, lets nobody in.

Only objects of the target's own namespace are asked. An authentication may stand elsewhere if the policy says
so, which is why the answer also names the namespaces that it depends on.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from tulle.model.authorization import (
    POLICY_GROUP,
    AuthorizationPolicy,
    MeshTLSAuthentication,
    Network,
    Ref,
    Server,
    ServerAuthorization,
)
from tulle.model.pod import TrustDomain
from tulle.model.service import ObjectName
from tulle.model.world import World

EVERYWHERE = (Network("0.0.0.0/0"), Network("::/0"))


class DefaultPolicy(Enum):
    """What holds for a port that no Server selects; the values are upstream's names."""

    ALL_UNAUTHENTICATED = "all-unauthenticated"
    ALL_AUTHENTICATED = "all-authenticated"
    CLUSTER_UNAUTHENTICATED = "cluster-unauthenticated"
    CLUSTER_AUTHENTICATED = "cluster-authenticated"
    DENY = "deny"
    AUDIT = "audit"

    @property
    def requiring_identity(self) -> "DefaultPolicy":
        """Return the policy that also demands a mesh identity."""
        return _REQUIRING.get(self, self)


_REQUIRING = {
    DefaultPolicy.ALL_UNAUTHENTICATED: DefaultPolicy.ALL_AUTHENTICATED,
    DefaultPolicy.CLUSTER_UNAUTHENTICATED: DefaultPolicy.CLUSTER_AUTHENTICATED,
}
_CLUSTER = (DefaultPolicy.CLUSTER_UNAUTHENTICATED, DefaultPolicy.CLUSTER_AUTHENTICATED)
_AUTHENTICATED = (DefaultPolicy.ALL_AUTHENTICATED, DefaultPolicy.CLUSTER_AUTHENTICATED)
POLICY_NAMES = frozenset(policy.value for policy in DefaultPolicy)


@dataclass(frozen=True, slots=True)
class Origin:
    """The object that something comes from, as metrics name it; the kind `default` is no object."""

    name: str
    kind: str = "default"
    group: str = ""


@dataclass(frozen=True, slots=True)
class Clients:
    """Who is meant. `any_name` is whoever proves a name of this mesh, SPIFFE ones excepted.

    A suffix is what follows `*.` in a DNS name.
    """

    anyone: bool = False
    any_tls: bool = False
    any_name: bool = False
    names: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.anyone or self.any_tls or self.any_name or bool(self.names or self.suffixes)


ANYONE = Clients(anyone=True)
ANY_NAME = Clients(any_name=True)


@dataclass(frozen=True, slots=True)
class Authorization:
    """Lets these clients in from these networks."""

    origin: Origin
    networks: tuple[Network, ...]
    clients: Clients


def of_default(policy: DefaultPolicy, cluster: tuple[Network, ...]) -> tuple[Authorization, ...]:
    """Return whom a default policy lets in: nobody, or somebody under the policy's name."""
    if policy is DefaultPolicy.DENY:
        return ()
    networks = cluster if policy in _CLUSTER else EVERYWHERE
    clients = ANY_NAME if policy in _AUTHENTICATED else ANYONE
    return (Authorization(Origin(policy.value), networks, clients),)


class Authorizer:
    """Collects authorizations; `asked` are the namespaces whose objects had, or could have had, a say."""

    def __init__(self, world: World, trust: TrustDomain, cluster: tuple[Network, ...]) -> None:
        self._world = world
        self._trust = trust
        self._cluster = cluster
        self.asked: set[str] = set()

    def of_server(self, server: Server) -> tuple[Authorization, ...]:
        """Return whom a Server lets in: by what selects or targets it or its namespace, and by its own policy."""
        namespace = server.meta.namespace
        access = server.access_policy
        # A value that is no policy's name admits nobody.
        own = DefaultPolicy(access) if access in POLICY_NAMES else DefaultPolicy.DENY
        return (
            *self._selecting(server),
            *self._targeting(namespace, lambda target: _targets_server(target, server.name)),
            *of_default(own, self._cluster),
        )

    def of_route(self, namespace: str, group: str, kind: str, name: str) -> tuple[Authorization, ...]:
        """Return whom policies let in that target a route; what its Server allows is allowed besides."""
        wanted = (group, kind, name)
        return tuple(
            self._targeting(namespace, lambda target: (target.group, target.kind, target.name) == wanted)
        )

    def service_accounts(self, refs: Iterable[Ref], namespace: str) -> tuple[str, ...]:
        """Return the names that service accounts prove; no namespace is the one of who refers to them."""
        return tuple(self._trust.identity(ref.namespace or namespace, ref.name) for ref in refs)

    def _selecting(self, server: Server) -> Iterator[Authorization]:
        for each in self._world.server_authorizations(server.meta.namespace):
            by_name = each.server is not None and each.server == server.meta.name
            by_label = each.selector is not None and each.selector.matches(server.meta.labels)
            clients = self._named(each)
            if (by_name or by_label) and clients:
                origin = Origin(each.meta.name, "serverauthorization", POLICY_GROUP)
                yield Authorization(origin, each.networks or self._cluster, clients)

    def _named(self, of: ServerAuthorization) -> Clients:
        if of.unauthenticated:
            return ANYONE
        if of.unauthenticated_tls:
            return Clients(any_tls=True)
        return clients_of(of.identities, (self._trust.identity(*account) for account in of.service_accounts))

    def _targeting(self, namespace: str, meant: Callable[[Ref], bool]) -> Iterator[Authorization]:
        self.asked.add(namespace)
        for policy in self._world.authorization_policies(namespace):
            target = policy.target
            if target.namespace in (None, namespace) and meant(target):
                authorization = self._meeting(policy)
                if authorization is not None:
                    yield authorization

    def _meeting(self, policy: AuthorizationPolicy) -> Authorization | None:
        """Return whom a policy's requirements let in, None where one of them cannot be met."""
        clients: Clients | None = None
        networks: tuple[Network, ...] | None = None
        for ref in policy.required:
            name = ObjectName(ref.namespace or policy.meta.namespace, ref.name)
            match ref.group, ref.kind:
                case ("", "ServiceAccount") if clients is None:
                    clients = Clients(names=(self._trust.identity(*name),))
                case (group, "MeshTLSAuthentication") if group == POLICY_GROUP and clients is None:
                    self.asked.add(name.namespace)
                    found = self._world.mesh_tls_authentication(name)
                    clients = self._proving(found) if found else Clients()
                case (group, "NetworkAuthentication") if group == POLICY_GROUP and networks is None:
                    self.asked.add(name.namespace)
                    inside = self._world.network_authentication(name)
                    networks = inside.networks if inside else ()
                case _:
                    return None
        clients = ANYONE if clients is None else clients
        networks = EVERYWHERE if networks is None else networks
        if not clients or not networks:
            return None
        return Authorization(Origin(policy.meta.name, "authorizationpolicy", POLICY_GROUP), networks, clients)

    def _proving(self, of: MeshTLSAuthentication) -> Clients:
        accounts = (ref for ref in of.refs if (ref.group, ref.kind) == ("", "ServiceAccount"))
        namespaces = (ref for ref in of.refs if (ref.group, ref.kind) == ("", "Namespace"))
        written = (*of.identities, *(self._trust.identity(ref.name, "*") for ref in namespaces))
        return clients_of(written, self.service_accounts(accounts, of.meta.namespace))


def clients_of(written: Iterable[str], names: Iterable[str] = ()) -> Clients:
    """Sort identities as they are written (`*`, `*.suffix`, or one name) into what they mean, beside exact names."""
    identities = tuple(written)
    return Clients(
        any_name="*" in identities,
        names=(*(each for each in identities if not each.startswith("*")), *names),
        suffixes=tuple(each.removeprefix("*.") for each in identities if each.startswith("*.")),
    )


def _targets_server(target: Ref, server: ObjectName) -> bool:
    match target.group, target.kind:
        case (group, "Server") if group == POLICY_GROUP:
            return target.name == server.name
        case ("", "Namespace"):
            return target.name == server.namespace
        case _:
            return False
