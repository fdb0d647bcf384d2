"""Reading the logs of containers."""

import asyncio
from pathlib import Path

import pytest

from tulle.local import logs


@pytest.mark.parametrize(
    ("tail", "expected"), [(None, b"a\nb\nc\n"), (2, b"b\nc\n"), (0, b""), (9, b"a\nb\nc\n")]
)
async def test_a_log_is_read_whole_or_from_its_end(tmp_path: Path, tail: int | None, expected: bytes) -> None:
    file = tmp_path / "main.log"
    file.write_bytes(b"a\nb\nc\n")

    assert b"".join([part async for part in logs.read(file, tail=tail, follow=False)]) == expected


async def test_following_goes_on_with_what_is_written_and_when_the_log_was_cut(tmp_path: Path) -> None:
    file = tmp_path / "main.log"
    file.write_bytes(b"old\n")
    parts = logs.read(file, tail=1, follow=True)
    assert await anext(parts) == b"old\n"

    with file.open("ab") as log:
        log.write(b"new\n")
    async with asyncio.timeout(10):
        assert await anext(parts) == b"new\n"
    file.write_bytes(b"cut\n")

    async with asyncio.timeout(10):
        assert await anext(parts) == b"cut\n"
    await parts.aclose()  # type: ignore[attr-defined]  # a generator, whose type says less
