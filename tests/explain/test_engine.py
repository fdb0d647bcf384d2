"""The engine as a Python module: bytes in, decisions out, whatever the bytes are."""

import contextlib

import pytest
import tulle_engine as engine
from hypothesis import given
from hypothesis import strategies as st

from tulle.wire import inbound_pb2, outbound_pb2

REQUEST = engine.Request("GET", "/", authority="web:8080")


def test_bytes_that_are_no_message_are_refused() -> None:
    for policy in (engine.ServerPolicy, engine.ClientPolicy):
        with pytest.raises(ValueError, match=r"wire type|varint|buffer|delimited"):
            policy.decode(b"\xff\xff\xff")


def test_a_message_that_makes_no_sense_refuses_everything() -> None:
    server = engine.ServerPolicy.decode(inbound_pb2.Server().SerializeToString())
    client = engine.ClientPolicy.decode(outbound_pb2.OutboundPolicy().SerializeToString())

    assert (server.protocol, server.authorize("10.0.0.1", None, REQUEST).reason) == (
        "invalid",
        "policy_invalid",
    )
    assert server.connect("10.0.0.1", "web.shop").reason == "policy_invalid"
    assert (client.protocol, client.route(REQUEST).reason) == ("invalid", "policy_invalid")
    assert client.connect().reason == "policy_invalid"


@pytest.mark.parametrize(
    ("method", "path", "header"),
    [
        ("G T", "/", ("a", "b")),
        ("GET", "no path", ("a", "b")),
        ("GET", "/", ("a b", "c")),
        ("GET", "/", ("a", "b\n")),
    ],
)
def test_what_http_does_not_allow_is_no_request(method: str, path: str, header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"invalid|failed"):
        engine.Request(method, path, authority="web", headers=[header])


@given(st.binary(max_size=400), st.text(max_size=20))
def test_nothing_that_is_decoded_or_asked_ends_the_process(data: bytes, text: str) -> None:
    with contextlib.suppress(ValueError):
        request = engine.Request(
            "GET", f"/{text}", authority=text, headers=[("x", text)], http2=len(data) % 2 == 0
        )
        engine.ServerPolicy.decode(data).authorize("fd77::1", text, request)
        engine.ClientPolicy.decode(data, profile=data, port=80).route(request)
