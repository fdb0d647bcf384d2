from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tulle.model.errors import ManifestError
from tulle.model.objects import Service
from tulle.model.workload import Deployment, Job, LabelSelector, RollingUpdate, StatefulSet
from tulle.rules.decode import decode, decode_paths
from tulle.rules.kinds import KINDS

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web
          command: [python3, -m, http.server]
"""


def problems(*texts: str) -> list[str]:
    return [str(problem) for problem in decode((f"{n}.yaml", text) for n, text in enumerate(texts)).problems]


def remarks(text: str) -> list[str]:
    return [f"{remark.severity} {remark}" for remark in decode([("0.yaml", text)]).remarks]


def only(text: str) -> object:
    (found,) = decode([("0.yaml", text)]).accepted()
    return found


def test_a_deployment_gets_the_defaults_of_kubernetes() -> None:
    found = only(DEPLOYMENT)

    assert isinstance(found, Deployment)
    assert found.replicas == 1
    assert found.rolling == RollingUpdate("25%", "25%")
    assert found.selector == LabelSelector({"app": "web"})
    assert found.meta.namespace == "default"
    spec = found.template.spec
    assert (spec.service_account, spec.restart_policy, spec.termination_grace_s) == ("default", "Always", 30)
    container = spec.containers[0]
    assert container.command == ("python3", "-m", "http.server")
    assert str(container.source) == "0.yaml:12"


def test_every_mistake_of_every_file_is_found_at_once() -> None:
    bad = DEPLOYMENT.replace("kind: Deployment\n", "kind: Deployment\nextra: 1\n")
    bad = bad.replace("  selector", "  replicas: three\n  selector").replace("image: web", "imagePolicy: x")

    assert problems(bad, "a: [", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: '%'}\n") == [
        "0.yaml:3: extra: unknown field",
        '0.yaml:6: spec.replicas: expected a whole number from 0 to 1000, found the text "three"',
        "0.yaml:13: spec.template.spec.containers[0].imagePolicy: unknown field; did you mean imagePullPolicy?",
        "1.yaml:1: not YAML: did not find expected node content",
        "2.yaml:4: data: a: expected base64; plain text goes into stringData or data",
    ]


def test_a_mistake_is_one_line_whatever_the_value_holds() -> None:
    bad = DEPLOYMENT.replace("  selector", '  replicas: "\\e[2Jx\\ny"\n  "a\\nb": 1\n  selector')

    assert problems(bad) == [
        '0.yaml:5: spec.replicas: expected a whole number from 0 to 1000, found the text "\\x1b[2Jx\\ny"',
        "0.yaml:6: spec.a\\nb: unknown field",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: web}", "name: Web}", "metadata.name: expected a name of lower-case letters"),
        ("name: web}", "name: web", "not YAML"),
        ("metadata: {name: web}", "metadata: 3", "metadata: expected a mapping, found 3"),
        ("metadata: {name: web}", "status: {}", "metadata: missing; expected a mapping"),
        (
            "{app: web}}\n  template",
            "{app: www}}\n  template",
            "spec.selector: expected a selector that matches",
        ),
        ("apps/v1", "apps/v1beta1", "expected apps/v1 for Deployment"),
        ("labels: {app: web}", "labels: {app: 1}", "expected a text, found 1; put quotes around it"),
        ("- name: web", "- nmae: web", "nmae: unknown field; did you mean name?"),
        ("command: [python3, -m, http.server]", "args: [x]", "command: missing; expected the command to run"),
        ("command: [python3, -m, http.server]", "command: [3]", "command[0]: expected a text, found 3"),
        (
            "containers:\n        - name",
            "containers:\n        - ~\n        - name",
            "[0]: expected a mapping",
        ),
    ],
)
def test_a_mistake_is_told_with_its_field(old: str, new: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(DEPLOYMENT.replace(old, new, 1)))


def container(text: str) -> str:
    return DEPLOYMENT + "".join(f"          {line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ports: [{containerPort: 70000}]", "expected a whole number from 1 to 65535, found 70000"),
        ("ports: [{containerport: 80}]", "unknown field; did you mean containerPort?"),
        ("ports: [{name: a, containerPort: 1}, {name: a, containerPort: 2}]", "is in line 13 already"),
        ("livenessProbe: {httpGet: {path: /}}", "port: missing; expected a port number or the name"),
        ("livenessProbe: {}", "expected one of httpGet, tcpSocket, exec or grpc"),
        ("livenessProbe: {tcpSocket: {port: 1}, successThreshold: 2}", "expected 1 for liveness and startup"),
        ("readinessProbe: {tcpSocket: {port: 1}, exec: {command: [a]}}", "but tcpSocket is here too"),
        ("env: [{name: A, value: 1}]", "expected a text, found 1; put quotes around it"),
        ("env: [{name: A, value: a, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]", "not both"),
        ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.ip}}}]", "expected a fact such as"),
        (
            "volumeMounts: [{name: data, mountPath: /data}]",
            'expected a volume of this pod (there are: none), found "data"',
        ),
        ("volumeMounts: [{name: data, mountPath: data}]", "expected a path that begins with '/'"),
        ("resources: {limits: {cpu: fast}}", "expected a quantity such as 500m"),
        ("envFrom: [{configMapRef: {name: gone}}]", '"gone" is not there'),
        ("env: [{name: A, valueFrom: {secretKeyRef: {name: gone, key: a}}}]", '"gone" is not there'),
    ],
)
def test_a_mistake_inside_a_container_is_told(text: str, expected: str) -> None:
    found = problems(container(text))

    assert len(found) >= 1
    assert any(expected in problem and problem.startswith("0.yaml:13: ") for problem in found), found


def test_what_kubernetes_knows_and_we_ignore_is_accepted() -> None:
    text = container("imagePullPolicy: Always\nvolumeDevices: []\ntty: true")
    text = text.replace("      containers:", "      hostPID: true\n      tolerations: []\n      containers:")

    assert problems(text) == []
    assert remarks(text) == [
        "note 0.yaml:9: spec.template.spec.hostPID: not acted on here",
        "note 0.yaml:16: spec.template.spec.containers[0].volumeDevices: not acted on here",
    ]


def test_an_unknown_kind_is_named_and_skipped() -> None:
    text = f"apiVersion: x/v1\nkind: Ingress\nmetadata: {{name: a}}\n---\n{DEPLOYMENT}"

    assert problems(text) == []
    assert remarks(text) == ["warning 0.yaml:2: kind: Ingress is not run here and was skipped"]
    assert isinstance(only(text), Deployment)


def test_a_list_is_its_items() -> None:
    item = yaml.safe_load(DEPLOYMENT)

    assert isinstance(only(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [item]})), Deployment)


def test_two_objects_of_one_name_are_a_mistake_that_names_the_first() -> None:
    assert problems(DEPLOYMENT, DEPLOYMENT) == [
        '1.yaml:1: metadata.name: Deployment "web" is at 0.yaml:1 already'
    ]


def test_names_that_lead_somewhere_are_accepted() -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"
    uses = container("env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: a}}}]")

    assert problems(uses, config) == []
    assert problems(uses.replace("key: a", "key: b"), config) == [
        "0.yaml:13: spec.template.spec.containers[0].env[0].valueFrom.configMapKeyRef.name: "
        'expected a key of ConfigMap c; "b" is not there'
    ]
    assert problems(uses.replace("key: a", "key: b, optional: true"), config) == []


def test_a_name_is_not_called_missing_when_its_object_could_not_be_read() -> None:
    uses = container("envFrom: [{configMapRef: {name: c}}]")

    assert problems(uses, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c\n") == [
        "1.yaml:4: not YAML: did not find expected ',' or '}'"
    ]


def test_a_service_without_pods_is_only_a_warning() -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: x}, ports: [{port: 1}]}\n"
    )

    assert remarks(service) == [
        "warning 0.yaml:1: spec.selector: selects no pod: none here has the labels app=x"
    ]


def test_services_say_what_they_are() -> None:
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: None, selector: {a: b}}\n"

    found = only(text)

    assert isinstance(found, Service)
    assert found.headless
    assert found.cluster_ips == ()


def test_a_claim_template_is_a_volume_of_its_pods() -> None:
    text = container("volumeMounts: [{name: data, mountPath: /data}]").replace(
        "kind: Deployment", "kind: StatefulSet"
    )
    claims = "[{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]"

    found = only(f"{text}  volumeClaimTemplates: {claims}\n")

    assert isinstance(found, StatefulSet)
    assert [claim.meta.name for claim in found.claims] == ["data"]


def test_a_job_must_end() -> None:
    job = DEPLOYMENT.replace("apps/v1", "batch/v1").replace("Deployment", "Job")
    job = job.replace("  selector: {matchLabels: {app: web}}\n", "")

    assert problems(job) == [
        "0.yaml:5: spec.template: spec.restartPolicy: expected Never or OnFailure, found Always"
    ]
    found = only(job.replace("      containers", "      restartPolicy: Never\n      containers"))
    assert isinstance(found, Job)
    assert (found.completions, found.parallelism, found.backoff_limit) == (1, 1, 6)


def test_files_and_folders_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(DEPLOYMENT)
    (tmp_path / "README.md").write_text("# not a manifest")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.yaml").write_text("kind: [")

    assert [item.meta.name for item in decode_paths([tmp_path]).accepted()] == ["web"]


def test_files_that_cannot_be_read_are_mistakes_too(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: ü\n".encode("latin-1"))
    empty = tmp_path / "empty"
    empty.mkdir()

    with pytest.raises(ManifestError) as caught:
        decode_paths([tmp_path / "gone.yaml", latin, empty]).accepted()

    assert [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [
        "empty:1: no file here ends in .yaml, .yml or .json",
        "gone.yaml:1: cannot be read: No such file or directory",
        "latin.yaml:2: not text in UTF-8",
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A manifest of a known kind in which one value, anywhere, is replaced by anything."""
    text = draw(st.sampled_from([container(line) for line in LINES]))
    whole = yaml.safe_load(text)
    place = draw(st.sampled_from(list(places(whole))))
    holder = whole
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = draw(values)
    whole["kind"] = draw(st.sampled_from(sorted(KINDS)))
    whole["apiVersion"] = KINDS[whole["kind"]].api_versions[0]
    return yaml.safe_dump(whole)


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in [(*path, key), *places(inner, (*path, key))]]


