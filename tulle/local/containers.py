"""What a container runs: its program, arguments, environment and user, from its manifest and the pod's facts.

Pure. `$(NAME)` is replaced by what was said before, `$$` keeps a dollar sign, and an unknown name stays as it is,
as in Kubernetes. What differs here: there is no image, so PATH and HOME are set, and the program has to be named.

An application never runs as the uid of the proxy, whose packets pass the rules, nor as uid 0, which on this machine
owns more than a container's uid 0 should reach.
"""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tulle.model.errors import SettingError
from tulle.model.objects import ConfigMap, Problem, Secret, Service
from tulle.model.workload import (
    Container,
    EnvVar,
    FieldRef,
    KeyRef,
    PodSpec,
    ResourceRef,
)
from tulle.rules.firewall import PROXY_UID

NOBODY = 65534
REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
FACTORS: Mapping[str, Decimal | int] = {
    "": 1, "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": 10**3, "M": 10**6, "G": 10**9,
    "T": 10**12, "P": 10**15, "E": 10**18, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
    "Ei": 2**60,
}  # fmt: skip
QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([A-Za-z]{0,2})")


@dataclass(frozen=True, slots=True)
class PodFace:
    """What a pod's own containers may know of it."""

    name: str
    namespace: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node: str
    addresses: tuple[str, ...]
    host_address: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The ConfigMaps and Secrets of a namespace by name."""

    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def values(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        """Return the keys of one of them; None if there is none of that name."""
        if kind == "Secret":
            secret = self.secrets.get(name)
            return None if secret is None else secret.data
        found = self.config_maps.get(name)
        if found is None:
            return None
        return {**{key: value.encode() for key, value in found.data.items()}, **found.binary_data}


@dataclass(frozen=True, slots=True)
class User:
    """Whom a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """What to start; `argv[0]` is not looked up yet."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str | None


def program(
    container: Container,
    spec: PodSpec,
    face: PodFace,
    settings: Settings,
    *,
    base: Mapping[str, str],
    links: Mapping[str, str],
) -> Program:
    """Return what a container starts; `links` are the variables that name services.

    `TULLE_MANIFEST_DIR` is the folder of the manifest: there is no image that would bring the program along.

    Raises SettingError where a key or a fact is missing.
    """
    known = {**base, "HOSTNAME": spec.hostname or face.name, **_place(container), **links}
    for source in container.env_from:
        values = settings.values(source.kind, source.name)
        if values is None and not source.optional:
            raise SettingError(f"there is no {source.kind} {source.name} in namespace {face.namespace}")
        known |= {
            source.prefix + key: value.decode(errors="replace") for key, value in (values or {}).items()
        }
    for variable in container.env:
        value = _value(variable, container, spec, face, settings, known)
        if value is not None:
            known[variable.name] = value
    argv = tuple(expand(part, known) for part in (*container.command, *container.args))
    folder = container.working_dir
    return Program(argv, known, folder and expand(folder, known))


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)`."""

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return known.get(match[1], match[0])

    return REFERENCE.sub(replaced, text)


def fact(path: str, spec: PodSpec, face: PodFace) -> str:
    """Return a fact about the pod, as the downward API names it.

    Raises SettingError for a path that there is not.
    """
    subscript = SUBSCRIPT.fullmatch(path)
    if subscript:
        where = face.labels if subscript[1] == "labels" else face.annotations
        return where.get(subscript[2], "")
    facts = {
        "metadata.name": face.name,
        "metadata.namespace": face.namespace,
        "metadata.uid": face.uid,
        "metadata.labels": _lines(face.labels),
        "metadata.annotations": _lines(face.annotations),
        "spec.nodeName": face.node,
        "spec.serviceAccountName": spec.service_account,
        "status.hostIP": face.host_address,
        "status.hostIPs": face.host_address,
        "status.podIP": face.addresses[0],
        "status.podIPs": ",".join(face.addresses),
    }
    if path not in facts:
        raise SettingError(f"fieldPath {path} is not known; expected one of {', '.join(facts)}")
    return facts[path]


