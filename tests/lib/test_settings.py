from datetime import timedelta
from enum import Enum

import pytest

from tulle.lib.settings import Reader


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("10s", 10), ("2m", 120), ("24h", 86400), ("7d", 604800)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    reader = Reader({"LIFE": text})

    assert reader.duration("LIFE", timedelta(1)) == timedelta(seconds=seconds)
    assert not reader.mistakes


def test_what_is_absent_or_empty_has_its_default() -> None:
    reader = Reader({"LIFE": "", "COLOUR": ""})

    assert reader.duration("LIFE", timedelta(hours=1)) == timedelta(hours=1)
    assert reader.choice("COLOUR", Colour.BLUE) is Colour.BLUE
    assert reader.networks("NETWORKS", ("10.0.0.0/8",)) == ("10.0.0.0/8",)
    assert reader.text("NAME", "x") == "x"
    assert not reader.mistakes


def test_all_mistakes_are_reported_together() -> None:
    reader = Reader({"LIFE": "5", "COLOUR": "green", "NETWORKS": "10.0.0.0/8, ten"})

    reader.duration("LIFE", timedelta(1))
    reader.choice("COLOUR", Colour.RED)
    reader.networks("NETWORKS", ())

    assert len(reader.mistakes) == 3
    assert "red, blue" in reader.mistakes[1]
