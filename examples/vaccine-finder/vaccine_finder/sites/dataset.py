"""Makes up the sites, always the same ones for one seed.

Every replica of `sites` makes its own copy, so equal seeds must give equal sites and `random.Random` is the
only source of chance. Large towns have more sites, though not in proportion, so that small towns are worth
a search.
"""

import math
import random
from collections.abc import Iterator

from vaccine_finder.towns import Town
from vaccine_finder.wire.messages import Site

MILES_PER_DEGREE = 69.0

_STREETS = [
    "Maple",
    "Oak",
    "Cedar",
    "Elm",
    "Pine",
    "Walnut",
    "Chestnut",
    "Juniper",
    "Magnolia",
    "Willow",
    "Harbor",
    "Mill",
    "Church",
    "Market",
    "Garden",
    "Station",
    "Library",
    "Orchard",
    "Prospect",
    "Franklin",
    "Jefferson",
    "Lincoln",
    "Washington",
    "Madison",
    "Park",
    "River",
    "Lake",
    "Hill",
    "Spring",
    "Union",
]
_ENDINGS = ("Street", "Avenue", "Road", "Boulevard", "Lane")

# What each kind of site always has, and how likely it has each of the other vaccines.
_KINDS: tuple[tuple[str, int, tuple[str, ...], float], ...] = (
    ("Pharmacy", 10, ("flu", "covid", "shingles", "tdap"), 0.35),
    ("Family Clinic", 4, ("flu", "covid", "mmr", "hepb", "hpv", "tdap"), 0.7),
    ("Health Center", 3, ("flu", "covid", "pneumo", "hepb", "tdap"), 0.75),
    ("Travel Clinic", 1, ("hepa", "hepb", "rabies", "mening", "tdap"), 0.4),
    ("Hospital", 1, ("flu", "covid", "pneumo", "rsv", "mening", "rabies"), 0.9),
)
_VACCINES = (
    "flu",
    "covid",
    "pneumo",
    "rsv",
    "shingles",
    "tdap",
    "hepb",
    "hpv",
    "mening",
    "mmr",
    "hepa",
    "rabies",
)


def make_sites(seed: int, count: int, towns: tuple[Town, ...]) -> Iterator[Site]:
    """Return the sites of this seed, with ids from 1."""
    chance = random.Random(seed)
    homes = chance.choices(towns, [town.thousands**0.6 for town in towns], k=count)
    kinds = chance.choices(_KINDS, [kind[1] for kind in _KINDS], k=count)
    for number, (town, (kind, _, always, likelihood)) in enumerate(zip(homes, kinds, strict=True), start=1):
        spread_miles = 1.5 + math.sqrt(town.thousands) / 10
        north = chance.gauss(0, spread_miles) / MILES_PER_DEGREE
        east = chance.gauss(0, spread_miles) / MILES_PER_DEGREE / math.cos(math.radians(town.latitude))
        street, ending = chance.choice(_STREETS), chance.choice(_ENDINGS)
        yield Site(
            id=number,
            name=f"{street} {ending} {kind}",
            address=f"{chance.randint(1, 990)} {street} {ending}, {town.name}",
            latitude=town.latitude + north,
            longitude=town.longitude + east,
            vaccines=tuple(code for code in _VACCINES if code in always or chance.random() < likelihood),
        )
