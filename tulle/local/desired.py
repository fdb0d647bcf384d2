"""What the manifests want, together with what was said by hand since: restarts and numbers of replicas.

Pure. A revision is a digest of everything that a pod cannot take over while it runs: its template, whether and how
it is meshed, and the ConfigMaps and Secrets in its environment. Mounted ones are not in it, because their files
change in place. So an edit restarts exactly the pods that could not see it otherwise.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import msgspec

from tulle.local.containers import Settings
from tulle.local.plan import Desired, WorkloadKey
from tulle.model.errors import MeshError, NotFound
from tulle.model.objects import ConfigMap, Namespace, Secret, Service
from tulle.model.workload import (
    ClaimVolume,
    Deployment,
    Job,
    KeyRef,
    Pod,
    PodSpec,
    StatefulSet,
    Volume,
    Workload,
)
from tulle.rules.injection import (
    Membership,
    asks_for_injection,
    effective_annotations,
    membership,
)
from tulle.rules.kinds import Object

REVISION_LENGTH = 8
SHORT_KINDS = {
    "deploy": "Deployment",
    "deployments": "Deployment",
    "sts": "StatefulSet",
    "statefulsets": "StatefulSet",
    "jobs": "Job",
    "po": "Pod",
    "pods": "Pod",
}


@dataclass(frozen=True, slots=True)
class Folder:
    """The objects that are in force."""

    objects: tuple[Object, ...] = ()
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Annotations by namespace."""
    settings: Mapping[str, Settings] = field(default_factory=dict)
    whole: bool = False
    """Whether nobody says what is meshed, so that everything is."""

    @classmethod
    def of(cls, objects: tuple[Object, ...]) -> "Folder":
        """Sort objects into what is asked of them."""
        namespaces = {
            each.meta.name: each.meta.annotations for each in objects if isinstance(each, Namespace)
        }
        maps = [each for each in objects if isinstance(each, ConfigMap)]
        secrets = [each for each in objects if isinstance(each, Secret)]
        names = {*(each.meta.namespace for each in maps), *(each.meta.namespace for each in secrets)}
        settings = {
            name: Settings(
                {each.meta.name: each for each in maps if each.meta.namespace == name},
                {each.meta.name: each for each in secrets if each.meta.namespace == name},
            )
            for name in names
        }
        said = [*namespaces.values(), *(template_of(each)[1] for each in objects if is_workload(each))]
        return cls(objects, namespaces, settings, not asks_for_injection(said))

    @property
    def workloads(self) -> dict[WorkloadKey, Workload]:
        """The workloads by name."""
        return {key_of(each): each for each in self.objects if is_workload(each)}

    @property
    def services(self) -> tuple[Service, ...]:
        """The services."""
        return tuple(each for each in self.objects if isinstance(each, Service))

    def settings_of(self, namespace: str) -> Settings:
        """Return the ConfigMaps and Secrets of a namespace."""
        return self.settings.get(namespace, Settings())

    def membership(self, workload: Workload) -> Membership:
        """Decide whether a workload's pods are meshed."""
        _, annotations, spec = template_of(workload)
        inherited = self.namespaces.get(workload.meta.namespace, {})
        return membership(spec, annotations, inherited, otherwise=self.whole)


@dataclass(slots=True)
class ByHand:
    """What was asked for since the manifests were read."""

    restarts: dict[WorkloadKey, int] = field(default_factory=dict)
    replicas: dict[WorkloadKey, tuple[int, int]] = field(default_factory=dict)
    """The manifest's number then, and the one that was asked for; void once the manifest says another."""


def desired(folder: Folder, by_hand: ByHand) -> list[Desired]:
    """Return what is wanted of each workload."""
    return [
        Desired(
            key,
            workload,
            _replicas(key, workload, by_hand),
            revision(folder, workload, by_hand.restarts.get(key, 0)),
        )
        for key, workload in folder.workloads.items()
    ]


