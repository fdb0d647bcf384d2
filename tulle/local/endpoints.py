"""Which pods stand behind a service right now, and under which port.

Pure. A pod counts while it is ready and not on its way out; a service may ask for the others too
(`publishNotReadyAddresses`), as databases do that find their peers by name before they are ready.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tulle.model.objects import Service, ServicePort


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What others in the mesh may know of a pod."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    ready: bool
    terminating: bool
    hostname: str
    subdomain: str | None
    ports: Mapping[str, int]
    """The named ones of the containers' ports."""

    @classmethod
    def from_json(cls, pod: Mapping[str, Any]) -> "PodFacts":
        """Read a pod as the supervisor tells it to its other processes."""
        return cls(
            name=pod["name"],
            namespace=pod["namespace"],
            labels=pod["labels"],
            addresses=tuple(pod["addresses"]),
            ready=pod["ready"],
            terminating=pod["terminating"],
            hostname=pod["hostname"] or pod["name"],
            subdomain=pod["subdomain"],
            ports={port["name"]: port["port"] for port in pod["ports"] if port["name"]},
        )


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address and port behind a service's port."""

    address: str
    port: int


def pods_behind(service: Service, pods: Iterable[PodFacts]) -> tuple[PodFacts, ...]:
    """Return the pods that a service stands for, in order of name."""
    if not service.selector:
        return ()
    found = (
        pod
        for pod in pods
        if pod.namespace == service.meta.namespace
        and pod.addresses
        and ((pod.ready and not pod.terminating) or service.publish_not_ready)
        and all(pod.labels.get(key) == value for key, value in service.selector.items())
    )
    return tuple(sorted(found, key=lambda pod: pod.name))


def port_of(pod: PodFacts, port: ServicePort) -> int | None:
    """Return the number of a service's port at a pod; None where the pod names no such port."""
    return port.target if isinstance(port.target, int) else pod.ports.get(port.target)


def endpoints(pods: Iterable[PodFacts], port: ServicePort, *, version: int) -> tuple[Endpoint, ...]:
    """Return where a port of a service leads to, for one IP version."""
    return tuple(
        Endpoint(address, number)
        for pod in pods
        for address in pod.addresses
        if (number := port_of(pod, port)) is not None and (":" in address) == (version == 6)
    )
