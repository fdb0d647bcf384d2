"""Everything that the sources say, joined, and which topics a change touches.

Pure state: feed it `Update`s in order, look things up. A topic is what a view can depend on: a
service (itself, its slices, and what stands behind them), a pod, an address, or one of those that
`model.policies` names. `apply` returns the topics
whose answer may differ now; a view that is recomputed in vain costs a little time, one that is not
recomputed would be wrong, so a topic is touched in doubt.

A terminated pod's address may belong to a new pod already; the lookup prefers the pod that lives.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import get_args

from tulle.model.authorization import (
    AuthorizationPolicy,
    EgressNetwork,
    MeshTLSAuthentication,
    NetworkAuthentication,
    RateLimitPolicy,
    Server,
    ServerAuthorization,
)
from tulle.model.endpoint import Slice
from tulle.model.external import ExternalWorkload
from tulle.model.pod import Pod
from tulle.model.policies import (
    Policies,
    Policy,
    Topic,
    egress_topic,
    external_topic,
    policy_topic,
    profile_topic,
    routes_topic,
)
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.profile import ServiceProfile
from tulle.model.route import ReferenceGrant, Route
from tulle.model.service import Namespace, ObjectName, Service
from tulle.model.update import Changed, Key, Object, Update, key_of

__all__ = (
    "Topic",
    "World",
    "address_topic",
    "egress_topic",
    "external_topic",
    "pod_topic",
    "policy_topic",
    "profile_topic",
    "routes_topic",
    "service_topic",
)  # fmt: skip

OPAQUE_PORTS = "config.linkerd.io/opaque-ports"


def service_topic(name: ObjectName) -> Topic:
    """Name the service, its slices and the pods in them."""
    return Topic(f"service {name}")


def pod_topic(name: ObjectName) -> Topic:
    """Name the pod."""
    return Topic(f"pod {name}")


def address_topic(address: str) -> Topic:
    """Name whatever is at the address."""
    return Topic(f"address {address}")


class World:
    """What is so now; every lookup is a dictionary look-up."""

    def __init__(self) -> None:
        self._services: dict[ObjectName, Service] = {}
        self._pods: dict[ObjectName, Pod] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._slices: defaultdict[ObjectName, dict[ObjectName, Slice]] = defaultdict(dict)
        self._slice_service: dict[ObjectName, ObjectName] = {}
        self._services_at: defaultdict[str, set[ObjectName]] = defaultdict(set)
        self._pods_at: defaultdict[str, set[ObjectName]] = defaultdict(set)
        self._services_of: defaultdict[Key, dict[ObjectName, int]] = defaultdict(dict)
        self._external_at: defaultdict[str, set[ObjectName]] = defaultdict(set)
        self._policies = Policies()

    def apply(self, updates: Iterable[Update]) -> set[Topic]:
        """Take changes in; return the topics that they touch."""
        touched: set[Topic] = set()
        for update in updates:
            if isinstance(update, Changed):
                self._replace(key_of(update.object), update.object, touched)
            else:
                self._replace(update.key, None, touched)
        return touched

    def service(self, name: ObjectName) -> Service | None:
        """Return the service of this name."""
        return self._services.get(name)

    def services_at(self, address: str) -> list[Service]:
        """Return the services with this cluster address; more than one is a mistake of theirs."""
        return [self._services[name] for name in sorted(self._services_at.get(address, ()))]

    def pod(self, name: ObjectName) -> Pod | None:
        """Return the pod of this name."""
        return self._pods.get(name)

    def pod_at(self, address: str) -> Pod | None:
        """Return the pod at the address, a living one before others."""
        pods = [self._pods[name] for name in self._pods_at.get(address, ())]
        return min(pods, key=lambda pod: (pod.terminating, not pod.ready, pod.name), default=None)

    def pods(self) -> Iterable[Pod]:
        """Return all pods."""
        return self._pods.values()

    def services(self) -> Iterable[Service]:
        """Return all services."""
        return self._services.values()

    def slices(self, service: ObjectName) -> Iterable[Slice]:
        """Return the slices of a service."""
        return self._slices[service].values() if service in self._slices else ()

    def namespace_annotation(self, namespace: str, key: str) -> str | None:
        """Return one of a namespace's annotations."""
        known = self._namespaces.get(namespace)
        return known.annotations.get(key) if known else None

    def opaque_ports(self, service: Service) -> PortSet:
        """Return the service's own list, else its namespace's, else the default one."""
        if service.opaque_ports is not None:
            return service.opaque_ports
        inherited = self.namespace_annotation(service.name.namespace, OPAQUE_PORTS)
        return DEFAULT_OPAQUE_PORTS if inherited is None else PortSet.parse(inherited)

    def servers(self, namespace: str) -> tuple[Server, ...]:
        """Return the Servers of a namespace; these and all that follow are in order of age."""
        return self._policies.servers.group(namespace)

    def server(self, name: ObjectName) -> Server | None:
        """Return the Server of this name."""
        return self._policies.servers.get((name, ""))

    def server_authorizations(self, namespace: str) -> tuple[ServerAuthorization, ...]:
        """Return the ServerAuthorizations of a namespace."""
        return self._policies.server_authorizations.group(namespace)

    def authorization_policies(self, namespace: str) -> tuple[AuthorizationPolicy, ...]:
        """Return the AuthorizationPolicies of a namespace."""
        return self._policies.authorization_policies.group(namespace)

    def mesh_tls_authentication(self, name: ObjectName) -> MeshTLSAuthentication | None:
        """Return the MeshTLSAuthentication of this name."""
        return self._policies.mesh_tls.get((name, ""))

    def network_authentication(self, name: ObjectName) -> NetworkAuthentication | None:
        """Return the NetworkAuthentication of this name."""
        return self._policies.networks.get((name, ""))

    def rate_limits(self, namespace: str) -> tuple[RateLimitPolicy, ...]:
        """Return the HTTPLocalRateLimitPolicies of a namespace."""
        return self._policies.rate_limits.group(namespace)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes of every kind."""
        return self._policies.routes.all()

    def route(self, group: str, kind: str, name: ObjectName) -> Route | None:
        """Return the route of this kind and name."""
        return self._policies.routes.get((name, f"{kind}.{group}"))

    def routes_of(self, group: str, kind: str, name: ObjectName) -> tuple[Route, ...]:
        """Return the routes with this parent; a Service's group is empty."""
        return self._policies.routes.group((group, kind, name))

    def egress_networks(self) -> tuple[EgressNetwork, ...]:
        """Return all EgressNetworks."""
        return self._policies.egress.all()

    def egress_network(self, name: ObjectName) -> EgressNetwork | None:
        """Return the EgressNetwork of this name."""
        return self._policies.egress.get((name, ""))

    def reference_grants(self, namespace: str) -> tuple[ReferenceGrant, ...]:
        """Return the ReferenceGrants of a namespace."""
        return self._policies.grants.group(namespace)

    def profile(self, name: ObjectName) -> ServiceProfile | None:
        """Return the profile of this name (`service.namespace.svc.domain`) in this namespace."""
        return self._policies.profiles.get((name, ""))

    def profiles_of(self, service: ObjectName) -> tuple[ServiceProfile, ...]:
        """Return the profiles that are named after a service, in whichever namespace they are."""
        return self._policies.profiles.group(service)

    def external_workloads(self, namespace: str) -> tuple[ExternalWorkload, ...]:
        """Return the external workloads of a namespace."""
        return self._policies.external.group(namespace)

    def external_workload(self, name: ObjectName) -> ExternalWorkload | None:
        """Return the external workload of this name."""
        return self._policies.external.get((name, ""))

    def external_workload_at(self, address: str, namespace: str) -> ExternalWorkload | None:
        """Return the external workload with this address, of the namespace that asks.

        The address is what somebody wrote; who writes in another namespace may not say what it is for this one.
        """
        names = (name for name in self._external_at.get(address, ()) if name.namespace == namespace)
        name = min(names, default=None)
        return None if name is None else self.external_workload(name)

    def claimants(self, address: str) -> frozenset[str]:
        """Return the namespaces that have an external workload with this address."""
        return frozenset(name.namespace for name in self._external_at.get(address, ()))

    def policies(self) -> tuple[Policy, ...]:
        """Return every object that says who may talk to whom and which way, kind by kind."""
        return self._policies.all()

    def _replace(self, key: Key, new: Object | None, touched: set[Topic]) -> None:
        if key.kind is Service:
            self._replace_service(key.name, new if isinstance(new, Service) else None, touched)
        elif key.kind is Pod:
            self._replace_pod(key.name, new if isinstance(new, Pod) else None, touched)
        elif key.kind is Slice:
            self._replace_slice(key.name, new if isinstance(new, Slice) else None, touched)
        elif key.kind is Namespace:
            self._replace_namespace(key.name.name, new if isinstance(new, Namespace) else None, touched)
        else:
            if key.kind is ExternalWorkload:
                self._replace_external(key, new if isinstance(new, ExternalWorkload) else None, touched)
            policy = new if isinstance(new, get_args(Policy)) else None
            touched |= self._policies.replace(key.kind, key.name, key.variant, policy)

    def _replace_service(self, name: ObjectName, new: Service | None, touched: set[Topic]) -> None:
        old = self._services.pop(name, None)
        for address in old.cluster_ips if old else ():
            self._services_at[address].discard(name)
            touched.add(address_topic(address))
        for address in new.cluster_ips if new else ():
            self._services_at[address].add(name)
            touched.add(address_topic(address))
        if new:
            self._services[name] = new
        touched.add(service_topic(name))

    def _replace_pod(self, name: ObjectName, new: Pod | None, touched: set[Topic]) -> None:
        old = self._pods.pop(name, None)
        for address in old.addresses if old else ():
            self._pods_at[address].discard(name)
            if not self._pods_at[address]:
                del self._pods_at[address]
            touched.add(address_topic(address))
        for address in new.addresses if new else ():
            self._pods_at[address].add(name)
            touched.add(address_topic(address))
        if new:
            self._pods[name] = new
        touched.add(pod_topic(name))
        touched.update(map(service_topic, self._services_of.get(Key(Pod, name), ())))

    def _replace_slice(self, name: ObjectName, new: Slice | None, touched: set[Topic]) -> None:
        service = self._slice_service.pop(name, None)
        if service is not None:
            old = self._slices[service].pop(name)
            self._count(old, -1)
            if not self._slices[service]:
                del self._slices[service]
            touched.add(service_topic(service))
        if new:
            self._slice_service[name] = new.service
            self._slices[new.service][name] = new
            self._count(new, 1)
            touched.add(service_topic(new.service))

    def _replace_external(self, key: Key, new: ExternalWorkload | None, touched: set[Topic]) -> None:
        old = self.external_workload(key.name)
        for address in old.addresses if old else ():
            self._external_at[address].discard(key.name)
            if not self._external_at[address]:
                del self._external_at[address]
            touched.add(address_topic(address))
        for address in new.addresses if new else ():
            self._external_at[address].add(key.name)
            touched.add(address_topic(address))
        touched.update(map(service_topic, self._services_of.get(key, ())))

    def _count(self, of: Slice, step: int) -> None:
        """Note which services stand in front of a pod or an external workload."""
        for endpoint in of.endpoints:
            if endpoint.pod:
                key = Key(Pod, endpoint.pod)
            elif endpoint.external:
                key = Key(ExternalWorkload, endpoint.external)
            else:
                continue
            counts = self._services_of[key]
            counts[of.service] = counts.get(of.service, 0) + step
            if not counts[of.service]:
                del counts[of.service]
            if not counts:
                del self._services_of[key]

    def _replace_namespace(self, name: str, new: Namespace | None, touched: set[Topic]) -> None:
        self._namespaces.pop(name, None)
        if new:
            self._namespaces[name] = new
        touched |= {policy_topic(name), external_topic(name)}
        if any(network.meta.namespace == name for network in self.egress_networks()):
            touched.add(egress_topic())
        touched.add(external_topic(name))
        for service in self._services.values():
            if service.name.namespace == name:
                touched.add(service_topic(service.name))
                touched.update(address_topic(address) for address in service.cluster_ips)
        for pod in self._pods.values():
            if pod.name.namespace == name:
                touched.add(pod_topic(pod.name))
                touched.update(address_topic(address) for address in pod.addresses)
