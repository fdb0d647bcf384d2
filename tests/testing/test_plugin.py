"""Where the fixture `mesh` finds manifests, and what a failed test shows."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.explain.test_why import ACCOUNTS, FOR_WEB, SERVER, SHOP

SHOPS = f"{ACCOUNTS}---{SHOP}{SERVER}"
TEST = """
def test_the_cart_is_for_web(mesh):
    assert mesh.call("web", "cart").allowed
"""
MARKED = f"""
import pytest

@pytest.mark.tulle_manifests("elsewhere"){TEST}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a project with nothing but its configuration."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --strict-config\n")
    (tmp_path / "tests").mkdir()
    return tmp_path


def folder(place: Path, name: str, text: str) -> None:
    """Write manifests."""
    (place / name).mkdir(parents=True)
    (place / name / "shop.yaml").write_text(text)


def run(place: Path, test: str) -> str:
    """Return what pytest says to a test."""
    (place / "tests" / "test_shop.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(place / "tests")]
    return subprocess.run(command, cwd=place, text=True, stdout=subprocess.PIPE, check=False).stdout


def test_the_nearest_folder_called_manifests_is_meant(place: Path) -> None:
    folder(place, "manifests", SHOPS)
    folder(place, "tests/manifests", SHOPS + FOR_WEB)

    assert "1 passed" in run(place, TEST)


def test_a_setting_stands_above_the_folder_and_a_marker_above_the_setting(place: Path) -> None:
    folder(place, "manifests", SHOPS)
    folder(place, "set", SHOPS + FOR_WEB)
    folder(place, "tests/elsewhere", SHOPS)
    with (place / "pytest.ini").open("a") as settings:
        settings.write("tulle_manifests = set\n")

    assert "1 passed" in run(place, TEST)
    assert "1 failed" in run(place, MARKED)


def test_without_manifests_it_says_where_to_name_them(place: Path) -> None:
    assert 'say @pytest.mark.tulle_manifests("PATH")' in run(place, TEST)


def test_manifests_with_mistakes_fail_with_all_of_them(place: Path) -> None:
    folder(place, "manifests", SHOPS.replace("port: 8080}", "port: x y}"))

    said = run(place, TEST)
    assert "shop.yaml:" in said
    assert "1 error" in said


def test_a_failed_test_shows_the_answer_and_the_decision_path(place: Path) -> None:
    folder(place, "manifests", SHOPS)

    said = run(place, TEST)
    assert "<denied: web → cart, GET />.allowed" in said
    assert "what the mesh said" in said
    assert "× authorizations: none of them lets the client in" in said
