"""Every command of the README works as it stands there."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
MAKE = ("make demo", "make test")
"""Set-up and what is run besides; the demo is run here by its command, and this is one of the tests."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="tulle up needs root here")


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )


async def typed(command: str, folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "TULLE_STATE_DIR": str(folder / "state"),
    }
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"{command}\n{output.decode()}"
    return output.decode()


@pytest.mark.timeout(240)
async def test_every_command_of_the_readme_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("readme")
    for above in (folder, folder.parent, folder.parent.parent):
        above.chmod(0o755)
    (folder / "hello.yaml").write_text(blocks("yaml")[0])
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(BIN)
    (folder / "examples").symlink_to(ROOT / "examples")
    commands = [line for block in blocks("sh") for line in block.splitlines() if line not in MAKE]
    assert len(commands) > 10

    await typed("tulle demo", folder)
    try:
        for command in commands:
            await typed(command, folder)
    finally:
        await typed("tulle down --volumes --name demo", folder)
        await typed("tulle down --volumes --name hello || true", folder)
