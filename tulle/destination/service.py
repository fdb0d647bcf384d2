"""The Destination service: streams of endpoints and profiles, shared by all that ask the same.

A stream's first message goes out at once from memory, `no_endpoints` included, and never before the
gate is open. A name that can never have an answer ends with InvalidArgument, which proxies take for
final; an unknown one with NotFound, after which they ask again. A service that goes away while it is
followed becomes empty, and the stream stays: it may come back.
"""

from dataclasses import dataclass
from typing import Any

import grpc
import msgspec

from tulle.destination import translate
from tulle.destination.history import History
from tulle.destination.index import Ambiguous, Client, DestinationIndex, Profile, Resolution, Unknown
from tulle.lib.latest import Latest
from tulle.lib.stream import Context, Gate, follow_own, handlers, refuse
from tulle.lib.views import Answer, AnswerView, Refused, Views
from tulle.model.authority import AddressAuthority, AuthorityError, ServiceAuthority, parse
from tulle.model.service import ObjectName
from tulle.wire import destination_pb2 as wire

SERVICE = "io.linkerd.proxy.destination.Destination"


@dataclass(frozen=True, slots=True)
class EndpointsKey:
    """What two streams must have in common to share their messages."""

    authority: ServiceAuthority
    client: Client


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """The same for profiles; `namespace` is the client's, where that has a profile of its own."""

    authority: ServiceAuthority | AddressAuthority
    namespace: str = ""


class EndpointsView:
    """The endpoints of one service and port; `latest` carries generations of `history`."""

    def __init__(self, index: DestinationIndex, key: EndpointsKey) -> None:
        self._index = index
        self._key = key
        self.history = History()
        self.latest: Latest[Refused | History] = Latest()

    def refresh(self) -> frozenset[str]:
        """Resolve anew; publish a generation or a refusal if that differs."""
        resolution, topics = self._index.resolve(self._key.authority, self._key.client)
        if isinstance(resolution, Unknown):
            refused = _refusal(resolution)
            if self.latest.value is None or refused.code is not grpc.StatusCode.NOT_FOUND:
                self.latest.set(refused)
                return topics
            resolution = Resolution(self._key.authority.service, {}, exists=False)
        if self._index.is_local_only(self._key.authority.service) != (self._key.client.node is not None):
            self.latest.set(
                Refused(grpc.StatusCode.UNAVAILABLE, "the service's traffic policy changed: ask again")
            )
        elif self.history.take(resolution) or isinstance(self.latest.value, Refused):
            self.latest.set(self.history)
        return topics


class _Token(msgspec.Struct):
    """The context token, which we made ourselves; whatever else comes counts as empty."""

    ns: str = ""
    nodeName: str = ""  # noqa: N815  # the wire's spelling
    pod: str = ""


class DestinationService:
    """Serves both streams from shared views."""

    def __init__(self, index: DestinationIndex, gate: Gate, *, cluster_domain: str) -> None:
        self._index = index
        self._gate = gate
        self._domain = cluster_domain
        self.endpoints: Views[EndpointsKey, EndpointsView] = Views(lambda key: EndpointsView(index, key))
        self.profiles: Views[ProfileKey, AnswerView] = Views(
            lambda key: AnswerView(lambda: self._profile(key), lambda: index.own_answers(key.authority))
        )

    def touch(self, topics: set[str]) -> None:
        """Refresh every view that depends on one of the topics."""
        self.endpoints.touch(topics)
        self.profiles.touch(topics)

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a gRPC server serves."""
        decode = wire.GetDestination.FromString
        return handlers(
            SERVICE, watches={"Get": (decode, self.get), "GetProfile": (decode, self.get_profile)}, gets={}
        )

    async def get(self, request: wire.GetDestination, context: Context) -> None:
        """Stream a service's endpoints."""
        authority = await self._parse(request.path, context)
        if isinstance(authority, AddressAuthority):
            await refuse(context, _invalid(f"{request.path!r} is an address, which has no endpoints"))
        await self._gate.wait()
        with self.endpoints.follow(self.key(authority, request.context_token)) as view:
            await _follow_endpoints(view, context)

    async def get_profile(self, request: wire.GetDestination, context: Context) -> None:
        """Stream what a name or an address is."""
        authority = await self._parse(request.path, context)
        await self._gate.wait()
        namespace = _token(request.context_token).ns
        await follow_own(self.profiles, lambda: self.profile_key(authority, namespace), context)

    def key(self, authority: ServiceAuthority, context_token: str) -> EndpointsKey:
        """Return the view that a client with this token gets: only what changes an answer counts."""
        token = _token(context_token)
        pod = ObjectName(token.ns, token.pod) if token.pod else None
        node = token.nodeName if self._index.is_local_only(authority.service) else None
        return EndpointsKey(authority, Client(self._index.zone_of(pod), node))

    def profile_key(self, authority: ServiceAuthority | AddressAuthority, namespace: str = "") -> ProfileKey:
        """Return the view that a client of a namespace gets: few namespaces have profiles of their own."""
        own = namespace in self._index.own_answers(authority)
        return ProfileKey(authority, namespace if own else "")

    async def _parse(self, path: str, context: Context) -> ServiceAuthority | AddressAuthority:
        try:
            return parse(path, self._domain)
        except AuthorityError as error:
            await refuse(context, _invalid(str(error)))

    def _profile(self, key: ProfileKey) -> tuple[Answer, frozenset[str]]:
        profile, topics = self._index.profile(key.authority, key.namespace)
        return self._translate(profile), topics

    def _translate(self, profile: Profile) -> Answer:
        if isinstance(profile, Unknown | Ambiguous):
            return _refusal(profile)
        return translate.profile(profile, cluster_domain=self._domain)


async def _follow_endpoints(view: EndpointsView, context: Context) -> None:
    seen, sent = 0, 0
    while True:
        seen, current = await view.latest.next(seen)
        if isinstance(current, Refused):
            await refuse(context, current)
        updates = current.since(sent)
        if updates is None:
            await refuse(context, Refused(grpc.StatusCode.UNAVAILABLE, "too far behind: begin anew"))
        sent = current.generation
        for update in updates:
            await context.write(update)


def _refusal(of: Unknown | Ambiguous) -> Refused:
    if isinstance(of, Ambiguous):
        return Refused(grpc.StatusCode.FAILED_PRECONDITION, of.message)
    return _invalid(of.message) if of.final else Refused(grpc.StatusCode.NOT_FOUND, of.message)


def _invalid(message: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def _token(text: str) -> _Token:
    try:
        return msgspec.json.decode(text, type=_Token)
    except msgspec.MsgspecError:
        return _Token(ns=text.removeprefix("ns:")) if text.startswith("ns:") else _Token()
