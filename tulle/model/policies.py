"""The objects that say who may talk to whom and which way, kept so that every question is a look-up.

Pure state, the part of the `World` that is about policy. An object stands on a shelf for its kind, in every group
that somebody asks for (its namespace, or each parent of a route). What a look-up returns is in order of age: the oldest
first, after all others those without a timestamp (those of a folder), then by namespace and name.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Generic, NewType, Protocol, TypeVar

from tulle.model.authorization import (
    POLICY_GROUP,
    AuthorizationPolicy,
    EgressNetwork,
    MeshTLSAuthentication,
    NetworkAuthentication,
    RateLimitPolicy,
    Server,
    ServerAuthorization,
)
from tulle.model.external import ExternalWorkload
from tulle.model.objects import Metadata
from tulle.model.profile import ServiceProfile
from tulle.model.route import BackendRef, ParentRef, ReferenceGrant, Route
from tulle.model.service import ObjectName

Topic = NewType("Topic", str)

Policy = (
    Server
    | ServerAuthorization
    | AuthorizationPolicy
    | MeshTLSAuthentication
    | NetworkAuthentication
    | RateLimitPolicy
    | EgressNetwork
    | Route
    | ReferenceGrant
    | ServiceProfile
    | ExternalWorkload
)


def policy_topic(namespace: str) -> Topic:
    """Name what decides who may reach the pods of a namespace: Servers, authorizations, limits, their routes."""
    return Topic(f"policy {namespace}")


def routes_topic(service: ObjectName) -> Topic:
    """Name the routes with this Service as parent."""
    return Topic(f"routes {service}")


def egress_topic() -> Topic:
    """Name the EgressNetworks and the routes on them."""
    return Topic("egress")


def profile_topic(service: ObjectName) -> Topic:
    """Name the profiles of a service, in whichever namespace they are."""
    return Topic(f"profile {service}")


def external_topic(namespace: str) -> Topic:
    """Name the external workloads of a namespace."""
    return Topic(f"external {namespace}")


def parent_name(route: Route, parent: ParentRef) -> ObjectName:
    """Return what a parent is called; without a namespace it is in the route's."""
    return ObjectName(parent.namespace or route.meta.namespace, parent.name)


def backend_name(route: Route, parent: ParentRef, backend: BackendRef) -> ObjectName:
    """Return what a backend is called; without a namespace it is in the parent's, where the proxies look for it."""
    return ObjectName(backend.ref.namespace or parent_name(route, parent).namespace, backend.ref.name)


def profiled(profile: ServiceProfile) -> ObjectName | None:
    """Return the service that a profile is named after."""
    name, _, rest = profile.meta.name.partition(".")
    return ObjectName(rest.partition(".")[0], name) if rest else None


class _Aged(Protocol):
    @property
    def meta(self) -> Metadata: ...


Item = TypeVar("Item", bound=_Aged)


def age(item: _Aged) -> tuple[bool, str, str, str]:
    """Return what objects are ordered by."""
    meta = item.meta
    return meta.created is None, meta.created or "", meta.namespace, meta.name


class Shelf(Generic[Item]):
    """Objects of one type by key, and in groups that are put in order when somebody asks."""

    def __init__(self, groups: Callable[[Item], Iterable[Hashable]]) -> None:
        self._groups_of = groups
        self._items: dict[Hashable, Item] = {}
        self._groups: defaultdict[Hashable, dict[Hashable, Item]] = defaultdict(dict)
        self._sorted: dict[Hashable, tuple[Item, ...]] = {}
        self._all: tuple[Item, ...] | None = None

    def put(self, key: Hashable, new: Item | None) -> Item | None:
        """Replace an object; return the one before."""
        self._all = None
        old = self._items.pop(key, None)
        for group in self._groups_of(old) if old is not None else ():
            self._sorted.pop(group, None)
            self._groups[group].pop(key, None)
            if not self._groups[group]:
                del self._groups[group]
        if new is None:
            return old
        for group in self._groups_of(new):
            self._sorted.pop(group, None)
            self._groups[group][key] = new
        self._items[key] = new
        return old

    def get(self, key: Hashable) -> Item | None:
        """Return the object of this key."""
        return self._items.get(key)

    def all(self) -> tuple[Item, ...]:
        """Return every object, in order."""
        if self._all is None:
            self._all = _in_order(self._items)
        return self._all

    def group(self, group: Hashable) -> tuple[Item, ...]:
        """Return the objects of a group, in order."""
        if group not in self._sorted:
            if group not in self._groups:
                return ()
            self._sorted[group] = _in_order(self._groups[group])
        return self._sorted[group]


