"""The two policy services: streams of whole policies, shared by all that ask the same.

A workload or a port that cannot be read ends the stream with InvalidArgument (the proxy's default
holds for ever); an unknown pod with NotFound, after which the proxy asks again, but not at once: a
proxy often is faster than the news of its pod, and would lose a back-off's time. An address that is no
service's ends with NotFound too, which there means: use the profile.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from tulle.lib.log import logger
from tulle.lib.stream import Context, Gate, follow, follow_own, handlers, refuse
from tulle.lib.views import Answer, AnswerView, Refused, Views
from tulle.model.address import MAX_PORT
from tulle.model.authority import AddressAuthority, AuthorityError, parse
from tulle.model.pod import external_of_workload, namespace_of_workload, pod_of_workload
from tulle.model.service import ObjectName
from tulle.policy import inbound, outbound
from tulle.policy.index import PolicyIndex
from tulle.policy.targets import (
    Egress,
    Outbound,
    OutboundKey,
    ServiceTarget,
    UndefinedPort,
    Unknown,
    extensions,
)
from tulle.wire import inbound_pb2, outbound_pb2
from tulle.wire.addresses import from_wire

INBOUND = "io.linkerd.proxy.inbound.InboundServerPolicies"
OUTBOUND = "io.linkerd.proxy.outbound.OutboundPolicies"
CAPABILITIES = "tulle-capabilities"
"""What a proxy says in the metadata of its request: a list of what it understands beside upstream's contract."""
ROUTES = "routes"

_FORM = '{"ns":…,"pod":…} or {"ns":…,"external_workload":…}'

_log = logger("policy")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InboundKey:
    """A port of a pod, or of an external workload."""

    workload: ObjectName
    port: int
    external: bool = False


class PolicyService:
    """Serves both services from shared views; `patience` is how many seconds a pod may still be unknown."""

    def __init__(
        self,
        index: PolicyIndex,
        gate: Gate,
        *,
        cluster_domain: str,
        patience: float,
    ) -> None:
        self._index = index
        self._gate = gate
        self._domain = cluster_domain
        self._patience = patience
        self._reported: set[tuple[str, str]] = set()
        self.inbound: Views[InboundKey, AnswerView] = Views(
            lambda key: AnswerView(lambda: self._inbound(key))
        )
        self.outbound: Views[OutboundKey, AnswerView] = Views(
            lambda key: AnswerView(lambda: self._outbound(key), lambda: index.targets.own_answers(key))
        )

    def touch(self, topics: set[str]) -> None:
        """Refresh every view that depends on one of the topics."""
        self.inbound.touch(topics)
        self.outbound.touch(topics)

    def handlers(self) -> tuple["grpc.GenericRpcHandler[Any, Any]", ...]:
        """Return what a gRPC server serves."""
        port, traffic = inbound_pb2.PortSpec.FromString, outbound_pb2.TrafficSpec.FromString
        return (
            handlers(
                INBOUND,
                watches={"WatchPort": (port, self.watch_port)},
                gets={"GetPort": (port, self.get_port)},
            ),
            handlers(OUTBOUND, watches={"Watch": (traffic, self.watch)}, gets={"Get": (traffic, self.get)}),
        )

    async def watch_port(self, request: inbound_pb2.PortSpec, context: Context) -> None:
        """Stream a port's policy."""
        key = await _accept(inbound_key(request), context)
        await self._gate.wait()
        with self.inbound.follow(key) as view:
            if isinstance(view.latest.value, Refused):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(view.latest.next(view.latest.generation), self._patience)
            await follow(view.latest, context)

    async def get_port(self, request: inbound_pb2.PortSpec, context: Context) -> bytes:
        """Answer with a port's policy as it is now."""
        key = await _accept(inbound_key(request), context)
        await self._gate.wait()
        return await _accept(self._inbound(key)[0], context)

    async def watch(self, request: outbound_pb2.TrafficSpec, context: Context) -> None:
        """Stream a target's policy."""
        key = await _accept(outbound_key(request, context.invocation_metadata()), context)
        await self._gate.wait()
        await follow_own(self.outbound, lambda: self._index.targets.shared(key), context)

    async def get(self, request: outbound_pb2.TrafficSpec, context: Context) -> bytes:
        """Answer with a target's policy as it is now."""
        key = await _accept(outbound_key(request, context.invocation_metadata()), context)
        await self._gate.wait()
        return await _accept(self._outbound(key)[0], context)

    def key_of(self, text: str, namespace: str = "") -> OutboundKey:
        """Return the key for what a person wrote, an address with a port or a name, as a client of a namespace asks."""
        try:
            authority = parse(text, self._domain)
        except AuthorityError:
            return OutboundKey(authority=text)
        if isinstance(authority, AddressAuthority):
            asked = OutboundKey(authority.address, authority.port, namespace=namespace, extended=True)
        else:
            asked = OutboundKey(authority=text, namespace=namespace, extended=True)
        return self._index.targets.shared(asked)

    def _inbound(self, key: InboundKey) -> tuple[Answer, frozenset[str]]:
        port, topics = self._index.inbound(key.workload, key.port, external=key.external)
        if isinstance(port, Unknown):
            return Refused(grpc.StatusCode.NOT_FOUND, port.message), topics
        return inbound.server(port).SerializeToString(deterministic=True), topics

    def _outbound(self, key: OutboundKey) -> tuple[Answer, frozenset[str]]:
        target, topics = self._index.targets.find(key)
        if isinstance(target, Unknown):
            return Refused(grpc.StatusCode.NOT_FOUND, target.message), topics
        self._report(key, target)
        policy = outbound.policy(target, cluster_domain=self._domain, extended=key.extended)
        return policy.SerializeToString(deterministic=True), topics

    def _report(self, key: OutboundKey, target: Outbound) -> None:
        mistakes = list(self._index.targets.mistakes(target))
        if not key.extended and isinstance(target, ServiceTarget | Egress):
            mistakes += [f"{of} is beyond a client's proxy" for of in extensions(target.routes)]
        for mistake in mistakes:
            about = str(_parent(target))
            if (about, mistake) not in self._reported:
                self._reported.add((about, mistake))
                _log.warning(mistake, parent=about)


