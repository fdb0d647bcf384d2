"""ExternalWorkloads: meshed processes outside the cluster, behind the same Services as pods."""

from dataclasses import dataclass

from tulle.model.objects import Metadata, Position, Raw
from tulle.model.service import ObjectName


@dataclass(frozen=True, slots=True)
class WorkloadPort:
    """A port of an external workload."""

    port: int
    name: str | None = None
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class ExternalWorkload:
    """At most one address per family. It takes traffic while its status says that it is ready.

    `identity` is the name to expect (DNS or SPIFFE), `server_name` the one to ask for.
    """

    meta: Metadata
    identity: str
    server_name: str
    ports: tuple[WorkloadPort, ...]
    addresses: tuple[str, ...]
    ready: bool
    raw: Raw
    source: Position

    @property
    def name(self) -> ObjectName:
        """Return what the object is called."""
        return ObjectName(self.meta.namespace, self.meta.name)
