"""What runs: workloads, the pods that they make, and the containers inside.

Durations are in seconds and end in `_s`. A field that has a Kubernetes default carries it already: whoever
reads these types never asks "and if it is missing?".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tulle.model.objects import (
    Metadata,
    PersistentVolumeClaim,
    Position,
    Protocol,
    Raw,
)

RestartPolicy = Literal["Always", "OnFailure", "Never"]
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]


@dataclass(frozen=True, slots=True)
class KeyRef:
    """One key of a ConfigMap or Secret of the pod's namespace."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    key: str
    optional: bool


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A fact about the pod itself: `metadata.name`, `status.podIP` …"""

    path: str


@dataclass(frozen=True, slots=True)
class ResourceRef:
    """A limit or request of a container: `limits.cpu` …"""

    resource: str
    container: str | None
    divisor: str | None


@dataclass(frozen=True, slots=True)
class EnvVar:
    """One environment variable; a text may use `$(OTHER)`."""

    name: str
    value: str | KeyRef | FieldRef | ResourceRef


@dataclass(frozen=True, slots=True)
class EnvFrom:
    """Every key of a ConfigMap or Secret as an environment variable."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    prefix: str
    optional: bool


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container says it listens on."""

    name: str | None
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class HttpGet:
    """Good is any status from 200 to 399."""

    path: str
    port: int | str
    scheme: Literal["HTTP", "HTTPS"]
    host: str | None
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """Good is a connection that opens."""

    port: int | str
    host: str | None


@dataclass(frozen=True, slots=True)
class Exec:
    """Good is exit code 0 of a command inside the container."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """Good is SERVING from `grpc.health.v1.Health/Check`."""

    port: int
    service: str


@dataclass(frozen=True, slots=True)
class Probe:
    """How to tell that a container started, lives, or is ready."""

    action: HttpGet | TcpSocket | Exec | GrpcCheck
    initial_delay_s: int
    period_s: int
    timeout_s: int
    success_threshold: int
    failure_threshold: int
    termination_grace_s: int | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """A hook that only waits."""

    seconds: int


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """Where a volume appears in a container."""

    volume: str
    path: str
    sub_path: str
    read_only: bool
    source: Position


@dataclass(frozen=True, slots=True)
class Container:
    """One process of a pod. `source` is the place of its command, which the host may turn out to lack."""

    name: str
    image: str | None
    command: tuple[str, ...]
    args: tuple[str, ...]
    working_dir: str | None
    env: tuple[EnvVar, ...]
    env_from: tuple[EnvFrom, ...]
    ports: tuple[ContainerPort, ...]
    mounts: tuple[VolumeMount, ...]
    readiness: Probe | None
    liveness: Probe | None
    startup: Probe | None
    post_start: Exec | HttpGet | TcpSocket | Sleep | None
    pre_stop: Exec | HttpGet | TcpSocket | Sleep | None
    run_as_user: int | None
    run_as_group: int | None
    read_only_root: bool
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    sidecar: bool
    """An init container that keeps running beside the others (`restartPolicy: Always`)."""
    source: Position


@dataclass(frozen=True, slots=True)
class EmptyDir:
    """A folder that lives and ends with the pod."""

    memory: bool


@dataclass(frozen=True, slots=True)
class KeyPath:
    """One key as a file of this relative path; no mode means the volume's."""

    key: str
    path: str
    mode: int | None


@dataclass(frozen=True, slots=True)
class KeysVolume:
    """A ConfigMap or Secret as files: the listed keys, or all of them when none is listed."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    items: tuple[KeyPath, ...]
    mode: int
    optional: bool


@dataclass(frozen=True, slots=True)
class ClaimVolume:
    """The storage of a PersistentVolumeClaim."""

    claim: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class HostPath:
    """A folder or file of this machine."""

    path: str
    type: str


@dataclass(frozen=True, slots=True)
class DownwardFile:
    """A fact about the pod as a file."""

    path: str
    value: FieldRef | ResourceRef
    mode: int | None


@dataclass(frozen=True, slots=True)
class DownwardVolume:
    """Facts about the pod as files."""

    items: tuple[DownwardFile, ...]
    mode: int


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token of the pod's service account for one audience."""

    path: str
    audience: str
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class ProjectedVolume:
    """Several sources in one folder."""

    sources: tuple[KeysVolume | DownwardVolume | TokenFile, ...]
    mode: int


VolumeSource = EmptyDir | KeysVolume | ClaimVolume | HostPath | DownwardVolume | ProjectedVolume


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume of a pod."""

    name: str
    content: VolumeSource
    source: Position


@dataclass(frozen=True, slots=True)
class HostAlias:
    """One more line of /etc/hosts."""

    ip: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What a pod consists of."""

    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...]
    volumes: tuple[Volume, ...]
    service_account: str
    restart_policy: RestartPolicy
    termination_grace_s: int
    active_deadline_s: int | None
    hostname: str | None
    subdomain: str | None
    host_network: bool
    host_aliases: tuple[HostAlias, ...]
    run_as_user: int | None
    run_as_group: int | None
    fs_group: int | None
    automount_token: bool


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """The pods that a workload makes."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: PodSpec
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class Requirement:
    """One `matchExpressions` entry."""

    key: str
    operator: Operator
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether these labels meet the requirement."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Which labels are meant; an empty one means all."""

    labels: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether these labels meet every part of the selector."""
        return all(labels.get(key) == value for key, value in self.labels.items()) and all(
            expression.matches(labels) for expression in self.expressions
        )


@dataclass(frozen=True, slots=True)
class RollingUpdate:
    """How far a change may stray from the wanted number of pods: a number, or a share such as `25%`."""

    max_surge: int | str
    max_unavailable: int | str


@dataclass(frozen=True, slots=True)
class Deployment:
    """Replicas without names of their own. No `rolling` means: stop the old ones first (Recreate)."""

    meta: Metadata
    replicas: int
    selector: LabelSelector
    template: PodTemplate
    rolling: RollingUpdate | None
    min_ready_s: int
    paused: bool
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class StatefulSet:
    """Replicas with names, order and storage of their own."""

    meta: Metadata
    replicas: int
    selector: LabelSelector
    service_name: str
    template: PodTemplate
    claims: tuple[PersistentVolumeClaim, ...]
    parallel: bool
    on_delete: bool
    partition: int
    first_ordinal: int
    min_ready_s: int
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class Job:
    """Pods that run until they have succeeded often enough. No `completions`: one success ends it."""

    meta: Metadata
    template: PodTemplate
    parallelism: int
    completions: int | None
    indexed: bool
    backoff_limit: int
    active_deadline_s: int | None
    ttl_after_finished_s: int | None
    suspended: bool
    raw: Raw
    source: Position


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod that nobody replaces."""

    meta: Metadata
    spec: PodSpec
    raw: Raw
    source: Position


Workload = Deployment | StatefulSet | Job | Pod
