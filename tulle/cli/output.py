"""Everything that the command line shows to people, and JSON for programs.

People get tables without frames and numbers that are short enough to compare; programs get `-o json`, whose
keys do not change. What is shown about progress goes to stderr, so that a pipe gets the answer alone.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType

import msgspec
from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

NONE = "-"
PLAIN_WIDTH = 200
"""For a table into a pipe or a log, where nothing tells the width: better long lines than cut names."""
OPEN = Box("    \n    \n    \n    \n    \n    \n    \n    \n")


def console(*, errors: bool = False) -> Console:
    """Return where text for people goes."""
    stream = sys.stderr if errors else sys.stdout
    return Console(
        stderr=errors, highlight=False, soft_wrap=True, width=None if stream.isatty() else PLAIN_WIDTH
    )


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
    console().print(shown)


def number(value: float | None, unit: str = "") -> str:
    """Return a number with as many digits as matter."""
    if value is None:
        return NONE
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
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
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def until(moment: float | None) -> str:
    """Return how long it is until a moment, given in seconds since 1970."""
    return NONE if moment is None else duration(moment - time.time())


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
