"""The Kubernetes objects that carry data and names: everything that is not a workload.

Every object keeps its `raw` mapping, as written, and the place it was read from, so that whatever is said
about it later can name a file and a line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

JsonValue = object
Raw = Mapping[str, JsonValue]

Severity = Literal["error", "warning", "note"]
Protocol = Literal["TCP", "UDP", "SCTP"]
ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a manifest; lines and columns count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to say about manifests: where, which field, and what was expected there."""

    position: Position
    field: str
    text: str
    severity: Severity = "error"

    def __str__(self) -> str:
        """Say it in one line: keys and values from a manifest may hold line ends, or what a terminal obeys."""
        said = (
            f"{self.position}: {self.field}: {self.text}" if self.field else f"{self.position}: {self.text}"
        )
        if said.isprintable():
            return said
        return "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in said
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of an object's metadata that means something here.

    `created` is `creationTimestamp` in RFC 3339, which also orders by age; an object of a folder has none.
    """

    name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    created: str | None = None


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service; `target` is a number or the name of a container's port."""

    name: str | None
    port: int
    target: int | str
    protocol: Protocol
    app_protocol: str | None
    source: Position


@dataclass(frozen=True, slots=True)
class Service:
    """A name in front of pods. No selector means that its endpoints are somebody else's business."""

    meta: Metadata
    type: ServiceType
    headless: bool
    cluster_ips: tuple[str, ...]
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    publish_not_ready: bool
    external_name: str | None
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """Settings; a key is in exactly one of the two."""

    meta: Metadata
    data: Mapping[str, str]
    binary_data: Mapping[str, bytes]
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class Secret:
    """Secret settings, decoded: `stringData` laid over `data`."""

    meta: Metadata
    type: str
    data: Mapping[str, bytes]
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class PersistentVolumeClaim:
    """Storage that outlives the pod that mounts it."""

    meta: Metadata
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A name that a workload can prove to be its own."""

    meta: Metadata
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; its `meta.namespace` is empty, like that of everything outside one."""

    meta: Metadata
    raw: Raw
    source: Position
