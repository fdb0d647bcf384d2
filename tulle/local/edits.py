"""Decides whether a manifest is being written at the moment.

`helm template … > all.yaml` empties the file first and fills it seconds later. Taken over in between, it would end
what it describes, and open what its Servers close. A file that stays empty is meant to be so.
"""

from collections.abc import Iterable
from pathlib import Path

from tulle.rules.decode import manifests_in

PATIENCE_S = 5.0
"""How long a file is empty before it counts as emptied on purpose: longer than a large chart takes to render."""


def being_written(paths: Iterable[Path], now: float) -> bool:
    """Tell whether a manifest was emptied a moment ago; `now` is the system's time in seconds."""
    return any(_just_emptied(file, now) for path in paths for file in manifests_in(path, []))


def _just_emptied(file: Path, now: float) -> bool:
    try:
        found = file.stat()
    except OSError:
        return False
    return not found.st_size and 0 <= now - found.st_mtime < PATIENCE_S
