"""Answers "what is near": the sites in SQLite, found by an R*Tree.

A tree of boxes cannot sort by distance, so a search looks into a box, measures what it finds, and doubles
the box until the circle inside it holds enough. The box is a little larger than the circle, because the
tree rounds its coordinates to 32 bits. No town of the data set is near a pole or the date line, where such
boxes would be wrong.
"""

import math
import sqlite3
from collections.abc import Iterable, Sequence

from vaccine_finder.sites.dataset import MILES_PER_DEGREE
from vaccine_finder.wire.messages import Found, Site

EARTH_RADIUS_MILES = 3958.8

# Farther than this nobody drives for a vaccine; also where a search without enough hits ends.
FARTHEST_MILES = 80.0
NEAREST_MILES = 2.5

_SCHEMA = """
CREATE TABLE site (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL,
    latitude REAL NOT NULL, longitude REAL NOT NULL, vaccines TEXT NOT NULL
);
CREATE TABLE offer (site INTEGER NOT NULL, vaccine TEXT NOT NULL, PRIMARY KEY (site, vaccine)) WITHOUT ROWID;
CREATE VIRTUAL TABLE area USING rtree (site, south, north, west, east);
"""

_IN_BOX = """
SELECT site.* FROM area JOIN site ON site.id = area.site
WHERE area.south >= ? AND area.north <= ? AND area.west >= ? AND area.east <= ?
  AND EXISTS (SELECT 1 FROM offer WHERE offer.site = site.id AND offer.vaccine = ?)
"""


class SiteIndex:
    """All sites, in memory: they can be made again from their seed."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self._database = sqlite3.connect(":memory:")
        self._database.executescript(_SCHEMA)
        all_sites = list(sites)
        with self._database:
            self._database.executemany(
                "INSERT INTO site VALUES (?, ?, ?, ?, ?, ?)",
                ((s.id, s.name, s.address, s.latitude, s.longitude, " ".join(s.vaccines)) for s in all_sites),
            )
            self._database.executemany(
                "INSERT INTO offer VALUES (?, ?)", ((s.id, code) for s in all_sites for code in s.vaccines)
            )
            self._database.executemany(
                "INSERT INTO area VALUES (?, ?, ?, ?, ?)",
                ((s.id, s.latitude, s.latitude, s.longitude, s.longitude) for s in all_sites),
            )

    def near(self, latitude: float, longitude: float, *, vaccine: str, limit: int) -> Sequence[Found]:
        """Return the nearest sites that have the vaccine, nearest first."""
        radius = NEAREST_MILES
        while True:
            found = self._within(latitude, longitude, vaccine, radius)
            if len(found) >= limit or radius >= FARTHEST_MILES:
                return sorted(found, key=lambda hit: (hit.miles, hit.site.id))[:limit]
            radius = min(radius * 2, FARTHEST_MILES)

    def some(self, numbers: Sequence[int]) -> Sequence[Site]:
        """Return the sites of these ids, without those that do not exist."""
        marks = ", ".join("?" * len(numbers))
        return [
            _site(row) for row in self._database.execute(f"SELECT * FROM site WHERE id IN ({marks})", numbers)
        ]

    def _within(self, latitude: float, longitude: float, vaccine: str, radius: float) -> list[Found]:
        high = radius / MILES_PER_DEGREE * 1.01
        wide = high / math.cos(math.radians(latitude))
        box = (latitude - high, latitude + high, longitude - wide, longitude + wide)
        sites = map(_site, self._database.execute(_IN_BOX, (*box, vaccine)))
        hits = (Found(site, miles_between(latitude, longitude, site)) for site in sites)
        return [hit for hit in hits if hit.miles <= radius]


def miles_between(latitude: float, longitude: float, site: Site) -> float:
    """Return the great-circle distance (haversine formula)."""
    from_latitude, to_latitude = math.radians(latitude), math.radians(site.latitude)
    half_north = math.sin((to_latitude - from_latitude) / 2) ** 2
    half_east = math.sin(math.radians(site.longitude - longitude) / 2) ** 2
    chord = half_north + math.cos(from_latitude) * math.cos(to_latitude) * half_east
    return 2 * EARTH_RADIUS_MILES * math.asin(math.sqrt(chord))


def _site(row: tuple[int, str, str, float, float, str]) -> Site:
    number, name, address, latitude, longitude, vaccines = row
    return Site(number, name, address, latitude, longitude, tuple(vaccines.split()))
