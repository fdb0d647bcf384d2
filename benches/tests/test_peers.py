import pytest

from benches import peers


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("/opt/envoy  version: 9e55809/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12-1+deb12u4"),
        ("nginx version: nginx/1.22.1", "1.22.1"),
        ("a program that does not say", "unknown"),
    ],
)
def test_a_version_is_found_in_what_a_program_says_of_itself(said: str, expected: str) -> None:
    assert peers.number(said) == expected
