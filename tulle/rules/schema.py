"""Reading fields out of a mapping, strictly: every field is named, typed and bounded, or it is a mistake.

A decoder asks a `Fields` for what it wants and gets a value of the right type every time. A mistake is put on
the report and the field's default is returned, so that decoding goes on and finds the next mistake; an object
with mistakes is never used, because the report has them. What nobody asked for is unknown, and unknown fields
are mistakes: a typing error in an optional field would otherwise change nothing and say nothing.
"""

import difflib
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

from tulle.model.objects import JsonValue, Position, Problem, Raw, Severity
from tulle.rules.positions import Entry, Node

Default = TypeVar("Default")
Choice = TypeVar("Choice", bound=str)
Decoded = TypeVar("Decoded")

MAX_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Pattern:
    """The texts that a field takes, and how to say so."""

    expected: str
    expression: re.Pattern[str]
    longest: int

    def fits(self, text: str) -> bool:
        """Say whether a text is one of them."""
        return len(text) <= self.longest and self.expression.fullmatch(text) is not None


def pattern_of(expected: str, expression: str, longest: int) -> Pattern:
    """Make a pattern."""
    return Pattern(expected, re.compile(expression), longest)


LABEL = Pattern(
    "a name of at most 63 lower-case letters, digits and '-'",
    re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"),
    63,
)
SUBDOMAIN = Pattern(
    "a name of lower-case letters, digits, '-' and '.'",
    re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"),
    253,
)
PORT_NAME = Pattern(
    "a port name of at most 15 lower-case letters, digits and '-', one of them a letter",
    re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?"),
    15,
)
ENV_NAME = Pattern("a name without '='", re.compile(r"[\x20-\x3c\x3e-\x7e]+"), 1024)
ABSOLUTE_PATH = Pattern("a path that begins with '/'", re.compile(r"/[^\0]*"), 4096)
RELATIVE_PATH = Pattern("a relative path without '..'", re.compile(r"(?!/)(?!(.*/)?\.\.(/|\Z))[^\0]+"), 4096)
KEY = Pattern("a key of letters, digits, '-', '_' and '.'", re.compile(r"(?!\.\.?\Z)[-._a-zA-Z0-9]+"), 253)
QUANTITY = Pattern(
    "a quantity such as 500m, 2 or 64Mi",
    re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?"),
    64,
)
LABEL_VALUE = Pattern(
    "at most 63 letters, digits, '-', '_' and '.', or nothing",
    re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"),
    63,
)
LABEL_KEY = Pattern(
    "a label key such as app or example.org/app",
    re.compile(
        r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
        r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
    ),
    317,
)
TIMESTAMP = Pattern(
    "a time such as 2026-01-31T12:00:00Z",
    re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[-+][0-9]{2}:[0-9]{2})"
    ),
    40,
)
GO_DURATION = Pattern(
    "a duration such as 500ms, 10s or 1h30m",
    re.compile(r"[-+]?(0|(([0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9})(ns|us|µs|μs|ms|s|m|h)){1,12})"),
    128,
)
GATEWAY_DURATION = Pattern(
    "a duration of whole numbers such as 500ms, 10s or 1h30m",
    re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}"),
    24,
)
DURATION_PART = re.compile(r"([0-9.]+)([a-zµμ]+)")
DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
PERCENT = re.compile(r"[0-9]{1,3}%")


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that has to be the name of an object in the same namespace, and keys that it has to have."""

    kind: str
    name: str
    keys: tuple[str, ...]
    position: Position
    path: str


@dataclass(slots=True)
class Report:
    """Everything there is to say about one document, and the names that it relies on."""

    problems: list[Problem] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)

    def add(self, position: Position, path: str, text: str, severity: Severity = "error") -> None:
        """Say one thing."""
        self.problems.append(Problem(position, path, text, severity))


def shown(value: object) -> str:
    """Name a value in a message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return f'the text "{value}"' if len(value) <= 40 else f'the text "{value[:40]}…"'
        case list():
            return "a list"
        case _:
            return "a mapping"


