"""Addresses of pods and services."""

import pytest

from tulle.local.addresses import PLACES, PodAddresses, ServiceAddresses


def test_a_pod_gets_the_same_number_in_both_families() -> None:
    addresses = PodAddresses()

    assert [addresses.take() for _ in range(2)] == [("10.77.0.2", "fd77::2"), ("10.77.0.3", "fd77::3")]


def test_an_address_that_was_given_back_rests_until_all_others_had_their_turn() -> None:
    addresses = PodAddresses()
    first = addresses.take()
    addresses.give_back(first)

    others = [addresses.take() for _ in range(PLACES - 2)]

    assert first not in others
    assert addresses.take() == first


def test_running_out_of_addresses_is_said() -> None:
    addresses = PodAddresses()
    for _ in range(PLACES - 1):
        addresses.take()

    with pytest.raises(OverflowError, match="in use"):
        addresses.take()


def test_a_service_has_the_same_address_whatever_else_there_is() -> None:
    alone = ServiceAddresses().assign(["default/web"])
    among = ServiceAddresses().assign(["a/a", "default/web", "z/z"])

    assert alone["default/web"] == among["default/web"] == ("10.78.62.203", "fd78::3ecb")


def test_addresses_are_all_different_and_kept_while_the_service_lives() -> None:
    addresses = ServiceAddresses()
    many = [f"default/s{number}" for number in range(2000)]
    before = addresses.assign(many)

    after = addresses.assign(many[1000:])

    assert len(set(before.values())) == 2000
    assert all(after[name] == before[name] for name in many[1000:])
