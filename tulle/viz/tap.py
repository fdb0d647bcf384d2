"""Watches requests in the proxies of chosen pods, through the controller's own proxy, which makes it mutual TLS.

A proxy shows as many requests as it was asked for and then ends, so each is asked again once a second: that is
what keeps watching from costing more than `max_rps`. What a proxy cannot show in time it leaves out.

An event is what Linkerd's tap prints as JSON, with `pod` beside it: whose proxy has seen it. Besides events there
are notes: `{"pod": …, "watching": true}` as soon as a proxy has begun to look, `{"pod": …, "error": …}` when one
cannot.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from tulle.model.errors import NotFound, SettingError
from tulle.model.pod import CONTROL_PORT, Pod
from tulle.wire import http_types_pb2, net_pb2, tap_pb2
from tulle.wire.addresses import from_wire

Event = dict[str, Any]
Tell = Callable[[Event], Awaitable[None]]

KINDS = {
    "cj": "cronjob",
    "deploy": "deployment",
    "ds": "daemonset",
    "ns": "namespace",
    "po": "pod",
    "rs": "replicaset",
    "sa": "serviceaccount",
    "sts": "statefulset",
    "svc": "service",
}
"""What people write for a kind besides its name and its plural."""
LABELS = {"job": "k8s_job"}
"""What a proxy calls a kind, where that is not its name."""
TARGETS = ("pod", "deployment", "statefulset", "daemonset", "replicaset", "job", "cronjob", "namespace")
DESTINATIONS = (*TARGETS, "service", "serviceaccount")
DISABLED = "viz.linkerd.io/disable-tap"

WINDOW_S = 1.0
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
"""Answers that may be others a second later."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests to watch, and where; an empty text means any."""

    target: str
    to: str = ""
    scheme: str = ""
    method: str = ""
    authority: str = ""
    path: str = ""
    max_rps: float = 100
    headers: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """`[KIND/]NAME[.NAMESPACE]`."""

    kind: str
    name: str
    namespace: str


def resource(text: str, kinds: Iterable[str]) -> Resource:
    """Read what a person calls an object.

    Raises:
        SettingError: it is not one of these kinds.
    """
    kind, _, rest = text.rpartition("/")
    kind = KINDS.get(kind.lower(), kind.lower())
    if kind and kind not in kinds:
        kind = kind.removesuffix("s")
        if kind not in kinds:
            raise SettingError(f'"{text}" is none of: {", ".join(kinds)}; write [KIND/]NAME[.NAMESPACE]')
    name, _, namespace = (rest, "", "") if kind == "namespace" else rest.partition(".")
    if not name:
        raise SettingError(f'"{text}" has no name; write [KIND/]NAME[.NAMESPACE]')
    return Resource(kind, name, namespace)


def chosen(pods: Iterable[Pod], target: str) -> list[Pod]:
    """Return the pods in whose proxies to look.

    Raises:
        NotFound: there is none, or none that can be watched; the text says why.
    """
    wanted = resource(target, TARGETS)
    there = [pod for pod in pods if not pod.terminating]
    named = [pod for pod in there if _is(pod, wanted)]
    if not named:
        known = sorted({pod.owner.name if pod.owner else pod.name.name for pod in there})
        raise NotFound(f'nothing is called "{target}"; there are: {", ".join(known) or "no pods"}')
    able = [pod for pod in named if _untappable(pod) is None]
    if not able:
        said = "; ".join(f"{pod.name.name} {_untappable(pod)}" for pod in named)
        raise NotFound(f'no pod of "{target}" can be watched: {said}')
    return able