def _parent(target: Outbound) -> ObjectName | None:
    match target:
        case ServiceTarget() | UndefinedPort():
            return target.service
        case Egress(network=network) if network is not None:
            return network.name
    return None


def inbound_key(request: inbound_pb2.PortSpec) -> InboundKey | Refused:
    """Read what is asked about, or say what is wrong with it."""
    pod = pod_of_workload(request.workload)
    workload = pod or external_of_workload(request.workload)
    if workload is None:
        return _invalid(f"workload {request.workload!r} is not of the form {_FORM}")
    if not 0 < request.port <= MAX_PORT:
        return _invalid(f"{request.port} is not a port")
    return InboundKey(workload, request.port, external=pod is None)


def outbound_key(
    request: outbound_pb2.TrafficSpec, metadata: Iterable[tuple[str, str | bytes]] | None = None
) -> OutboundKey | Refused:
    """Read who asks about what, or say what is wrong with it."""
    namespace = namespace_of_workload(request.source_workload)
    extended = any(
        name == CAPABILITIES and isinstance(value, str) and ROUTES in map(str.strip, value.split(","))
        for name, value in metadata or ()
    )
    if request.HasField("authority"):
        if not request.authority:
            return _invalid("the authority is empty")
        return OutboundKey(authority=request.authority, namespace=namespace, extended=extended)
    address = from_wire(request.addr.ip)
    if address is None or not 0 < request.addr.port <= MAX_PORT:
        return _invalid("the target is neither an address with a port nor an authority")
    return OutboundKey(address=address, port=request.addr.port, namespace=namespace, extended=extended)


async def _accept(value: T | Refused, context: Context) -> T:
    if isinstance(value, Refused):
        await refuse(context, value)
    return value


def _invalid(message: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)
