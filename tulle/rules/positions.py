"""YAML text as a tree that remembers where everything was written.

A manifest comes from anybody, so three things are bounded before anything is built: how deep values nest, how
many nodes a file has once its aliases are expanded (the "billion laughs"), and how large the file is. The
tree is built from parser events without recursion. A syntax error costs its own document only: reading goes
on at the next `---`, so that all mistakes of a file are found in one run.

Plain scalars mean what they mean to Kubernetes: `yes` and `on` are booleans, `0644` is octal, but `12:30`
and dates stay text.
"""

import math
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from tulle.model.objects import JsonValue, Position, Problem

MAX_BYTES = 8 * 1024 * 1024
"""A cluster takes no object larger than 1.5 MiB."""
MAX_NODES = 200_000
MAX_DEPTH = 64
"""The deepest field of a pod is at 14."""
MAX_PROBLEMS = 100
"""Unreadable documents in one file after which the rest is left alone."""

Scalar = str | int | float | bool | None

BOOLEANS = {
    word: truth
    for truth, bases in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for base in bases
    for word in (base, base.capitalize(), base.upper())
}
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
INTEGER = re.compile(r"([-+]?)(0|[1-9][0-9]{0,30}|0o?[0-7]{1,30}|0x[0-9a-fA-F]{1,30}|0b[01]{1,64})\Z")
FLOAT = re.compile(
    r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,40}(?=[eE]))(?:[eE][-+]?[0-9]{1,4})?\Z"
)
CORE_TAG = "tag:yaml.org,2002:"
CORE_TAGS = frozenset({"str", "int", "float", "bool", "null", "map", "seq"})
NEXT_DOCUMENT = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)


@dataclass(slots=True)
class Entry:
    """A key of a mapping, with its own place, and the value under it."""

    position: Position
    node: "Node"


@dataclass(slots=True)
class Node:
    """A value and its place; `weight` and `height` measure it with aliases expanded."""

    position: Position
    value: "Scalar | list[Node] | dict[str, Entry]"
    weight: int = 1
    height: int = 1

    def plain(self) -> JsonValue:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: entry.node.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


def node_of(value: JsonValue, position: Position) -> Node:
    """Return a value that was read elsewhere as a tree; every part of it has the place of the whole."""
    if isinstance(value, dict):
        entries = {str(key): Entry(position, node_of(item, position)) for key, item in value.items()}
        return Node(position, entries)
    if isinstance(value, list):
        return Node(position, [node_of(item, position) for item in value])
    if value is None or isinstance(value, str | int | float | bool):
        return Node(position, value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


def place_of(node: Node, path: str) -> Position:
    """Return where a field is (`spec.rules[0].name`), or as much of the way to it as there is."""
    position = node.position
    for match in STEP.finditer(path):
        step = match[1] if match[1] is not None else match[2]
        if isinstance(node.value, dict) and step in node.value:
            position, node = node.value[step].position, node.value[step].node
        elif isinstance(node.value, list) and step.isdecimal() and int(step) < len(node.value):
            node = node.value[int(step)]
            position = node.position
        else:
            break
    return position


class Mark(Protocol):
    """A parser's place: characters from the beginning. Its own lines end where no editor's do (U+0085, U+2028)."""

    index: int


class Unreadable(Exception):
    """The rest of this document cannot be read."""

    def __init__(self, position: Position, text: str) -> None:
        self.position = position
        self.text = text
        super().__init__(text)


def read(file: str, text: str) -> tuple[list[Node], list[Problem]]:
    """Return the documents of a text, empty ones left out, and what is wrong with its YAML."""
    if len(text) > MAX_BYTES:
        return [], [Problem(Position(file, 1), "", f"the file is larger than {MAX_BYTES // 1024**2} MiB")]
    documents: list[Node] = []
    problems: list[Problem] = []
    start = 0
    while True:
        reader = Reader(file, text.count("\n", 0, start), documents, problems)
        try:
            reader.read(text[start:])
            return documents, problems
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.position, "", unreadable.text))
            # An unclosed bracket is noticed at the `---` that begins the next document.
            stopped = max(start + 1, offset_of(text, unreadable.position.line))
        following = NEXT_DOCUMENT.search(text, stopped)
        if following is None or len(problems) >= MAX_PROBLEMS:
            return documents, problems
        start = following.start()


def offset_of(text: str, line: int) -> int:
    """Return where a line (from 1) begins."""
    offset = 0
    for _ in range(line - 1):
        offset = text.find("\n", offset) + 1
        if offset == 0:
            return len(text)
    return offset


@dataclass(slots=True)
class Frame:
    """A collection that is still open; `own` are the keys not taken from a merge (`<<`)."""

    node: Node
    anchor: str | None
    key: Node | None = None
    own: set[str] = field(default_factory=set)


