"""The pieces of a container's root that can be looked at without making one."""

from pathlib import Path

import pytest

from tulle.local.rootfs import below, first_barred


def test_the_first_folder_that_only_its_owner_may_enter_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    barred = tmp_path / "barred"
    (barred / "open" / "deep").mkdir(parents=True)
    start = first_barred(str(tmp_path / "x"))
    barred.chmod(0o700)

    assert first_barred(str(barred)) == start
    assert first_barred(str(barred / "open" / "deep")) == (start or str(barred))


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/ab", "/a", False),
        ("/a/b", "/a/", True),
        ("/a", "/a/b", False),
    ],
)
def test_a_path_is_below_a_folder_by_whole_names(path: str, folder: str, expected: bool) -> None:
    assert below(path, folder) is expected
