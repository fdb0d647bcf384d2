"""Keys, requests and clocks for the tests of identity."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WEB = "web.shop.serviceaccount.identity.linkerd.cluster.local"
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class SteppingClock:
    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def request(*names: x509.GeneralName, common_name: str | None = None, key: PrivateKey | None = None) -> bytes:
    """Build a request in DER; without names it asks for WEB."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    alternatives = x509.SubjectAlternativeName(names or [x509.DNSName(WEB)])
    signer = key or ec.generate_private_key(ec.SECP256R1())
    return (
        builder.add_extension(alternatives, critical=False)
        .sign(signer, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
