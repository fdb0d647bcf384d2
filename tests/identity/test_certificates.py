import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.identity.material import DAY, NOON, WEB, request
from tulle.identity.certificates import (
    Authority,
    AuthorityExpiredError,
    Leaf,
    RequestMalformedError,
    RequestRefusedError,
    check_request,
    make_issuer,
    make_root,
    renew_root,
    sign_leaf,
)

ROOT = make_root("root.linkerd.cluster.local", now=NOON, lifetime=100 * DAY)
ISSUER = make_issuer("identity.linkerd.cluster.local", ROOT, now=NOON, lifetime=10 * DAY)
REQUEST = request()
SIGNED_PART = x509.load_der_x509_csr(REQUEST).tbs_certrequest_bytes


def leaf(
    *, now: object = NOON, lifetime: timedelta = DAY, issuer: Authority = ISSUER, root: Authority = ROOT
) -> Leaf:
    key = check_request(REQUEST, WEB)
    return sign_leaf(WEB, key, issuer=issuer, root=root, now=now, lifetime=lifetime)  # type: ignore[arg-type]


def test_the_chain_verifies_and_is_p256_with_sha256_throughout() -> None:
    signed = x509.load_der_x509_certificate(leaf().certificate)

    signed.verify_directly_issued_by(ISSUER.certificate)
    ISSUER.certificate.verify_directly_issued_by(ROOT.certificate)
    for certificate in (signed, ISSUER.certificate, ROOT.certificate):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert certificate.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA256


def test_a_leaf_is_for_both_ends_and_names_one_workload() -> None:
    signed = x509.load_der_x509_certificate(leaf().certificate)

    extensions = signed.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(names) == [x509.DNSName(WEB)]
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature


def test_a_leaf_begins_before_now_and_ends_after_its_life() -> None:
    signed = leaf()

    assert signed.expires == NOON + DAY + timedelta(seconds=10)
    begins = x509.load_der_x509_certificate(signed.certificate).not_valid_before_utc
    assert begins == NOON - timedelta(seconds=10)


def test_a_short_life_is_not_stretched_by_the_skew() -> None:
    assert leaf(lifetime=timedelta(seconds=20)).expires == NOON + timedelta(seconds=22)


def test_a_leaf_never_outlives_its_issuer_or_its_root() -> None:
    short = make_root("root", now=NOON, lifetime=5 * DAY)

    assert leaf(now=NOON + 9.5 * DAY).expires == ISSUER.expires
    assert leaf(lifetime=30 * DAY, root=short).expires == short.expires
    assert make_issuer("issuer", short, now=NOON, lifetime=9 * DAY).expires == short.expires


def test_nothing_is_signed_past_the_end_of_issuer_or_root() -> None:
    with pytest.raises(AuthorityExpiredError, match=r"identity.* expired at 2026-06-11"):
        leaf(now=NOON + 10 * DAY)
    with pytest.raises(AuthorityExpiredError, match="root"):
        make_issuer("issuer", ROOT, now=NOON + 100 * DAY, lifetime=DAY)


def test_a_renewed_root_still_is_what_old_certificates_were_signed_by() -> None:
    renewed = renew_root(ROOT, now=NOON + 200 * DAY, lifetime=100 * DAY)

    ISSUER.certificate.verify_directly_issued_by(renewed.certificate)
    assert renewed.certificate.subject == ROOT.certificate.subject
    assert renewed.key.public_key() == ROOT.key.public_key()
    assert renewed.expires == NOON + 300 * DAY


@pytest.mark.parametrize("common_name", [None, WEB])
def test_a_request_for_exactly_the_name_is_accepted(common_name: str | None) -> None:
    check_request(request(common_name=common_name), WEB)


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (request(x509.DNSName("db.shop")), "nothing else"),
        (request(x509.DNSName(WEB), x509.DNSName("db.shop")), "nothing else"),
        (request(x509.DNSName(WEB), x509.DNSName(WEB)), "nothing else"),
        (request(x509.DNSName(WEB), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))), "nothing else"),
        (request(x509.DNSName(WEB), x509.UniformResourceIdentifier("spiffe://a/b")), "nothing else"),
        (request(x509.DNSName(WEB), x509.RFC822Name("a@example.org")), "nothing else"),
        (request(common_name="db.shop"), "common name"),
        (request(key=ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (request(key=rsa.generate_private_key(65537, 2048)), "P-256"),
    ],
)
def test_a_request_for_anything_else_is_refused(der: bytes, why: str) -> None:
    with pytest.raises(RequestRefusedError, match=why):
        check_request(der, WEB)


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    broken = bytearray(REQUEST)
    broken[-1] ^= 1

    with pytest.raises((RequestRefusedError, RequestMalformedError)):
        check_request(bytes(broken), WEB)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((RequestRefusedError, RequestMalformedError)):
        check_request(data, WEB)


@settings(max_examples=300)
@given(st.integers(0, len(SIGNED_PART) - 1), st.integers(1, 255))
def test_a_request_with_any_signed_byte_changed_is_refused(place: int, change: int) -> None:
    broken = bytearray(REQUEST)
    broken[REQUEST.index(SIGNED_PART) + place] ^= change

    with pytest.raises((RequestRefusedError, RequestMalformedError)):
        check_request(bytes(broken), WEB)
