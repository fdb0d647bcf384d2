"""What manifests want: revisions, replicas, and names as people write them."""

import pytest

from tests.local.builders import deployment, objects, pod
from tulle.local.desired import ByHand, Folder, desired, find, pod_spec, scale
from tulle.local.plan import WorkloadKey
from tulle.model.errors import MeshError, NotFound
from tulle.model.workload import StatefulSet

WEB = WorkloadKey("default", "Deployment", "web")
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: %s}
---
"""


def revision(text: str, by_hand: ByHand | None = None) -> str:
    (only,) = desired(Folder.of(objects(text)), by_hand or ByHand())
    return only.revision


def test_the_same_manifest_has_the_same_revision() -> None:
    assert revision(deployment()) == revision(deployment())


def test_replicas_are_no_reason_to_replace_a_pod() -> None:
    assert revision(deployment(replicas=1)) == revision(deployment(replicas=9))


def test_another_template_is() -> None:
    assert revision(deployment()) != revision(deployment(spec="args: [x]"))


def test_a_restart_by_hand_is() -> None:
    assert revision(deployment()) != revision(deployment(), ByHand(restarts={WEB: 1}))


def test_a_changed_setting_in_the_environment_is_and_a_mounted_one_is_not() -> None:
    environment = deployment(spec="envFrom: [{configMapRef: {name: settings}}]")
    mounted = deployment(spec="volumeMounts: [{name: s, mountPath: /s}]").rstrip("-\n ") + (
        "\n      volumes: [{name: s, configMap: {name: settings}}]\n"
    )

    for text, same in ((environment, False), (mounted, True)):
        revisions = {revision(CONFIG % level + text) for level in ("debug", "info")}

        assert (len(revisions) == 1) == same


def test_becoming_meshed_is() -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {linkerd.io/inject: %s}}\n---\n"

    assert revision(namespace % "enabled" + deployment()) != revision(namespace % "disabled" + deployment())


def test_a_folder_that_says_nothing_about_it_is_meshed_whole() -> None:
    silent = Folder.of(objects(deployment()))
    speaking = Folder.of(objects(deployment() + pod(metadata=", annotations: {linkerd.io/inject: enabled}")))

    assert silent.membership(silent.workloads[WEB]).meshed
    assert not speaking.membership(speaking.workloads[WEB]).meshed


def test_a_number_of_replicas_by_hand_holds_until_the_manifest_says_another() -> None:
    by_hand = ByHand()
    folder = Folder.of(objects(deployment(replicas=2)))
    scale(by_hand, folder, WEB, 5)

    assert [each.replicas for each in desired(folder, by_hand)] == [5]
    assert [each.replicas for each in desired(Folder.of(objects(deployment(replicas=3))), by_hand)] == [3]


def test_what_has_no_replicas_cannot_be_scaled() -> None:
    folder = Folder.of(objects(pod()))

    with pytest.raises(MeshError, match="only a Deployment or a StatefulSet"):
        scale(ByHand(), folder, WorkloadKey("default", "Pod", "lone"), 2)


@pytest.mark.parametrize(
    "name",
    ["web", "Deployment/web", "deploy/web", "deployment/web", "default/web", "default/Deployment/web"],
)
def test_a_workload_is_found_by_every_name_that_people_use(name: str) -> None:
    assert find(Folder.of(objects(deployment())), name) == WEB


def test_a_name_that_is_not_there_or_not_clear_is_answered_with_the_choices() -> None:
    folder = Folder.of(objects(deployment() + pod("web")))

    with pytest.raises(NotFound, match="Deployment/web, Pod/web"):
        find(folder, "nothing")
    with pytest.raises(MeshError, match="default/Deployment/web, default/Pod/web"):
        find(folder, "web")
    assert find(folder, "pod/web").kind == "Pod"


def test_each_pod_of_a_stateful_set_has_a_host_name_below_its_service() -> None:
    text = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: main, command: ["true"]}]}
"""
    (stateful,) = (item for item in objects(text) if isinstance(item, StatefulSet))

    spec = pod_spec(stateful, "db-0")

    assert (spec.hostname, spec.subdomain) == ("db-0", "db")
