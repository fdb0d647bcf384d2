"""What the page about resources shows is what the commands print."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.pods import eventually
from tests.test_docs import APPLICATION, DOCS, blocks

PAGE = DOCS / "resources.md"
NAME = "resources"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="tulle up needs root here")


def steps(transcript: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a transcript with the lines under it."""
    for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, _, rest = part.partition("\n")
        yield command, rest.splitlines()


async def typed(command: str, folder: Path) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tulle.cli.main", *command.split()[1:]),
        cwd=folder,
        env=os.environ | {"TULLE_STATE_DIR": str(folder / "state"), "TULLE_NAME": NAME},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return [line.rstrip() for line in said.decode().splitlines()]


async def test_a_check_prints_what_the_page_shows(tmp_path: Path) -> None:
    (file, content), (command, expected) = steps(blocks(PAGE, "text")[0])
    (tmp_path / file.removeprefix("cat ")).write_text("\n".join(content) + "\n")

    assert await typed(command, tmp_path) == expected


@needs_root
@pytest.mark.timeout(120)
async def test_get_prints_what_the_page_shows(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("resources")
    for above in (folder, folder.parent, folder.parent.parent):
        above.chmod(0o755)
    (folder / "application.yaml").write_text(APPLICATION.read_text())
    (folder / "page.yaml").write_text("".join(blocks(PAGE, "yaml")))
    shown = list(steps(blocks(PAGE, "text")[1]))
    assert len(shown) == 3

    try:
        await typed("tulle up -d application.yaml page.yaml", folder)
        for command, expected in shown:

            async def as_shown(command: str = command, expected: list[str] = expected) -> bool:
                return await typed(command, folder) == expected

            await eventually(as_shown, command)
    finally:
        await typed("tulle down --volumes", folder)