class Reader:
    """Builds the documents of one text out of parser events."""

    def __init__(self, file: str, first_line: int, documents: list[Node], problems: list[Problem]) -> None:
        self._file = file
        self._first_line = first_line
        self._documents = documents
        self._problems = problems
        self._nodes = 0
        self._stack: list[Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._line_ends: list[int] = []

    def read(self, text: str) -> None:
        """Append every document; those before an error are kept."""
        self._line_ends = [found.start() for found in re.finditer("\n", text)]
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors = {}
                elif isinstance(event, (yaml.NodeEvent, yaml.CollectionEndEvent)):
                    self._take(event, self._at(event.start_mark))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise Unreadable(self._at(mark), f"not YAML: {error.problem or error.context}") from error
        except yaml.reader.ReaderError as error:
            raise Unreadable(self._place(error.position), f"not YAML: {error.reason}") from error
        except UnicodeEncodeError as error:
            raise Unreadable(self._place(error.start), "not YAML: half of a surrogate pair") from error

    def _take(self, event: yaml.Event, position: Position) -> None:
        """Put one event in its place."""
        if isinstance(event, yaml.ScalarEvent):
            self._hang(Node(position, self._scalar(event, position, as_key=self._wants_key())), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._hang(self._alias(event.anchor, position), None)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event.tag, position)
            if len(self._stack) >= MAX_DEPTH:
                raise Unreadable(position, f"values are nested more than {MAX_DEPTH} deep")
            if event.anchor is not None:
                self._anchors[event.anchor] = None
            empty: list[Node] | dict[str, Entry] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
            self._stack.append(Frame(Node(position, empty), event.anchor))
        else:
            frame = self._stack.pop()
            self._hang(frame.node, frame.anchor)

    def _hang(self, node: Node, anchor: str | None) -> None:
        """Hang a finished node under what is open; with nothing open it is a document."""
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            if node.value is not None:
                self._documents.append(node)
            return
        frame = self._stack[-1]
        self._nodes += 1
        frame.node.weight += node.weight
        frame.node.height = max(frame.node.height, node.height + 1)
        if self._nodes > MAX_NODES or frame.node.weight > MAX_NODES:
            raise Unreadable(
                node.position,
                f"more than {MAX_NODES} values, aliases counted each time they are used; make several files",
            )
        if len(self._stack) + node.height > MAX_DEPTH:
            raise Unreadable(node.position, f"values are nested more than {MAX_DEPTH} deep")
        if isinstance(frame.node.value, list):
            frame.node.value.append(node)
        elif frame.key is None:
            frame.key = node
        elif isinstance(frame.node.value, dict):
            self._enter(frame, frame.node.value, frame.key, node)
            frame.key = None

    def _enter(self, frame: Frame, entries: dict[str, Entry], key: Node, node: Node) -> None:
        """Add a key and its value to a mapping."""
        if not isinstance(key.value, str):
            self._problems.append(Problem(key.position, "", "expected a word as key, found a collection"))
        elif key.value == "<<" and isinstance(node.value, (dict, list)):
            for merged in node.value if isinstance(node.value, list) else [node]:
                if isinstance(merged.value, dict):
                    for name, entry in merged.value.items():
                        entries.setdefault(name, entry)
        elif key.value in frame.own:
            first = entries[key.value].position.line
            self._problems.append(Problem(key.position, key.value, f"this key is in line {first} already"))
        else:
            frame.own.add(key.value)
            entries[key.value] = Entry(key.position, node)

    def _alias(self, anchor: str | None, position: Position) -> Node:
        """Return the node that an alias stands for."""
        if anchor is None or anchor not in self._anchors:
            raise Unreadable(position, f"the alias *{anchor} names no anchor above it")
        node = self._anchors[anchor]
        if node is None:
            raise Unreadable(position, f"the alias *{anchor} stands inside of what it names")
        return node

    def _wants_key(self) -> bool:
        """Say whether the next value is a key."""
        return (
            bool(self._stack) and isinstance(self._stack[-1].node.value, dict) and self._stack[-1].key is None
        )

    def _scalar(self, event: yaml.ScalarEvent, position: Position, *, as_key: bool) -> Scalar:
        """Return what a scalar means here; a key is the word that it was written as."""
        tag = self._check_tag(event.tag, position)
        text = str(event.value)
        quoted = event.tag is None and not event.implicit[0]
        return text if as_key or quoted or tag == "str" else resolve(text)

    def _check_tag(self, tag: str | None, position: Position) -> str | None:
        """Return the short name of an explicit tag; report one that manifests do not use."""
        if tag is None:
            return None
        name = "str" if tag == "!" else tag.removeprefix(CORE_TAG)
        if name not in CORE_TAGS:
            self._problems.append(Problem(position, "", f"manifests do not use the tag {tag}"))
        return name

    def _at(self, mark: Mark | None) -> Position:
        """Return the place of a parser's mark in the file."""
        return self._place(0 if mark is None else mark.index)

    def _place(self, offset: int) -> Position:
        """Return the place of a character."""
        line = bisect_left(self._line_ends, offset)
        begin = self._line_ends[line - 1] + 1 if line else 0
        return Position(self._file, self._first_line + 1 + line, offset - begin + 1)


def resolve(text: str) -> Scalar:
    """Return what a plain scalar means."""
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if found := INTEGER.match(text):
        sign, digits = found.groups()
        octal = digits[0] == "0" and digits[1:].isdigit()
        number = int(digits, 8) if octal else int(digits, 0)
        return -number if sign == "-" else number
    if FLOAT.match(text) and math.isfinite(real := float(text)):
        return real
    return text
