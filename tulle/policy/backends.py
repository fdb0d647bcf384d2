"""What routes lead to, as wire messages: services, addresses outside, and what fails since it is not there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tulle.model.authorization import POLICY_GROUP
from tulle.model.route import BackendRef
from tulle.model.service import ObjectName
from tulle.policy.targets import SERVICE, backend_name
from tulle.rules.traffic import Penalty, Traffic
from tulle.wire import meta_pb2
from tulle.wire import outbound_pb2 as wire

QUEUE = wire.Queue(capacity=100, failfast_timeout=Duration(seconds=3))
DEFAULT_RTT = Duration(nanos=30_000_000)
DECAY = Duration(seconds=10)


@dataclass(frozen=True, slots=True)
class Parent:
    """What the routes belong to: `itself` as a backend, its settings, and the services that backends may be.

    `egress` is the EgressNetwork that the parent is, None for a Service.
    """

    namespace: str
    itself: wire.Backend
    traffic: Traffic
    services: Mapping[ObjectName, Traffic]
    domain: str
    extended: bool
    egress: ObjectName | None = None


def service_backend(name: ObjectName, port: int, penalty: Penalty | None, domain: str) -> wire.Backend:
    """Write a service as a backend: balanced over its endpoints by latency."""
    backend = wire.Backend(metadata=service_metadata(name, port), queue=QUEUE)
    backend.balancer.discovery.dst.path = f"{name.name}.{name.namespace}.svc.{domain}:{port}"
    if penalty is None:
        backend.balancer.peak_ewma.default_rtt.CopyFrom(DEFAULT_RTT)
        backend.balancer.peak_ewma.decay.CopyFrom(DECAY)
        return backend
    backend.balancer.penalty_peak_ewma.CopyFrom(
        wire.Backend.BalanceP2c.PenaltyPeakEwma(
            default_rtt=DEFAULT_RTT,
            decay=DECAY,
            penalty=penalty.penalty,
            max_retry_after=penalty.max_retry_after,
            penalty_decay=DECAY,
        )
    )
    return backend


def service_metadata(name: ObjectName, port: int) -> meta_pb2.Metadata:
    """Name a service's port."""
    return resource("core", "Service", name, port)


def egress_metadata(name: ObjectName, port: int) -> meta_pb2.Metadata:
    """Name an EgressNetwork's port."""
    return resource(POLICY_GROUP, "EgressNetwork", name, port)


def default(name: str) -> meta_pb2.Metadata:
    """Name what no object stands for."""
    return meta_pb2.Metadata(default=name)


def to_itself(of: Any, itself: wire.Backend) -> Any:
    """Return the distribution of a kind of route that leads to the parent. (Each kind has a copy of the messages.)"""
    first = of.Distribution.FirstAvailable(backends=[of.RouteBackend(backend=itself)])
    return of.Distribution(first_available=first)


def weighted(of: Any, choices: Sequence[tuple[Any, int]]) -> Any:
    """Return the distribution of a kind of route that leads to several, by weight."""
    backends = [of.WeightedRouteBackend(backend=backend, weight=weight) for backend, weight in choices]
    return of.Distribution(random_available=of.Distribution.RandomAvailable(backends=backends))


def resolve(ref: BackendRef, parent: Parent) -> wire.Backend | str:
    """Return the backend that a route names, or what is wrong with it."""
    name = backend_name(ref, parent.namespace)
    kind = (ref.ref.group, ref.ref.kind)
    if kind == (POLICY_GROUP, "EgressNetwork"):
        if parent.egress == name:
            return parent.itself
        return f"EgressNetwork {name} can be a backend of its own routes only"
    if kind != SERVICE:
        return f"{ref.ref.kind} {name} cannot be a backend: kind {'.'.join(filter(None, kind[::-1]))} is not supported"
    if name not in parent.services:
        return f"Service {name} not found"
    if ref.port is None:
        return f"backend Service {name} has no port in the route"
    return service_backend(name, ref.port, parent.services[name].penalty, parent.domain)


def broken() -> wire.Backend:
    """Return a backend that fails; its filter says why."""
    return wire.Backend(metadata=default("invalid"), queue=QUEUE)


def resource(group: str, kind: str, name: ObjectName, port: int = 0) -> meta_pb2.Metadata:
    """Name an object."""
    named = meta_pb2.Resource(group=group, kind=kind, name=name.name, namespace=name.namespace, port=port)
    return meta_pb2.Metadata(resource=named)
