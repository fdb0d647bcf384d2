"""A Service as the control plane sees it: what clients may know, whatever source it came from.

(`model.objects.Service` is the manifest of one, with everything that somebody may write there.)
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from tulle.model.address import check_port, normal_address
from tulle.model.ports import PortSet


class ObjectName(NamedTuple):
    """Names an object among those of its kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service; a text as target is the name of a container's port."""

    port: int
    name: str = ""
    target_port: int | str | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None

    def __post_init__(self) -> None:
        check_port(self.port)


@dataclass(frozen=True, slots=True)
class Service:
    """`cluster_ips` is empty for a headless one; `opaque_ports` is None where nothing is annotated."""

    name: ObjectName
    ports: tuple[ServicePort, ...] = ()
    cluster_ips: tuple[str, ...] = ()
    opaque_ports: PortSet | None = None
    external_name: str | None = None
    local_traffic_only: bool = False
    annotations: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cluster_ips", tuple(map(normal_address, self.cluster_ips)))

    def port(self, number: int) -> ServicePort | None:
        """Return the TCP port of this number, None where the Service has none."""
        return next((port for port in self.ports if port.port == number and port.protocol == "TCP"), None)


@dataclass(frozen=True, slots=True)
class Namespace:
    """What the objects of a namespace inherit from it."""

    name: str
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
