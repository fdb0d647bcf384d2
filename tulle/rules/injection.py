"""What being meshed means for one pod: whether it is, and how its proxy and its packet rules are set up.

Pure: the pod, its annotations and those of its namespace go in, a plan comes out; the same plan serves a machine
and a cluster. A value on the pod comes before one on its namespace. A value that cannot be read is left out and
named in `remarks`, as upstream logs and ignores it: a typing error must not keep a pod from starting.

Beside each annotation stands what it does, so that the list of what is honoured is this file.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Literal, TypeVar

from tulle.model.pod import ADMIN_PORT, CONTROL_PORT, INBOUND_PORT
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.workload import HttpGet, PodSpec
from tulle.rules.firewall import MARK, OUTBOUND_PORT, PROXY_UID, SKIPPED_BY_DEFAULT, Firewall

Value = TypeVar("Value")

INJECT = "linkerd.io/inject"
CONFIG = "config.linkerd.io/"
BINARY = "tulle.dev/proxy-binary"
"""Which program the proxy is: a path, or `stock` for the one of TULLE_STOCK_PROXY. Ours, not upstream's."""
DISABLE_TAP = "viz.linkerd.io/disable-tap"
RESOURCE = "resource.opentelemetry.io/"
"""What stands behind it is an attribute of all of the proxy's spans."""
COLLECTOR = "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR"
# These are read on the pod only; a namespace cannot set them for its pods.
POD_ONLY = frozenset({"close-wait-timeout", "enable-gateway", "proxy-cpu-ratio-limit"})
PROXIES = frozenset({"linkerd-proxy", "istio-proxy"})

DEFAULT_POLICIES = frozenset(
    {
        "all-authenticated",
        "all-unauthenticated",
        "audit",
        "cluster-authenticated",
        "cluster-unauthenticated",
        "deny",
    }
)
LOG_LEVEL = "warn,linkerd=info,tulle=info,hickory=error"
HIDE_HEADERS = ",[{headers}]=off,[{request}]=off"
NO_DETECTION_TIMEOUT = "365d"

DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
MILLISECONDS = {
    "ns": "0.000001",
    "us": "0.001",
    "µs": "0.001",
    "ms": "1",
    "s": "1000",
    "m": "60000",
    "h": "3600000",
}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m?)")


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether a pod is meshed; `reason` says why not, in a few words."""

    meshed: bool
    ingress: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the pod's mesh is: what does not depend on the pod."""

    identity_address: str
    destination_address: str
    policy_address: str
    control_identity: str
    """The name that whoever answers at these addresses proves, and who may watch requests."""
    trust_anchors: str
    identity_folder: str
    token_file: str
    cluster_networks: tuple[str, ...]
    identity_suffix: str
    """`serviceaccount.identity.<control namespace>.<trust domain>`."""
    cluster_domain: str
    has_proxy_uid: bool
    """Whether a uid can be given to the proxy; else it is told by the mark on its packets."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod that is to be meshed."""

    name: str
    namespace: str
    node: str
    addresses: tuple[str, ...]
    spec: PodSpec
    annotations: Mapping[str, str]
    namespace_annotations: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Injection:
    """How a pod is meshed."""

    environment: Mapping[str, str]
    firewall: Firewall
    annotations: Mapping[str, str]
    """The pod's own and those it has from its namespace."""
    opaque_ports: PortSet
    identity: str
    uid: int
    gid: int | None
    admin_port: int
    wait_until_ready: bool
    remarks: tuple[str, ...]


def asks_for_injection(annotations: Iterable[Mapping[str, str]]) -> bool:
    """Say whether any object asks to be meshed; if none does, a whole folder is, but what is taken out of it."""
    return any(each.get(INJECT, "disabled") != "disabled" for each in annotations)


def membership(
    spec: PodSpec,
    annotations: Mapping[str, str],
    namespace_annotations: Mapping[str, str],
    *,
    otherwise: bool,
) -> Membership:
    """Decide whether a pod is meshed; `otherwise` holds where nobody says anything."""
    where, value = f"the pod's {INJECT}", annotations.get(INJECT, "")
    if not value:
        where, value = f"{INJECT} of its namespace", namespace_annotations.get(INJECT, "")
    if spec.host_network:
        return Membership(False, reason="it uses the host's network")
    if any(container.name in PROXIES for container in (*spec.init_containers, *spec.containers)):
        return Membership(False, reason="it brings a proxy of its own")
    match value:
        case "":
            return Membership(otherwise, reason="" if otherwise else f"add the annotation {INJECT}: enabled")
        case "enabled" | "ingress":
            return Membership(True, ingress=value == "ingress")
        case "disabled":
            return Membership(False, reason=f"{where} is disabled")
        case _:
            return Membership(False, reason=f'{where} is "{value}"; expected enabled, ingress or disabled')


