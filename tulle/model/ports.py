"""Sets of ports as annotations write them: `25,587,4000-4010,postgres`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tulle.model.address import MAX_PORT


@dataclass(frozen=True, slots=True)
class PortSet:
    """Numbers and ranges, and the names that stand for a container's or a Service's port."""

    ranges: tuple[tuple[int, int], ...] = ()
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, ports: Iterable[int]) -> "PortSet":
        """Make a set of single ports."""
        return cls(tuple((port, port) for port in ports))

    @classmethod
    def parse(cls, text: str) -> "PortSet":
        """Read the list; an item that is neither number, range nor name is left out, as upstream does."""
        ranges: list[tuple[int, int]] = []
        names: set[str] = set()
        for item in filter(None, (part.strip() for part in text.split(","))):
            first, dash, last = item.partition("-")
            if item.isascii() and item.isdigit():
                first, last = item, item
            elif not (dash and first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
                names.add(item)
                continue
            if 0 < int(first) <= int(last) <= MAX_PORT:
                ranges.append((int(first), int(last)))
        return cls(tuple(ranges), frozenset(names))

    def contains(self, port: int, names: Mapping[str, int] | None = None) -> bool:
        """Tell whether the port is in the set, with the names resolved by `names`."""
        if any(first <= port <= last for first, last in self.ranges):
            return True
        return names is not None and any(names.get(name) == port for name in self.names)


DEFAULT_OPAQUE_PORTS = PortSet.of((25, 587, 3306, 4444, 5432, 6379, 9300, 11211))
"""Protocols in which the server speaks first or which detection is known to misread."""

NO_PORTS = PortSet()
