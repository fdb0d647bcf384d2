import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.lib.tokens import Subject, TokenMalformedError, TokenRefusedError, mint, verify

KEY = bytes(range(32))
NAMES = st.text(st.characters(codec="ascii", exclude_characters=":"), min_size=1, max_size=63)


@given(NAMES, NAMES, NAMES)
def test_whoever_minted_a_token_verifies_it(namespace: str, account: str, pod: str) -> None:
    subject = Subject(namespace, account, pod)

    assert verify(KEY, mint(KEY, subject)) == subject


@given(st.binary(max_size=300))
def test_no_other_bytes_are_a_token(data: bytes) -> None:
    with pytest.raises((TokenMalformedError, TokenRefusedError)):
        verify(KEY, data)


@given(st.data())
def test_a_token_with_one_changed_byte_is_refused(data: st.DataObject) -> None:
    token = bytearray(mint(KEY, Subject("shop", "web", "web-0")))
    place = data.draw(st.integers(0, len(token) - 1))
    # The last character of each part carries bits that decode to nothing.
    token[place] = data.draw(st.integers(0, 255).filter(lambda byte: _differs(token[place], byte)))

    try:
        subject = verify(KEY, bytes(token))
    except (TokenMalformedError, TokenRefusedError):
        return
    assert subject == Subject("shop", "web", "web-0")


def test_another_mesh_s_token_is_refused() -> None:
    with pytest.raises(TokenRefusedError, match="not made with this mesh's key"):
        verify(KEY, mint(bytes(32), Subject("shop", "web", "web-0")))


def test_a_token_for_another_audience_is_refused() -> None:
    claims = {"sub": "system:serviceaccount:shop:web", "aud": "somebody-else", "pod": "web-0"}

    with pytest.raises(TokenRefusedError, match="somebody-else"):
        verify(KEY, _signed(claims))


def test_a_subject_that_is_no_service_account_is_refused() -> None:
    with pytest.raises(TokenRefusedError, match="not a service account"):
        verify(KEY, _signed({"sub": "shop:web", "aud": "identity.l5d.io", "pod": "web-0"}))


def test_padding_and_a_line_end_are_accepted() -> None:
    payload, _, mac = mint(KEY, Subject("shop", "web", "web-0")).partition(b".")
    padded = mac + b"=" * (-len(mac) % 4)

    assert verify(KEY, payload + b"." + padded + b"\n").pod == "web-0"


def _differs(old: int, new: int) -> bool:
    return old != new


def _signed(claims: dict[str, str]) -> bytes:
    import hashlib
    import hmac

    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    mac = hmac.new(KEY, payload, hashlib.sha256).digest()
    return payload + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
