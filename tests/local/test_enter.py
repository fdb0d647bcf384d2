import os
import subprocess
import sys

import pytest

from tulle.local.enter import Target, arguments, descendants, environment, host_pid, inside_network
from tulle.model.errors import NotFound


def test_a_command_becomes_what_the_containers_process_is() -> None:
    found = arguments(Target(os.getpid(), rootless=False), ["id", "-u"])

    enter, _, rest = (" ".join(found)).partition(" -- ")
    assert enter == f"nsenter --target={os.getpid()} --mount --net --uts --ipc --pid"
    assert rest.startswith(f"setpriv --reuid={os.getuid()} --regid={os.getgid()} ")
    assert "--bounding-set=-all --no-new-privs" in rest
    assert f"env --chdir={os.getcwd()} -i " in rest
    assert found[-2:] == ["id", "-u"]


def test_a_plain_user_enters_his_user_namespace_first() -> None:
    assert arguments(Target(os.getpid(), rootless=True), ["id"])[7:9] == ["--user", "--preserve-credentials"]
    assert inside_network(7, ["ip", "a"], rootless=True) == [
        *("nsenter", "--target=7", "--net", "--user", "--preserve-credentials"),
        *("--", "ip", "a"),
    ]


def test_a_process_that_is_gone_is_not_found() -> None:
    with pytest.raises(NotFound):
        arguments(Target(2**22 + 1, rootless=False), ["id"])
    with pytest.raises(NotFound):
        host_pid(os.getpid(), 2**22 + 1)


def test_children_and_their_children_are_descendants() -> None:
    script = "import subprocess; subprocess.run(['cat'])"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"up\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"up\n"

        found = descendants(os.getpid())

        assert child.pid in found
        assert len(descendants(child.pid)) == 1
        assert set(descendants(child.pid)) <= set(found)


def test_the_environment_is_the_processes_own_or_at_least_a_path() -> None:
    assert f"PATH={os.environ['PATH']}" in environment(os.getpid())
    assert environment(2**22 + 1)[0].startswith("PATH=")
