"""HTML as values: what is not `Html` is escaped, so a page cannot forget to."""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Html(str):
    """Text that is safe inside a page; only `element` and `fragment` make it."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
Value: TypeAlias = "str | int | bool | None"


def element(name: str, /, *children: Child, **attributes: Value) -> Html:
    """Return an element; `class_` is class, `aria_label` is aria-label, True means no value."""
    start = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    return Html(start) if name in _VOID else Html(f"{start}{fragment(*children)}</{name}>")


def fragment(*children: Child) -> Html:
    """Return the children one after another."""
    return Html("".join(map(_render, children)))


def _render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return escape(child)
    return "".join(map(_render, child))


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
