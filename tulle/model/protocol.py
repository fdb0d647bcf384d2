"""What `appProtocol` says: names mean what they say, and one that we don't know means detection.

Upstream takes an unknown name for opaque and knows four; we refuse to guess away the metrics and
policies of a port over a name. Kubernetes' own names and the plain IANA ones are all here.
"""

from enum import Enum

from tulle.model.ports import PortSet
from tulle.model.service import Service


class Protocol(Enum):
    """What is spoken on a Service's port, as clients treat it."""

    DETECT = "detect"
    HTTP1 = "http1"
    HTTP2 = "http2"
    GRPC = "grpc"
    TLS = "tls"
    OPAQUE = "opaque"


_NAMES = {
    "http": Protocol.HTTP1,
    "http2": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "grpc": Protocol.GRPC,
    "https": Protocol.TLS,
    "tls": Protocol.TLS,
    "kubernetes.io/ws": Protocol.HTTP1,
    "kubernetes.io/wss": Protocol.TLS,
    "tcp": Protocol.OPAQUE,
    "linkerd.io/tcp": Protocol.OPAQUE,
    "linkerd.io/opaque": Protocol.OPAQUE,
}


def named(app_protocol: str) -> Protocol | None:
    """Return what the name means, None where we don't know it."""
    return _NAMES.get(app_protocol.lower())


def opaque_to_clients(service: Service, port: int, app_protocol: str | None, opaque_ports: PortSet) -> bool:
    """Tell whether clients take the service's port for opaque; `appProtocol` beats the annotation."""
    if app_protocol:
        return named(app_protocol) is Protocol.OPAQUE
    return opaque_ports.contains(port, {of.name: of.port for of in service.ports})


def of_port(service: Service, port: int, app_protocol: str | None, opaque_ports: PortSet) -> Protocol:
    """Return how clients treat the service's port."""
    if opaque_to_clients(service, port, app_protocol, opaque_ports):
        return Protocol.OPAQUE
    return (named(app_protocol) if app_protocol else None) or Protocol.DETECT
