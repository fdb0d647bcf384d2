"""What a client may ask about: `name.namespace.svc.domain[:port]`, a StatefulSet's member before that, or
an address with a port.

The grammar is closed on purpose: whatever is not in it is the client's mistake for ever (it is told
so and does not ask again), whereas a name that is well formed and unknown may appear any moment.
"""

import re
from dataclasses import dataclass

from tulle.model.address import MAX_PORT, normal_address
from tulle.model.service import ObjectName

DEFAULT_PORT = 80
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_BRACKETED = re.compile(r"\[(?P<host>[^\]]*)\](:(?P<port>.*))?")


class AuthorityError(ValueError):
    """The text is neither a service's name nor an address."""


@dataclass(frozen=True, slots=True)
class ServiceAuthority:
    """A service by name, or one of its members."""

    service: ObjectName
    port: int
    hostname: str | None = None


@dataclass(frozen=True, slots=True)
class AddressAuthority:
    """`address` is in its shortest form."""

    address: str
    port: int


def parse(text: str, domain: str) -> ServiceAuthority | AddressAuthority:
    """Read what was asked about; raises AuthorityError."""
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        return AddressAuthority(_address(bracketed["host"], text), _port(bracketed["port"], text))
    host, colon, port_text = text.partition(":")
    port = _port(port_text if colon else None, text)
    if host and host.replace(".", "").isdigit():
        return AddressAuthority(_address(host, text), port)
    return _service(host.removesuffix("."), port, domain, text)


def _service(host: str, port: int, domain: str, text: str) -> ServiceAuthority:
    suffix = f".svc.{domain}"
    if not host.endswith(suffix):
        raise AuthorityError(f"{text!r} is not a name under svc.{domain}")
    labels = host[: -len(suffix)].split(".")
    if len(labels) not in (2, 3) or not all(_LABEL.fullmatch(label) for label in labels):
        raise AuthorityError(f"{text!r} is not of the form [hostname.]service.namespace.svc.{domain}[:port]")
    *hostname, service, namespace = labels
    return ServiceAuthority(ObjectName(namespace, service), port, hostname[0] if hostname else None)


def _address(host: str, text: str) -> str:
    try:
        return normal_address(host)
    except ValueError as error:
        raise AuthorityError(f"{text!r}: {host!r} is not an address") from error


def _port(port: str | None, text: str) -> int:
    if port is None:
        return DEFAULT_PORT
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= MAX_PORT):
        raise AuthorityError(f"{text!r}: {port!r} is not a port")
    return int(port)
