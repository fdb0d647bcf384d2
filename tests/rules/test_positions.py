import yaml
from hypothesis import given
from hypothesis import strategies as st

from tulle.model.objects import Position
from tulle.rules.positions import MAX_DEPTH, MAX_NODES, Node, read, resolve


def plain(text: str) -> object:
    documents, problems = read("f", text)
    assert problems == []
    assert len(documents) == 1
    return documents[0].plain()


def complaints(text: str) -> list[str]:
    return [str(problem) for problem in read("f", text)[1]]


def test_values_mean_what_they_mean_to_kubernetes() -> None:
    text = (
        "{a: yes, b: 0644, c: 12:30, d: 2024-01-01, e: 0x10, f: 1.5, g: ~, h: 'yes', i: 1e3, j: 08, k: .nan}"
    )

    assert plain(text) == {
        "a": True,
        "b": 0o644,
        "c": "12:30",
        "d": "2024-01-01",
        "e": 16,
        "f": 1.5,
        "g": None,
        "h": "yes",
        "i": 1000.0,
        "j": "08",
        "k": ".nan",
    }


def test_a_number_of_any_length_is_read_in_bounded_time() -> None:
    assert resolve("9" * 100_000) == "9" * 100_000
    assert resolve("1e99999") == "1e99999"


def test_keys_and_values_know_their_places() -> None:
    documents, _ = read("f", "# a comment\na:\n  - 1\n  - b: 2\n")

    entry = documents[0].value["a"]
    assert entry.position == Position("f", 2, 1)
    assert [item.position for item in entry.node.value] == [Position("f", 3, 5), Position("f", 4, 5)]


def test_lines_are_counted_as_editors_count_them() -> None:
    text = "a: 'x\u2028y\u0085z\rw'\nb: [\n"

    assert complaints(text) == ["f:3: not YAML: did not find expected node content"]
    assert complaints(text.replace("[", "{}, 1")) == ["f:2: not YAML: did not find expected key"]


def test_anchors_and_merges_are_followed() -> None:
    text = "base: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}\nsame: *base"

    assert plain(text) == {"base": {"a": 1, "b": 2}, "own": {"a": 1, "b": 3}, "same": {"a": 1, "b": 2}}


def test_a_syntax_error_costs_only_its_own_document() -> None:
    documents, problems = read("f", "a: 1\n---\nb: [2\n---\nc: 3\n---\nd: }\n---\ne: 5\n")

    assert [document.plain() for document in documents] == [{"a": 1}, {"c": 3}, {"e": 5}]
    assert [(problem.position.line, problem.text.split(":")[0]) for problem in problems] == [
        (4, "not YAML"),
        (7, "not YAML"),
    ]


def test_a_key_that_is_there_twice_is_a_mistake() -> None:
    assert complaints("a: 1\nb: 2\na: 3\n") == ["f:3: a: this key is in line 1 already"]


def test_many_laughs_are_refused_before_they_are_expanded() -> None:
    levels = [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]" for level in range(1, 12)]

    found = complaints("l0: &l0 [ha, ha, ha]\n" + "\n".join(levels))

    assert len(found) == 1
    assert f"more than {MAX_NODES} values" in found[0]


def test_depth_is_bounded_also_through_aliases() -> None:
    chain = "\n".join(f"- &a{n} [[[[[[[[*a{n - 1}]]]]]]]]" for n in range(1, 200))

    for text in ("[" * 100_000, "- &a0 x\n" + chain, "- " * 1000):
        assert any(f"more than {MAX_DEPTH} deep" in found for found in complaints(text)), text[:40]


def test_an_alias_inside_of_what_it_names_is_refused() -> None:
    assert complaints("a: &a [*a]") == ["f:1: the alias *a stands inside of what it names"]


def test_bytes_that_yaml_does_not_allow_are_named_with_their_line() -> None:
    assert complaints("a: 1\nb: \x00\n") == ["f:2: not YAML: control characters are not allowed"]


def test_keys_are_words_also_where_they_look_like_numbers() -> None:
    assert plain("{8080: a, yes: b}") == {"8080": "a", "yes": "b"}
    assert complaints("{[a]: b}") == ["f:1: expected a word as key, found a collection"]


def test_tags_of_programs_are_refused() -> None:
    assert complaints("a: !!python/object:os.system x") == [
        "f:1: manifests do not use the tag tag:yaml.org,2002:python/object:os.system"
    ]


@given(st.text())
def test_any_text_is_read_or_complained_about(text: str) -> None:
    documents, problems = read("f", text)

    lines = text.count("\n") + text.count("\r") + text.count("\x85") + 1
    lines += text.count("\u2028") + text.count("\u2029")
    assert all(1 <= problem.position.line <= lines + 1 for problem in problems)
    assert all(isinstance(document, Node) for document in documents)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_what_was_dumped_is_read_back(value: object) -> None:
    documents, problems = read("f", yaml.safe_dump(value, default_style='"'))

    assert problems == []
    assert [document.plain() for document in documents] == ([] if value is None else [value])
