"""What the supervisor tells its other processes: whole snapshots, never differences.

A reader that was slow or just started sees the newest one and has missed nothing.
"""

from collections.abc import Mapping
from typing import Any

from tulle.local.addresses import Pair
from tulle.local.control import ControlPod
from tulle.local.endpoints import PodFacts
from tulle.local.order import NODE, PodOrder
from tulle.local.pod import LocalPod
from tulle.model.objects import Namespace, Service, ServiceAccount
from tulle.model.policies import Policy
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.workload import HttpGet
from tulle.rules.injection import Injection, written
from tulle.rules.kinds import Object

Json = dict[str, Any]


def object_json(item: Object, addresses: Mapping[str, Pair]) -> Json | None:
    """Return an object as the controller reads it; None for one that is none of its business."""
    if not isinstance(item, Service | Namespace | ServiceAccount | Policy):
        return None
    raw: Json = dict(item.raw)
    raw["metadata"] = {**raw.get("metadata", {}), "name": item.meta.name}
    if item.meta.namespace:
        raw["metadata"]["namespace"] = item.meta.namespace
    raw["source"] = {"file": item.source.file, "line": item.source.line}
    if isinstance(item, Service):
        pair = addresses.get(f"{item.meta.namespace}/{item.meta.name}")
        given = list(pair) if pair else ["None"] if item.headless else []
        raw["spec"] = {**raw.get("spec", {}), "clusterIPs": given, "clusterIP": given[0] if given else None}
    return raw


def pod_json(pod: LocalPod) -> Json:
    """Return a pod as the mesh's other processes read it."""
    return order_json(pod.order, pod.injection, pod.addresses, ready=pod.ready, terminating=pod.terminating)


def order_json(
    order: PodOrder, injection: Injection | None, addresses: Pair, *, ready: bool, terminating: bool
) -> Json:
    """Return a pod as others read it, which need not run."""
    spec = order.spec
    annotations = injection.annotations if injection else order.annotations
    serving = (*spec.containers, *(each for each in spec.init_containers if each.sidecar))
    return {
        "name": order.name,
        "namespace": order.namespace,
        "labels": dict(order.labels),
        "annotations": dict(annotations),
        "service_account": spec.service_account,
        "owner": None
        if order.workload.kind == "Pod"
        else {"kind": order.workload.kind, "name": order.workload.name},
        "node": NODE,
        "addresses": list(addresses),
        "ready": ready,
        "terminating": terminating,
        "hostname": spec.hostname or order.name,
        "subdomain": spec.subdomain,
        "meshed": order.membership.meshed,
        "ports": [
            {"name": port.name, "port": port.port, "protocol": port.protocol}
            for container in serving
            for port in container.ports
        ],
        "probes": [
            {"port": probe.action.port, "path": probe.action.path}
            for container in serving
            for probe in (container.startup, container.readiness, container.liveness)
            if probe is not None and isinstance(probe.action, HttpGet) and isinstance(probe.action.port, int)
        ],
        "opaque_ports": port_list(injection.opaque_ports if injection else DEFAULT_OPAQUE_PORTS),
        "skip_inbound_ports": port_list(injection.firewall.skip_inbound) if injection else [],
    }


def control_json(control: ControlPod) -> Json:
    """Return the controller's own pod as the mesh's other processes read it."""
    pod, injection = control.spec, control.injection
    return {
        "name": pod.meta.name,
        "namespace": pod.meta.namespace,
        "labels": dict(pod.meta.labels),
        "annotations": dict(pod.meta.annotations),
        "service_account": pod.spec.service_account,
        "owner": None,
        "node": NODE,
        "addresses": list(control.addresses),
        "ready": control.ready,
        "terminating": False,
        "hostname": pod.meta.name,
        "subdomain": None,
        "meshed": True,
        "ports": [
            {"name": port.name, "port": port.port, "protocol": port.protocol}
            for container in pod.spec.containers
            for port in container.ports
        ],
        "probes": [],
        "opaque_ports": port_list(injection.opaque_ports if injection else DEFAULT_OPAQUE_PORTS),
        "skip_inbound_ports": port_list(injection.firewall.skip_inbound) if injection else [],
    }


def facts(pod: LocalPod) -> PodFacts:
    """Return what others in the mesh may know of a pod."""
    return PodFacts.from_json(pod_json(pod))


def port_list(ports: PortSet) -> list[str]:
    """Write a set of ports as a list."""
    return [part for part in written(ports).split(",") if part]
