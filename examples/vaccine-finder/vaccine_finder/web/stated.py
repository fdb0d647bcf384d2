"""What somebody states about the person who wants a vaccine: the fields of the search form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Self
from urllib.parse import urlencode

OLDEST = 120


@dataclass(frozen=True, slots=True)
class Stated:
    """A search; `person` is empty where nobody in particular is meant, `vaccine` where none is chosen yet."""

    age: int
    occupation: str
    conditions: tuple[str, ...]
    place: str
    person: str = ""
    vaccine: str = ""

    @classmethod
    def read(cls, form: Mapping[str, Sequence[str]]) -> Self:
        """Read a search; raises StatementError for what a person can put right."""
        age = _only(form, "age").strip()
        if not age.isdecimal() or int(age) > OLDEST:
            raise StatementError(f"Age must be a number of years from 0 to {OLDEST}.")
        return cls(
            age=int(age),
            occupation=_only(form, "occupation"),
            conditions=tuple(form.get("condition", ())),
            place=_only(form, "place").strip(),
            person=_only(form, "person"),
            vaccine=_only(form, "vaccine"),
        )

    def fields(self) -> list[tuple[str, str]]:
        """Return the form fields that `read` turns into this value."""
        fields = [("age", str(self.age)), ("occupation", self.occupation)]
        fields += [("condition", condition) for condition in self.conditions]
        fields += [("place", self.place), ("person", self.person), ("vaccine", self.vaccine)]
        return [(name, value) for name, value in fields if value]

    def query(self, **more: str) -> str:
        """Return the fields as the query of an address."""
        return urlencode(self.fields() + list(more.items()))


class StatementError(ValueError):
    """A field of the form makes no sense; the text says which and what would."""


def age_on(today: date, birth_date: date) -> int:
    """Return the age in whole years."""
    had_birthday = (today.month, today.day) >= (birth_date.month, birth_date.day)
    return today.year - birth_date.year - (not had_birthday)


def _only(form: Mapping[str, Sequence[str]], name: str) -> str:
    return form.get(name, ("",))[0]
