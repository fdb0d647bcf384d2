"""Who is signed in: the family's number in a signed cookie, so that any replica of `web` can read it.

Signing in asks for no password. In a real system the insurer's single sign-on stands in this place.
"""

import hmac

COOKIE = "family"


def sign(family: str, key: str) -> str:
    """Return the cookie's value for a family."""
    return f"{family}.{_signature(family, key)}"


def verify(value: str, key: str) -> str | None:
    """Return the family of a cookie that we signed, else None."""
    family, _, signature = value.rpartition(".")
    return (
        family
        if family and hmac.compare_digest(signature.encode(), _signature(family, key).encode())
        else None
    )


def _signature(family: str, key: str) -> str:
    return hmac.digest(key.encode(), family.encode(), "sha256").hex()