def plan(subject: Subject, site: Site, member: Membership) -> Injection:
    """Return how a meshed pod is set up."""
    read = _Annotations(subject)
    spec = subject.spec
    names = {
        port.name: port.port
        for container in spec.containers
        for port in container.ports
        if port.name is not None
    }
    inbound = read.take("inbound-port", INBOUND_PORT, _port)
    outbound = read.take("outbound-port", OUTBOUND_PORT, _port)
    admin = read.take("admin-port", ADMIN_PORT, _port)
    control = read.take("control-port", CONTROL_PORT, _port)
    opaque = _resolved(read.take("opaque-ports", DEFAULT_OPAQUE_PORTS, PortSet.parse), names)
    uid = read.take("proxy-uid", PROXY_UID, _positive)
    gid = read.take("proxy-gid", None, _positive)
    account = f"{spec.service_account}.{subject.namespace}"
    identity = f"{account}.{site.identity_suffix}"
    environment: dict[str, str | None] = {
        **_workers(read),
        "SHUTDOWN_ENDPOINT_ENABLED": _word(read.take("proxy-admin-shutdown", False, _enabled)),
        "LOG": read.take("proxy-log-level", LOG_LEVEL, _text)
        + (
            ""
            if read.take("proxy-log-http-headers", "off", _one_of("off", "insecure")) != "off"
            else HIDE_HEADERS
        ),
        "LOG_FORMAT": read.take("proxy-log-format", "plain", _one_of("plain", "json")),
        "ACCESS_LOG": read.take("access-log", None, _one_of("apache", "json")),
        "SHUTDOWN_GRACE_PERIOD": read.take("shutdown-grace-period", None, _milliseconds),
        # The control plane
        "IDENTITY_SVC_ADDR": site.identity_address,
        "IDENTITY_SVC_NAME": site.control_identity,
        "DESTINATION_SVC_ADDR": site.destination_address,
        "DESTINATION_SVC_NAME": site.control_identity,
        "POLICY_SVC_ADDR": site.policy_address,
        "POLICY_SVC_NAME": site.control_identity,
        "CONTROL_STREAM_INITIAL_TIMEOUT": "3s",
        "CONTROL_STREAM_IDLE_TIMEOUT": "5m",
        "CONTROL_STREAM_LIFETIME": "1h",
        # Who the pod is
        "IDENTITY_DIR": site.identity_folder,
        "IDENTITY_TOKEN_FILE": site.token_file,
        "IDENTITY_TRUST_ANCHORS": site.trust_anchors,
        "IDENTITY_LOCAL_NAME": identity,
        "POLICY_WORKLOAD": _json({"ns": subject.namespace, "pod": subject.name}),
        "DESTINATION_CONTEXT": _json(
            {"ns": subject.namespace, "nodeName": subject.node, "pod": subject.name}
        ),
        # Where it listens
        "CONTROL_LISTEN_ADDR": f"[::]:{control}",
        "ADMIN_LISTEN_ADDR": f"[::]:{admin}",
        "INBOUND_LISTEN_ADDR": f"[::]:{inbound}",
        "OUTBOUND_LISTEN_ADDRS": f"127.0.0.1:{outbound},[::1]:{outbound}",
        # What arrives
        "INBOUND_IPS": ",".join(subject.addresses),
        "INBOUND_PORTS": ",".join(sorted(str(port) for port in inbound_ports(spec))),
        "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION": written(opaque),
        "INBOUND_DEFAULT_POLICY": read.take(
            "default-inbound-policy", "all-unauthenticated", _one_of(*sorted(DEFAULT_POLICIES))
        ),
        "INBOUND_CONNECT_TIMEOUT": read.take("proxy-inbound-connect-timeout", "100ms", _milliseconds),
        "INBOUND_DISCOVERY_IDLE_TIMEOUT": read.take(
            "proxy-inbound-discovery-cache-unused-timeout", "90s", _seconds
        ),
        "INBOUND_DETECT_TIMEOUT": _detect_timeout(read, "inbound"),
        "INBOUND_ACCEPT_KEEPALIVE": "10000ms",
        "INBOUND_ACCEPT_USER_TIMEOUT": "13s",
        "INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "10s",
        "INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT": "3s",
        "INBOUND_GATEWAY_SUFFIXES": (
            f"svc.{site.cluster_domain}." if read.take("enable-gateway", False, _boolean) else None
        ),
        # What leaves
        "POLICY_CLUSTER_NETWORKS": ",".join(site.cluster_networks),
        "DESTINATION_PROFILE_NETWORKS": ",".join(site.cluster_networks),
        "DESTINATION_PROFILE_SUFFIXES": (
            "." if read.take("enable-external-profiles", False, _boolean) else f"svc.{site.cluster_domain}."
        ),
        "OUTBOUND_CONNECT_TIMEOUT": read.take("proxy-outbound-connect-timeout", "1000ms", _milliseconds),
        "OUTBOUND_DISCOVERY_IDLE_TIMEOUT": read.take(
            "proxy-outbound-discovery-cache-unused-timeout", "5s", _seconds
        ),
        "OUTBOUND_DETECT_TIMEOUT": _detect_timeout(read, "outbound"),
        "OUTBOUND_CONNECT_KEEPALIVE": "10000ms",
        "OUTBOUND_CONNECT_USER_TIMEOUT": "13s",
        "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "10s",
        "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT": "3s",
        "OUTBOUND_METRICS_HOSTNAME_LABELS": _word(
            read.take("proxy-metrics-hostname-labels", False, _boolean)
        ),
        "INGRESS_MODE": "true" if member.ingress else None,
        # Who looks on
        "TAP_SVC_NAME": site.control_identity if _tappable(subject) else None,
    }
    own = {"TULLE_PROXY_MARK": str(MARK)} if not site.has_proxy_uid else {}
    additional = read.additional_environment()
    if COLLECTOR in additional:
        environment |= _tracing(subject)
    return Injection(
        environment={
            **{f"LINKERD2_PROXY_{name}": value for name, value in environment.items() if value is not None},
            **own,
            **additional,
        },
        firewall=Firewall(
            proxy_uid=uid if site.has_proxy_uid else None,
            proxy_gid=gid if site.has_proxy_uid else None,
            inbound_port=inbound,
            outbound_port=outbound,
            own_ports=(control, admin),
            skip_inbound=_resolved(read.take("skip-inbound-ports", SKIPPED_BY_DEFAULT, PortSet.parse), names),
            skip_outbound=read.take("skip-outbound-ports", SKIPPED_BY_DEFAULT, PortSet.parse),
            skip_subnets=read.take("skip-subnets", (), _networks),
        ),
        annotations=read.effective,
        opaque_ports=opaque,
        identity=identity,
        uid=uid,
        gid=gid,
        admin_port=admin,
        wait_until_ready=read.take("proxy-await", True, _enabled),
        remarks=tuple(read.remarks),
    )


