"""Everything that the sources say, joined, and which topics a change touches.

Pure state: feed it `Update`s in order, look things up. A topic is what a view can depend on: a
service (itself, its slices, and the pods in them), a pod, or an address. `apply` returns the topics
whose answer may differ now; a view that is recomputed in vain costs a little time, one that is not
recomputed would be wrong, so a topic is touched in doubt.

A terminated pod's address may belong to a new pod already; the lookup prefers the pod that lives.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NewType

from tulle.model.endpoint import Slice
from tulle.model.pod import Pod
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.service import Namespace, ObjectName, Service
from tulle.model.update import Changed, Key, Object, Update, key_of

Topic = NewType("Topic", str)

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
        self._services_of_pod: defaultdict[ObjectName, dict[ObjectName, int]] = defaultdict(dict)

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

    def _replace(self, key: Key, new: Object | None, touched: set[Topic]) -> None:
        if key.kind is Service:
            self._replace_service(key.name, new if isinstance(new, Service) else None, touched)
        elif key.kind is Pod:
            self._replace_pod(key.name, new if isinstance(new, Pod) else None, touched)
        elif key.kind is Slice:
            self._replace_slice(key.name, new if isinstance(new, Slice) else None, touched)
        else:
            self._replace_namespace(key.name.name, new if isinstance(new, Namespace) else None, touched)

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
        touched.update(service_topic(service) for service in self._services_of_pod.get(name, ()))

    def _replace_slice(self, name: ObjectName, new: Slice | None, touched: set[Topic]) -> None:
        service = self._slice_service.pop(name, None)
        if service is not None:
            old = self._slices[service].pop(name)
            self._count_pods(old, -1)
            if not self._slices[service]:
                del self._slices[service]
            touched.add(service_topic(service))
        if new:
            self._slice_service[name] = new.service
            self._slices[new.service][name] = new
            self._count_pods(new, 1)
            touched.add(service_topic(new.service))

    def _count_pods(self, of: Slice, step: int) -> None:
        for pod in (endpoint.pod for endpoint in of.endpoints if endpoint.pod):
            counts = self._services_of_pod[pod]
            counts[of.service] = counts.get(of.service, 0) + step
            if not counts[of.service]:
                del counts[of.service]
            if not counts:
                del self._services_of_pod[pod]

    def _replace_namespace(self, name: str, new: Namespace | None, touched: set[Topic]) -> None:
        self._namespaces.pop(name, None)
        if new:
            self._namespaces[name] = new
        for service in self._services.values():
            if service.name.namespace == name:
                touched.add(service_topic(service.name))
                touched.update(address_topic(address) for address in service.cluster_ips)
        for pod in self._pods.values():
            if pod.name.namespace == name:
                touched.add(pod_topic(pod.name))
                touched.update(address_topic(address) for address in pod.addresses)
