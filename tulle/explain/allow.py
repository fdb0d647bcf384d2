"""Chooses the fewest objects that let a refused client in, and change nothing for anybody else.

A port that no Server owns gets one whose access policy is the default policy that held before. The first route of
a Server ends what holds without routes: other paths are not found, and probes are strangers. So one path alone
is allowed together with a route for the rest, which has no authorization of its own, and one for the probes.
"""

from collections.abc import Iterator, Sequence

from tulle.explain import words
from tulle.explain.answer import Explanation, Inbound, Permission, Question
from tulle.explain.ground import Ground
from tulle.explain.why import explain
from tulle.explain.write import Written, text
from tulle.model.authorization import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    AuthorizationPolicy,
    Network,
    NetworkAuthentication,
    ProxyProtocol,
    Ref,
    Server,
)
from tulle.model.errors import SettingError
from tulle.model.objects import Metadata, Position
from tulle.model.pod import Pod
from tulle.model.route import GrpcMatch, HttpMatch, ParentRef, PathMatch, Route, RouteKind, Rule
from tulle.model.service import ObjectName
from tulle.model.workload import LabelSelector

NOWHERE = Position("", 1)
GENERATED = (
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/",
    "apps.kubernetes.io/",
    "batch.kubernetes.io/",
    "linkerd.io/",
)
"""Labels that a pod has from whatever made it, and that differ from pod to pod."""


def allow(ground: Ground, question: Question) -> Permission:
    """Return what lets a client in.

    Raises:
        SettingError: no authorization could; the text says what stands in the way.
        NotFound: the client or the target is not in the mesh.
    """
    explanation = explain(ground, question)
    test = _test(question)
    if explanation.allowed:
        return Permission(explanation, "", test)
    _only_unauthorized(explanation)
    chosen = _Choice(ground, explanation, question)
    objects = [
        each
        for branch in explanation.branches
        for inbound in branch.inbound
        if branch.share and inbound.refusal
        for each in chosen.objects(inbound)
    ]
    return Permission(explanation, text(objects), test, tuple(chosen.remarks))


def _only_unauthorized(explanation: Explanation) -> None:
    outbound = explanation.outbound
    stops = [outbound.refusal] if outbound and outbound.refusal else []
    stops += [refusal for each in explanation.branches if each.share and (refusal := each.refused)]
    other = next((each for each in stops if each.reason != "unauthorized"), None)
    if other is not None or not stops:
        said = (
            f"{other.message or 'a redirect'} ({other.reason or other.status})"
            if other
            else "nothing serves it"
        )
        raise SettingError(f"no authorization is missing; what stands in the way is: {said}; see tulle why")


def _test(question: Question) -> str:
    words_of = [f'"{question.source}"', f'"{question.target}"']
    if question.tcp:
        return f"assert mesh.connect({', '.join(words_of)}).allowed"
    if question.path != "/":
        words_of.append(f'"{question.path}"')
    if question.method:
        words_of.append(f'method="{question.method}"')
    if question.headers:
        words_of.append(f"headers={dict(question.headers)}")
    return f"assert mesh.call({', '.join(words_of)}).allowed"


