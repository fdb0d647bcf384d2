"""Certificates for the pairs that are not ours: the same kind as a mesh's, ECDSA over P-256, both sides verified."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

SERVER_NAME = "server.bench"
CLIENT_NAME = "client.bench"
LIFE = dt.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Identity:
    """Files of one side: certificate, key, and both in one, which HAProxy wants."""

    chain: Path
    key: Path
    both: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of one authority and the two that it vouches for."""

    authority: Path
    client: Identity
    server: Identity


def make(folder: Path) -> Certificates:
    """Write new certificates."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("bench authority")
    root = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = folder / "authority.pem"
    authority.write_bytes(root.public_bytes(Encoding.PEM))

    def identity(host: str) -> Identity:
        own = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("10.77.0.3"))]
        certificate = (
            _builder(_name(host), name, own.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .sign(key, hashes.SHA256())
        )
        files = Identity(*(folder / f"{host}.{part}.pem" for part in ("chain", "key", "both")))
        chain = certificate.public_bytes(Encoding.PEM)
        secret = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, content in ((files.chain, chain), (files.key, secret), (files.both, chain + secret)):
            file.write_bytes(content)
            file.chmod(0o644)
        return files

    return Certificates(authority, identity(CLIENT_NAME), identity(SERVER_NAME))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + LIFE)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