LINES = (
    "env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: a}}}]",
    "envFrom: [{prefix: A, secretRef: {name: c}}]",
    "livenessProbe: {httpGet: {path: /, port: http, httpHeaders: [{name: a, value: b}]}, periodSeconds: 1}",
    "lifecycle: {preStop: {exec: {command: [a]}}, postStart: {sleep: {seconds: 1}}}",
    "volumeMounts: [{name: a, mountPath: /a, subPath: b}]",
    "resources: {limits: {cpu: 1, memory: 1Gi}}",
)


@given(broken())
def test_no_manifest_however_broken_gets_past_the_decoder_with_a_traceback(text: str) -> None:
    decoded = decode([("f", text)])

    lines = text.count("\n") + 1
    assert all(1 <= problem.position.line <= lines for problem in (*decoded.problems, *decoded.remarks))
    assert decoded.objects or decoded.problems


@given(
    st.lists(st.sampled_from(["spec", "metadata", "template", "containers", "name", "x"]), min_size=1),
    st.text(),
)
def test_an_unknown_field_is_reported_in_its_own_line(words: list[str], value: str) -> None:
    word = "-".join(["zz", *words])
    lines = DEPLOYMENT.splitlines()
    lines.insert(4, f"  {word}: {yaml.safe_dump(value, default_style=chr(34), width=10**6).splitlines()[0]}")

    (problem,) = decode([("f", "\n".join(lines))]).problems

    assert (problem.position.line, problem.field) == (5, f"spec.{word}")
