"""Certificates for tests that come to a proxy as a peer, good and bad, and the first words of a peer."""

import datetime as dt
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tulle.testing import LiveMesh
from tulle.wire import transport_header_pb2

ALPN = "transport.l5d.io/v1"
PREFACE = b"transport.l5d.io/v1\r\n\r\n"
HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: str
    """The certificates that are sent with a leaf's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its chain, and its key."""

    chain: str
    key: str


def of_mesh(mesh: LiveMesh) -> Issuer:
    """Return the mesh's own issuer: the test owns the mesh and all its keys."""
    stored = json.loads((mesh.api.places.persistent / "identity" / "authority.json").read_text())["issuer"]
    key = load_pem_private_key(stored["key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(stored["certificate"].encode())
    return Issuer(certificate, key, stored["certificate"])


def roots(mesh: LiveMesh) -> str:
    """Return what the mesh trusts."""
    return (mesh.api.places.persistent / "identity" / "ca-bundle.crt").read_text()


def foreign() -> Issuer:
    """Return an issuer that the mesh has never heard of."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root.linkerd.cluster.local")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Issuer(certificate, key, certificate.public_bytes(Encoding.PEM).decode())


def issue(issuer: Issuer, name: str, *, expired: bool = False) -> Identity:
    """Return a certificate for a name, valid for an hour around now or until an hour ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    until = dt.datetime.now(dt.UTC) + (-HOUR if expired else HOUR)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - 2 * HOUR)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(issuer.key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Identity(certificate.public_bytes(Encoding.PEM).decode() + issuer.chain, private)


def load(context: ssl.SSLContext, identity: Identity) -> None:
    """Give a context a certificate, which OpenSSL takes from files only."""
    with tempfile.TemporaryDirectory(prefix="tulle-") as folder:
        chain, key = Path(folder, "chain"), Path(folder, "key")
        chain.write_text(identity.chain)
        key.write_text(identity.key)
        context.load_cert_chain(chain, key)


def client(trusted: str, identity: Identity | None, *, alpn: bool = True) -> ssl.SSLContext:
    """Return what a peer's client side brings."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=trusted)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols([ALPN])
    if identity is not None:
        load(context, identity)
    return context


def header(port: int, session: str = "http1") -> bytes:
    """Return the transport header for a session of `http1` or `http2` to a port."""
    protocol = transport_header_pb2.SessionProtocol()
    getattr(protocol, session).SetInParent()
    encoded = transport_header_pb2.Header(port=port, session_protocol=protocol).SerializeToString()
    return PREFACE + len(encoded).to_bytes(4, "big") + encoded