def _in_order(items: Mapping[Hashable, Item]) -> tuple[Item, ...]:
    # The key tells apart what has one name in two groups, so that the order is the same whichever came first.
    return tuple(items[key] for key in sorted(items, key=lambda key: (*age(items[key]), str(key))))


def _namespace(item: _Aged) -> tuple[str]:
    return (item.meta.namespace,)


def _profiled(profile: ServiceProfile) -> tuple[ObjectName | None]:
    return (profiled(profile),)


def _parents(route: Route) -> set[Hashable]:
    return {(parent.group, parent.kind, parent_name(route, parent)) for parent in route.parents}


class Policies:
    """What is so now."""

    def __init__(self) -> None:
        self.servers: Shelf[Server] = Shelf(_namespace)
        self.server_authorizations: Shelf[ServerAuthorization] = Shelf(_namespace)
        self.authorization_policies: Shelf[AuthorizationPolicy] = Shelf(_namespace)
        self.mesh_tls: Shelf[MeshTLSAuthentication] = Shelf(_namespace)
        self.networks: Shelf[NetworkAuthentication] = Shelf(_namespace)
        self.rate_limits: Shelf[RateLimitPolicy] = Shelf(_namespace)
        self.egress: Shelf[EgressNetwork] = Shelf(_namespace)
        self.routes: Shelf[Route] = Shelf(_parents)
        self.grants: Shelf[ReferenceGrant] = Shelf(_namespace)
        self.profiles: Shelf[ServiceProfile] = Shelf(_profiled)
        self.external: Shelf[ExternalWorkload] = Shelf(_namespace)

        self._shelves: dict[type, Shelf[Any]] = {
            Server: self.servers,
            ServerAuthorization: self.server_authorizations,
            AuthorizationPolicy: self.authorization_policies,
            MeshTLSAuthentication: self.mesh_tls,
            NetworkAuthentication: self.networks,
            RateLimitPolicy: self.rate_limits,
            EgressNetwork: self.egress,
            Route: self.routes,
            ReferenceGrant: self.grants,
            ServiceProfile: self.profiles,
            ExternalWorkload: self.external,
        }

    def replace(self, kind: type, name: ObjectName, variant: str, new: Policy | None) -> set[Topic]:
        """Take one change in; return the topics that it touches."""
        before: Policy | None = self._shelves[kind].put((name, variant), new)
        return {topic for item in (before, new) if item is not None for topic in topics_of(item)}

    def all(self) -> tuple[Policy, ...]:
        """Return every object, kind by kind."""
        return tuple(item for shelf in self._shelves.values() for item in shelf.all())


def topics_of(item: Policy) -> set[Topic]:
    """Return what an object has a say in."""
    match item:
        case EgressNetwork():
            return {egress_topic()}
        case ServiceProfile():
            service = profiled(item)
            return {profile_topic(service)} if service else set()
        case ExternalWorkload():
            return {external_topic(item.meta.namespace), policy_topic(item.meta.namespace)}
        case ReferenceGrant():
            return set()
        case Route():
            return {topic for parent in item.parents for topic in _topics_of_parent(item, parent)}
        case _:
            return {policy_topic(item.meta.namespace)}


def _topics_of_parent(route: Route, parent: ParentRef) -> set[Topic]:
    name = parent_name(route, parent)
    match parent.group, parent.kind:
        case ("", "Service"):
            return {routes_topic(name)}
        case (group, "Server") if group == POLICY_GROUP:
            return {policy_topic(name.namespace)}
        case (group, "EgressNetwork") if group == POLICY_GROUP:
            return {egress_topic()}
        case _:
            return set()
