"""Our word on regular expressions against that of the engine that proxies use."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tulle_engine import engine

from tulle.rules.expressions import regex_mistake
from tulle.wire import inbound_pb2

TOKENS = [
    *"ab1,-&|()[]{}?*+^$.\\:<>=!P#~ é",
    "(?:", "(?i)", "(?P<n>", "(?<n>", "(?s-i:", "(?#c)", "(?=", "(?<!", "[[:alpha:]]", "[a-z]", "[^", "&&", "--", "\\d",
    "\\pL", "\\b", "\\b{start}", "\\z", "\\A", "\\Z", "\\Q", "\\1", "\\]", "\\[", "\\{", "\\n", "\\x41", "\\x{41}", "\\u0041",
    "\\w", "\\PL", "[^\\d]", "{30}", "{9,70}", "{2}", "{2,3}", "{2,}", "{,2}",
]  # fmt: skip


def proxies_take(text: str) -> bool:
    server = inbound_pb2.Server(labels={"group": "", "kind": "default", "name": "x"})
    route = server.protocol.http1.routes.add()
    route.metadata.default = "x"
    route.rules.add().matches.add().path.regex = text
    return engine.ServerPolicy.decode(server.SerializeToString()).protocol != "invalid"


@settings(max_examples=500)
@given(st.lists(st.sampled_from(TOKENS), max_size=7).map("".join))
def test_what_we_take_proxies_take(text: str) -> None:
    if regex_mistake(text) is None:
        assert proxies_take(text)


@pytest.mark.parametrize(
    "text",
    [
        "/a/[^/]+", r"\p{Lu}\z", "(?i)a(?-i:b)", "a(?i)b", "(?<name>a)", "a{2,3}", r"\{", "[{]", "[[:alpha:]]", "^/a$",
        "[a-z&&[^b]]", r"\x{41}", "", r"\\1", r"\(\?=", "[]a]", "[^]{]", r"/api/v\d+/[A-Za-z0-9_-]{1,36}(/.*)?", r"[\w.-]+", r"\w{1,64}",
        "(?:a|b)*?", r"\.", "/é", r"[+\-*/]",
    ],
)  # fmt: skip
def test_expressions_that_people_write_are_taken(text: str) -> None:
    assert regex_mistake(text) is None
    assert proxies_take(text)


@pytest.mark.parametrize("depth", [10, 30, 50, 58])
def test_what_we_take_proxies_take_however_deep_it_is(depth: int) -> None:
    brackets = 59 - depth
    text = "(a|b" * depth + "[b&&[^" * (brackets // 2) + "a" + "]]" * (brackets // 2) + "c)*" * depth

    assert regex_mistake(text) is None
    assert proxies_take(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(", "missing ), unterminated subpattern"),
        ("[", "a '[' is not closed"),
        ("[[a]", "a '[' is not closed"),
        ("[z-a]", "a range in brackets ends before it begins"),
        ("/a{", "a '{' that is no repetition has to be written as '\\{'"),
        (r"(a)\1", "back-references and octal numbers are not supported"),
        ("(?=a)", "look-around is not supported"),
        ("(?<!a)", "look-around is not supported"),
        ("*", "nothing to repeat"),
        ("(?P<a>b)(?P<a>c)", "there are two groups named a"),
        ("(?P=a)", "(?P begins no group"),
        ("(?#a)", "(?# begins no group"),
        ("a{3,2}", "min repeat greater than max repeat"),
        (r"\q", r"\q is no escape"),
        ("a\\", "\\ is no escape"),
        (r"\Z", r"\Z is no escape"),
        (r"\w{1,255}", "it is too big with its repetitions written out"),
        ("((a{1000}){1000})", "it is too big with its repetitions written out"),
        (r"[\pL-]{999}|b", "it is too big with its repetitions written out"),
        ("(" * 260 + ")" * 260, "60 groups or brackets are inside of one another"),
        ("(a|b" * 70 + ")*" * 70, "60 groups or brackets are inside of one another"),
        ("[" * 260 + "a" + "]" * 260, "60 groups or brackets are inside of one another"),
    ],
)
def test_expressions_that_proxies_refuse_are_refused(text: str, said: str) -> None:
    assert regex_mistake(text) == said
    assert not proxies_take(text)
