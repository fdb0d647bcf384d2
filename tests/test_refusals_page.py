"""The page about refusals names every code that a proxy knows, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_lists_the_codes_of_the_proxy() -> None:
    source = (ROOT / "proxy" / "core" / "src" / "reason.rs").read_text()
    codes = source.partition("const fn code")[2].partition("\n    }")[0]

    page = (ROOT / "docs" / "refusals.md").read_text()

    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(re.findall(r'=> "(\w+)"', codes))
