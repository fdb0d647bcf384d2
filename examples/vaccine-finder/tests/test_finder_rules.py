from pathlib import Path

import pytest

from vaccine_finder.eligibility import rules
from vaccine_finder.eligibility.rules import Profile, read_rules

BOOK = read_rules(Path(rules.__file__).with_name("rules.json").read_bytes())


def eligible(age: int, occupation: str = "none", *conditions: str) -> dict[str, str]:
    found = BOOK.eligible(Profile(age, occupation, frozenset(conditions)))
    return {vaccine.code: because for vaccine, because in found}


@pytest.mark.parametrize(
    ("age", "codes"),
    [
        (0, ["pneumo", "hepb"]),
        (8, ["flu", "covid", "hepb", "mmr", "hepa"]),
        (16, ["flu", "covid", "tdap", "hepb", "hpv", "mening", "mmr", "hepa"]),
        (40, ["flu", "covid", "tdap", "hepb"]),
        (60, ["flu", "covid", "pneumo", "shingles", "tdap"]),
        (80, ["flu", "covid", "pneumo", "rsv", "shingles", "tdap"]),
    ],
)
def test_age_alone_decides_for_a_healthy_person_without_a_risky_occupation(
    age: int, codes: list[str]
) -> None:
    assert list(eligible(age)) == codes


@pytest.mark.parametrize(("age", "is_eligible"), [(49, False), (50, True)])
def test_an_age_limit_includes_the_year_it_names(age: int, is_eligible: bool) -> None:
    assert ("shingles" in eligible(age)) is is_eligible


def test_an_occupation_adds_what_its_risks_call_for() -> None:
    assert eligible(40, "laboratory").keys() - eligible(40).keys() == {"mening", "hepa", "rabies"}


def test_a_rule_with_an_age_and_a_condition_needs_both() -> None:
    assert "rsv" not in eligible(49, "none", "heart")
    assert "rsv" in eligible(50, "none", "heart")
    assert "rsv" not in eligible(50)


def test_a_condition_that_forbids_a_vaccine_overrides_every_reason_for_it() -> None:
    assert "mmr" in eligible(30, "healthcare")
    assert "mmr" not in eligible(30, "healthcare", "pregnancy")
    assert "mmr" not in eligible(8, "student", "immune")


def test_the_first_rule_that_fits_gives_the_reason() -> None:
    assert eligible(70, "healthcare", "heart")["flu"] == "Flu is more dangerous with your condition"
    assert eligible(70, "healthcare")["flu"] == "Flu is more dangerous from 65 years"


def test_words_that_no_rule_could_mean_are_named() -> None:
    assert BOOK.unknown_words(Profile(30, "pirate", frozenset({"heart", "scurvy"}))) == ["pirate", "scurvy"]


def test_rules_that_use_an_undefined_word_are_refused() -> None:
    text = b"""{"occupations": {}, "conditions": {}, "vaccines": [{"code": "flu", "title": "", "protects": "",
        "doses": "", "rules": [{"because": "", "occupations": ["pirate"]}]}]}"""

    with pytest.raises(ValueError, match="rules of flu: undefined pirate"):
        read_rules(text)
