"""Programs, environments and users of containers."""

from pathlib import Path

import pytest

from tests.local.builders import objects, one, pod, service
from tulle.local.containers import (
    PodFace,
    Program,
    Settings,
    User,
    expand,
    missing_programs,
    program,
    service_links,
    user,
)
from tulle.local.desired import Folder
from tulle.model.errors import SettingError
from tulle.model.objects import Service
from tulle.model.workload import Pod

FACE = PodFace(
    name="lone",
    namespace="default",
    uid="u-1",
    labels={"app": "shop"},
    annotations={"note": "hi"},
    node="local",
    addresses=("10.77.0.5", "fd77::5"),
    host_address="10.77.0.1",
)
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: debug, mode: fast}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {token: s3cret}
---
"""


def made(container: str, *, spec: str = "", config: str = "", base: dict[str, str] | None = None) -> Program:
    found = objects(config + pod(container=container, spec=spec))
    (lone,) = (item for item in found if isinstance(item, Pod))
    settings = Folder.of(found).settings_of("default")
    return program(lone.spec.containers[0], lone.spec, FACE, settings, base=base or {}, links={})


def test_variables_may_use_those_before_them() -> None:
    told = made(
        "command: [serve, --at=$(URL)]\n"
        "    args: [$(NOBODY), $$(URL)]\n"
        "    env: [{name: HOST, value: web}, {name: URL, value: 'http://$(HOST)/'}]"
    )

    assert told.argv == ("serve", "--at=http://web/", "$(NOBODY)", "$(URL)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$", "$"), ("a$$b", "a$b"), ("$(A)$(A)", "11")],
)
def test_references_are_replaced_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


def test_the_environment_comes_from_every_source_and_later_ones_win() -> None:
    told = made(
        "command: [serve]\n"
        "    envFrom: [{configMapRef: {name: settings}}, {prefix: K_, secretRef: {name: keys}}]\n"
        "    env:\n"
        "    - {name: mode, value: slow}\n"
        "    - {name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: level}}}\n"
        "    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}\n"
        "    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n"
        "    - {name: APP, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}\n"
        "    - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}\n"
        "    - {name: MIB, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}\n"
        "    resources: {limits: {cpu: 1500m, memory: 64Mi}}",
        config=CONFIG,
        base={"PATH": "/bin"},
    )

    assert told.environment == {
        "PATH": "/bin",
        "HOSTNAME": "lone",
        "TULLE_MANIFEST_DIR": str(Path.cwd()),
        "level": "debug",
        "mode": "slow",
        "K_token": "s3cret",
        "LEVEL": "debug",
        "TOKEN": "s3cret",
        "IP": "10.77.0.5",
        "APP": "shop",
        "CPUS": "2",
        "MIB": "64",
    }


def test_a_missing_key_is_named() -> None:
    lone = one(
        Pod, CONFIG + pod(container="command: [serve]\n    envFrom: [{configMapRef: {name: settings}}]")
    )

    with pytest.raises(SettingError, match="no ConfigMap settings in namespace default"):
        program(lone.spec.containers[0], lone.spec, FACE, Settings(), base={}, links={})


def test_services_of_the_namespace_are_in_the_environment() -> None:
    web = one(Service, service("my-web", spec="ports: [{port: 80, name: http}]"))

    assert service_links([web], {"default/my-web": ("10.78.0.9", "fd78::9")}) == {
        "MY_WEB_SERVICE_HOST": "10.78.0.9",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
    }


@pytest.mark.parametrize(
    ("container", "spec", "expected"),
    [
        ("", "", User(65534, 65534)),
        ("securityContext: {runAsUser: 1000}", "", User(1000, 1000)),
        ("securityContext: {runAsUser: 1000, runAsGroup: 5}", "", User(1000, 5)),
        ("", "securityContext: {runAsUser: 7, fsGroup: 9}", User(7, 7, (9,))),
        ("securityContext: {runAsUser: 0}", "", User(65534, 65534)),
    ],
)
def test_a_container_runs_as_its_own_user_and_never_as_root(
    container: str, spec: str, expected: User
) -> None:
    lone = one(Pod, pod(container=f"command: ['true']\n    {container}", spec=spec))

    assert user(lone.spec.containers[0], lone.spec, many_ids=True) == expected


def test_with_a_single_id_there_is_no_choice() -> None:
    lone = one(Pod, pod())

    assert user(lone.spec.containers[0], lone.spec, many_ids=False) == User(0, 0)


def test_the_uid_of_the_proxy_is_refused() -> None:
    lone = one(Pod, pod(container="command: ['true']\n    securityContext: {runAsUser: 2102}"))

    with pytest.raises(SettingError, match="2102"):
        user(lone.spec.containers[0], lone.spec, many_ids=True)


def test_a_program_that_the_host_lacks_is_named_with_its_place_and_the_choices() -> None:
    lone = one(Pod, pod(container="command: [nginx]"))

    (problem,) = missing_programs(lone.spec, lambda name, _: name != "nginx")

    assert problem.position.line == 9
    assert 'no program "nginx"' in problem.text
    assert "install it" in problem.text


def test_a_program_in_a_volume_is_left_to_the_start_to_find() -> None:
    lone = one(
        Pod,
        pod(
            container="command: [/scripts/run]\n    volumeMounts: [{name: s, mountPath: /scripts}]",
            spec="volumes: [{name: s, emptyDir: {}}]",
        ),
    )

    assert missing_programs(lone.spec, lambda *_: False) == []
