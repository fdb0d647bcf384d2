"""A pod that is to be run, and the files of its /etc that say who and where it is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from tulle.local.addresses import BRIDGE, CLUSTER_DOMAIN, Pair
from tulle.local.containers import PodFace
from tulle.local.desired import Folder, pod_spec, template_of
from tulle.local.plan import Create, WorkloadKey
from tulle.model.objects import Position
from tulle.model.workload import Job, PodSpec, StatefulSet
from tulle.rules.injection import Membership, Subject

NODE = "local"
LONGEST_HOST_NAME = 63
NAME_SERVICE = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nservices: files\n"
)
"""Nothing of the host's own ways to look names up, which would ask the host's servers."""


@dataclass(frozen=True, slots=True)
class PodOrder:
    """Everything that is known of a pod before it runs."""

    workload: WorkloadKey
    name: str
    number: int | None
    """A StatefulSet's ordinal or an indexed Job's index."""
    revision: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    namespace_annotations: Mapping[str, str]
    spec: PodSpec
    source: Position
    membership: Membership
    uid: str

    @property
    def namespace(self) -> str:
        """The namespace, which is that of the workload."""
        return self.workload.namespace

    @property
    def host_name(self) -> str:
        """What the pod calls itself."""
        return (self.spec.hostname or self.name)[:LONGEST_HOST_NAME]

    def face(self, addresses: Pair) -> PodFace:
        """Return what its own containers may know of it."""
        return PodFace(
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            labels=self.labels,
            annotations=self.annotations,
            node=NODE,
            addresses=addresses,
            host_address=BRIDGE[0],
        )

    def subject(self, addresses: Pair) -> Subject:
        """Return what decides how it is meshed."""
        return Subject(
            self.name,
            self.namespace,
            NODE,
            addresses,
            self.spec,
            self.annotations,
            self.namespace_annotations,
            self.labels,
        )

    def etc(self, addresses: Pair) -> dict[str, str]:
        """Return the files of its /etc."""
        own = self.host_name
        if self.spec.subdomain:
            own = f"{own}.{self.spec.subdomain}.{self.namespace}.svc.{CLUSTER_DOMAIN} {own}"
        hosts = [
            "127.0.0.1 localhost",
            "::1 localhost",
            *(f"{address} {own}" for address in addresses),
            *(f"{alias.ip} {' '.join(alias.names)}" for alias in self.spec.host_aliases),
        ]
        resolver = [
            f"search {self.namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}",
            *(f"nameserver {address}" for address in BRIDGE),
            "options ndots:5",
        ]
        return {
            "hostname": f"{self.host_name}\n",
            "hosts": "".join(f"{line}\n" for line in hosts),
            "nsswitch.conf": NAME_SERVICE,
            "resolv.conf": "".join(f"{line}\n" for line in resolver),
        }


def order_of(folder: Folder, action: Create, uid: str) -> PodOrder:
    """Return the pod that a step of the plan starts."""
    workload = action.desired.workload
    labels, annotations, _ = template_of(workload)
    own = dict(labels)
    if isinstance(workload, StatefulSet):
        own |= {
            "statefulset.kubernetes.io/pod-name": action.name,
            "apps.kubernetes.io/pod-index": str(action.number),
        }
    extra = {}
    if isinstance(workload, Job) and action.number is not None:
        extra = {"batch.kubernetes.io/job-completion-index": str(action.number)}
    return PodOrder(
        workload=action.desired.key,
        name=action.name,
        number=action.number,
        revision=action.desired.revision,
        labels=own,
        annotations={**annotations, **extra},
        namespace_annotations=folder.namespaces.get(action.desired.key.namespace, {}),
        spec=pod_spec(workload, action.name),
        source=workload.source,
        membership=folder.membership(workload),
        uid=uid,
    )
