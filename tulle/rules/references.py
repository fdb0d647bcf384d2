"""Checks between objects: names that lead nowhere, names that two objects share, services without pods.

A name that leads nowhere would leave a pod waiting for ever; that is a mistake. A Service that selects nothing
is only a warning, because its pods may come later.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tulle.model.objects import (
    ConfigMap,
    Metadata,
    PersistentVolumeClaim,
    Position,
    Problem,
    Secret,
    Service,
    ServiceAccount,
    Severity,
)
from tulle.model.workload import Container, Deployment, Job, Pod, PodSpec, StatefulSet
from tulle.rules.kinds import Object
from tulle.rules.positions import Node
from tulle.rules.schema import Reference, did_you_mean


@dataclass(frozen=True, slots=True)
class Document:
    """An object with the names that it relies on, and its text."""

    object: Object
    references: tuple[Reference, ...]
    node: Node


def check(documents: Iterable[Document], *, whole: bool = True) -> Iterator[Problem]:
    """Yield what is wrong between objects that are each right by themselves.

    `whole` says that there is nothing else: a name that leads nowhere leads nowhere for ever.
    """
    everything = list(documents)
    objects = [document.object for document in everything]
    yield from duplicates(objects)
    yield from dangling(everything, "error" if whole else "warning")
    for item in objects:
        if isinstance(item, Service):
            yield from without_pods(item, objects)
        elif isinstance(item, StatefulSet):
            yield from without_service(item, objects)


def kind_of(item: Object) -> str:
    """Return an object's kind."""
    return str(item.raw.get("kind", ""))


def duplicates(objects: list[Object]) -> Iterator[Problem]:
    """Yield objects of one kind and name."""
    seen: dict[tuple[str, str, str, str], Position] = {}
    for item in objects:
        group = str(item.raw.get("apiVersion", "")).rpartition("/")[0]
        key = (group, kind_of(item), item.meta.namespace, item.meta.name)
        if key in seen:
            text = f'{kind_of(item)} "{item.meta.name}" is at {seen[key]} already'
            yield Problem(item.source, "metadata.name", text)
        seen.setdefault(key, item.source)


def dangling(documents: list[Document], severity: Severity) -> Iterator[Problem]:
    """Yield references to objects and keys that are not there."""
    known: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
    for document in documents:
        item = document.object
        if isinstance(item, (ConfigMap, Secret, PersistentVolumeClaim, ServiceAccount)):
            known.setdefault((kind_of(item), item.meta.namespace), {})[item.meta.name] = keys_of(item)
    for document in documents:
        space = document.object.meta.namespace
        for reference in document.references:
            names = known.get((reference.kind, space), {})
            if reference.kind == "ServiceAccount" and reference.name == "default":
                continue
            if reference.name not in names:
                hint = did_you_mean(reference.name, names)
                text = (
                    f'expected a {reference.kind} of namespace {space}; "{reference.name}" is not there{hint}'
                )
                yield Problem(reference.position, reference.path, text, severity)
                continue
            for key in reference.keys:
                if key not in names[reference.name]:
                    hint = did_you_mean(key, names[reference.name])
                    text = f'expected a key of {reference.kind} {reference.name}; "{key}" is not there{hint}'
                    yield Problem(reference.position, reference.path, text, severity)


def keys_of(item: ConfigMap | Secret | PersistentVolumeClaim | ServiceAccount) -> frozenset[str]:
    """Return the keys that an object offers."""
    match item:
        case ConfigMap():
            return frozenset(item.data) | frozenset(item.binary_data)
        case Secret():
            return frozenset(item.data)
        case _:
            return frozenset()


def pods_of(objects: list[Object], namespace: str) -> Iterator[tuple[Mapping[str, str], PodSpec]]:
    """Yield labels and content of every pod that will be made in a namespace."""
    for item in objects:
        if item.meta.namespace != namespace:
            continue
        if isinstance(item, (Deployment, StatefulSet, Job)):
            yield item.template.labels, item.template.spec
        elif isinstance(item, Pod):
            yield item.meta.labels, item.spec


def without_pods(service: Service, objects: list[Object]) -> Iterator[Problem]:
    """Yield a warning for a Service that selects nothing, or that targets a port nobody names."""
    if not service.selector:
        return
    wanted = service.selector.items()
    selected = [spec for labels, spec in pods_of(objects, service.meta.namespace) if wanted <= labels.items()]
    if not selected:
        words = ", ".join(f"{key}={value}" for key, value in wanted)
        text = f"selects no pod: none here has the labels {words}"
        yield Problem(service.source, "spec.selector", text, "warning")
        return
    names = {port.name for spec in selected for container in containers(spec) for port in container.ports}
    for port in service.ports:
        if isinstance(port.target, str) and port.target not in names:
            hint = did_you_mean(port.target, [name for name in names if name])
            text = f'no selected pod has a port named "{port.target}"{hint}'
            yield Problem(port.source, "spec.ports.targetPort", text, "warning")


def containers(spec: PodSpec) -> Iterator[Container]:
    """Yield every container of a pod."""
    yield from spec.init_containers
    yield from spec.containers


def without_service(workload: StatefulSet, objects: list[Object]) -> Iterator[Problem]:
    """Yield a warning for a StatefulSet whose pods get no names because its Service is missing."""
    if not workload.service_name:
        return
    for item in objects:
        if isinstance(item, Service) and same(item.meta, workload.meta, workload.service_name):
            return
    text = f'there is no Service "{workload.service_name}" in namespace {workload.meta.namespace}'
    yield Problem(workload.source, "spec.serviceName", text, "warning")


def same(meta: Metadata, beside: Metadata, name: str) -> bool:
    """Say whether an object is the one of this name beside another."""
    return meta.namespace == beside.namespace and meta.name == name
