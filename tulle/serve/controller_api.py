"""The controller's own HTTP API, on a Unix socket: readiness, numbers, diagnostics, identity.

For the command line and the supervisor. Every answer is JSON; a mistake is `{"error": …}` with the
status that says whose it is. Diagnostics answer with exactly what a proxy would be sent.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tulle.destination.service import DestinationService
from tulle.explain.answer import Question
from tulle.explain.ground import Ground
from tulle.identity import rotation
from tulle.identity.authority import MeshAuthority
from tulle.identity.certificates import AuthorityExpiredError
from tulle.identity.rotation import RotationError
from tulle.lib.stream import Gate
from tulle.lib.views import Refused
from tulle.model.authority import AddressAuthority, AuthorityError, ServiceAuthority, parse
from tulle.model.errors import NotFound, SettingError
from tulle.model.service import ObjectName
from tulle.policy.service import InboundKey, PolicyService
from tulle.policy.status import IpNetwork
from tulle.serve import objects
from tulle.sources.service import SourceService
from tulle.viz.scraper import Scraper
from tulle.viz.tap import Tapper, Wanted
from tulle.wire import destination_pb2, inbound_pb2, net_pb2, outbound_pb2
from tulle.wire.addresses import from_wire

_SHORT = re.compile(r"(?P<name>[a-z0-9-]+\.[a-z][a-z0-9-]*)(?P<port>(:\d+)?)")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API looks at."""

    gate: Gate
    sources: SourceService
    scraper: Scraper
    tapper: Tapper
    destination: DestinationService
    policy: PolicyService
    authority: MeshAuthority
    ground: Ground
    cluster_domain: str
    cluster_networks: tuple[IpNetwork, ...]


class _Rotate(msgspec.Struct):
    root: bool = False
    plan: bool = False
    force: bool = False


def build(parts: Parts) -> Starlette:
    """Build the application."""
    api = _Api(parts)
    return Starlette(
        routes=[
            Route("/v1/ready", api.ready),
            Route("/v1/stats", api.stats),
            Route("/v1/tap", api.tap),
            Route("/v1/diagnostics/endpoints", api.endpoints),
            Route("/v1/diagnostics/profile", api.profile),
            Route("/v1/diagnostics/policy", api.policy),
            Route("/v1/objects/{kind}", api.objects),
            Route("/v1/why", api.why, methods=["POST"]),
            Route("/v1/allow", api.allow, methods=["POST"]),
            Route("/v1/identity", api.identity),
            Route("/v1/identity/rotate", api.rotate, methods=["POST"]),
            Route("/v1/identity/recover", api.recover, methods=["POST"]),
        ],
        exception_handlers={Exception: _failed},
    )