class Fields:
    """The fields of one mapping; whoever opens it calls `finish` when all were asked for."""

    def __init__(self, node: Node, path: str, report: Report) -> None:
        self.position = node.position
        self.path = path
        self.report = report
        self.node = node
        self._asked: set[str] = set()
        self._broken = not isinstance(node.value, dict)
        self._entries: dict[str, Entry] = node.value if isinstance(node.value, dict) else {}
        if self._broken and node.value is not None:
            report.add(node.position, path, f"expected a mapping, found {shown(node.value)}")

    # What is there

    def under(self, key: str) -> str:
        """Return the path of a field of this mapping."""
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str) -> Node | None:
        """Return a field's value and count the field as known; null is the same as not there."""
        self._asked.add(key)
        entry = self._entries.get(key)
        return None if entry is None or entry.node.value is None else entry.node

    def has(self, key: str) -> bool:
        """Say whether a field is there and not null."""
        return self.take(key) is not None

    def place(self, key: str) -> Position:
        """Return where a field is, or the mapping if it has no such field."""
        entry = self._entries.get(key)
        return self.position if entry is None else entry.position

    def raw(self) -> Raw:
        """Return the whole mapping as written."""
        plain = self.node.plain()
        return plain if isinstance(plain, dict) else {}

    def plain(self, key: str) -> JsonValue:
        """Return a field as written, whatever it is."""
        node = self.take(key)
        return None if node is None else node.plain()

    # What to say

    def wrong(self, key: str, text: str, severity: Severity = "error") -> None:
        """Report something about a field."""
        self.report.add(self.place(key), self.under(key) if key else self.path, text, severity)

    def missing(self, key: str, expected: str) -> None:
        """Report that a field has to be there."""
        if not self._broken:
            self.report.add(self.position, self.under(key), f"missing; expected {expected}")

    def refer(self, kind: str, key: str, name: str, keys: tuple[str, ...] = ()) -> None:
        """Note that a field names an object that has to exist."""
        self.report.references.append(Reference(kind, name, keys, self.place(key), self.under(key)))

    # Fields by type

    def text(self, key: str, default: Default, pattern: Pattern | None = None) -> str | Default:
        """Return a text."""
        node = self.take(key)
        if node is None:
            return default
        return text_of(node, self.under(key), self.report, default, pattern)

    def need_text(self, key: str, pattern: Pattern | None = None) -> str:
        """Return a text that has to be there."""
        if not self.has(key):
            self.missing(key, "a text" if pattern is None else pattern.expected)
        return self.text(key, "", pattern)

    def integer(self, key: str, default: Default, *, low: int = 0, high: int = MAX_INT32) -> int | Default:
        """Return a whole number within bounds."""
        node = self.take(key)
        if node is None:
            return default
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            bounds = f"from {low} to {high}" if high != MAX_INT32 else f"of at least {low}"
            self.report.add(
                node.position, self.under(key), f"expected a whole number {bounds}, found {shown(value)}"
            )
            return default
        return value

    def port(self, key: str) -> int:
        """Return a port number that has to be there."""
        if not self.has(key):
            self.missing(key, "a port number")
        return self.integer(key, 0, low=1, high=65535)

    def port_or_name(self, key: str, default: Default) -> int | str | Default:
        """Return a port number or the name of a container's port."""
        node = self.take(key)
        if node is not None and isinstance(node.value, str):
            return self.text(key, default, PORT_NAME)
        return self.integer(key, default, low=1, high=65535)

    def count_or_percent(self, key: str, default: int | str) -> int | str:
        """Return a number of pods or a share of them."""
        node = self.take(key)
        if node is None or not isinstance(node.value, str):
            return self.integer(key, default)
        if not PERCENT.fullmatch(node.value):
            self.wrong(key, f"expected a whole number or a share such as 25%, found {shown(node.value)}")
            return default
        return node.value

    def boolean(self, key: str, default: Default) -> bool | Default:
        """Return true or false."""
        node = self.take(key)
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self.report.add(
                node.position, self.under(key), f"expected true or false, found {shown(node.value)}"
            )
            return default
        return node.value

    def choice(self, key: str, options: tuple[Choice, ...], default: Default) -> Choice | Default:
        """Return one of a few words."""
        node = self.take(key)
        if node is None:
            return default
        for option in options:
            if node.value == option:
                return option
        words = ", ".join(options[:-1]) + f" or {options[-1]}" if len(options) > 1 else options[0]
        hint = did_you_mean(str(node.value), options)
        self.report.add(node.position, self.under(key), f"expected {words}, found {shown(node.value)}{hint}")
        return default

    def duration(self, key: str, pattern: Pattern = GO_DURATION) -> timedelta | None:
        """Return a duration; one that is shorter than a microsecond and not zero counts as one."""
        text = self.text(key, None, pattern)
        if text is None:
            return None
        parts = DURATION_PART.findall(text)
        nanoseconds = sum((Decimal(number) * DURATION_UNITS[unit] for number, unit in parts), Decimal(0))
        span = timedelta(microseconds=math.ceil(nanoseconds / 1000))
        return -span if text.startswith("-") else span

    def texts(self, key: str, pattern: Pattern | None = None) -> tuple[str, ...]:
        """Return a list of texts; not there is empty."""
        return tuple(
            text_of(node, path, self.report, "", pattern)
            for path, node in self._items(key, "a list of texts")
        )

    def text_map(
        self, key: str, *, keys: Pattern | None = None, values: Pattern | None = None
    ) -> dict[str, str]:
        """Return a mapping from text to text; not there is empty."""
        node = self.take(key)
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.report.add(node.position, self.under(key), f"expected a mapping, found {shown(node.value)}")
            return {}
        found: dict[str, str] = {}
        for name, entry in node.value.items():
            path = f"{self.under(key)}[{name}]"
            if keys is not None and not keys.fits(name):
                self.report.add(entry.position, path, f"expected {keys.expected} as key")
            found[name] = text_of(entry.node, path, self.report, "", values)
        return found

    def quantities(self, key: str) -> dict[str, str]:
        """Return a mapping from resource to quantity, numbers as text."""
        node = self.take(key)
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.report.add(node.position, self.under(key), f"expected a mapping, found {shown(node.value)}")
            return {}
        found: dict[str, str] = {}
        for name, entry in node.value.items():
            value = entry.node.value
            written = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
            if isinstance(written, str) and QUANTITY.fits(written):
                found[name] = written
            else:
                path = f"{self.under(key)}.{name}"
                self.report.add(entry.position, path, f"expected {QUANTITY.expected}, found {shown(value)}")
        return found

    # Mappings inside

    def inside(self, key: str, decode: "Callable[[Fields], Decoded]", default: Default) -> Decoded | Default:
        """Decode a mapping."""
        node = self.take(key)
        return default if node is None else opened(Fields(node, self.under(key), self.report), decode)

    def need(self, key: str, decode: "Callable[[Fields], Decoded]") -> Decoded:
        """Decode a mapping that has to be there; what is missing inside a missing one is not reported."""
        node = self.take(key)
        if node is None:
            self.missing(key, "a mapping")
            node = Node(self.position, None)
        return opened(Fields(node, self.under(key), self.report), decode)

    def each(
        self, key: str, decode: "Callable[[Fields], Decoded]", *, unique: str | None = None
    ) -> tuple[Decoded, ...]:
        """Decode a list of mappings; `unique` names the field that tells them apart."""
        seen: dict[object, Position] = {}
        found: list[Decoded] = []
        for path, node in self._items(key, "a list"):
            if node.value is None:
                self.report.add(node.position, path, "expected a mapping, found nothing")
            fields = Fields(node, path, self.report)
            found.append(opened(fields, decode))
            name = fields.take(unique) if unique else None
            if unique is None or name is None or isinstance(name.value, (list, dict)):
                continue
            if name.value in seen:
                first = seen[name.value].line
                self.report.add(
                    name.position, f"{path}.{unique}", f"{shown(name.value)} is in line {first} already"
                )
            seen.setdefault(name.value, name.position)
        return tuple(found)

    def _items(self, key: str, expected: str) -> list[tuple[str, Node]]:
        """Return the items of a list with their paths."""
        node = self.take(key)
        if node is None:
            return []
        if not isinstance(node.value, list):
            self.report.add(node.position, self.under(key), f"expected {expected}, found {shown(node.value)}")
            return []
        return [(f"{self.under(key)}[{index}]", item) for index, item in enumerate(node.value)]

    def at_most(self, key: str, count: int) -> None:
        """Report a list that is longer than an API server takes."""
        node = self.take(key)
        if node is not None and isinstance(node.value, list) and len(node.value) > count:
            self.wrong(key, f"expected at most {count} items, found {len(node.value)}")

    def least(self, key: str) -> None:
        """Report a list that has to be there and is missing or empty."""
        node = self.take(key)
        if node is None:
            self.missing(key, "a list")
        elif node.value == []:
            self.wrong(key, "expected at least one item, found none")

    # What is left

    def known(self, *keys: str) -> None:
        """Accept fields that change nothing about how things run."""
        self._asked.update(keys)

    def ignored(self, *keys: str) -> None:
        """Accept fields of Kubernetes that are not acted on here, with a note when one is used."""
        for key in keys:
            if self.has(key):
                self.wrong(key, "not acted on here", "note")

    def one_of(self, *keys: str) -> str | None:
        """Return which one of these fields is there; none or several is a mistake."""
        present = [key for key in keys if self.has(key)]
        if len(present) == 1:
            return present[0]
        words = ", ".join(keys[:-1]) + f" or {keys[-1]}"
        if not present:
            self.missing_one(words)
        else:
            self.wrong(present[1], f"expected one of {words}, but {present[0]} is here too")
        return present[0] if present else None

    def missing_one(self, words: str) -> None:
        """Report that one of several fields has to be there."""
        if not self._broken:
            self.report.add(self.position, self.path, f"expected one of {words}")

    def finish(self) -> None:
        """Report what nobody asked for."""
        for key, entry in self._entries.items():
            if key not in self._asked:
                hint = did_you_mean(key, self._asked)
                self.report.add(entry.position, self.under(key), f"unknown field{hint}")


def opened(fields: Fields, decode: Callable[[Fields], Decoded]) -> Decoded:
    """Decode a mapping and report its unknown fields."""
    decoded = decode(fields)
    fields.finish()
    return decoded


def text_of(
    node: Node, path: str, report: Report, default: Default, pattern: Pattern | None
) -> str | Default:
    """Return a node's text."""
    if not isinstance(node.value, str):
        quote = isinstance(node.value, (bool, int, float))
        hint = "; put quotes around it" if quote else ""
        report.add(node.position, path, f"expected a text, found {shown(node.value)}{hint}")
        return default
    if pattern is not None and not pattern.fits(node.value):
        report.add(node.position, path, f"expected {pattern.expected}, found {shown(node.value)}")
        return default
    return node.value


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the end of a message that names the word that was probably meant."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.7)
    return f"; did you mean {lowered[close[0]]}?" if close else ""
