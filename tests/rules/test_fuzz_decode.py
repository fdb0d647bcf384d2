"""What holds of a manifest whatever is in it. `tools/fuzz` checks the same facts for longer, led by coverage."""

from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rules.test_admission import RULES, WARNINGS
from tulle.rules.decode import decode
from tulle.rules.kinds import KINDS

WORDS = st.sampled_from(
    [
        *KINDS,
        *(
            "apiVersion",
            "apps/v1",
            "v1",
            "kind",
            "metadata",
            "name",
            "namespace",
            "spec",
            "template",
            "containers",
        ),
        *(
            "image",
            "command",
            "ports",
            "containerPort",
            "env",
            "valueFrom",
            "selector",
            "matchLabels",
            "replicas",
        ),
        *(
            "volumes",
            "items",
            "annotations",
            "linkerd.io/inject",
            "readinessProbe",
            "httpGet",
            "port",
            "data",
        ),
    ]
)
SCALARS = st.one_of(
    WORDS,
    st.text(max_size=8),
    st.integers(),
    st.booleans(),
    st.none(),
    st.sampled_from(
        ["~", "*a", "&a x", "!!binary x", "0o17", "1e999", "|", ">-", "<<", "---", "- x", "{", "\x00"]
    ),
).map(str)
BLOCKS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(WORDS, inner, max_size=5).map(
            lambda entries: "{" + ", ".join(f"{key}: {value}" for key, value in entries.items()) + "}"
        ),
    ),
    max_leaves=20,
)
LINES = st.tuples(st.integers(0, 4), st.booleans(), WORDS, BLOCKS).map(
    lambda line: "  " * line[0] + ("- " if line[1] else "") + f"{line[2]}: {line[3]}"
)
MANIFESTS = st.tuples(st.sampled_from(sorted(KINDS)), st.lists(st.one_of(LINES, SCALARS), max_size=12)).map(
    lambda parts: "\n".join(
        (f"apiVersion: {KINDS[parts[0]].api_versions[0]}\nkind: {parts[0]}\nmetadata: {{name: a}}", *parts[1])
    )
)


def check(text: str) -> None:
    """Fail where a promise of the decoder is broken."""
    lines = text.count("\n") + 1

    decoded = decode([("fuzz.yaml", text)])

    for problem in (*decoded.problems, *decoded.remarks):
        assert 1 <= problem.position.line <= lines + 1, f"{problem} lies behind line {lines}, the last"
        assert problem.text, "a problem without a word"
        assert "\n" not in str(problem), f"more than one line: {problem!r}"
    assert all(problem.severity == "error" for problem in decoded.problems)
    assert all(remark.severity != "error" for remark in decoded.remarks)
    for found in decoded.objects:
        assert found.meta.name
        assert 1 <= found.source.line <= lines
    assert decode([("fuzz.yaml", text)]) == decoded, "the same text means something else the second time"


@settings(deadline=None)
@given(st.one_of(st.text(), MANIFESTS, BLOCKS))
def test_any_text_is_decoded_or_its_mistakes_have_places(text: str) -> None:
    check(text)


POLICIES = [yaml.safe_load(text) for text, _ in (*RULES.values(), *WARNINGS.values())]
ODDITIES: list[object] = [
    *(None, True, -1, 10**30, 1.5, "", "*", "/a", "[", "1e999999999", "9" * 40 + "s", ".m", "::/0", "0/0"),
    *([], {}, [1], {"a": 1}, ["a"], [{}]),
]


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


@given(st.sampled_from(POLICIES), st.sampled_from(ODDITIES), st.randoms())
def test_a_policy_with_anything_anywhere_is_judged(policy: object, oddity: object, random: Random) -> None:
    odd = deepcopy(policy)
    *path, last = random.choice(list(places(odd)))
    place: Any = odd
    for step in path:
        place = place[step]
    place[last] = oddity

    found = decode([("a.yaml", yaml.safe_dump(odd))], whole=False)

    assert all(problem.position.file == "a.yaml" for problem in (*found.problems, *found.remarks))