def question(asked: Wanted, limit: int) -> tap_pb2.ObserveRequest:
    """Put a question into the words of the wire.

    Raises:
        SettingError: it has no meaning.
    """
    kind = tap_pb2.ObserveRequest.Match
    parts: list[tap_pb2.ObserveRequest.Match] = []
    if asked.to:
        parts += _destination(resource(asked.to, DESTINATIONS))
    if asked.scheme:
        parts.append(kind(http=kind.Http(scheme=http_types_pb2.Scheme(unregistered=asked.scheme.lower()))))
    if asked.method:
        method = http_types_pb2.HttpMethod(unregistered=asked.method.upper())
        parts.append(kind(http=kind.Http(method=method)))
    if asked.authority:
        parts.append(kind(http=kind.Http(authority=kind.Http.StringMatch(exact=asked.authority))))
    if asked.path:
        parts.append(kind(http=kind.Http(path=kind.Http.StringMatch(prefix=asked.path))))
    made = tap_pb2.ObserveRequest(limit=limit, match=kind(all=kind.Seq(matches=parts)))
    if asked.headers:
        made.extract.http.headers.SetInParent()
    return made


def readable(event: tap_pb2.TapEvent) -> Event:
    """Return an event in the keys of Linkerd's JSON."""
    said: Event = {
        "source": _end(event.source, event.source_meta),
        "destination": _end(event.destination, event.destination_meta),
        "routeMeta": dict(event.route_meta.labels) or None,
        "proxyDirection": tap_pb2.TapEvent.ProxyDirection.Name(event.proxy_direction),
    }
    http = event.http
    match http.WhichOneof("event"):
        case "request_init":
            begun = http.request_init
            said["requestInitEvent"] = {
                "id": _id(begun.id),
                "method": _registered(begun.method, http_types_pb2.HttpMethod.Registered),
                "scheme": _registered(begun.scheme, http_types_pb2.Scheme.Registered),
                "authority": begun.authority,
                "path": begun.path,
                "headers": _headers(begun.headers) if begun.HasField("headers") else None,
            }
        case "response_init":
            answered = http.response_init
            said["responseInitEvent"] = {
                "id": _id(answered.id),
                "sinceRequestInit": _duration(answered.since_request_init),
                "httpStatus": answered.http_status,
                "headers": _headers(answered.headers) if answered.HasField("headers") else None,
            }
        case "response_end":
            ended = http.response_end
            said["responseEndEvent"] = {
                "id": _id(ended.id),
                "sinceRequestInit": _duration(ended.since_request_init),
                "sinceResponseInit": _duration(ended.since_response_init),
                "responseBytes": ended.response_bytes,
                "trailers": _headers(ended.trailers) if ended.HasField("trailers") else None,
                **_end_of_stream(ended.eos),
            }
    return said


class Tapper:
    """`pods` returns every pod, `pod_at` the one that has an address."""

    def __init__(self, pods: Callable[[], Iterable[Pod]], pod_at: Callable[[str], Pod | None]) -> None:
        self._pods = pods
        self._pod_at = pod_at

    def ask(self, asked: Wanted) -> "Watch":
        """Prepare to watch.

        Raises:
            NotFound: there is nothing to watch.
            SettingError: the question has no meaning.
        """
        pods = chosen(self._pods(), asked.target)
        limit = max(1, round(asked.max_rps / len(pods)))
        return Watch(tuple(pods), question(asked, limit), self._pod_at)


@dataclass(frozen=True, slots=True)
class Watch:
    """A question and the pods that it is put to."""

    pods: tuple[Pod, ...]
    request: tap_pb2.ObserveRequest
    pod_at: Callable[[str], Pod | None]

    async def run(self, tell: Tell) -> None:
        """Tell events and notes until cancelled, or until no proxy can be watched any longer."""
        async with asyncio.TaskGroup() as tasks:
            for pod in self.pods:
                tasks.create_task(self._watch(pod, tell))

    async def _watch(self, pod: Pod, tell: Tell) -> None:
        """Ask one proxy again and again, for as long as it makes sense."""
        about = {"pod": str(pod.name)}
        said: Event = {}

        async def note(**what: object) -> None:
            nonlocal said
            if what != said:
                said = what
                await tell({**about, **what})

        address = pod.addresses[0]
        target = f"[{address}]:{CONTROL_PORT}" if ":" in address else f"{address}:{CONTROL_PORT}"
        # Variables of the environment would send this through a proxy of the operator's.
        async with grpc.aio.insecure_channel(target, (("grpc.enable_http_proxy", 0),)) as channel:
            observe = channel.unary_stream(
                "/io.linkerd.proxy.tap.Tap/Observe",
                request_serializer=tap_pb2.ObserveRequest.SerializeToString,
                response_deserializer=tap_pb2.TapEvent.FromString,
            )
            while True:
                begun = time.monotonic()
                try:
                    call = observe(self.request)
                    await call.initial_metadata()
                    await note(watching=True)
                    async for event in call:
                        await tell({**about, **self._completed(readable(event))})
                except grpc.aio.AioRpcError as error:
                    await note(error=f"{error.code().name}: {error.details()}")
                    if error.code() not in PASSING:
                        return
                await asyncio.sleep(max(0.0, begun + WINDOW_S - time.monotonic()))

    def _completed(self, event: Event) -> Event:
        """Add what the addresses say to a mesh that knows its pods."""
        for end in (event["source"], event["destination"]):
            pod = self.pod_at(end["ip"]) if end["ip"] else None
            if pod is not None:
                end["metadata"] = {**dict(_names(pod)), **end["metadata"]}
        return event


