import os
import subprocess
from pathlib import Path

import pytest

from tulle.local.places import Process, StateFile, bases, identified, names, places, start_time
from tulle.model.errors import HostError, SettingError


def environment(folder: Path) -> dict[str, str]:
    return {"TULLE_STATE_DIR": str(folder)}


def test_a_process_is_known_by_its_number_and_its_start() -> None:
    own = identified(os.getpid(), "test")

    assert own.alive()
    assert not Process(own.pid, own.start_time + 1).alive()


def test_a_process_that_only_waits_to_be_collected_is_gone() -> None:
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert start_time(process.pid) is None


def test_what_is_written_is_read_back_and_says_whether_the_mesh_runs(tmp_path: Path) -> None:
    place = places("shop", environment(tmp_path))
    place.make()
    state = StateFile("shop", (identified(os.getpid(), "supervisor"),), 7)

    place.write(state)

    assert place.read() == state
    assert place.running()
    assert names(environment(tmp_path)) == ["shop"]


def test_a_state_file_that_cannot_be_read_is_no_running_mesh(tmp_path: Path) -> None:
    place = places("shop", environment(tmp_path))
    place.make()
    (place.state / "state.json").write_text("{")

    assert place.read() is None
    assert not place.running()


def test_a_stranger_with_a_number_of_the_mesh_is_not_killed(tmp_path: Path) -> None:
    place = places("shop", environment(tmp_path))
    place.make()
    place.write(StateFile("shop", (Process(os.getpid(), 1),)))

    place.kill()

    assert not place.running()


def test_nobody_else_may_look_into_the_folders(tmp_path: Path) -> None:
    place = places("shop", environment(tmp_path))

    place.make()

    assert (place.state.stat().st_mode & 0o777, place.persistent.stat().st_mode & 0o777) == (0o700, 0o700)


def test_a_path_too_long_for_a_socket_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="set a shorter TULLE_STATE_DIR"):
        places("shop", environment(tmp_path / ("x" * 100))).make()


@pytest.mark.parametrize("name", ["", "..", "a/b", "Shop", "-a", "a" * 33, "a b"])
def test_a_name_that_is_no_part_of_a_path_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="cannot name a mesh"):
        places(name, {})


def test_a_plain_user_has_folders_of_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert bases({"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/a"}) == (
        Path("/run/user/1000/tulle"),
        Path("/home/a/.local/state/tulle"),
    )
    assert bases({"HOME": "/home/a"})[0] == Path("/tmp/tulle-1000")