def resource(reference: ResourceRef, container: Container, spec: PodSpec) -> str:
    """Return a limit or request as a whole number of the divisor."""
    everyone = (*spec.containers, *spec.init_containers)
    named = next((each for each in everyone if each.name == reference.container), container)
    kind, _, name = reference.resource.partition(".")
    written = (named.limits if kind == "limits" else named.requests).get(name)
    if written is None and kind == "requests":
        written = named.limits.get(name)
    # Without a limit a container may use the whole machine, so that is what it is told.
    amount = quantity(written) if written is not None else _machine(name)
    return str(math.ceil(amount / quantity(reference.divisor or "1")))


def quantity(text: str) -> Decimal:
    """Return a Kubernetes quantity as a number."""
    match = QUANTITY.fullmatch(text)
    if match is None or match[2] not in FACTORS:
        raise SettingError(f"{text} is not a quantity such as 500m or 64Mi")
    return Decimal(match[1]) * FACTORS[match[2]]


def user(container: Container, spec: PodSpec, *, many_ids: bool) -> User:
    """Return whom a container runs as; with a single id there is no choice.

    Raises SettingError for the uid that is the proxy's.
    """
    if not many_ids:
        return User(0, 0)
    uid = next((uid for uid in (container.run_as_user, spec.run_as_user) if uid is not None), NOBODY)
    gid = next((gid for gid in (container.run_as_group, spec.run_as_group) if gid is not None), uid or NOBODY)
    if uid == PROXY_UID:
        raise SettingError(f"container {container.name} may not run as uid {PROXY_UID}, which is the proxy's")
    groups = () if spec.fs_group is None else (spec.fs_group,)
    return User(uid or NOBODY, gid or NOBODY, groups)


def service_links(services: Sequence[Service], addresses: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return `WEB_SERVICE_HOST` and the like; `services` are those of the pod's namespace."""
    links: dict[str, str] = {}
    for service in services:
        pair = addresses.get(f"{service.meta.namespace}/{service.meta.name}")
        if pair is None or not service.ports:
            continue
        prefix = service.meta.name.upper().replace("-", "_").replace(".", "_")
        links[f"{prefix}_SERVICE_HOST"] = pair[0]
        links[f"{prefix}_SERVICE_PORT"] = str(service.ports[0].port)
        for port in service.ports:
            if port.name:
                links[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    return links


def missing_programs(spec: PodSpec, find: Callable[[str, str | None], bool]) -> list[Problem]:
    """Return a problem for every container whose program this machine does not have.

    `find` says whether the host has a program, given the folder that the container starts in. A program in a
    mounted volume, or one that is put together from variables, is left to the start to find.
    """
    problems: list[Problem] = []
    for path, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for number, container in enumerate(containers):
            where = f"{path}[{number}].command"
            name = container.command[0]
            mounted = any(name.startswith(f"{mount.path.rstrip('/')}/") for mount in container.mounts)
            if "$" in name or mounted or find(name, container.working_dir):
                continue
            text = (
                f'this machine has no program "{name}"; install it, give its full path, '
                "or name another one (the PATH of tulle comes first)"
            )
            problems.append(Problem(container.source, where, text))
    return problems


def _place(container: Container) -> dict[str, str]:
    return {"TULLE_MANIFEST_DIR": os.path.dirname(os.path.abspath(container.source.file))}


def _value(
    variable: EnvVar,
    container: Container,
    spec: PodSpec,
    face: PodFace,
    settings: Settings,
    known: Mapping[str, str],
) -> str | None:
    match variable.value:
        case str(text):
            return expand(text, known)
        case FieldRef(path):
            return fact(path, spec, face)
        case ResourceRef() as reference:
            return resource(reference, container, spec)
        case KeyRef(kind, name, key, optional):
            value = (settings.values(kind, name) or {}).get(key)
            if value is None and not optional:
                raise SettingError(
                    f"{variable.name}: there is no key {key} in {kind} {name} of namespace {face.namespace}"
                )
            return None if value is None else value.decode(errors="replace")


def _machine(name: str) -> Decimal:
    match name:
        case "cpu":
            return Decimal(os.cpu_count() or 1)
        case "memory":
            return Decimal(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        case _:
            return Decimal(0)


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
