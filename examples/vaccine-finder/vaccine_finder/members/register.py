"""Makes up the insured families, always the same ones for one seed. None of them exists."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from vaccine_finder.towns import Town

FIRST_FAMILY = 100_001

_GIVEN_NAMES = [
    "Maya",
    "Leo",
    "Nora",
    "Omar",
    "Ines",
    "Jonas",
    "Aiko",
    "Mateo",
    "Zoe",
    "Elias",
    "Priya",
    "Noah",
    "Lucia",
    "Kofi",
    "Hanna",
    "Diego",
    "Amira",
    "Felix",
    "Grace",
    "Tariq",
    "Sofia",
    "Andre",
    "Mei",
    "Oscar",
    "Leila",
    "Hugo",
    "Ada",
    "Ravi",
    "Clara",
    "Samuel",
    "Yara",
    "Ivan",
    "Ruth",
    "Malik",
    "Elena",
    "Theo",
    "Nia",
    "Karim",
    "Alma",
    "Paul",
]
_FAMILY_NAMES = [
    "Alder",
    "Bishara",
    "Castillo",
    "Dvorak",
    "Eriksen",
    "Fontaine",
    "Gupta",
    "Haddad",
    "Ibarra",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quispe",
    "Rossi",
    "Schneider",
    "Tanaka",
    "Ueda",
    "Vargas",
    "Whitfield",
    "Xu",
    "Yilmaz",
    "Zeman",
]

_WORK = ("office", "healthcare", "education", "laboratory", "animals", "travel", "none")
_WORK_WEIGHTS = (45, 15, 12, 4, 6, 5, 13)
_CONDITIONS = ("asthma", "diabetes", "heart", "kidney", "liver", "immune", "spleen")
_CONDITION_WEIGHTS = (10, 9, 7, 3, 2, 3, 1)
_DAYS_PER_YEAR = 365.25

# When people have the ages that were drawn: fixed, so that no birthday depends on a restart.
_AS_OF = date(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Person:
    """An insured person; `occupation` and `conditions` are words of the eligibility rules."""

    id: str
    name: str
    birth_date: date
    occupation: str
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """An employee and who is insured with them."""

    number: str
    place: str
    people: tuple[Person, ...]


def make_families(seed: int, count: int, towns: tuple[Town, ...]) -> Iterator[Family]:
    """Return the families of this seed, numbered from FIRST_FAMILY."""
    chance = random.Random(seed)
    homes = chance.choices(towns, [town.thousands**0.6 for town in towns], k=count)
    for number, town in enumerate(homes, start=FIRST_FAMILY):
        employee = chance.randint(22, 66)
        ages = [employee]
        if chance.random() < 0.6:
            ages.append(max(19, employee + chance.randint(-6, 6)))
        if employee < 60:
            children = chance.randint(0, 3)
            ages += sorted((chance.randint(0, min(18, employee - 20)) for _ in range(children)), reverse=True)
        elif chance.random() < 0.4:
            ages.append(employee + chance.randint(22, 28))
        names = chance.sample(_GIVEN_NAMES, len(ages))
        last_name = chance.choice(_FAMILY_NAMES)
        people = (
            _person(f"{number}-{place}", f"{name} {last_name}", age, chance)
            for place, (name, age) in enumerate(zip(names, ages, strict=True), start=1)
        )
        yield Family(str(number), town.name, tuple(people))


def _person(identity: str, name: str, age: int, chance: random.Random) -> Person:
    lived = timedelta(days=int((age + chance.uniform(0.01, 0.99)) * _DAYS_PER_YEAR))
    number_of_conditions = chance.choices((0, 1, 2), (70, 24, 6) if age < 50 else (45, 38, 17))[0]
    return Person(
        id=identity,
        name=name,
        birth_date=_AS_OF - lived,
        occupation=_occupation(age, chance),
        conditions=tuple(
            sorted(set(chance.choices(_CONDITIONS, _CONDITION_WEIGHTS, k=number_of_conditions)))
        ),
    )


def _occupation(age: int, chance: random.Random) -> str:
    if age < 4 or age > 66:
        return "none"
    return "student" if age < 19 else chance.choices(_WORK, _WORK_WEIGHTS)[0]
