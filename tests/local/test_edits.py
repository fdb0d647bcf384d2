import os
from pathlib import Path

import pytest

from tulle.local.edits import PATIENCE_S, being_written

NOW = 1_000_000.0


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "other.yaml").write_text("a: b")
    return tmp_path / "all.yaml"


def save(file: Path, text: str, when: float) -> None:
    file.write_text(text)
    os.utime(file, (when, when))


def test_a_file_that_was_emptied_a_moment_ago_is_being_written(manifest: Path) -> None:
    save(manifest, "", NOW - 0.1)

    assert being_written([manifest.parent], NOW)
    assert being_written([manifest], NOW)


def test_a_file_that_stays_empty_is_meant_to_be(manifest: Path) -> None:
    save(manifest, "", NOW - PATIENCE_S)

    assert not being_written([manifest.parent], NOW)


def test_a_file_with_text_is_not_waited_for(manifest: Path) -> None:
    save(manifest, "a: b", NOW)

    assert not being_written([manifest.parent], NOW)


def test_a_deleted_file_is_not_waited_for(manifest: Path) -> None:
    assert not being_written([manifest, manifest.parent], NOW)


def test_a_file_from_the_future_is_not_waited_for(manifest: Path) -> None:
    save(manifest, "", NOW + 3600)

    assert not being_written([manifest.parent], NOW)
