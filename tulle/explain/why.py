"""Follows one request through the mesh: name, client's proxy, backends, endpoints, their proxies.

Nothing is decided here. The policies are the bytes that the proxies are sent, and the engine that answers is
theirs; what is done here is what an application and the network do: look the name up, and carry the request from
one proxy to the next.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import msgspec
import tulle_engine as engine

from tulle.destination.index import Client, EndpointProfile, Peer, Resolution
from tulle.explain.answer import (
    Asked,
    Branch,
    Explanation,
    Inbound,
    Kind,
    Outbound,
    Question,
    Reference,
    Refusal,
    Step,
)
from tulle.explain.ground import Ground
from tulle.explain.names import (
    HTTP_PORT,
    SKIP_OUTBOUND,
    Caller,
    Place,
    find_client,
    find_target,
    host_and_port,
    service_reference,
)
from tulle.model.authority import AddressAuthority, ServiceAuthority, parse
from tulle.model.errors import SettingError
from tulle.model.pod import Pod
from tulle.model.route import GrpcMatch
from tulle.model.service import ObjectName

BUDGET_ALONE = 100
"""What the engine has for the tries of a service profile's route, which only its budget limits."""


def explain(ground: Ground, question: Question) -> Explanation:
    """Return the decision path.

    Raises:
        NotFound: the client or the target is not in the mesh.
        SettingError: the question makes no sense.
    """
    ground = ground.described()
    client = find_client(ground, question.source)
    place = find_target(ground, client.party, question)
    walk = Walk(ground, client, place, question)
    outbound, branches = walk.through()
    refused = (outbound.refusal if outbound else None) or next(
        (branch.refused for branch in branches if branch.share and branch.refused), None
    )
    served = any(branch.share for branch in branches)
    allowed = refused is None and served
    return Explanation(
        client.party, place.target, walk.asked, allowed, outbound, walk.straight, tuple(branches)
    )


