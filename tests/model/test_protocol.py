import pytest

from tests.control_plane import WEB_SERVICE
from tulle.model.ports import PortSet
from tulle.model.protocol import Protocol, of_port


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("http", Protocol.HTTP1),
        ("http2", Protocol.HTTP2),
        ("kubernetes.io/h2c", Protocol.HTTP2),
        ("grpc", Protocol.GRPC),
        ("https", Protocol.TLS),
        ("tls", Protocol.TLS),
        ("kubernetes.io/ws", Protocol.HTTP1),
        ("kubernetes.io/wss", Protocol.TLS),
        ("tcp", Protocol.OPAQUE),
        ("linkerd.io/tcp", Protocol.OPAQUE),
        ("linkerd.io/opaque", Protocol.OPAQUE),
        ("example.org/mine", Protocol.DETECT),
        (None, Protocol.DETECT),
    ],
)
def test_names_mean_what_they_say(name: str | None, protocol: Protocol) -> None:
    assert of_port(WEB_SERVICE, 80, name, PortSet()) is protocol


def test_an_annotated_port_is_opaque_by_number_and_by_name() -> None:
    assert of_port(WEB_SERVICE, 80, None, PortSet.parse("80")) is Protocol.OPAQUE
    assert of_port(WEB_SERVICE, 80, None, PortSet.parse("http")) is Protocol.OPAQUE


def test_the_name_beats_the_annotation() -> None:
    assert of_port(WEB_SERVICE, 80, "http", PortSet.parse("80")) is Protocol.HTTP1
