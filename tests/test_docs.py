"""What the pages show is so: their tests pass, word for word, against their manifests."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
APPLICATION = DOCS / "application.yaml"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


PAGES = [page for page in sorted(DOCS.glob("*.md")) if blocks(page, "yaml")]
ABOUT_APPLICATION = [page for page in PAGES if APPLICATION.name in page.read_text()]
SHOWN = [page for page in ABOUT_APPLICATION if blocks(page, "console")]


@pytest.mark.parametrize("page", ABOUT_APPLICATION, ids=lambda page: str(page.stem))
def test_a_page_s_tests_pass_against_its_manifests(page: Path, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "application.yaml").write_text(APPLICATION.read_text())
    (manifests / "page.yaml").write_text("".join(blocks(page, "yaml")))
    (tmp_path / "test_page.py").write_text("\n\n".join(blocks(page, "python")))

    checked = run("-m", "tulle.cli.main", "check", str(manifests), folder=tmp_path)
    assert checked.returncode == 0, checked.stdout
    if blocks(page, "python"):
        tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py", folder=tmp_path)
        assert tested.returncode == 0, tested.stdout


def run(*command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: str(page.stem))
def test_a_page_s_commands_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "application.yaml").write_text(APPLICATION.read_text())
    (manifests / "page.yaml").write_text("".join(blocks(page, "yaml")))

    for block in blocks(page, "console"):
        command, _, shown = block.partition("\n")
        said = run("-m", "tulle.cli.main", *shlex.split(command)[2:], folder=tmp_path).stdout
        assert said.startswith(shown), said