def effective_annotations(own: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """Return a pod's annotations with those it has from its namespace."""

    def inherits(key: str) -> bool:
        if key.startswith(CONFIG):
            return key.removeprefix(CONFIG) not in POD_ONLY
        return key in (INJECT, BINARY)

    return {**{key: value for key, value in inherited.items() if inherits(key)}, **own}


def inbound_ports(spec: PodSpec) -> frozenset[int]:
    """Return the ports whose policy the proxy wants to know from the start."""
    return frozenset(
        port
        for container in (*spec.containers, *(c for c in spec.init_containers if c.sidecar))
        for port in (
            *(port.port for port in container.ports if port.protocol == "TCP"),
            *(
                probe.action.port
                for probe in (container.readiness, container.liveness)
                if probe is not None
                and isinstance(probe.action, HttpGet)
                and isinstance(probe.action.port, int)
            ),
        )
    )


def written(ports: PortSet) -> str:
    """Write a set of ports as annotations do."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ports.ranges)


class _Annotations:
    """Reads `config.linkerd.io/…`, the pod's before its namespace's."""

    def __init__(self, subject: Subject) -> None:
        self._own = subject.annotations
        self._inherited = subject.namespace_annotations
        self.effective = effective_annotations(self._own, self._inherited)
        self.remarks: list[str] = []

    def take(self, name: str, default: Value, parse: Callable[[str], Value]) -> Value:
        """Return a value; one that is empty counts as not there, one that cannot be read as a remark."""
        text = self.effective.get(CONFIG + name, "")
        if not text.strip():
            return default
        try:
            return parse(text.strip())
        except (ValueError, ArithmeticError) as error:
            self.remarks.append(f'{CONFIG}{name} is "{text}" and was left out: {error}')
            return default

    def additional_environment(self) -> dict[str, str]:
        """Return `proxy-additional-env`, the only value that pod and namespace share by name."""
        found: dict[str, str] = {}
        for source in (self._inherited, self._own):
            text = source.get(f"{CONFIG}proxy-additional-env", "")
            if text.strip():
                found |= self._variables(text)
        return found

    def _variables(self, text: str) -> dict[str, str]:
        try:
            listed = json.loads(text)
            return {item["name"]: item["value"] for item in listed if isinstance(item["value"], str)}
        except (ValueError, TypeError, KeyError):
            expected = 'a JSON list of {"name": …, "value": …}'
            self.remarks.append(f"{CONFIG}proxy-additional-env was left out: expected {expected}")
            return {}


def _workers(read: _Annotations) -> dict[str, str | None]:
    least = read.take("proxy-cpu-request", 1, _cores)
    return {
        "CORES": str(least),
        "CORES_MIN": str(least),
        "CORES_MAX": read.take("proxy-cpu-limit", None, lambda text: str(_cores(text))),
        "CORES_MAX_RATIO": read.take("proxy-cpu-ratio-limit", None, _ratio),
    }


def _tappable(subject: Subject) -> bool:
    """Say whether requests may be watched; either of the two may say no."""
    places = (subject.annotations, subject.namespace_annotations)
    return all(annotations.get(DISABLE_TAP) != "true" for annotations in places)


def _tracing(subject: Subject) -> dict[str, str | None]:
    """Return what the proxy's spans say of the pod."""
    attributes = {
        "k8s.pod.name": subject.name,
        "k8s.namespace.name": subject.namespace,
        "k8s.container.name": "linkerd-proxy",
        **{
            key.removeprefix(RESOURCE): value
            for key, value in subject.annotations.items()
            if key.startswith(RESOURCE) and "\n" not in value
        },
    }
    labels = subject.labels
    service = labels.get("app.kubernetes.io/instance") or labels.get("app.kubernetes.io/name")
    return {
        "TRACE_SERVICE_NAME": service or "linkerd-proxy",
        "TRACE_EXTRA_ATTRIBUTES": "\n".join(f'{key}="{value}"' for key, value in attributes.items()),
    }


def _detect_timeout(read: _Annotations, direction: Literal["inbound", "outbound"]) -> str:
    disabled = read.take(f"proxy-disable-{direction}-protocol-detect-timeout", False, _boolean)
    return NO_DETECTION_TIMEOUT if disabled else "10s"


def _resolved(ports: PortSet, names: Mapping[str, int]) -> PortSet:
    """Put numbers in the place of the names of container ports."""
    numbers = tuple((names[name], names[name]) for name in sorted(ports.names) if name in names)
    return PortSet(ports.ranges + numbers)


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _word(value: bool) -> str:
    return "true" if value else "false"


def _text(text: str) -> str:
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {', '.join(words)}")
        return text

    return parse


def _boolean(text: str) -> bool:
    """Read what Go's ParseBool reads."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError("expected true or false")


def _enabled(text: str) -> bool:
    return _one_of("enabled", "disabled")(text) == "enabled"


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError("expected a port from 1 to 65535")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError("expected a number above 0")
    return int(text)


def _cores(text: str) -> int:
    """Return a CPU quantity as whole cores, rounded up."""
    match = QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("expected CPUs such as 2 or 500m")
    cores = Decimal(match[1]) / (1000 if match[2] else 1)
    return max(1, int(cores.to_integral_value(ROUND_CEILING)))


def _ratio(text: str) -> str:
    try:
        inside = 0 < Decimal(text) <= 1
    except InvalidOperation:
        inside = False
    if not inside:
        raise ValueError("expected a share above 0 and at most 1")
    return text


def _duration_ms(text: str) -> Decimal:
    """Return a Go duration in milliseconds."""
    if text == "0":
        return Decimal(0)
    if not DURATION.fullmatch(text):
        raise ValueError("expected a duration such as 500ms, 10s or 1m30s")
    return sum(
        (Decimal(amount) * Decimal(MILLISECONDS[unit]) for amount, unit in DURATION_PART.findall(text)),
        Decimal(0),
    )


def _milliseconds(text: str) -> str:
    return f"{int(_duration_ms(text))}ms"


def _seconds(text: str) -> str:
    return f"{int(_duration_ms(text) / 1000)}s"


def _networks(text: str) -> tuple[str, ...]:
    return tuple(
        str(ipaddress.ip_network(part.strip(), strict=False)) for part in text.split(",") if part.strip()
    )