class _Api:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ready(self, _: Request) -> Response:
        ready = self._parts.gate.is_open
        body = {
            "ready": ready,
            "waiting_for": self._parts.sources.waiting_for(),
            "ages": self._parts.sources.ages(),
        }
        return _json(body, 200 if ready else 503)

    async def stats(self, _: Request) -> Response:
        return _json({"pods": {pod: asdict(stats) for pod, stats in self._parts.scraper.stats().items()}})

    async def tap(self, request: Request) -> ASGIApp:
        try:
            asked = msgspec.convert(dict(request.query_params), Wanted, strict=False)
            return _Lines(self._parts.tapper.ask(asked).run)
        except NotFound as error:
            return _error(404, str(error))
        except (SettingError, msgspec.ValidationError) as error:
            return _error(400, str(error))

    async def objects(self, request: Request) -> Response:
        if not self._parts.gate.is_open:
            return _not_ready()
        query = request.query_params
        found = objects.find(
            self._parts.ground.world,
            self._parts.cluster_networks,
            request.path_params["kind"],
            namespace=query.get("namespace"),
            name=query.get("name"),
        )
        return _json({"items": list(found)})

    async def endpoints(self, request: Request) -> Response:
        authority = self._authority(request)
        if isinstance(authority, Response):
            return authority
        if isinstance(authority, AddressAuthority):
            return _error(400, "an address has no endpoints; ask for its profile")
        if not self._parts.gate.is_open:
            return _not_ready()
        key = self._parts.destination.key(authority, request.query_params.get("context", ""))
        with self._parts.destination.endpoints.follow(key) as view:
            answer = view.latest.value
            if answer is None or isinstance(answer, Refused):
                return _refused(answer)
            updates = [destination_pb2.Update.FromString(update) for update in answer.since(0) or ()]
        addresses = [address for update in updates for address in update.add.addrs]
        return _json(
            {
                "authority": request.query_params["authority"],
                "exists": not any(
                    update.HasField("no_endpoints") and not update.no_endpoints.exists for update in updates
                ),
                "labels": dict(updates[0].add.metric_labels) if updates else {},
                "endpoints": [_endpoint(address) for address in addresses],
            }
        )

    async def profile(self, request: Request) -> Response:
        authority = self._authority(request)
        if isinstance(authority, Response):
            return authority
        if not self._parts.gate.is_open:
            return _not_ready()
        with self._parts.destination.profiles.follow(self._parts.destination.profile_key(authority)) as view:
            answer = view.latest.value
        if answer is None or isinstance(answer, Refused):
            return _refused(answer)
        return _json(_readable(destination_pb2.DestinationProfile.FromString(answer)))

    async def policy(self, request: Request) -> Response:
        if not self._parts.gate.is_open:
            return _not_ready()
        query = request.query_params
        if "pod" not in query:
            return self._outbound_policy(self._full(query.get("authority", "")))
        namespace, slash, name = query["pod"].partition("/")
        port = query.get("port", "")
        if not (slash and name and port.isdigit()):
            return _error(400, "ask with pod=NAMESPACE/NAME&port=NUMBER, or authority=NAME_OR_ADDRESS:PORT")
        with self._parts.policy.inbound.follow(InboundKey(ObjectName(namespace, name), int(port))) as view:
            answer = view.latest.value
        if answer is None or isinstance(answer, Refused):
            return _refused(answer)
        return _json(_readable(inbound_pb2.Server.FromString(answer)))

    async def why(self, request: Request) -> Response:
        # The engine is loaded by who asks, not by every controller.
        from tulle.explain.why import explain

        return await self._explained(request, explain)

    async def allow(self, request: Request) -> Response:
        from tulle.explain.allow import allow

        return await self._explained(request, allow)

    async def _explained(self, request: Request, answer: Callable[[Ground, Question], object]) -> Response:
        if not self._parts.gate.is_open:
            return _not_ready()
        try:
            question = msgspec.json.decode(await request.body(), type=Question)
            return _json(answer(self._parts.ground, question))
        except msgspec.MsgspecError as error:
            return _error(400, str(error))
        except SettingError as error:
            return _error(422, str(error))
        except NotFound as error:
            return _error(404, str(error))

    async def identity(self, _: Request) -> Response:
        return _json(self._identity())

    async def rotate(self, request: Request) -> Response:
        try:
            wish = msgspec.json.decode(await request.body() or b"{}", type=_Rotate)
        except msgspec.MsgspecError as error:
            return _error(400, str(error))
        state = self._parts.authority.state
        if wish.plan:
            under_way = state.phase is not rotation.Phase.STEADY
            steps = rotation.plan(state, root=state.other_root is not None if under_way else wish.root)
            return _json({"steps": [asdict(step) for step in steps], **self._identity()})
        try:
            self._parts.authority.rotate(root=wish.root, force=wish.force)
        except RotationError as error:
            return _error(409, str(error))
        except AuthorityExpiredError as error:
            return _error(409, f"{error}: run `tulle identity recover`")
        return _json(self._identity())

    async def recover(self, _: Request) -> Response:
        return _json({"done": self._parts.authority.recover(), **self._identity()})

    def _identity(self) -> dict[str, object]:
        authority = self._parts.authority
        state = authority.state
        return {
            "phase": state.phase.value,
            "epoch": state.epoch,
            "rotating_root": state.other_root is not None,
            "root": {"expires": int(state.root.expires.timestamp()), "sha256": state.root.digest.hex()},
            "issuer": {"expires": int(state.issuer.expires.timestamp()), "sha256": state.issuer.digest.hex()},
            "bundle_sha256": state.bundle_digest.hex(),
            "bundle_pem": state.bundle_pem,
            "reported": sorted(str(pod) for pod in authority.reports),
            "blockers": [{"pod": str(of.pod), "reason": of.reason} for of in authority.blockers()],
        }

    def _outbound_policy(self, text: str) -> Response:
        key = self._parts.policy.key_of(text)
        with self._parts.policy.outbound.follow(key) as view:
            answer = view.latest.value
        if answer is None or isinstance(answer, Refused):
            return _refused(answer)
        return _json(_readable(outbound_pb2.OutboundPolicy.FromString(answer)))

    def _full(self, text: str) -> str:
        """Complete `service.namespace`, which people may write where proxies may not."""
        short = _SHORT.fullmatch(text)
        return f"{short['name']}.svc.{self._parts.cluster_domain}{short['port']}" if short else text

    def _authority(self, request: Request) -> ServiceAuthority | AddressAuthority | Response:
        try:
            return parse(self._full(request.query_params.get("authority", "")), self._parts.cluster_domain)
        except AuthorityError as error:
            return _error(400, str(error))


def _endpoint(address: destination_pb2.WeightedAddr) -> dict[str, object]:
    hint = address.protocol_hint
    return {
        "address": from_wire(address.addr.ip),
        "port": address.addr.port,
        "identity": address.tls_identity.dns_like_identity.name
        or address.tls_identity.uri_like_identity.uri
        or None,
        "hint": hint.WhichOneof("protocol"),
        "inbound_port": hint.opaque_transport.inbound_port or None,
        "labels": dict(address.metric_labels),
    }


def _readable(message: Message) -> object:
    """Return the message as a mapping, with its addresses the way people write them."""
    return _write_addresses(MessageToDict(message, preserving_proto_field_name=True))


def _write_addresses(value: Any) -> Any:
    if isinstance(value, list):
        return [_write_addresses(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"ipv4"}:
        return from_wire(net_pb2.IPAddress(ipv4=int(value["ipv4"])))
    if value.keys() == {"ipv6"}:
        first, last = (int(value["ipv6"].get(part, 0)) for part in ("first", "last"))
        return from_wire(net_pb2.IPAddress(ipv6=net_pb2.IPv6(first=first, last=last)))
    return {key: _write_addresses(item) for key, item in value.items()}


@dataclass(frozen=True, slots=True)
class _Lines:
    """An answer that is a JSON object per line, for as long as somebody reads it."""

    run: Callable[[Callable[[object], Awaitable[None]]], Awaitable[None]]

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        async def tell(value: object) -> None:
            line = msgspec.json.encode(value) + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})

        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_awaited(self.run(tell)))
            gone = tasks.create_task(_disconnected(receive))
            await asyncio.wait((running, gone), return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _error(status: int, text: str) -> Response:
    return _json({"error": text}, status)


async def _failed(_: Request, error: Exception) -> Response:
    """Name a mistake of ours; the server writes all of it into the log."""
    return _error(500, repr(error))


def _not_ready() -> Response:
    return _error(503, "the controller does not know the whole state yet")


def _refused(answer: Refused | None) -> Response:
    assert answer is not None, "a view has an answer as soon as it exists"
    return _json({"error": answer.message, "code": answer.code.name}, 404)
