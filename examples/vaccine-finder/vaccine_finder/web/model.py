"""What the pages are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeAlias

from vaccine_finder.web.stated import Stated, age_on
from vaccine_finder.wire.eligibility_pb2 import CatalogueReply, Eligible
from vaccine_finder.wire.members_pb2 import Family, Person
from vaccine_finder.wire.messages import Found, Site

Form: TypeAlias = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Visit:
    """Who looks at the page, and when; without a family it is somebody who has not signed in."""

    today: date
    family: Family | None = None

    @property
    def people(self) -> Mapping[str, Person]:
        """Return the family's people by their id."""
        return {person.id: person for person in self.family.people} if self.family else {}

    def search_for(self, person: Person) -> Stated:
        """Return the search that the register would make for a person of this family."""
        return Stated(
            age=age_on(self.today, date.fromisoformat(person.birth_date)),
            occupation=person.occupation,
            conditions=tuple(person.conditions),
            place=self.family.place if self.family else "",
            person=person.id,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What the search form offers."""

    catalogue: CatalogueReply
    places: Sequence[str]


@dataclass(frozen=True, slots=True)
class Results:
    """What a search found; `chosen` is the vaccine whose sites are shown, None if there is none."""

    stated: Stated
    eligible: Sequence[Eligible]
    chosen: Eligible | None
    sites: Sequence[tuple[Found, Sequence[datetime]]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A slot that somebody is about to book."""

    stated: Stated
    vaccine: Eligible
    site: Site
    starts: datetime


@dataclass(frozen=True, slots=True)
class News:
    """What has just been done, for the page that shows it: the key of a new booking, or a cancellation."""

    booked: str
    cancelled: bool
