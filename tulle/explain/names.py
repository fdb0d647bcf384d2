"""What the names in a question mean: who asks, and where what the client would write leads.

A name is looked up as in a pod: first in the client's namespace, then in the cluster, then it is somebody outside.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from tulle.explain.answer import Party, Question, Reference, Target
from tulle.explain.ground import Ground
from tulle.model.authority import AuthorityError, ServiceAuthority, parse
from tulle.model.errors import NotFound, SettingError
from tulle.model.pod import Pod
from tulle.model.ports import PortSet
from tulle.model.service import ObjectName, Service

OUTSIDE = "198.51.100.1"
"""An address that is nobody's (RFC 5737), for a name outside whose address nobody says."""
SKIP_OUTBOUND = "config.linkerd.io/skip-outbound-ports"
KINDS = frozenset(
    ("deployment", "deploy", "statefulset", "sts", "daemonset", "ds", "replicaset", "rs", "job", "pod", "po")
)
HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; `pod` is None for an address that is no pod's."""

    party: Party
    pod: Pod | None = None

    def uses_proxy(self, port: int) -> bool:
        """Tell whether a connection to a port goes through the caller's own proxy."""
        if self.pod is None or not self.pod.meshed:
            return False
        return not PortSet.parse(self.pod.annotations.get(SKIP_OUTBOUND, "")).contains(port, {})


@dataclass(frozen=True, slots=True)
class Place:
    """What a name led to; `addresses` are where the client may connect to."""

    target: Target
    authority: str
    addresses: tuple[str, ...]
    service: Service | None = None


def find_client(ground: Ground, name: str) -> Caller:
    """Return a workload's first pod, a pod, or an address."""
    try:
        address = str(ipaddress.ip_address(name))
    except ValueError:
        return _caller(ground, find_pod(ground, name))
    pod = ground.world.pod_at(address)
    return _caller(ground, pod) if pod else Caller(Party(address, address))


def find_pod(ground: Ground, name: str) -> Pod:
    """Return the pod that `[NAMESPACE/][KIND/]NAME` or `NAME.NAMESPACE` means; a workload's name is its first pod's."""
    *before, short = name.split("/")
    if before and before[-1].lower() in KINDS:
        before.pop()
    wanted = {(before[0] if before else "", short)}
    if not before and "." in name:
        short, _, namespace = name.partition(".")
        wanted.add((namespace, short))
    pods = sorted(ground.world.pods(), key=lambda pod: (pod.terminating, not pod.ready, pod.name))
    found: dict[ObjectName, Pod] = {}
    for pod in pods:
        names = {pod.name.name, pod.owner.name if pod.owner else pod.name.name}
        for namespace, short in wanted:
            if short in names and namespace in ("", pod.name.namespace):
                found.setdefault(
                    ObjectName(pod.name.namespace, pod.owner.name if pod.owner else pod.name.name), pod
                )
    if len(found) > 1:
        several = ", ".join(f"{of.namespace}/{of.name}" for of in found)
        raise SettingError(f'"{name}" may mean {several}; write one of them')
    if not found:
        known = sorted({pod.owner.name if pod.owner else pod.name.name for pod in pods})
        raise NotFound(f'no workload is called "{name}"; there are: {", ".join(known) or "none"}')
    return next(iter(found.values()))


def _caller(ground: Ground, pod: Pod) -> Caller:
    identity = ground.trust.identity(pod.name.namespace, pod.service_account) if pod.meshed else None
    name = pod.owner.name if pod.owner else pod.name.name
    return Caller(Party(name, pod.addresses[0], pod.name.namespace, pod.meshed, identity), pod)


def find_target(ground: Ground, client: Party, question: Question) -> Place:
    """Look a name up as a pod of the client's namespace does."""
    text = question.target.partition("://")[2] or question.target
    if path := text.partition("/")[2]:
        raise SettingError(f'"{question.target}": the path is asked about by itself: --path /{path}')
    host, port = host_and_port(text)
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        return _named(ground, client, question, host, port)
    services = ground.world.services_at(address)
    number = port or (_only_port(services[0]) if services else HTTP_PORT)
    reference = service_reference(ground, services[0]) if services else None
    return Place(
        Target(question.target, address, number, reference),
        _authority(host, number),
        (address,),
        services[0] if services else None,
    )


