"""Policies, routes and Services of a mesh with what became of them."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from tulle.cli import output
from tulle.mesh import Known, Mesh
from tulle.model.errors import NotFound, SettingError

Json = dict[str, Any]
Cell = Callable[[Json], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """How people call a kind, and what a line about one of its objects has besides its name."""

    kind: str
    names: tuple[str, ...]
    columns: tuple[tuple[str, Cell], ...] = ()


def at(*path: str, default: object = None) -> Cell:
    """Return what reads a field; the default is the one that an API server would have written."""

    def read(item: Json) -> object:
        value: Any = item
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return default if value is None else value

    return read


def parents(item: Json) -> str:
    """Name what a route belongs to."""
    return ",".join(
        f"{of.get('kind', 'Gateway')}/{of.get('name')}{':' + str(of['port']) if of.get('port') else ''}"
        for of in at("spec", "parentRefs")(item) or ()  # type: ignore[attr-defined]
    )


def target(item: Json) -> str:
    """Name what a policy is about."""
    return f"{at('spec', 'targetRef', 'kind')(item)}/{at('spec', 'targetRef', 'name')(item)}"


HOSTNAMES = ("HOSTNAMES", at("spec", "hostnames"))
PARENTS = ("PARENTS", parents)
CREATED = ("CREATED", at("metadata", "creationTimestamp"))
KINDS = (
    Kind(
        "Server",
        ("servers", "srv"),
        (
            ("PORT", at("spec", "port")),
            ("PROTOCOL", at("spec", "proxyProtocol", default="unknown")),
            ("ACCESS POLICY", at("spec", "accessPolicy", default="deny")),
        ),
    ),
    Kind(
        "ServerAuthorization",
        ("serverauthorizations", "saz", "serverauthz", "srvauthz"),
        (("SERVER", at("spec", "server", "name")),),
    ),
    Kind("AuthorizationPolicy", ("authorizationpolicies", "authzpolicy"), (("TARGET", target),)),
    Kind("MeshTLSAuthentication", ("meshtlsauthentications", "meshtlsauthn")),
    Kind("NetworkAuthentication", ("networkauthentications", "netauthn", "networkauthn")),
    Kind("HTTPRoute", ("httproutes",), (HOSTNAMES, PARENTS, CREATED)),
    Kind("GRPCRoute", ("grpcroutes",), (HOSTNAMES, PARENTS, CREATED)),
    Kind("TLSRoute", ("tlsroutes",), (HOSTNAMES, PARENTS, CREATED)),
    Kind("TCPRoute", ("tcproutes",), (PARENTS, CREATED)),
    Kind("ReferenceGrant", ("referencegrants", "refgrant")),
    Kind("EgressNetwork", ("egressnetworks",), (("TRAFFIC POLICY", at("spec", "trafficPolicy")),)),
    Kind(
        "HTTPLocalRateLimitPolicy",
        ("httplocalratelimitpolicies",),
        (
            ("TARGET_KIND", at("spec", "targetRef", "kind")),
            ("TARGET_NAME", at("spec", "targetRef", "name")),
            ("TOTAL_RPS", at("spec", "total", "requestsPerSecond")),
            ("IDENTITY_RPS", at("spec", "identity", "requestsPerSecond")),
        ),
    ),
    Kind("ServiceProfile", ("serviceprofiles", "sp")),
    Kind(
        "ExternalWorkload",
        ("externalworkloads",),
        (("IDENTITY", at("spec", "meshTLS", "identity")), CREATED),
    ),
    Kind("Service", ("services", "svc"), (("CLUSTER-IP", at("spec", "clusterIPs")),)),
)


class Format(StrEnum):
    """How objects are printed."""

    table = "table"
    wide = "wide"
    yaml = "yaml"
    json = "json"


def run(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Such as httproutes, server or saz.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="In which namespace.")] = "default",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")] = False,
    format: Annotated[Format, typer.Option("--output", "-o", help="How to print them.")] = Format.table,
    mesh: Annotated[
        str | None,
        typer.Option(
            "--name", envvar="TULLE_NAME", help="Which mesh; not needed while one runs.", show_default=False
        ),
    ] = None,
) -> int:
    """Show the policies, routes and Services of a mesh with their status.

    The column STATUS says Accepted, or the reason of the first condition that is not as it should be; -o wide and
    -o yaml say the rest. KIND may have a group, such as httproutes.policy.linkerd.io.
    """
    chosen, group = kind_of(kind)
    space = None if everywhere else namespace
    wanted = f"{chosen.kind}.{group}" if group else chosen.kind
    found = asyncio.run(Mesh.only(mesh).objects(wanted, namespace=space, name=name))
    if name is not None and not found:
        raise NotFound(f'there is no {chosen.kind} "{name}" in {where(space)}')
    written = [of.object for of in found]
    one = name is not None and len(written) == 1
    match format:
        case Format.json:
            output.show_json(written[0] if one else listed(written))
        case Format.yaml:
            shown = written[0] if one else listed(written)
            sys.stdout.write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
        case _ if not found:
            output.hint(f"There is no {chosen.kind} in {where(space)}.")
        case _:
            show(chosen, found, everywhere=everywhere, wide=format is Format.wide)
    return 0


def kind_of(text: str) -> tuple[Kind, str]:
    """Return the kind that somebody means, and its group if one is there.

    Raises:
        SettingError: there is no such kind.
    """
    word, _, group = text.partition(".")
    for kind in KINDS:
        if word.lower() in (kind.kind.lower(), *kind.names):
            return kind, group
    raise SettingError(f'"{text}" is no kind; there are {", ".join(kind.names[0] for kind in KINDS)}')


def where(namespace: str | None) -> str:
    """Say where was looked."""
    return "any namespace" if namespace is None else f"namespace {namespace}; -A looks in all"


def listed(items: list[Json]) -> Json:
    """Return objects as one."""
    return {"apiVersion": "v1", "kind": "List", "items": items}


def show(kind: Kind, found: tuple[Known, ...], *, everywhere: bool, wide: bool) -> None:
    """Print a table."""
    columns = ["NAMESPACE"] if everywhere else []
    columns += ["NAME", *(title for title, _ in kind.columns), "STATUS"]
    columns += ["SOURCE", "MESSAGE"] if wide else []
    rows: list[list[str | Text]] = []
    for of in found:
        item: Json = of.object
        reason, message, good = verdict(item)
        row: list[str | Text] = [str(at("metadata", "namespace")(item))] if everywhere else []
        row += [str(at("metadata", "name")(item)), *(cell(read(item)) for _, read in kind.columns)]
        rest = [of.source or output.NONE, message or output.NONE] if wide else []
        rows.append([*row, Text(reason, "" if good else "yellow"), *rest])
    output.table(columns, rows)


def cell(value: object) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or output.NONE
    return output.NONE if value is None or value == "" else str(value)


def verdict(item: Json) -> tuple[str, str, bool]:
    """Return the word for an object's status, all that is wrong, and whether nothing is."""
    status = item.get("status", {})
    conditions = [*status.get("conditions", ())]
    for parent in status.get("parents", ()):
        conditions += parent.get("conditions", ())
    bad = [of for of in conditions if of.get("status") != "True"]
    if bad:
        said = dict.fromkeys(of.get("message") or of.get("reason", "") for of in bad)
        return str(bad[0].get("reason") or bad[0].get("type")), "; ".join(said), False
    if not conditions:
        return output.NONE, "", True
    first = conditions[0]
    return str(first.get("reason") or first.get("type")), first.get("message", ""), True
