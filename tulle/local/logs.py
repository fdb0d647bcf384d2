"""The logs of containers: files that the containers write themselves, read and kept short from here.

Nobody stands between a container and its log, so a busy supervisor slows nobody down. What grew too long is copied
to a second file and cut, which may lose the lines written in between: the price for that.
"""

import asyncio
import os
import shutil
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

LONGEST = 10 * 2**20
CHECK_S = 5.0
FOLLOW_S = 0.1
CHUNK = 64 * 1024


async def keep_short(folder: Path) -> None:
    """Cut logs that are too long, until cancelled."""
    while True:
        await asyncio.sleep(CHECK_S)
        for file in folder.rglob("*.log"):
            if file.stat().st_size > LONGEST:
                shutil.copyfile(file, file.with_suffix(".log.1"))
                os.truncate(file, 0)


async def read(file: Path, *, tail: int | None, follow: bool) -> AsyncIterator[bytes]:
    """Yield a log: all of it or its last lines, and with `follow` what is written from then on."""
    with file.open("rb") as log:
        if tail is not None:
            yield b"".join(deque(log, tail))
        while True:
            while chunk := log.read(CHUNK):
                yield chunk
            if not follow:
                return
            await asyncio.sleep(FOLLOW_S)
            if os.fstat(log.fileno()).st_size < log.tell():
                log.seek(0)
