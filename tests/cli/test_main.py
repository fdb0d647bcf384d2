import subprocess
import sys

import pytest

from tulle.cli.main import COMMANDS, GROUPS, exit_code, loaded, main
from tulle.model.errors import (
    AlreadyRunning,
    BugError,
    HostError,
    ManifestError,
    NotFound,
    NotRunning,
    PeerError,
    SettingError,
)
from tulle.model.objects import Position, Problem

HEAVY = {"httpx2", "rich", "pydantic", "grpc", "msgspec", "yaml", "asyncio", "google.protobuf"}


def test_help_loads_nothing_that_takes_long() -> None:
    script = "import sys; from tulle.cli.main import main; main(['--help']); sys.stderr.write(' '.join(sys.modules))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert HEAVY & set(done.stderr.split()) == set()
    assert all(command in done.stdout for command in (*COMMANDS, *GROUPS))


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0

    assert f"Usage: tulle {command}" in capsys.readouterr().out


def test_every_command_of_a_group_exists() -> None:
    for group, (_, commands) in GROUPS.items():
        for command in commands:
            assert callable(loaded(group, command.replace("-", "_")))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("a"), 1),
        (AlreadyRunning("a"), 1),
        (PeerError("a"), 1),
        (SettingError("a"), 2),
        (ManifestError(()), 2),
        (HostError("a"), 3),
        (NotRunning("a"), 4),
        (BugError("a"), 70),
    ],
)
def test_an_error_has_the_exit_code_of_its_kind(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_a_mistyped_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dwon"]) == 2

    assert "Did you mean 'down'?" in capsys.readouterr().err


def test_an_error_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps"]) == 4

    assert capsys.readouterr().err == 'error: no mesh called "default" answers; start one with: tulle up\n'


def test_mistakes_in_manifests_are_listed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from tulle.cli.main import sentence

    error = ManifestError(
        (Problem(Position("a.yaml", 3), "spec", "expected"), Problem(Position("b.yaml", 1), "", "x"))
    )

    assert sentence(error) == "a.yaml:3: spec: expected\nb.yaml:1: x\n2 mistakes; nothing was changed"


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0

    assert capsys.readouterr().out.startswith("tulle ")
