"""Decides which vaccines a person is eligible for.

The rules are data (`rules.json`), so that whoever answers for them need not read a program. A vaccine has a
list of rules; the first one that fits gives the reason, and a condition in `not_with` overrides all of
them. What a rule does not mention it does not ask for. The vaccines stand in order of how widely they are
recommended.

The rules are made up after the pattern of public schedules. They are no medical advice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Profile:
    """What the rules may ask about a person; age in whole years."""

    age: int
    occupation: str
    conditions: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One reason to be eligible; all that it mentions must hold, of the conditions any one."""

    because: str
    from_age: int = 0
    to_age: int = 200
    occupations: frozenset[str] = frozenset()
    conditions: frozenset[str] = frozenset()

    def fits(self, profile: Profile) -> bool:
        """Return whether this is a reason for this person."""
        return (
            self.from_age <= profile.age <= self.to_age
            and (not self.occupations or profile.occupation in self.occupations)
            and (not self.conditions or not self.conditions.isdisjoint(profile.conditions))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vaccine:
    """A vaccine and the reasons to be eligible for it."""

    code: str
    title: str
    protects: str
    doses: str
    rules: tuple[Rule, ...]
    not_with: frozenset[str] = frozenset()

    def reason_for(self, profile: Profile) -> str | None:
        """Return why this person is eligible, or None if they are not."""
        if not self.not_with.isdisjoint(profile.conditions):
            return None
        return next((rule.because for rule in self.rules if rule.fits(profile)), None)


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All rules, and the words they may use: code to title."""

    occupations: dict[str, str]
    conditions: dict[str, str]
    vaccines: tuple[Vaccine, ...]

    def unknown_words(self, profile: Profile) -> Sequence[str]:
        """Return the words of a profile that no rule could mean."""
        return sorted(
            ({profile.occupation} - self.occupations.keys()) | (profile.conditions - self.conditions.keys())
        )

    def eligible(self, profile: Profile) -> Sequence[tuple[Vaccine, str]]:
        """Return each vaccine that this person may have, and why."""
        reasons = ((vaccine, vaccine.reason_for(profile)) for vaccine in self.vaccines)
        return [(vaccine, reason) for vaccine, reason in reasons if reason is not None]


def read_rules(text: bytes) -> RuleBook:
    """Read the rules; raises ValueError if they use a word that they do not define."""
    book = msgspec.json.decode(text, type=RuleBook)
    for vaccine in book.vaccines:
        occupations = frozenset[str]().union(*(rule.occupations for rule in vaccine.rules))
        conditions = vaccine.not_with.union(*(rule.conditions for rule in vaccine.rules))
        if undefined := (occupations - book.occupations.keys()) | (conditions - book.conditions.keys()):
            raise ValueError(f"rules of {vaccine.code}: undefined {', '.join(sorted(undefined))}")
    return book
