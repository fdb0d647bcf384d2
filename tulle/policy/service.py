"""The two policy services: streams of whole policies, shared by all that ask the same.

A workload or a port that cannot be read ends the stream with InvalidArgument (the proxy's default
holds for ever); an unknown pod with NotFound, after which the proxy asks again, but not at once: a
proxy often is faster than the news of its pod, and would lose a back-off's time. An address that is no
service's ends with NotFound too, which there means: use the profile.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from tulle.lib.log import logger
from tulle.lib.stream import Context, Gate, follow, handlers, refuse
from tulle.lib.views import Answer, AnswerView, Refused, Views
from tulle.model.address import MAX_PORT
from tulle.model.authority import AddressAuthority, AuthorityError, parse
from tulle.model.pod import pod_of_workload
from tulle.model.service import ObjectName
from tulle.policy import inbound, outbound
from tulle.policy.index import OutboundKey, PolicyIndex, ServiceTarget, Unknown
from tulle.wire import inbound_pb2, outbound_pb2
from tulle.wire.addresses import from_wire

INBOUND = "io.linkerd.proxy.inbound.InboundServerPolicies"
OUTBOUND = "io.linkerd.proxy.outbound.OutboundPolicies"

_FORM = '{"ns":…,"pod":…}'

_log = logger("policy")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InboundKey:
    """A port of a pod."""

    pod: ObjectName
    port: int


class PolicyService:
    """Serves both services from shared views; `patience` is how many seconds a pod may still be unknown."""

    def __init__(
        self,
        index: PolicyIndex,
        gate: Gate,
        *,
        cluster_domain: str,
        cluster_networks: tuple[str, ...],
        controller_identity: str,
        patience: float,
    ) -> None:
        self._index = index
        self._gate = gate
        self._domain = cluster_domain
        self._networks = cluster_networks
        self._controller = controller_identity
        self._patience = patience
        self._reported: set[tuple[ObjectName, int, str]] = set()
        self.inbound: Views[InboundKey, AnswerView] = Views(
            lambda key: AnswerView(lambda: self._inbound(key))
        )
        self.outbound: Views[OutboundKey, AnswerView] = Views(
            lambda key: AnswerView(lambda: self._outbound(key))
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
        key = await _accept(outbound_key(request), context)
        await self._gate.wait()
        with self.outbound.follow(key) as view:
            await follow(view.latest, context)

    async def get(self, request: outbound_pb2.TrafficSpec, context: Context) -> bytes:
        """Answer with a target's policy as it is now."""
        key = await _accept(outbound_key(request), context)
        await self._gate.wait()
        return await _accept(self._outbound(key)[0], context)

    def key_of(self, text: str) -> OutboundKey:
        """Return the key for what a person wrote: an address with a port, or a name."""
        try:
            authority = parse(text, self._domain)
        except AuthorityError:
            return OutboundKey(authority=text)
        if isinstance(authority, AddressAuthority):
            return OutboundKey(address=authority.address, port=authority.port)
        return OutboundKey(authority=text)

    def _inbound(self, key: InboundKey) -> tuple[Answer, frozenset[str]]:
        port, topics = self._index.inbound(key.pod, key.port)
        if isinstance(port, Unknown):
            return Refused(grpc.StatusCode.NOT_FOUND, port.message), topics
        server = inbound.server(port, cluster_networks=self._networks, controller=self._controller)
        return server.SerializeToString(deterministic=True), topics

    def _outbound(self, key: OutboundKey) -> tuple[Answer, frozenset[str]]:
        target, topics = self._index.outbound(key)
        if isinstance(target, Unknown):
            return Refused(grpc.StatusCode.NOT_FOUND, target.message), topics
        if isinstance(target, ServiceTarget):
            self._report(target)
        policy = outbound.policy(target, cluster_domain=self._domain)
        return policy.SerializeToString(deterministic=True), topics

    def _report(self, target: ServiceTarget) -> None:
        mistake = self._index.mistakes(target)
        if mistake and (target.service, target.port, mistake) not in self._reported:
            self._reported.add((target.service, target.port, mistake))
            _log.warning(mistake, service=str(target.service), port=target.port)


def inbound_key(request: inbound_pb2.PortSpec) -> InboundKey | Refused:
    """Read what is asked about, or say what is wrong with it."""
    pod = pod_of_workload(request.workload)
    if pod is None:
        return _invalid(f"workload {request.workload!r} is not of the form {_FORM}")
    if not 0 < request.port <= MAX_PORT:
        return _invalid(f"{request.port} is not a port")
    return InboundKey(pod, request.port)


def outbound_key(request: outbound_pb2.TrafficSpec) -> OutboundKey | Refused:
    """Read what is asked about, or say what is wrong with it."""
    if request.HasField("authority"):
        return (
            OutboundKey(authority=request.authority)
            if request.authority
            else _invalid("the authority is empty")
        )
    address = from_wire(request.addr.ip)
    if address is None or not 0 < request.addr.port <= MAX_PORT:
        return _invalid("the target is neither an address with a port nor an authority")
    return OutboundKey(address=address, port=request.addr.port)


async def _accept(value: T | Refused, context: Context) -> T:
    if isinstance(value, Refused):
        await refuse(context, value)
    return value


def _invalid(message: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)
