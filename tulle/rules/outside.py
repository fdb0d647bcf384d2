"""Names of objects that are not in the input, and Servers of which one hides another.

These are warnings: the rest of an application may come from another folder, or be in the cluster already. What it
means that an object is missing is the status' to say, once everything is there.
"""

from collections.abc import Iterable, Iterator

from tulle.model.authorization import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    AuthorizationPolicy,
    MeshTLSAuthentication,
    RateLimitPolicy,
    Ref,
    Server,
    ServerAuthorization,
)
from tulle.model.objects import Problem
from tulle.model.policies import age, backend_name, parent_name, profiled
from tulle.model.profile import ServiceProfile
from tulle.model.route import Mirror, Route
from tulle.model.service import ObjectName
from tulle.model.workload import PodSpec
from tulle.rules.kinds import Object
from tulle.rules.positions import place_of
from tulle.rules.references import Document, containers, pods_of
from tulle.rules.schema import did_you_mean

Named = tuple[str, str, ObjectName]
"""Group, kind and name."""

GROUPS = (POLICY_GROUP, GATEWAY_GROUP)
OURS = (("", "Service"), (POLICY_GROUP, "Server"), (POLICY_GROUP, "EgressNetwork"))
"""What a route can belong to here."""
MAX_COMPARED = 10_000
"""Names, until there are no more hints: each costs 0.1 ms, and a large folder may miss one for each that it has."""
SERVICE_HINT = 'for a Service write group: "" and kind: Service'


def outside(documents: Iterable[Document]) -> Iterator[Problem]:
    """Yield a warning for each name of an object that is not here, and for each Server that has no say."""
    everything = list(documents)
    known: dict[Named, list[str]] = {}
    for document in everything:
        group, kind, name = named(document.object)
        known.setdefault((group, kind, ObjectName(name.namespace, "")), []).append(name.name)
        known[group, kind, name] = []
    compared = 0
    for document in everything:
        for path, wanted in names(document.object):
            group, kind, name = wanted
            if wanted in known or (kind == "ServiceAccount" and name.name == "default"):
                continue
            beside = known.get((group, kind, ObjectName(name.namespace, "")), [])
            compared += len(beside)
            hint = did_you_mean(name.name, beside) if compared <= MAX_COMPARED else ""
            where = "" if kind == "Namespace" else f" in namespace {name.namespace}"
            text = f'there is no {kind} "{name.name}"{where} here{hint}'
            yield Problem(place_of(document.node, path), path, text, "warning")
    yield from unheeded(everything)
    yield from hidden(everything)


def named(item: Object) -> Named:
    """Return what an object is called by others."""
    group, slash, _ = str(item.raw.get("apiVersion", "")).rpartition("/")
    kind = str(item.raw.get("kind", ""))
    return group if slash and group in GROUPS else "", kind, ObjectName(item.meta.namespace, item.meta.name)


def names(item: Object) -> Iterator[tuple[str, Named]]:
    """Yield each name that an object gives to another one, with the path at which it is written."""
    space = item.meta.namespace
    match item:
        case AuthorizationPolicy():
            yield "spec.targetRef.name", of_ref(item.target, space)
            for number, ref in enumerate(item.required):
                yield f"spec.requiredAuthenticationRefs[{number}].name", of_ref(ref, space)
        case MeshTLSAuthentication():
            for number, ref in enumerate(item.refs):
                yield f"spec.identityRefs[{number}].name", of_ref(ref, space)
        case ServerAuthorization():
            if item.server:
                yield "spec.server.name", (POLICY_GROUP, "Server", ObjectName(space, item.server))
            for number, account in enumerate(item.service_accounts):
                path = f"spec.client.meshTLS.serviceAccounts[{number}].name"
                yield path, ("", "ServiceAccount", account)
        case RateLimitPolicy():
            yield "spec.targetRef.name", of_ref(item.target, space)
            for number, override in enumerate(item.overrides):
                for index, client in enumerate(override.clients):
                    yield f"spec.overrides[{number}].clientRefs[{index}].name", of_ref(client, space)
        case Route():
            yield from names_in_route(item)
        case ServiceProfile():
            service = profiled(item)
            if service:
                yield "metadata.name", ("", "Service", service)


def of_ref(ref: Ref, space: str) -> Named:
    """Return what a reference names."""
    return (
        ref.group,
        ref.kind,
        ObjectName("" if ref.kind == "Namespace" else ref.namespace or space, ref.name),
    )


def names_in_route(item: Route) -> Iterator[tuple[str, Named]]:
    """Yield parents and backends; a parent of another mesh or gateway is none of ours."""
    for number, parent in enumerate(item.parents):
        if (parent.group, parent.kind) in OURS:
            yield f"spec.parentRefs[{number}].name", (parent.group, parent.kind, parent_name(item, parent))
    for number, rule in enumerate(item.rules):
        path = f"spec.rules[{number}]"
        backends = [(f"{path}.backendRefs[{index}].name", each) for index, each in enumerate(rule.backends)]
        backends += [
            (f"{path}.filters[{index}].requestMirror.backendRef.name", each.backend)
            for index, each in enumerate(rule.filters)
            if isinstance(each, Mirror)
        ]
        for where, backend in backends:
            # Without a namespace it is each parent's, and all of them usually are in one.
            name = backend_name(item, item.parents[0], backend) if item.parents else None
            if name and (backend.ref.group, backend.ref.kind) in OURS:
                yield where, (backend.ref.group, backend.ref.kind, name)


def unheeded(documents: list[Document]) -> Iterator[Problem]:
    """Yield parents on which nothing here acts: a wrong group, or a Gateway, which a parent without a kind means.

    A Gateway beside a parent of ours is another's business.
    """
    for document in documents:
        route = document.object
        if not isinstance(route, Route):
            continue
        heeded = any((parent.group, parent.kind) in OURS for parent in route.parents)
        for number, parent in enumerate(route.parents):
            group = next((group for group, kind in OURS if kind == parent.kind), None)
            if group == parent.group or (group is None and heeded):
                continue
            hint = f'write group: "{group}"' if group is not None else SERVICE_HINT
            of = parent.group or "core"
            path = f"spec.parentRefs[{number}]"
            text = f"nothing here acts on a route of a {parent.kind} of the group {of}; {hint}"
            yield Problem(place_of(document.node, path), path, text, "warning")


def hidden(documents: list[Document]) -> Iterator[Problem]:
    """Yield Servers that select a port that an older one, or the first by name, owns."""
    objects = [document.object for document in documents]
    servers = sorted(
        ((item, document) for document in documents if isinstance(item := document.object, Server)),
        key=lambda pair: age(pair[0]),
    )
    spaces = {server.meta.namespace for server, _ in servers}
    pods = {space: list(pods_of(objects, space)) for space in spaces}
    owners: dict[tuple[str, int, int], Server] = {}
    for server, document in servers:
        space = server.meta.namespace
        wanted = [
            (space, index, port)
            for index, (labels, spec) in enumerate(pods[space])
            if server.pods is not None and server.pods.matches(labels)
            for port in numbers(server.port, spec)
        ]
        other = next((owners[each] for each in wanted if each in owners), None)
        if other is not None:
            text = f'Server "{other.meta.name}" of {other.source} selects this port too, and comes first'
            yield Problem(place_of(document.node, "spec.port"), "spec.port", text, "warning")
        for each in wanted:
            owners.setdefault(each, server)


def numbers(port: int | str, spec: PodSpec) -> set[int]:
    """Return the numbers that a port stands for on a pod."""
    if isinstance(port, int):
        return {port}
    return {of.port for container in containers(spec) for of in container.ports if of.name == port}
