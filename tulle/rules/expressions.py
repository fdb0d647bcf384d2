"""Whether a proxy will take a regular expression, told without one.

Proxies use Rust's `regex`. An expression is read once: what is written otherwise there (escapes, classes, groups,
flags) is checked and becomes something of the same shape, and Python's own parser says whether the rest is whole. An
expression that a proxy refuses would void a policy, so in doubt it is a mistake.
"""

import re

ESCAPES = re.compile(
    r"\\(?:(?P<kind>[pP](?:\{\^?[A-Za-z][A-Za-z0-9_=: -]*\}|[A-Za-z])|[dDsSwW])"
    r"|(?P<place>[bBAz<>](?:\{(?:start|end)(?:-half)?\})?)"
    r"|(?P<char>x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[xuU]\{[0-9A-Fa-f]{1,8}\}|[aftnrv]"
    r"|[^0-9A-Za-z<>\x80-\U0010ffff]))"
)
GROUP = re.compile(
    r"\(\?(?:P?<[A-Za-z_][A-Za-z0-9_.\[\]]*>|(?P<flags>[imsUuxR]*(?:-[imsUuxR]+)?)(?P<end>[:)]))"
)
NAME = re.compile(r"\(\?P?<([A-Za-z_][A-Za-z0-9_.\[\]]*)>")
NAMED_CLASS = re.compile(
    r"\[:\^?(alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)
REPEAT = re.compile(r"\{[0-9]{1,4}(,[0-9]{0,4})?\}")
NOTHING = "(?:)"
UNREPEATABLE = "^"

# What the engine spends on an expression by default (10 MiB), and what it takes inside of one another: 250, of which
# a group with alternatives that is repeated is four.
MAX_BYTES = 10_000_000
MAX_DEPTH = 60

# Of what stands for one character, rounded up; a class of Unicode is a table.
CHARACTER_BYTES = 100
ANY_BYTES = 1_200
CLASS_BYTES = dict.fromkeys("wWpP", 60_000) | dict.fromkeys("dD", 14_000) | dict.fromkeys("sS", 2_500)
CLASSES = re.compile(r"\\([wWpPdDsS\\])")


class _Mistake(ValueError):
    pass


class _Size:
    """What an expression costs a proxy, which writes repetitions out: each group's sum, and its last part's."""

    def __init__(self) -> None:
        self.open = [[0, 0]]

    def part(self, cost: int) -> None:
        group = self.open[-1]
        group[:] = sum(group), cost

    def nest(self, levels: int) -> None:
        if len(self.open) + levels > MAX_DEPTH:
            raise _Mistake(f"{MAX_DEPTH} groups or brackets are inside of one another")

    def begin(self) -> None:
        self.nest(1)
        self.open.append([0, 0])

    def end(self) -> None:
        if len(self.open) > 1:
            self.part(sum(self.open.pop()) + CHARACTER_BYTES)

    def repeat(self, times: int) -> None:
        group = self.open[-1]
        group[1] = (group[1] + CHARACTER_BYTES) * max(times, 1)
        if sum(group) > MAX_BYTES:
            raise _Mistake("it is too big with its repetitions written out")


def regex_mistake(text: str) -> str | None:
    """Return what is wrong with an expression."""
    try:
        re.compile("".join(shape(text)))
    except _Mistake as error:
        return str(error)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error).rpartition(" at position ")[0] or str(error)
    return None


