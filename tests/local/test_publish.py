"""Which ports of this machine lead into the mesh."""

import socket

import pytest

from tests.local.builders import one, service
from tulle.local.doors import Doors
from tulle.local.publish import moves, published
from tulle.model.errors import SettingError
from tulle.model.objects import Service

WEB = service(spec="type: LoadBalancer\n  ports: [{port: 80, name: a}, {port: 53, name: b, protocol: UDP}]")


def test_only_load_balancers_are_published_and_only_tcp() -> None:
    services = [one(Service, WEB), one(Service, service("inner"))]

    assert [each.key for each in published(services, {})] == ["80=default/web:80"]


@pytest.mark.parametrize("flag", ["8080=web:80", "8080=default/web:80"])
def test_a_flag_moves_a_port(flag: str) -> None:
    (only,) = published([one(Service, WEB)], moves([flag]))

    assert only.port == 8080


@pytest.mark.parametrize(
    "flag", ["web:80", "8080=web", "x=web:80", "8080=web:http", "0=web:80", "99999=web:80"]
)
def test_a_flag_that_cannot_be_read_is_answered_with_its_form(flag: str) -> None:
    with pytest.raises(SettingError, match="HOSTPORT="):
        moves([flag])


def test_a_taken_port_is_a_mistake_that_names_the_flag_and_changes_nothing() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        doors = Doors({})
        text = service(spec=f"type: LoadBalancer\n  ports: [{{port: {port}}}]")

        (problem,) = doors.open([one(Service, text)], only_try=False)

    assert "--publish" in problem.text
    assert f"=default/web:{port}" in problem.text
    assert doors.state() == []


def test_a_port_that_one_service_gives_up_can_go_to_another_in_the_same_change() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    doors = Doors({})
    spec = f"type: LoadBalancer\n  ports: [{{port: {port}}}]"

    assert doors.open([one(Service, service("a", spec=spec))], only_try=False) == []
    assert doors.open([one(Service, service("b", spec=spec))], only_try=False) == []

    assert [each["service"] for each in doors.state()] == ["b"]
    doors.open([], only_try=False)
    assert doors.state() == []
