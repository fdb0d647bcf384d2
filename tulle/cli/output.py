"""Everything that the command line shows to people, and JSON for programs.

People get tables without frames and numbers that are short enough to compare; programs get `-o json`, whose
keys do not change. What is shown about progress goes to stderr, so that a pipe gets the answer alone.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

NONE = "-"
WIDTH = 1000
"""Better a line that a terminal breaks than a name that is cut: names are there to be copied."""


def console(*, errors: bool = False) -> Console:
    """Return where text for people goes."""
    return Console(stderr=errors, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Print a line of the answer."""
    console().print(text, markup=False)


def hint(text: str, *, style: str = "dim") -> None:
    """Print a line beside the answer."""
    console(errors=True).print(Text(text, style=style))


def show_json(value: object) -> None:
    """Print JSON that a person can read too."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> None:
    """Print a table; columns in `right` hold numbers."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    Console(highlight=False, width=WIDTH).print(shown, crop=False)


def number(value: float | None, unit: str = "") -> str:
    """Return a number with as many digits as matter."""
    if value is None:
        return NONE
    digits = 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{unit}"


def percent(share: float | None) -> str:
    """Return a share; it says 100 % only when nothing failed."""
    if share is None:
        return NONE
    shown = f"{share:.2%}"
    return "99.99%" if shown == "100.00%" and share < 1 else shown


def duration(seconds: float) -> str:
    """Return a duration in its largest unit that is not zero."""
    if seconds <= 0:
        return "expired"
    for size, unit in ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def until(moment: float | None) -> str:
    """Return how long it is until a moment, given in seconds since 1970."""
    return NONE if moment is None else duration(moment - time.time())


def program() -> str:
    """Return how this program was called, so that a line that is shown can be typed as it is."""
    called = Path(sys.argv[0])
    sudo = "sudo " if os.environ.get("SUDO_UID") else ""
    found = shutil.which("tulle")
    if found is not None and Path(found).resolve() == called.resolve():
        return f"{sudo}tulle"
    here = called.absolute()
    return f"{sudo}{here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here}"


class Progress:
    """A line that says what is going on, with its seconds; each finished step stays as a line of its own."""

    def __init__(self) -> None:
        self._console = console(errors=True)
        self._status = self._console.status("")
        self._started = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def doing(self, text: str) -> None:
        """Show what is going on now."""
        self._status.update(Text(text))

    def done(self, text: str) -> None:
        """Say that a step is finished."""
        seconds = time.monotonic() - self._started
        self._console.print(Text.assemble((f"{seconds:6.1f} s  ", "dim"), text))
