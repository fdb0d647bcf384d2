import json
import subprocess
import sys
from pathlib import Path

import pytest

from tulle.cli.main import main

Captured = pytest.CaptureFixture[str]

SERVER = """\
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web}
spec:
  podSelector: {}
  port: 80
"""
POLICY = """\
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: wed}
  requiredAuthenticationRefs: []
"""


def test_all_errors_of_a_folder_and_a_file_are_said_at_once(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/server.yaml").write_text(SERVER.replace("80", "0"))
    (tmp_path / "policy.yaml").write_text(POLICY.replace("Server", "Deployment"))

    code = main(["check", str(tmp_path / "folder"), str(tmp_path / "policy.yaml")])

    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        f"error: {tmp_path}/folder/server.yaml:6: spec.port: expected a whole number from 1 to 65535, found 0",
        f"error: {tmp_path}/policy.yaml:5: spec.targetRef.kind: expected a Server, HTTPRoute, GRPCRoute or Namespace, "
        "found Deployment of the group policy.linkerd.io",
        f'warning: {tmp_path}/policy.yaml:5: spec.targetRef.name: there is no Deployment "wed" in namespace default here',
        "2 objects, 2 errors, 1 warning",
    ]


def test_a_name_outside_the_input_is_a_warning_and_the_exit_code_is_good(
    tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)

    code = main(["check", str(file), "-o", "json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out) == {
        "success": True,
        "objects": 1,
        "problems": [
            {
                "severity": "warning",
                "file": str(file),
                "line": 5,
                "field": "spec.targetRef.name",
                "text": 'there is no Server "wed" in namespace default here',
            }
        ],
    }


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", str(tmp_path / "nothing.yaml"), "-o", "json"]) == 1

    answer = json.loads(capsys.readouterr().out)
    assert (answer["success"], answer["objects"]) == (False, 0)
    assert [problem["text"] for problem in answer["problems"]] == [
        "cannot be read: No such file or directory"
    ]


def test_manifests_are_checked_where_no_mesh_could_run(tmp_path: Path) -> None:
    """Elsewhere than on Linux, whatever runs a mesh cannot even be imported."""
    (tmp_path / "server.yaml").write_text(SERVER)
    script = (
        "import sys\n"
        "from tulle.cli.main import main\n"
        f"code = main(['check', {str(tmp_path)!r}])\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('tulle.local', 'tulle.mesh', 'tulle.serve'))))\n"
        "sys.exit(code)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["1 object, 0 errors, 0 warnings", ""]