class Walk:
    """One request on its way."""

    def __init__(self, ground: Ground, client: Caller, place: Place, question: Question) -> None:
        self._ground = ground
        self._client = client
        self._place = place
        self._question = question
        self.asked = Asked("tcp" if question.tcp else "http")
        self.straight: str | None = None

    def through(self) -> tuple[Outbound | None, list[Branch]]:
        """Return what the client's proxy decides, and what becomes of the request at each backend."""
        target, namespace = self._place.target, self._client.party.namespace
        sent = self._ground.outbound(target.address, target.port, namespace)
        if sent is None or not self._client.uses_proxy(target.port):
            self.straight = self._why_straight()
            self._ask(None)
            return None, list(self._straight())
        profile = self._ground.profile(target.address, target.port, namespace)
        policy = engine.ClientPolicy.decode(sent, profile=profile, port=target.port)
        request = self._ask(policy.protocol)
        if request is None:
            # What a client of foreign TLS asks for is the name that it knows.
            host = host_and_port(self._place.authority)[0]
            decision = policy.connect(sni=host if policy.protocol == "tls" else None)
        else:
            decision = policy.route(request)
        own = self._client.party.namespace
        outbound = Outbound(
            policy.protocol,
            _object(self._ground, policy.resource, own),
            _route(self._ground, decision.route, own),
            _refusal(decision, self.asked.kind),
            tuple(_limits(decision)),
            tuple(_steps(self._ground, decision.steps, own)),
        )
        total = sum(backend.weight for backend in decision.backends)
        if outbound.refusal is None and not total:
            outbound = _without_backend(outbound)
        return outbound, [
            self._branch(each, each.weight / total, request) for each in decision.backends if total
        ]

    def _why_straight(self) -> str:
        client, target = self._client, self._place.target
        if not client.party.meshed:
            return f"{client.party.name} has no proxy"
        if not client.uses_proxy(target.port):
            return f"{client.party.name} skips port {target.port} ({SKIP_OUTBOUND})"
        return f"no policy is about {target.address}, which is one endpoint's address"

    def _ask(self, protocol: str | None) -> engine.Request | None:
        """Make the request, as far as what is asked about is one."""
        question = self._question
        if question.tcp or protocol in ("opaque", "tls"):
            self.asked = Asked("tcp")
            return None
        grpc = protocol == "grpc"
        method = question.method or ("POST" if grpc else "GET")
        path = self._some_call() if grpc and question.path == "/" else question.path
        if not (path.startswith("/") or "://" in path or path == "*" or method == "CONNECT"):
            raise SettingError(f'"{path}" is no path; it begins with /')
        try:
            request = engine.Request(
                method,
                path,
                authority=self._place.authority,
                headers=question.headers,
                http2=question.http2 or protocol in ("grpc", "http2"),
            )
        except ValueError as error:
            raise SettingError(f"that is no request: {error}") from error
        self.asked = Asked("grpc" if grpc else "http", method, path, self._place.authority, question.headers)
        self._request = request
        return request

    def _some_call(self) -> str:
        """Return a call for who named none: one that a route of the service is about, if there is one."""
        name = self._place.service.name if self._place.service else ObjectName("", "")
        for route in self._ground.world.routes_of("", "Service", name):
            for match in (match for rule in route.rules for match in rule.matches):
                if isinstance(match, GrpcMatch) and match.service and match.method:
                    return f"/{match.service}/{match.method}"
        return "/any.Service/AnyMethod"

    def _straight(self) -> Iterator[Branch]:
        """Yield where a connection ends that no policy of the client's proxy is about."""
        service, target = self._place.service, self._place.target
        if service is not None:
            peers = self._peers(ServiceAuthority(service.name, target.port))
            yield self._delivered(service_reference(self._ground, service), 1.0, peers, self._own_request())
            return
        for address in self._place.addresses:
            profile, _ = self._ground.destination.profile(AddressAuthority(address, target.port))
            peer = profile.peer if isinstance(profile, EndpointProfile) else Peer(address, target.port)
            reference = target.object or Reference("default", "endpoint")
            yield self._delivered(reference, 1 / len(self._place.addresses), [peer], self._own_request())

    def _own_request(self) -> engine.Request | None:
        return self._request if self.asked.kind != "tcp" else None

    def _branch(self, backend: engine.Backend, share: float, request: engine.Request | None) -> Branch:
        own = self._client.party.namespace
        reference = _object(self._ground, backend.resource, own)
        refusal = _refusal(backend, self.asked.kind)
        if refusal is not None:
            return Branch(reference, share, refusal=refusal)
        sent = backend.request
        changed = tuple(_changes(request, sent)) if request and sent else ()
        if backend.path is not None:
            peers = self._peers(parse(backend.path, self._ground.domain))
        else:
            host, port = host_and_port(backend.address or "")
            profile, _ = self._ground.destination.profile(AddressAuthority(host, port or HTTP_PORT))
            peers = (
                [profile.peer] if isinstance(profile, EndpointProfile) else [Peer(host, port or HTTP_PORT)]
            )
        return self._delivered(reference, share, peers, sent, changed)

    def _peers(self, authority: ServiceAuthority | AddressAuthority) -> list[Peer]:
        if isinstance(authority, AddressAuthority):
            return [Peer(authority.address, authority.port)]
        local = self._ground.destination.is_local_only(authority.service)
        node = self._client.pod.node if self._client.pod and local else None
        resolution, _ = self._ground.destination.resolve(authority, Client(None, node))
        return list(resolution.peers.values()) if isinstance(resolution, Resolution) else []

    def _delivered(
        self,
        backend: Reference,
        share: float,
        peers: Sequence[Peer],
        request: engine.Request | None,
        changed: tuple[str, ...] = (),
    ) -> Branch:
        endpoints = tuple(self._shown(peer) for peer in peers)
        if not peers:
            message = "it has no ready endpoint"
            refusal = Refusal("no_endpoints", message, *self._unserved())
            return Branch(backend, share, changed=changed, refusal=refusal)
        decisions: dict[Inbound, list[str]] = {}
        for peer in peers:
            pod = self._ground.world.pod_at(peer.address)
            if pod is not None and pod.reached_through_proxy(peer.port):
                decided = self._inbound(pod, peer, request)
                decisions.setdefault(decided, []).append(pod.name.name)
        inbound = tuple(
            msgspec.structs.replace(decided, pods=tuple(sorted(pods))) for decided, pods in decisions.items()
        )
        return Branch(backend, share, endpoints, changed, None, inbound)

    def _unserved(self) -> tuple[int | None, str | None, int | None]:
        """Return status, location and gRPC status for what has no endpoint; without a proxy there is no answer."""
        if self.straight is not None or self.asked.kind == "tcp":
            return None, None, None
        return (200, None, 4) if self.asked.kind == "grpc" else (504, None, None)

    def _shown(self, peer: Peer) -> str:
        pod = self._ground.world.pod_at(peer.address)
        where = f"{peer.address}:{peer.port}" if ":" not in peer.address else f"[{peer.address}]:{peer.port}"
        return f"{pod.name.name} at {where}" if pod else where

    def _inbound(self, pod: Pod, peer: Peer, request: engine.Request | None) -> Inbound:
        sent = self._ground.inbound(pod.name, peer.port)
        assert sent is not None, "a pod that an endpoint names is known"
        policy = engine.ServerPolicy.decode(sent)
        through = self._client.uses_proxy(self._place.target.port)
        identity = self._client.party.identity if through and peer.identity else None
        address = self._client.party.address
        looked_at = request if policy.protocol not in ("opaque", "tls") else None
        if looked_at is None:
            decision = policy.connect(address, identity)
        else:
            decision = policy.authorize(address, identity, looked_at)
        own = pod.name.namespace
        limit = policy.rate_limit(identity) if looked_at else None
        return Inbound(
            (),
            own,
            peer.port,
            policy.protocol,
            _object(self._ground, decision.server, own),
            identity,
            _route(self._ground, decision.route, own),
            _object(self._ground, decision.authorization, own) if decision.authorization else None,
            tuple(_changes(request, decision.request)) if request and decision.request else (),
            _refusal(decision, self.asked.kind if looked_at else "tcp"),
            tuple(_rates(self._ground, limit, own)),
            tuple(_steps(self._ground, decision.steps, own)),
        )


