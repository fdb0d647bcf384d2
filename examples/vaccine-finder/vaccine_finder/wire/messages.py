"""The JSON that `sites` and `slots` speak."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Place:
    """A town that a search can start from."""

    name: str
    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Site:
    """Somewhere that gives vaccines."""

    id: int
    name: str
    address: str
    latitude: float
    longitude: float
    vaccines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A site and how far it is from where the search started."""

    site: Site
    miles: float


@dataclass(frozen=True, slots=True)
class FreeTimes:
    """The next free slots of one site, on the clock of that site, earliest first."""

    site: int
    starts: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to book."""

    family: str
    person: str
    vaccine: str
    site: int
    starts: datetime


@dataclass(frozen=True, slots=True)
class Booking:
    """What somebody has booked; `key` is the idempotency key it was asked for with, and its name."""

    key: str
    family: str
    person: str
    vaccine: str
    site: int
    starts: datetime
    cancelled: bool