class _Choice:
    def __init__(self, ground: Ground, explanation: Explanation, question: Question) -> None:
        self._ground = ground
        self._client = explanation.client
        self._path = question.path.partition("?")[0]
        self._method = question.method
        self._http = explanation.asked.kind != "tcp"
        self._taken = {
            (item.raw.get("kind"), item.meta.namespace, item.meta.name) for item in ground.world.policies()
        }
        self._done: set[tuple[str, str, int]] = set()
        self.remarks: list[str] = []

    def objects(self, inbound: Inbound) -> Iterator[Written]:
        """Yield what one port needs."""
        pod = self._ground.world.pod(ObjectName(inbound.namespace, inbound.pods[0]))
        assert pod is not None, "an endpoint's pod is known"
        who = pod.owner.name if pod.owner else pod.name.name
        key = (inbound.namespace, inbound.server.name if inbound.server.namespace else who, inbound.port)
        if key in self._done:
            return
        self._done.add(key)
        home = inbound.namespace
        if inbound.server.kind == "default":
            server = self._server(pod, who, inbound)
            yield server
            target = Ref(POLICY_GROUP, "Server", server.meta.name)
        else:
            target = Ref(POLICY_GROUP, "Server", inbound.server.name)
        reader = f"{who}-from-{_label(self._client.name)}"
        if self._path != "/" and self._http:
            if inbound.route is not None and inbound.route.kind != "default":
                group = _group_of(self._ground, inbound.route.kind, home, inbound.route.name)
                target = Ref(group, inbound.route.kind, inbound.route.name)
                self.remarks.append(
                    f"{inbound.route} is allowed as a whole: a route is the least that can be"
                )
            else:
                routes, target = self._routes(pod, who, target, reader, inbound)
                yield from routes
        yield from self._policy(reader, home, target, inbound)

    def _server(self, pod: Pod, who: str, inbound: Inbound) -> Server:
        labels = {key: value for key, value in pod.labels.items() if not key.startswith(GENERATED)}
        if not labels:
            raise SettingError(
                f"{who} has no label by which a Server could select it; add one, such as app: {who}"
            )
        protocol: ProxyProtocol = "opaque" if inbound.protocol == "opaque" else "unknown"
        return Server(
            self._meta("Server", inbound.namespace, f"{who}-{inbound.port}"),
            inbound.port,
            LabelSelector(labels),
            None,
            protocol,
            inbound.server.name,
            {},
            NOWHERE,
        )

    def _routes(
        self, pod: Pod, who: str, server: Ref, reader: str, inbound: Inbound
    ) -> tuple[list[Written], Ref]:
        """Return the routes of one path and of the rest, and what names the first."""
        grpc = inbound.protocol == "grpc"
        kind: RouteKind = "GRPCRoute" if grpc else "HTTPRoute"
        group = GATEWAY_GROUP if grpc else POLICY_GROUP
        home = inbound.namespace

        def route(name: str, matches: Sequence[HttpMatch | GrpcMatch]) -> Route:
            parent = ParentRef(server.group, server.kind, server.name)
            rule = Rule(tuple(matches), (), (), None, None, NOWHERE)
            meta = self._meta(kind, home, name)
            return Route(kind, group, meta, (parent,), (), (rule,), (), {}, NOWHERE)

        own = route(reader, [self._match(grpc)])
        made: list[Written] = [
            own,
            route(f"{who}-rest", [] if grpc else [HttpMatch(PathMatch("prefix", "/"))]),
        ]
        probed = sorted({probe.path.partition("?")[0] for probe in pod.probes if probe.port == inbound.port})
        if probed and not grpc:
            looks = [HttpMatch(PathMatch("exact", path), method="GET") for path in probed]
            probes = route(f"{who}-probes", looks)
            meta = self._meta("AuthorizationPolicy", home, f"{who}-probes")
            everybody = AuthorizationPolicy(meta, Ref(group, kind, probes.meta.name), (), {}, NOWHERE)
            made += [probes, everybody]
        return made, Ref(group, kind, own.meta.name)

    def _match(self, grpc: bool) -> HttpMatch | GrpcMatch:
        if grpc:
            service, _, method = self._path.removeprefix("/").partition("/")
            return GrpcMatch(service or None, method or None)
        if self._path.endswith("/"):
            return HttpMatch(PathMatch("prefix", self._path.rstrip("/")), method=self._method)
        return HttpMatch(PathMatch("exact", self._path), method=self._method)

    def _policy(self, name: str, home: str, target: Ref, inbound: Inbound) -> Iterator[Written]:
        meta = self._meta("AuthorizationPolicy", home, name)
        if inbound.identity is not None:
            account, _, rest = inbound.identity.partition(".")
            namespace = rest.partition(".")[0]
            required = Ref("", "ServiceAccount", account, None if namespace == home else namespace)
        elif self._client.namespace:
            raise SettingError(
                f"{self._client.name} proves no identity here, so nothing but its address could be named, and that "
                "changes with every pod; mesh it first (linkerd.io/inject: enabled, no port skipped)"
            )
        else:
            bits = 128 if ":" in self._client.address else 32
            network = (Network(f"{self._client.address}/{bits}"),)
            networks = self._meta("NetworkAuthentication", home, name)
            yield NetworkAuthentication(networks, network, {}, NOWHERE)
            required = Ref(POLICY_GROUP, "NetworkAuthentication", networks.name)
        yield AuthorizationPolicy(meta, target, (required,), {}, NOWHERE)

    def _meta(self, kind: str, namespace: str, wanted: str) -> Metadata:
        name, number = wanted, 1
        while (kind, namespace, name) in self._taken:
            number += 1
            name = f"{wanted}-{number}"
        self._taken.add((kind, namespace, name))
        return Metadata(name, namespace, {}, {})


def _label(name: str) -> str:
    return name.replace(".", "-").replace(":", "-")


def _group_of(ground: Ground, kind: str, namespace: str, name: str) -> str:
    routes = (each for each in ground.world.routes() if each.kind == kind)
    return next(
        (each.group for each in routes if (each.meta.namespace, each.meta.name) == (namespace, name)),
        POLICY_GROUP,
    )


def shown(permission: Permission) -> str:
    """Return the whole of it as a file of manifests."""
    lines = [f"# {words.summary(permission.explanation)}; with these it is allowed."]
    lines += [f"# {remark}" for remark in permission.remarks]
    lines += [f"# tulle.testing: {permission.test}"]
    return "\n".join(lines) + f"\n{permission.manifests}"