def _named(ground: Ground, client: Party, question: Question, host: str, port: int | None) -> Place:
    suffix = f"svc.{ground.domain}"
    search = [f"{client.namespace}.{suffix}"] if client.namespace else []
    for name in (*(f"{host}.{each}" for each in (*search, suffix, ground.domain)), host):
        try:
            found = parse(name.rstrip("."), ground.domain)
        except AuthorityError:
            continue
        service = ground.world.service(found.service) if isinstance(found, ServiceAuthority) else None
        if service is None or not isinstance(found, ServiceAuthority):
            continue
        if service.external_name is not None:
            outside = service.external_name
            return _outside(question, host, port, service_reference(ground, service), outside)
        number = port or _only_port(service)
        addresses = service.cluster_ips[:1] if found.hostname is None else ()
        headless = addresses or tuple(_endpoint_addresses(ground, service, found.hostname))
        if not headless:
            raise NotFound(f"{name} is headless and has no ready pod")
        target = Target(question.target, headless[0], number, service_reference(ground, service))
        return Place(target, _authority(host, number), headless, service if addresses else None)
    namespace = _namespace_meant(ground, client, host)
    if namespace is not None:
        known = sorted(of.name.name for of in ground.world.services() if of.name.namespace == namespace)
        raise NotFound(
            f'no service is called "{host}" in namespace {namespace}; there are: {", ".join(known) or "none"}'
        )
    return _outside(question, host, port, None, host)


def _namespace_meant(ground: Ground, client: Party, host: str) -> str | None:
    """Return where a name would be that is no service's; None where it is a name outside the mesh."""
    short = host.rstrip(".").removesuffix(f".{ground.domain}").removesuffix(".svc")
    *before, last = short.split(".")
    if not before:
        return client.namespace or "default"
    inside = short != host.rstrip(".") or any(of.name.namespace == last for of in ground.world.services())
    return last if inside else None


def _outside(
    question: Question, host: str, port: int | None, reference: Reference | None, outside: str
) -> Place:
    number = port or HTTP_PORT
    remark = None
    if question.address is None:
        remark = f"{outside} is outside; it is taken to be at {OUTSIDE}, say --address for another"
    address = question.address or OUTSIDE
    target = Target(question.target, address, number, reference, remark)
    return Place(target, _authority(host, number), (address,))


def _endpoint_addresses(ground: Ground, service: Service, hostname: str | None) -> Iterator[str]:
    seen: set[object] = set()
    for each in ground.world.slices(service.name):
        for endpoint in each.endpoints:
            who = endpoint.pod or endpoint.address
            if endpoint.ready and hostname in (None, endpoint.hostname) and who not in seen:
                seen.add(who)
                yield endpoint.address


def host_and_port(text: str) -> tuple[str, int | None]:
    """Take `HOST[:PORT]` apart; raises SettingError."""
    text = text.partition("/")[0]
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise SettingError(f'"{text}": "{port}" is not a port')
    return host, int(port) if port else None


def _only_port(service: Service) -> int:
    ports = [port.port for port in service.ports if port.protocol == "TCP"]
    if len(ports) == 1 or HTTP_PORT in ports:
        return ports[0] if len(ports) == 1 else HTTP_PORT
    shown = ", ".join(map(str, ports)) or "none"
    raise SettingError(f"{service.name} has these ports: {shown}; write {service.name.name}:PORT")


def _authority(host: str, port: int) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port == HTTP_PORT else f"{host}:{port}"


def service_reference(ground: Ground, service: Service) -> Reference:
    """Name a service."""
    return ground.reference("", "Service", service.name.namespace, service.name.name)
