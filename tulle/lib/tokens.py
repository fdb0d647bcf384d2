"""Proof, on one machine, of which service account a pod runs as.

The supervisor mints a token into each pod's own token file; the controller verifies it when the
pod's proxy asks for a certificate. Both hold the same key file, so no third party is needed. A
token is not bound to time: it lives exactly as long as the key, which dies with the mesh, and a pod
can read no token but its own.

Form: base64url(JSON claims) + "." + base64url(HMAC-SHA256 of the first part), both without padding
needed (it is accepted). Verification compares the MAC before it looks at a single claim.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

import msgspec

AUDIENCE = "identity.l5d.io"
KEY_BYTES = 32
SUBJECT_PREFIX = "system:serviceaccount:"


class TokenMalformedError(ValueError):
    """The bytes are not of the form of a token."""


class TokenRefusedError(ValueError):
    """The token is well formed, and does not prove what it says."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a verified token speaks for."""

    namespace: str
    service_account: str
    pod: str


class _Claims(msgspec.Struct):
    sub: str
    aud: str
    pod: str


def mint(key: bytes, subject: Subject) -> bytes:
    """Make the subject's token."""
    claims = _Claims(f"{SUBJECT_PREFIX}{subject.namespace}:{subject.service_account}", AUDIENCE, subject.pod)
    payload = _encode(msgspec.json.encode(claims))
    return payload + b"." + _encode(_mac(key, payload))


def verify(key: bytes, token: bytes) -> Subject:
    """Return whom the token speaks for.

    Raises TokenMalformedError or TokenRefusedError.
    """
    payload, dot, mac = token.strip().partition(b".")
    if not dot:
        raise TokenMalformedError("the token has no signature")
    if not hmac.compare_digest(_decode(mac), _mac(key, payload)):
        raise TokenRefusedError("the token was not made with this mesh's key")
    try:
        claims = msgspec.json.decode(_decode(payload), type=_Claims)
    except msgspec.MsgspecError as error:
        raise TokenMalformedError(f"the token's claims cannot be read: {error}") from error
    if claims.aud != AUDIENCE:
        raise TokenRefusedError(f"the token is meant for {claims.aud!r}, not for {AUDIENCE!r}")
    namespace, colon, account = claims.sub.removeprefix(SUBJECT_PREFIX).partition(":")
    if not (claims.sub.startswith(SUBJECT_PREFIX) and colon and namespace and account):
        raise TokenRefusedError(f"the token's subject {claims.sub!r} is not a service account")
    return Subject(namespace, account, claims.pod)


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, payload, hashlib.sha256).digest()


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenMalformedError("the token is not base64url") from error