def _is(pod: Pod, wanted: Resource) -> bool:
    if wanted.kind == "namespace":
        return pod.name.namespace == wanted.name
    if wanted.namespace not in ("", pod.name.namespace):
        return False
    by_pod = wanted.kind in ("", "pod") and pod.name.name == wanted.name
    owner = pod.owner
    by_owner = owner is not None and owner.name == wanted.name and wanted.kind in ("", owner.kind.lower())
    return by_pod or by_owner


def _untappable(pod: Pod) -> str | None:
    if not pod.meshed:
        return "is not meshed"
    if pod.annotations.get(DISABLED) == "true":
        return f"has the annotation {DISABLED}"
    return None if pod.addresses else "has no address yet"


def _destination(to: Resource) -> Iterator[tap_pb2.ObserveRequest.Match]:
    kind = tap_pb2.ObserveRequest.Match

    def label(key: str, value: str) -> tap_pb2.ObserveRequest.Match:
        return kind(destination_label=kind.Label(key=LABELS.get(key, key), value=value))

    kinds = [to.kind] if to.kind else [each for each in DESTINATIONS if each != "namespace"]
    yield kind(any=kind.Seq(matches=[label(each, to.name) for each in kinds]))
    if to.namespace:
        yield label("namespace", to.namespace)


def _names(pod: Pod) -> Iterator[tuple[str, str]]:
    yield "namespace", pod.name.namespace
    yield "pod", pod.name.name
    yield "serviceaccount", pod.service_account
    if pod.owner:
        kind = pod.owner.kind.lower()
        yield LABELS.get(kind, kind), pod.owner.name


def _end(address: net_pb2.TcpAddress, meta: tap_pb2.TapEvent.EndpointMeta) -> Event:
    return {"ip": from_wire(address.ip), "port": address.port, "metadata": dict(meta.labels)}


def _id(stream: tap_pb2.TapEvent.Http.StreamId) -> Event:
    return {"base": stream.base, "stream": stream.stream}


def _registered(value: Any, names: Any) -> str:
    kind = value.WhichOneof("type")
    if kind is None:
        return ""
    return str(names.Name(value.registered)) if kind == "registered" else str(value.unregistered)


def _headers(headers: http_types_pb2.Headers) -> list[Event]:
    """Return fields in order; a value that is no text comes in hexadecimal digits."""

    def field(header: http_types_pb2.Headers.Header) -> Event:
        try:
            return {"name": header.name, "valueStr": header.value.decode()}
        except UnicodeDecodeError:
            return {"name": header.name, "valueBin": header.value.hex()}

    return [field(header) for header in headers.headers]


def _duration(since: Duration) -> Event:
    """Return what is not zero, as Linkerd's JSON does."""
    parts = {"seconds": since.seconds, "nanos": since.nanos}
    return {part: value for part, value in parts.items() if value}


def _end_of_stream(eos: tap_pb2.Eos) -> Event:
    match eos.WhichOneof("end"):
        case "grpc_status_code":
            return {"grpcStatusCode": eos.grpc_status_code}
        case "reset_error_code":
            return {"resetErrorCode": eos.reset_error_code}
        case _:
            return {}
