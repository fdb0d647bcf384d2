import random

import pytest

from vaccine_finder.members.register import make_families
from vaccine_finder.sites.dataset import make_sites
from vaccine_finder.sites.index import FARTHEST_MILES, SiteIndex, miles_between
from vaccine_finder.towns import read_towns
from vaccine_finder.wire.messages import Found, Site

TOWNS = read_towns()
SITES = list(make_sites(7, 5000, TOWNS))
INDEX = SiteIndex(SITES)


def by_measuring_all(latitude: float, longitude: float, vaccine: str, limit: int) -> list[Found]:
    hits = [
        Found(site, miles_between(latitude, longitude, site)) for site in SITES if vaccine in site.vaccines
    ]
    near = [hit for hit in hits if hit.miles <= FARTHEST_MILES]
    return sorted(near, key=lambda hit: (hit.miles, hit.site.id))[:limit]


@pytest.mark.parametrize("vaccine", ["flu", "rabies"])
@pytest.mark.parametrize("limit", [1, 24, 100])
def test_a_search_finds_what_measuring_every_site_finds(vaccine: str, limit: int) -> None:
    chance = random.Random(1)
    for town in TOWNS:
        latitude = town.latitude + chance.uniform(-0.5, 0.5)
        longitude = town.longitude + chance.uniform(-0.5, 0.5)

        found = INDEX.near(latitude, longitude, vaccine=vaccine, limit=limit)

        assert found == by_measuring_all(latitude, longitude, vaccine, limit)


def test_a_search_in_the_middle_of_nowhere_finds_nothing() -> None:
    assert INDEX.near(0.0, -140.0, vaccine="flu", limit=10) == []


def test_a_distance_is_that_of_the_great_circle() -> None:
    los_angeles = Site(1, "", "", 34.0522, -118.2437, ())

    assert miles_between(40.7128, -74.0060, los_angeles) == pytest.approx(2445.6, abs=0.5)


def test_ids_that_do_not_exist_are_left_out() -> None:
    assert [site.id for site in INDEX.some([3, 999_999, 5])] == [3, 5]
    assert INDEX.some([]) == []


def test_equal_seeds_make_equal_sites_and_families() -> None:
    assert list(make_sites(7, 5000, TOWNS)) == SITES
    assert list(make_sites(8, 5000, TOWNS)) != SITES
    assert list(make_families(7, 100, TOWNS)) == list(make_families(7, 100, TOWNS))
