"""The objects that the controller knows, as their manifests have them, with the status that it gives them."""

from collections.abc import Iterator, Sequence
from typing import Any

from tulle.model.authorization import RateLimitPolicy
from tulle.model.external import ExternalWorkload
from tulle.model.policies import Policy
from tulle.model.route import ParentRef, Route
from tulle.model.service import Service
from tulle.model.world import World
from tulle.policy.conditions import CONTROLLER, Status, status_of
from tulle.policy.status import Condition, IpNetwork

Json = dict[str, Any]


def find(
    world: World, networks: Sequence[IpNetwork], kind: str, *, namespace: str | None, name: str | None
) -> Iterator[Json]:
    """Yield the objects of a kind (`Kind`, or `Kind.group`), in order of age within each kind."""
    wanted, _, group = kind.partition(".")
    items: Sequence[Policy | Service] = world.policies()
    if wanted == "Service":
        items = sorted(world.services(), key=lambda of: of.name)
    for item in items:
        if namespace not in (None, item.name.namespace) or name not in (None, item.name.name):
            continue
        written = service_json(item) if isinstance(item, Service) else dict(item.raw)
        its_group = str(written["apiVersion"]).rpartition("/")[0]
        if written["kind"] == wanted and (not group or group == its_group):
            said = status_of(world, item, networks)
            yield {
                "object": written | {"status": status_json(item, said)},
                "source": None if isinstance(item, Service) else str(item.source),
            }


def service_json(service: Service) -> Json:
    """Return a Service as far as the controller knows it."""
    ports = [
        {
            "name": port.name or None,
            "port": port.port,
            "targetPort": port.target_port,
            "protocol": port.protocol,
            "appProtocol": port.app_protocol,
        }
        for port in service.ports
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.name.name,
            "namespace": service.name.namespace,
            "annotations": service.annotations,
        },
        "spec": {
            "clusterIPs": list(service.cluster_ips),
            "ports": [{key: value for key, value in port.items() if value is not None} for port in ports],
        },
    }


def status_json(item: Policy | Service, said: Status) -> Json:
    """Return a status; what others wrote into it (another controller, the owner of a workload) stays."""
    if isinstance(item, Service):
        return {"conditions": [condition_json(of) for of in said.conditions]}
    written = item.raw.get("status")
    before: Json = dict(written) if isinstance(written, dict) else {}
    if isinstance(item, ExternalWorkload):
        return before
    if isinstance(item, RateLimitPolicy):
        target = item.target
        before["targetRef"] = {"group": target.group, "kind": target.kind, "name": target.name}
    if not isinstance(item, Route):
        return before | {"conditions": [condition_json(of) for of in said.conditions]}
    others = before.get("parents")
    kept = [of for of in others if _foreign(of)] if isinstance(others, list) else []
    ours = [
        {
            "parentRef": parent_json(of.parent, of.namespace),
            "controllerName": CONTROLLER,
            "conditions": [condition_json(each) for each in of.conditions],
        }
        for of in said.parents
    ]
    return before | {"parents": [*kept, *ours]}


def _foreign(parent: object) -> bool:
    return isinstance(parent, dict) and parent.get("controllerName") != CONTROLLER


def parent_json(parent: ParentRef, namespace: str) -> Json:
    """Return a parent; in a status the group of Kubernetes' own kinds is `core`."""
    written: Json = {
        "group": parent.group or "core",
        "kind": parent.kind,
        "namespace": namespace,
        "name": parent.name,
    }
    if parent.port is not None:
        written["port"] = parent.port
    if parent.section is not None:
        written["sectionName"] = parent.section
    return written


def condition_json(of: Condition) -> Json:
    """Return a condition."""
    return {
        "type": of.type,
        "status": "True" if of.status else "False",
        "reason": of.reason,
        "message": of.message,
    }