def shape(text: str) -> list[str]:
    """Return the expression with its words replaced by such as Python takes as well."""
    parts: list[str] = []
    names: set[str] = set()
    size = _Size()
    at = 0
    while at < len(text):
        begin = at
        if text[at] == "\\":
            kind, at = escape(text, at)
            size.part(class_bytes(text[begin:at]))
            parts.append(NOTHING if kind == "place" else "x")
        elif text[at] == "[":
            at = bracketed(text, at)
            size.nest(text.count("[", begin, at))
            size.part(ANY_BYTES + (at - begin) * CHARACTER_BYTES + class_bytes(text[begin:at]))
            parts.append("x")
        elif text.startswith("(?", at):
            group, at = opened(text, at, names)
            if group != UNREPEATABLE:
                size.begin()
            parts.append(group)
        elif text[at] == "{":
            found = REPEAT.match(text, at)
            if found is None:
                raise _Mistake("a '{' that is no repetition has to be written as '\\{'")
            size.repeat(max(int(number or 0) for number in found[0][1:-1].split(",")))
            parts.append(found[0])
            at = found.end()
        else:
            if text[at] == "(":
                size.begin()
            elif text[at] == ")":
                size.end()
            elif text[at] in "*+?":
                size.repeat(1)
            else:
                size.part(ANY_BYTES if text[at] == "." else CHARACTER_BYTES)
            parts.append(NOTHING if text[at] in "^$" else text[at] if text[at] in "().*+?|" else "x")
            at += 1
    # Once, where nothing was repeated last.
    while len(size.open) > 1:
        size.end()
    size.repeat(1)
    return parts


def class_bytes(text: str) -> int:
    """Return what the classes that an expression names cost a proxy."""
    return sum(CLASS_BYTES.get(name, CHARACTER_BYTES) for name in CLASSES.findall(text)) or CHARACTER_BYTES


def escape(text: str, at: int) -> tuple[str, int]:
    """Return what an escape stands for (`kind`s of characters, a `place`, a `char`), and where it ends."""
    found = ESCAPES.match(text, at)
    if found is None:
        if text[at + 1 : at + 2].isdigit():
            raise _Mistake("back-references and octal numbers are not supported")
        raise _Mistake(f"{text[at : at + 2]} is no escape")
    return str(found.lastgroup), found.end()


def opened(text: str, at: int, names: set[str]) -> tuple[str, int]:
    """Return what a group that begins with `(?` is like, and where its content begins."""
    found = GROUP.match(text, at)
    if found is None:
        if text.startswith(("(?=", "(?!", "(?<=", "(?<!"), at):
            raise _Mistake("look-around is not supported")
        raise _Mistake(f"{text[at : at + 3]} begins no group")
    if name := NAME.match(text, at):
        if name[1] in names:
            raise _Mistake(f"there are two groups named {name[1]}")
        names.add(name[1])
        return "(?:", found.end()
    if len(set(found["flags"]) - {"-"}) < len(found["flags"].replace("-", "")):
        raise _Mistake(f"a flag is in {found[0]} twice")
    if found["end"] == ")" and not found["flags"]:
        raise _Mistake("(?) begins no group")
    return ("(?:" if found["end"] == ":" else UNREPEATABLE), found.end()


def bracketed(text: str, at: int) -> int:
    """Return where a class in brackets ends; classes may be inside classes."""
    at += 1
    at += text.startswith("^", at)
    # Dashes, or one closing bracket, stand for themselves at the beginning.
    begin, first, last, ranged = at, "", "", False
    while text.startswith("-", at):
        at += 1
    if at == begin and text.startswith("]", at):
        at, last = at + 1, "]"
    while at < len(text):
        if text[at] == "]":
            return at + 1
        if not ranged and (found := NAMED_CLASS.match(text, at)):
            at, item = found.end(), ""
        elif text[at] == "[" and not ranged:
            at, item = bracketed(text, at), ""
        elif text[at] == "\\":
            begin = at
            kind, at = escape(text, at)
            if kind == "place":
                raise _Mistake(f"{text[begin:at]} cannot be in brackets")
            item = character(text[begin:at]) if kind == "char" else ""
        elif text.startswith(("&&", "--", "~~"), at) and not ranged:
            at, last = at + 2, ""
            continue
        elif text[at] == "-" and last and not ranged and not text.startswith("-]", at):
            first, ranged, at = last, True, at + 1
            continue
        else:
            item, at = text[at], at + 1
        if ranged and (not item or item < first):
            raise _Mistake("a range in brackets ends before it begins")
        last, ranged = ("" if ranged else item), False
    raise _Mistake("a '[' is not closed")


def character(escaped: str) -> str:
    """Return the character that an escape stands for."""
    digits = escaped[2:].strip("{}")
    if escaped[1] in "xuU" and len(escaped) > 2:
        number = int(digits, 16)
        if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise _Mistake(f"{escaped} is no character")
        return chr(number)
    return {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}.get(escaped[1], escaped[1])