def _without_backend(outbound: Outbound) -> Outbound:
    refusal = Refusal("backend_invalid", "the route has no backend that gets any traffic", 500)
    return msgspec.structs.replace(outbound, refusal=refusal)


def _object(ground: Ground, resource: engine.Resource, own: str) -> Reference:
    """Name an object; a server's proxy is told no namespace, which is then its own."""
    if resource.kind == "default" or not (resource.group or resource.namespace):
        return Reference("default", resource.name)
    return ground.reference(resource.group, resource.kind, resource.namespace or own, resource.name)


def _route(ground: Ground, resource: engine.Resource | None, own: str) -> Reference | None:
    return _object(ground, resource, own) if resource else None


def _steps(ground: Ground, steps: Iterable[engine.Step], own: str) -> Iterator[Step]:
    for step in steps:
        about = _object(ground, step.resource, own) if step.resource else None
        yield Step(step.subject, step.verdict, step.why, about, step.rule)


def _refusal(
    of: engine.ClientDecision | engine.ServerDecision | engine.Backend, kind: Kind
) -> Refusal | None:
    if of.reason is None and of.status is None:
        return None
    match kind:
        case "tcp":
            return Refusal(of.reason, of.message)
        case "grpc" if of.grpc_status is not None:
            return Refusal(of.reason, of.message, 200, None, of.grpc_status)
        case _:
            return Refusal(of.reason, of.message, of.status, of.location)


def _changes(before: engine.Request, after: engine.Request) -> Iterator[str]:
    """Yield what filters have made of a request."""
    if before.path != after.path:
        yield f"the path is now {after.path}"
    if before.authority != after.authority:
        yield f"the host is now {after.authority}"
    had, has = set(before.headers), set(after.headers)
    yield from (f"with {name}: {value}" for name, value in after.headers if (name, value) not in had)
    kept = {name for name, _ in has}
    yield from (f"without {name}" for name in sorted({name for name, _ in had} - kept))


def _limits(decision: engine.ClientDecision) -> Iterator[str]:
    shown: list[tuple[str, timedelta | None]] = [
        ("at most {} for all of it", decision.request_timeout),
        ("at most {} for the response", decision.response_timeout),
        ("at most {} of silence", decision.idle_timeout),
    ]
    yield from (text.format(_duration(limit)) for text, limit in shown if limit is not None)
    if retry := decision.retry:
        when = [f"{first}" if first == last else f"{first} to {last}" for first, last in retry.statuses]
        when += [f"gRPC {', '.join(map(str, retry.grpc_codes))}"] if retry.grpc_codes else []
        often = (
            f"up to {retry.limit} more times" if retry.limit < BUDGET_ALONE else "within the profile's budget"
        )
        after = f" after {', '.join(when)}" if when else ""
        each = f", at most {_duration(retry.timeout)} each" if retry.timeout else ""
        yield f"tried again {often}{after}{each}"


def _rates(ground: Ground, limit: engine.RateLimit | None, own: str) -> Iterator[str]:
    if limit is None:
        return
    name = _object(ground, limit.resource, own)
    numbers = [
        text.format(number)
        for text, number in (("{} requests/s in total", limit.total), ("{} from this client", limit.client))
        if number is not None
    ]
    if numbers:
        yield f"{name}: at most {' and '.join(numbers)}"


def _duration(limit: timedelta) -> str:
    seconds = limit.total_seconds()
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
