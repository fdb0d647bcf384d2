"""A pod as the control plane sees it: its addresses, its identity and how it wants to be reached."""

from dataclasses import dataclass, field

import msgspec

from tulle.model.address import normal_address
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, NO_PORTS, PortSet
from tulle.model.service import ObjectName

INBOUND_PORT = 4143
CONTROL_PORT = 4190
ADMIN_PORT = 4191

ZONE = "topology.kubernetes.io/zone"
"""The label that says where something is."""
OWN_ZONE = "tulle.dev/zone"
"""The annotation that says so of a pod whose node has no label: on one machine there are no zones but these."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What made the pod, as the user knows it: a Deployment, not its ReplicaSet."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP probe of the kubelet or of the local runner."""

    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A running pod; `meshed` says that it has a proxy."""

    name: ObjectName
    addresses: tuple[str, ...] = ()
    service_account: str = "default"
    owner: Owner | None = None
    node: str = ""
    zone: str | None = None
    hostname: str | None = None
    subdomain: str | None = None
    ready: bool = True
    terminating: bool = False
    meshed: bool = False
    ports: dict[str, int] = field(default_factory=dict, hash=False)
    """The named ones of the containers' ports; a name that several have is the first one's."""
    further_ports: frozenset[tuple[str, int]] = frozenset()
    """The others with such a name."""
    probes: tuple[Probe, ...] = ()
    opaque_ports: PortSet = DEFAULT_OPAQUE_PORTS
    skip_inbound_ports: PortSet = NO_PORTS
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    """The pod's own over those that it has from its namespace."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "addresses", tuple(map(normal_address, self.addresses)))

    def is_opaque(self, port: int) -> bool:
        """Tell whether the pod declares the port to carry bytes that are not to be looked at."""
        return self.opaque_ports.contains(port, self.ports)

    def reached_through_proxy(self, port: int) -> bool:
        """Tell whether a connection to this port ends at the pod's proxy."""
        return self.meshed and not self.skip_inbound_ports.contains(port)


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """Where the mesh's names end; makes identities of service accounts."""

    domain: str = "cluster.local"
    control_namespace: str = "linkerd"

    def identity(self, namespace: str, service_account: str) -> str:
        """Return the name that a service account's workloads prove."""
        tail = f"serviceaccount.identity.{self.control_namespace}.{self.domain}"
        return f"{service_account}.{namespace}.{tail}"


class _Workload(msgspec.Struct):
    ns: str
    pod: str


def pod_of_workload(workload: str) -> ObjectName | None:
    """Return the pod that a proxy says it is, in the words that injection gave it (old form `ns:pod`)."""
    try:
        read = msgspec.json.decode(workload, type=_Workload)
    except msgspec.MsgspecError:
        namespace, colon, pod = workload.partition(":")
        valid = colon and namespace and pod and not workload.startswith("{")
        return ObjectName(namespace, pod) if valid else None
    return ObjectName(read.ns, read.pod) if read.ns and read.pod else None


class _ExternalWorkload(msgspec.Struct):
    ns: str
    external_workload: str


def external_of_workload(workload: str) -> ObjectName | None:
    """Return the external workload that a proxy says it is."""
    try:
        read = msgspec.json.decode(workload, type=_ExternalWorkload)
    except msgspec.MsgspecError:
        return None
    return ObjectName(read.ns, read.external_workload) if read.ns and read.external_workload else None


class _Place(msgspec.Struct):
    ns: str


def namespace_of_workload(workload: str) -> str:
    """Return the namespace of what a proxy says it is; empty where that cannot be read."""
    try:
        return msgspec.json.decode(workload, type=_Place).ns
    except msgspec.MsgspecError:
        namespace, colon, _ = workload.partition(":")
        return namespace if colon and not workload.startswith("{") else ""
