"""The command line that makes the namespaces."""

import pytest

from tulle.local.launch import arguments, has_subordinate_ids


def test_root_needs_no_user_namespace() -> None:
    assert arguments(["me"], plain_user=False, many_ids=True) == [
        "unshare", "--pid", "--mount", "--uts", "--ipc", "--", "me"
    ]  # fmt: skip


def test_a_plain_user_gets_one_with_his_ids_where_he_has_some() -> None:
    many = arguments(["me"], plain_user=True, many_ids=True)
    single = arguments(["me"], plain_user=True, many_ids=False)

    assert many[1:4] == ["--user", "--map-root-user", "--map-auto"]
    assert "--map-auto" not in single


@pytest.mark.parametrize(
    ("text", "tools", "expected"),
    [
        ("ann:100000:65536\n", True, True),
        ("1000:100000:65536\n", True, True),
        ("bob:100000:65536\n", True, False),
        ("ann:100000:1000\n", True, False),
        ("ann:100000:65536\n", False, False),
        ("", True, False),
    ],
)
def test_ids_of_ones_own_need_enough_of_them_and_the_tools(text: str, tools: bool, expected: bool) -> None:
    assert has_subordinate_ids("ann", 1000, tools=tools, files=[text, text]) is expected
