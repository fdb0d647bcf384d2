"""Certificates: what is in a root, an issuer and a leaf, and which requests are refused.

Pure but for the keys and serial numbers that are drawn; time is an argument. Everything is ECDSA
P-256 with SHA-256, since a stock proxy verifies nothing else. A leaf never outlives what signed it:
its end is the earliest of its own, its issuer's and its root's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLOCK_SKEW = timedelta(seconds=10)


# What the library raises for bytes that are not what they should be; it has no common base for them.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class RequestMalformedError(ValueError):
    """The bytes are not a certificate request."""


class RequestRefusedError(ValueError):
    """The request asks for something that may not be signed."""


class AuthorityExpiredError(Exception):
    """The issuer or its root is past its end: nothing can be signed."""


@dataclass(frozen=True)
class Authority:
    """A certificate that signs others, with its key, both PEM."""

    certificate_pem: str
    key_pem: str

    @cached_property
    def certificate(self) -> x509.Certificate:
        """Return the certificate, parsed."""
        return x509.load_pem_x509_certificate(self.certificate_pem.encode())

    @cached_property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key, parsed."""
        key = serialization.load_pem_private_key(self.key_pem.encode(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey), "we write no other keys"
        return key

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the certificate's DER, by which proxies name it."""
        return self.certificate.fingerprint(hashes.SHA256())

    @property
    def expires(self) -> datetime:
        """Return the certificate's end."""
        return self.certificate.not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Leaf:
    """A workload's certificate with its chain, all DER."""

    certificate: bytes
    intermediates: tuple[bytes, ...]
    expires: datetime


def make_root(name: str, *, now: datetime, lifetime: timedelta) -> Authority:
    """Create a root with a key of its own."""
    return _self_signed(name, ec.generate_private_key(ec.SECP256R1()), now=now, lifetime=lifetime)


def renew_root(old: Authority, *, now: datetime, lifetime: timedelta) -> Authority:
    """Return the root with the same name and key and a new life.

    Whoever trusts the old certificate verifies what this one's key signs: verifiers of the WebPKI kind
    (rustls in every proxy) take name and key from a trust anchor, not its dates.
    """
    return _self_signed(_common_name(old.certificate.subject), old.key, now=now, lifetime=lifetime)


def make_issuer(name: str, root: Authority, *, now: datetime, lifetime: timedelta) -> Authority:
    """Raises AuthorityExpiredError."""
    _check_alive(root, now)
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + lifetime, root.expires)
    builder = _authority(name, root.certificate.subject, key.public_key(), now, ends, path_length=0)
    builder = builder.add_extension(_key_of(root), critical=False)
    return _authority_of(builder.sign(root.key, hashes.SHA256()), key)


def check_request(der: bytes, identity: str) -> ec.EllipticCurvePublicKey:
    """Return the key that a request proves to hold, if it asks for exactly `identity`.

    Raises RequestMalformedError or RequestRefusedError.
    """
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        valid = request.is_signature_valid
        names = _alternative_names(request)
        common = [str(name.value) for name in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except _UNREADABLE as error:
        raise RequestMalformedError(f"the certificate request cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestRefusedError("the request's key is not ECDSA P-256")
    if not valid:
        raise RequestRefusedError("the request is not signed by its own key")
    if names != [x509.DNSName(identity)]:
        raise RequestRefusedError(f"the request must name {identity!r} and nothing else")
    if any(name not in ("", identity) for name in common):
        raise RequestRefusedError(f"the request's common name is {common[0]!r}, not {identity!r}")
    return key


def sign_leaf(
    identity: str,
    key: ec.EllipticCurvePublicKey,
    *,
    issuer: Authority,
    root: Authority,
    now: datetime,
    lifetime: timedelta,
) -> Leaf:
    """Raises AuthorityExpiredError."""
    _check_alive(issuer, now)
    _check_alive(root, now)
    ends = min(now + lifetime + min(CLOCK_SKEW, lifetime / 10), issuer.expires, root.expires)
    certificate = (
        _dated(x509.Name([]), issuer.certificate.subject, key, now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        # Critical because the subject is empty (RFC 5280, 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=True)
        .add_extension(_key_of(issuer), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    der = serialization.Encoding.DER
    return Leaf(
        certificate.public_bytes(der),
        (issuer.certificate.public_bytes(der),),
        certificate.not_valid_after_utc,
    )


def _check_alive(authority: Authority, now: datetime) -> None:
    if authority.expires <= now:
        name = _common_name(authority.certificate.subject)
        raise AuthorityExpiredError(f"{name} expired at {authority.expires:%Y-%m-%d %H:%M:%S} UTC")


def _self_signed(
    name: str, key: ec.EllipticCurvePrivateKey, *, now: datetime, lifetime: timedelta
) -> Authority:
    subject = _name(name)
    builder = _authority(name, subject, key.public_key(), now, now + lifetime, path_length=1)
    return _authority_of(builder.sign(key, hashes.SHA256()), key)


def _authority(
    name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    ends: datetime,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        _dated(_name(name), issuer, key, now, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _dated(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(ends)
    )


def _authority_of(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Authority:
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Authority(certificate.public_bytes(pem).decode(), key_pem.decode())


def _usage(*, digital_signature: bool = False, sign_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_of(authority: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _common_name(name: x509.Name) -> str:
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _alternative_names(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
