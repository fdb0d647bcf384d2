"""The supervisor's snapshot, decoded into the model.

Pure. A snapshot has the objects as their manifests have them and the pods as the runner runs them;
the slices behind the Services are made here the way Kubernetes' own controller makes them: a Service
with a selector has, for each address family that it has, the pods of its namespace whose labels
match, with their named ports resolved, and the external workloads likewise. What is terminating or not
ready stays in the slice as not ready, unless the Service publishes such addresses.

Policies and routes are decoded by the very code that accepted them as manifests. They hardly ever change and a
snapshot comes with every change of a pod, so what was decoded is kept by its bytes.

The decoder takes the fields that it needs and no others, so a newer supervisor can say more.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated

import msgspec

from tulle.model.endpoint import Endpoint, Slice, SlicePort
from tulle.model.external import ExternalWorkload
from tulle.model.objects import Position
from tulle.model.pod import OWN_ZONE, ZONE, Owner, Pod, Probe
from tulle.model.policies import Policy
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.service import Namespace, ObjectName, Service, ServicePort
from tulle.model.update import Object
from tulle.model.world import OPAQUE_PORTS
from tulle.rules.decode import decode_value
from tulle.rules.kinds import POLICIES

Ports = list[int | str]
HEADLESS = "None"
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str = "default"
    annotations: dict[str, str] | None = None


class _Port(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    name: str | None = None
    target_port: int | str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class _ServiceSpec(msgspec.Struct, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    external_name: str | None = msgspec.field(default=None, name="externalName")
    ip_families: list[str] | None = msgspec.field(default=None, name="ipFamilies")
    selector: dict[str, str] | None = None
    ports: list[_Port] | None = None
    publish_not_ready: bool | None = msgspec.field(default=None, name="publishNotReadyAddresses")
    internal_traffic_policy: str | None = msgspec.field(default=None, name="internalTrafficPolicy")


class _Kind(msgspec.Struct, frozen=True):
    kind: str


class _Namespace(msgspec.Struct, frozen=True):
    metadata: _Metadata


class _Service(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _ServiceSpec = _ServiceSpec()


class _Source(msgspec.Struct, frozen=True):
    file: str
    line: int


class _Owner(msgspec.Struct, frozen=True):
    kind: str
    name: str


class _PodPort(msgspec.Struct, frozen=True):
    port: int
    name: str | None = None
    protocol: str | None = None


class _Probe(msgspec.Struct, frozen=True):
    port: int
    path: str | None = None


class _Pod(msgspec.Struct, frozen=True):
    name: str
    namespace: str
    addresses: list[str] = []
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    service_account: str = "default"
    owner: _Owner | None = None
    node: str = ""
    ready: bool = False
    terminating: bool = False
    hostname: str | None = None
    subdomain: str | None = None
    meshed: bool = False
    ports: list[_PodPort] = []
    probes: list[_Probe] = []
    opaque_ports: Ports | None = None
    skip_inbound_ports: Ports | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """One line of the watch."""

    objects: list[msgspec.Raw]
    pods: list[_Pod]
    generation: Annotated[int, msgspec.Meta(ge=0)] = 0


def decode(line: bytes) -> Snapshot:
    """Raises msgspec.MsgspecError."""
    return msgspec.json.decode(line, type=Snapshot)


def objects(snapshot: Snapshot) -> Iterator[Object]:
    """Yield everything that the snapshot says."""
    standing: defaultdict[str, list[Pod | ExternalWorkload]] = defaultdict(list)
    services: list[_Service] = []
    for pod in map(_pod, snapshot.pods):
        standing[pod.name.namespace].append(pod)
        yield pod
    for raw in snapshot.objects:
        kind = msgspec.json.decode(raw, type=_Kind).kind
        if kind == "Namespace":
            metadata = msgspec.json.decode(raw, type=_Namespace).metadata
            yield Namespace(metadata.name, metadata.annotations or {})
        elif kind == "Service":
            services.append(msgspec.json.decode(raw, type=_Service))
        elif kind in POLICIES:
            policy = _policy(bytes(raw))
            if isinstance(policy, ExternalWorkload):
                standing[policy.name.namespace].append(policy)
            yield policy
    for read in services:
        service = _service(read.metadata, read.spec)
        yield service
        if selector := read.spec.selector:
            there = standing[service.name.namespace]
            yield from _slices(service, read.spec, [of for of in there if _matches(selector, _labels(of))])


@lru_cache(maxsize=16_384)
def _policy(raw: bytes) -> Policy:
    written = msgspec.json.decode(raw, type=dict[str, object])
    source = msgspec.convert(written.pop("source"), type=_Source)
    policy = decode_value(written, Position(source.file, source.line))
    assert isinstance(policy, Policy), "POLICIES has no other kinds"
    return policy


def _labels(of: Pod | ExternalWorkload) -> Mapping[str, str]:
    return of.labels if isinstance(of, Pod) else of.meta.labels


def _matches(selector: dict[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _service(metadata: _Metadata, spec: _ServiceSpec) -> Service:
    opaque = (metadata.annotations or {}).get(OPAQUE_PORTS)
    return Service(
        name=ObjectName(metadata.namespace, metadata.name),
        ports=tuple(
            ServicePort(of.port, of.name or "", of.target_port, of.protocol or "TCP", of.app_protocol)
            for of in spec.ports or ()
        ),
        cluster_ips=tuple(_cluster_ips(spec)),
        opaque_ports=None if opaque is None else PortSet.parse(opaque),
        external_name=spec.external_name if spec.type == "ExternalName" else None,
        local_traffic_only=spec.internal_traffic_policy == "Local",
        annotations=metadata.annotations or {},
    )


def _cluster_ips(spec: _ServiceSpec) -> list[str]:
    stated = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    return [address for address in stated if address and address != HEADLESS]


def _families(spec: _ServiceSpec) -> set[int]:
    if addresses := _cluster_ips(spec):
        return {ipaddress.ip_address(address).version for address in addresses}
    return {int(family.removeprefix("IPv")) for family in spec.ip_families or ("IPv4", "IPv6")}


def _slices(service: Service, spec: _ServiceSpec, behind: list[Pod | ExternalWorkload]) -> Iterator[Slice]:
    groups: defaultdict[tuple[int, tuple[SlicePort, ...]], list[Endpoint]] = defaultdict(list)
    for of in behind:
        ports = tuple(_slice_ports(service, _named_ports(of)))
        for address in of.addresses:
            groups[ipaddress.ip_address(address).version, ports].append(_endpoint(service, spec, of, address))
    for family in sorted(_families(spec)):
        for number, ports in enumerate(sorted(ports for version, ports in groups if version == family)):
            name = ObjectName(service.name.namespace, f"{service.name.name}-ipv{family}-{number}")
            yield Slice(name, service.name, ports, tuple(groups[family, ports]))


def _endpoint(service: Service, spec: _ServiceSpec, of: Pod | ExternalWorkload, address: str) -> Endpoint:
    if isinstance(of, ExternalWorkload):
        zone = of.meta.labels.get(ZONE)
        ready = bool(spec.publish_not_ready) or of.ready
        return Endpoint(address, ready=ready, zone=zone, external=of.name, hints=_hints(service, zone))
    return Endpoint(
        address=address,
        ready=bool(spec.publish_not_ready) or (of.ready and not of.terminating),
        hostname=of.hostname if of.subdomain == service.name.name else None,
        pod=of.name,
        node=of.node,
        zone=of.zone,
        hints=_hints(service, of.zone),
    )


def _hints(service: Service, zone: str | None) -> tuple[str, ...]:
    """Return the zones to serve: for a service that asks for it, everything serves its own."""
    wanted = service.annotations.get(TOPOLOGY_MODE, "").lower() == "auto"
    return (zone,) if wanted and zone else ()


def _named_ports(of: Pod | ExternalWorkload) -> dict[str, int]:
    return of.ports if isinstance(of, Pod) else {port.name: port.port for port in of.ports if port.name}


def _slice_ports(service: Service, names: Mapping[str, int]) -> Iterator[SlicePort]:
    for port in service.ports:
        if port.protocol != "TCP":
            continue
        target = port.target_port if port.target_port is not None else port.port
        number = names.get(target) if isinstance(target, str) else target
        if number:
            yield SlicePort(port.name, number)


def _pod(raw: _Pod) -> Pod:
    annotations = raw.annotations or {}
    named = [(port.name, port.port) for port in raw.ports if port.name and port.protocol in (None, "TCP")]
    # Of several ports of one name the first is where a Service leads, as in Kubernetes.
    first = dict(reversed(named))
    return Pod(
        name=ObjectName(raw.namespace, raw.name),
        addresses=tuple(raw.addresses),
        service_account=raw.service_account,
        owner=Owner(raw.owner.kind, raw.owner.name) if raw.owner else None,
        node=raw.node,
        zone=annotations.get(OWN_ZONE) or (raw.labels or {}).get(ZONE),
        hostname=raw.hostname,
        subdomain=raw.subdomain,
        ready=raw.ready,
        terminating=raw.terminating,
        meshed=raw.meshed,
        ports=first,
        further_ports=frozenset(named) - first.items(),
        probes=tuple(Probe(probe.port, probe.path) for probe in raw.probes if probe.path),
        opaque_ports=_opaque_ports(raw, annotations),
        skip_inbound_ports=_port_set(raw.skip_inbound_ports or []),
        labels=raw.labels or {},
        annotations=annotations,
    )


def _opaque_ports(raw: _Pod, annotations: dict[str, str]) -> PortSet:
    annotated = annotations.get(OPAQUE_PORTS)
    if annotated is not None:
        return PortSet.parse(annotated)
    return _port_set(raw.opaque_ports) if raw.opaque_ports else DEFAULT_OPAQUE_PORTS


def _port_set(items: Ports) -> PortSet:
    return PortSet.parse(",".join(str(item) for item in items))
