"""What a stock proxy refuses in an outbound policy, each of which would make it refuse all traffic to the target."""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tulle.wire import grpc_route_pb2, http_route_pb2, meta_pb2
from tulle.wire import outbound_pb2 as wire

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
OURS = 10_000
ROUTES = (wire.HttpRoute, wire.GrpcRoute, wire.TlsRoute, wire.OpaqueRoute)


def problems(policy: wire.OutboundPolicy, *, extended: bool) -> list[str]:
    """Return everything that is wrong; `extended` is whether the proxy understands our fields."""
    found = list(_of_policy(policy))
    for message in messages(policy):
        found += _of_message(message)
        if not extended:
            name = message.DESCRIPTOR.full_name
            found += [f"{name}.{of.name} is ours" for of, _ in message.ListFields() if of.number >= OURS]
    return found


def messages(message: Message) -> Iterator[Message]:
    """Yield a message and all that are in it."""
    yield message
    for of, value in message.ListFields():
        if of.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if of.is_repeated else [value]:
                yield from messages(item)


def _of_policy(policy: wire.OutboundPolicy) -> Iterator[str]:
    if not policy.HasField("metadata"):
        yield "policy without metadata"
    kind = policy.protocol.WhichOneof("kind")
    if kind is None:
        yield "policy without protocol"
    elif kind == "detect":
        for name in ("timeout", "opaque", "http1", "http2"):
            if not policy.protocol.detect.HasField(name):  # type: ignore[arg-type]
                yield f"detect without {name}"


def _of_message(message: Any) -> Iterator[str]:
    name = message.DESCRIPTOR.full_name
    match message:
        case Duration():
            if message.seconds < 0 or message.nanos < 0:
                yield "negative duration"
        case meta_pb2.Metadata():
            if not message.WhichOneof("kind"):
                yield "metadata of no kind"
        case meta_pb2.Resource():
            if not (message.group and message.kind and message.name and message.namespace):
                yield f"resource without a part: {message}"
        case wire.Backend():
            if not message.HasField("metadata"):
                yield "backend without metadata"
            if not message.queue.HasField("failfast_timeout"):
                yield "backend without queue"
        case wire.Backend.BalanceP2c():
            load = message.WhichOneof("load")
            if not message.discovery.dst.path or load is None:
                yield "balancer without discovery or load"
            elif not all(getattr(message, load).HasField(part) for part in ("default_rtt", "decay")):
                yield "load without durations"
        case wire.FailureAccrual():
            kind = message.WhichOneof("kind")
            if kind is None or not getattr(message, kind).HasField("backoff"):
                yield "accrual without kind or backoff"
            elif kind == "unified":
                yield from _of_unified(message.unified)
        case wire.ExponentialBackoff():
            least, most = message.min_backoff.ToTimedelta(), message.max_backoff.ToTimedelta()
            if least > most or not most or not 0 <= message.jitter_ratio <= 100:
                yield f"bad backoff: {message}"
        case wire.HttpRoute.Retry() | wire.GrpcRoute.Retry():
            if not message.HasField("conditions"):
                yield "retry without conditions"
        case wire.HttpRoute.Retry.Conditions.StatusRange():
            if not 1 <= message.start <= message.end <= 599:
                yield f"bad range {message.start}-{message.end}"
        case http_route_pb2.Ratio():
            if not message.denominator:
                yield "ratio of zero"
        case http_route_pb2.HttpFailureInjector():
            if not 100 <= message.status <= 599:
                yield f"failure status {message.status}"
        case grpc_route_pb2.GrpcFailureInjector():
            if message.code > 16:
                yield f"failure code {message.code}"
        case grpc_route_pb2.GrpcRouteMatch():
            if not message.HasField("rpc"):
                yield "match without rpc"
        case http_route_pb2.PathModifier():
            if not (message.full or message.prefix).startswith("/"):
                yield "path that is not absolute"
        case http_route_pb2.RequestRedirect():
            if message.status not in (0, *range(300, 400)) or message.port > 65535:
                yield f"redirect with status {message.status} to port {message.port}"
        case http_route_pb2.HeaderMatch():
            if not TOKEN.fullmatch(message.name) or not message.WhichOneof("value"):
                yield f"header match {message.name!r}"
        case http_route_pb2.PathMatch():
            if message.WhichOneof("kind") in ("exact", "prefix") and not (
                message.exact or message.prefix
            ).startswith("/"):
                yield "relative path"
        case http_route_pb2.HostMatch():
            if not message.exact and not all(message.suffix.reverse_labels):
                yield "empty host"
        case wire.ProxyProtocol.Opaque():
            if len(message.routes) > 1:
                yield "more than one opaque route"
    if isinstance(message, ROUTES):
        yield from _of_route(message, name)
    if message.DESCRIPTOR.name == "Distribution" and not message.WhichOneof("kind"):
        yield f"{name} of no kind"
    if message.DESCRIPTOR.name in ("FirstAvailable", "RandomAvailable"):
        yield from _of_choice(message, name)
    if message.DESCRIPTOR.name == "Rule" and not message.HasField("backends"):
        yield f"{name} without backends"
    if message.DESCRIPTOR.name == "Filter" and not message.WhichOneof("kind"):
        yield f"{name} of no kind"


def _of_unified(of: wire.FailureAccrual.Unified) -> Iterator[str]:
    if not 0 <= of.success_rate_threshold <= 1:
        yield f"threshold {of.success_rate_threshold}"
    if of.success_rate_threshold and of.decay.ToTimedelta().total_seconds() < 0.01:
        yield "window below 10 ms"
    if of.min_requests > 1_000_000:
        yield f"min_requests {of.min_requests}"


def _of_route(route: Any, name: str) -> Iterator[str]:
    if not route.HasField("metadata"):
        yield f"{name} without metadata"
    if isinstance(route, wire.TlsRoute | wire.OpaqueRoute) and len(route.rules) != 1:
        yield f"{name} with {len(route.rules)} rules"


def _of_choice(choice: Any, name: str) -> Iterator[str]:
    if not choice.backends:
        yield f"{name} is empty"
    for each in choice.backends:
        route_backend = each.backend if choice.DESCRIPTOR.name == "RandomAvailable" else each
        if not route_backend.HasField("backend"):
            yield f"{name}: no backend"
    if choice.DESCRIPTOR.name == "RandomAvailable":
        weights = [each.weight for each in choice.backends]
        if len(weights) > 1 and not any(weights):
            yield f"{name}: every weight is 0"