def revision(folder: Folder, workload: Workload, restarts: int) -> str:
    """Return the digest of what a pod has to be replaced for."""
    labels, annotations, spec = template_of(workload)
    inherited = folder.namespaces.get(workload.meta.namespace, {})
    member = folder.membership(workload)
    settings = folder.settings_of(workload.meta.namespace)
    told = [
        workload.raw.get("spec") if isinstance(workload, Pod) else workload.template.raw,
        dict(labels),
        effective_annotations(annotations, inherited),
        [member.meshed, member.ingress],
        [[kind, name, _digests(settings, kind, name)] for kind, name in sorted(_environment_sources(spec))],
        restarts,
    ]
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:REVISION_LENGTH]


def find(folder: Folder, name: str) -> WorkloadKey:
    """Return the workload that `[NAMESPACE/][KIND/]NAME` means.

    Raises NotFound where there is none, MeshError where there are several.
    """
    *before, last = name.split("/")
    kinds = {kind.lower(): kind for kind in ("Deployment", "StatefulSet", "Job", "Pod")} | SHORT_KINDS
    kind = kinds.get(before[-1].lower()) if before else None
    namespace = before[0] if len(before) == 2 or (before and kind is None) else None
    found = [
        key
        for key in folder.workloads
        if key.name == last and kind in (None, key.kind) and namespace in (None, key.namespace)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{key.namespace}/{key}" for key in found)
        raise MeshError(f'"{name}" may mean {several}; write one of them')
    known = ", ".join(sorted(str(key) for key in folder.workloads)) or "none"
    raise NotFound(f'no workload is called "{name}"; there are: {known}')


def scale(by_hand: ByHand, folder: Folder, key: WorkloadKey, replicas: int) -> None:
    """Remember a number of replicas.

    Raises MeshError for a workload that has none.
    """
    workload = folder.workloads[key]
    if not isinstance(workload, Deployment | StatefulSet):
        raise MeshError(f"{key} has no replicas; only a Deployment or a StatefulSet can be scaled")
    by_hand.replicas[key] = (workload.replicas, replicas)


def is_workload(item: Object) -> TypeGuard[Workload]:
    """Say whether an object makes pods."""
    return isinstance(item, Deployment | StatefulSet | Job | Pod)


def key_of(workload: Object) -> WorkloadKey:
    """Return a workload's name."""
    return WorkloadKey(workload.meta.namespace, type(workload).__name__, workload.meta.name)


def template_of(workload: Object) -> tuple[Mapping[str, str], Mapping[str, str], PodSpec]:
    """Return the labels, annotations and specification of a workload's pods."""
    if isinstance(workload, Pod):
        return workload.meta.labels, workload.meta.annotations, workload.spec
    assert isinstance(workload, Deployment | StatefulSet | Job), "only workloads have pods"
    return workload.template.labels, workload.template.annotations, workload.template.spec


def pod_spec(workload: Workload, name: str) -> PodSpec:
    """Return the specification of one pod: a StatefulSet gives each a host name below its service and claims."""
    _, _, spec = template_of(workload)
    if isinstance(workload, StatefulSet):
        volumes = {volume.name: volume for volume in spec.volumes}
        for claim in workload.claims:
            own = ClaimVolume(f"{claim.meta.name}-{name}", read_only=False)
            volumes[claim.meta.name] = Volume(claim.meta.name, own, claim.source)
        return replace(
            spec, hostname=name, subdomain=workload.service_name or None, volumes=tuple(volumes.values())
        )
    return spec


def _replicas(key: WorkloadKey, workload: Workload, by_hand: ByHand) -> int:
    if not isinstance(workload, Deployment | StatefulSet):
        return 1
    then, wanted = by_hand.replicas.get(key, (workload.replicas, workload.replicas))
    return wanted if then == workload.replicas else workload.replicas


def _environment_sources(spec: PodSpec) -> Iterable[tuple[str, str]]:
    return {
        source
        for container in (*spec.init_containers, *spec.containers)
        for source in (
            *((each.kind, each.name) for each in container.env_from),
            *((each.value.kind, each.value.name) for each in container.env if isinstance(each.value, KeyRef)),
        )
    }


def _digests(settings: Settings, kind: str, name: str) -> dict[str, str]:
    values = settings.values(kind, name) or {}
    return {key: hashlib.sha256(value).hexdigest() for key, value in values.items()}
