"""Which addresses stand behind a Service, in the shape of Kubernetes' EndpointSlice.

A slice has one list of ports for all its endpoints; pods that resolve a named port to different
numbers are therefore in different slices. That is kept, since every source can produce it and the
cluster's own controller already does.
"""

from dataclasses import dataclass

from tulle.model.address import check_port, normal_address
from tulle.model.service import ObjectName


@dataclass(frozen=True, slots=True, order=True)
class SlicePort:
    """`name` is the name of the Service's port, `number` the target's."""

    name: str
    number: int

    def __post_init__(self) -> None:
        check_port(self.number)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a Service; `pod` or `external` (a workload) is what stands at it, where that is known."""

    address: str
    ready: bool = True
    hostname: str | None = None
    pod: ObjectName | None = None
    node: str | None = None
    zone: str | None = None
    external: ObjectName | None = None
    hints: tuple[str, ...] = ()
    """The zones whose clients it is meant for; nothing means nothing is said."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", normal_address(self.address))


@dataclass(frozen=True, slots=True)
class Slice:
    """Endpoints of one Service that have their ports in common."""

    name: ObjectName
    service: ObjectName
    ports: tuple[SlicePort, ...]
    endpoints: tuple[Endpoint, ...]
