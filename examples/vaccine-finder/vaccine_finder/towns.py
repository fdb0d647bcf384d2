"""The towns of the data set: where sites stand and families live."""

from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True)
class Town:
    """A town and its thousands of inhabitants, which say how many sites it has."""

    name: str
    latitude: float
    longitude: float
    thousands: int


def read_towns() -> tuple[Town, ...]:
    """Return all towns, largest first."""
    rows = msgspec.json.decode(
        Path(__file__).with_name("towns.json").read_bytes(), type=tuple[tuple[str, float, float, int], ...]
    )
    return tuple(sorted((Town(*row) for row in rows), key=lambda town: -town.thousands))
