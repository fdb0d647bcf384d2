"""Which services this machine can reach, and at which of its ports. Pure.

A Service of type LoadBalancer is published on 127.0.0.1 at its own port numbers, unless the operator moves one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tulle.model.errors import SettingError
from tulle.model.objects import Position, Service

HOST = "127.0.0.1"
FLAG = "--publish HOSTPORT=[NAMESPACE/]SERVICE:PORT"


@dataclass(frozen=True, slots=True)
class Published:
    """A port of this machine that leads to a port of a service."""

    namespace: str
    service: str
    service_port: int
    port: int
    source: Position

    @property
    def key(self) -> str:
        """A name for it that stays when everything else about it changes."""
        return f"{self.port}={self.namespace}/{self.service}:{self.service_port}"


def moves(texts: Iterable[str]) -> dict[tuple[str, str, int], int]:
    """Read `--publish` flags: from namespace (or nothing), service and port to the port of this machine.

    Raises SettingError for one that cannot be read.
    """
    found: dict[tuple[str, str, int], int] = {}
    for text in texts:
        host, equals, target = text.partition("=")
        name, colon, port = target.rpartition(":")
        namespace, _, service = name.rpartition("/")
        if not (equals and colon and service and host.isdigit() and port.isdigit() and 0 < int(host) < 65536):
            raise SettingError(f"--publish {text} cannot be read; expected {FLAG}")
        found[(namespace, service, int(port))] = int(host)
    return found


def published(
    services: Iterable[Service], moved: Mapping[tuple[str, str, int], int]
) -> tuple[Published, ...]:
    """Return what is to be published."""
    return tuple(
        Published(
            service.meta.namespace,
            service.meta.name,
            port.port,
            moved.get(
                (service.meta.namespace, service.meta.name, port.port),
                moved.get(("", service.meta.name, port.port), port.port),
            ),
            port.source,
        )
        for service in services
        if service.type == "LoadBalancer"
        for port in service.ports
        if port.protocol == "TCP"
    )


def taken(wanted: Published, reason: str) -> str:
    """Say that a port cannot be had, and what to do."""
    other = wanted.port + 10000 if wanted.port < 50000 else wanted.port - 10000
    return (
        f"port {wanted.port} of this machine cannot be used for service {wanted.service} ({reason}); move it with "
        f"--publish {other}={wanted.namespace}/{wanted.service}:{wanted.service_port}"
    )
