import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.model.authority import AddressAuthority, AuthorityError, ServiceAuthority, parse
from tulle.model.service import ObjectName

WEB = ObjectName("shop", "web")
LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web.shop.svc.cluster.local", ServiceAuthority(WEB, 80)),
        ("web.shop.svc.cluster.local.:8080", ServiceAuthority(WEB, 8080)),
        ("web-0.web.shop.svc.cluster.local:80", ServiceAuthority(WEB, 80, "web-0")),
        ("10.1.2.3:443", AddressAuthority("10.1.2.3", 443)),
        ("[fd77:0::5]:443", AddressAuthority("fd77::5", 443)),
        ("[fd77::5]", AddressAuthority("fd77::5", 80)),
    ],
)
def test_names_and_addresses_are_read(text: str, expected: object) -> None:
    assert parse(text, "cluster.local") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "web",
        "web.shop",
        "shop.svc.cluster.local",
        "a.b.web.shop.svc.cluster.local",
        "web.shop.svc.cluster.example",
        "web.shop.svc.cluster.local:http",
        "web.shop.svc.cluster.local:0",
        "web.shop.svc.cluster.local:65536",
        "web.shop.svc.cluster.local:",
        "we_b.shop.svc.cluster.local",
        ".shop.svc.cluster.local",
        "10.1.2:80",
        "fd77::5",
        "[fd77::5]80",
        "[web]:80",
        "example.org:80",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(AuthorityError):
        parse(text, "cluster.local")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(AuthorityError):
        parse(text, "cluster.local")


@given(LABEL, LABEL, LABEL, st.integers(1, 65535))
def test_every_well_formed_name_is_read(hostname: str, service: str, namespace: str, port: int) -> None:
    text = f"{hostname}.{service}.{namespace}.svc.cluster.local:{port}"

    assert parse(text, "cluster.local") == ServiceAuthority(ObjectName(namespace, service), port, hostname)
