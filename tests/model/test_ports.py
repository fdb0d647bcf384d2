from hypothesis import given
from hypothesis import strategies as st

from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet


def test_numbers_ranges_and_names_are_read() -> None:
    ports = PortSet.parse("25, 4000-4002,postgres")

    assert [port for port in (24, 25, 3999, 4000, 4002, 4003) if ports.contains(port)] == [25, 4000, 4002]
    assert ports.contains(5432, {"postgres": 5432})
    assert not ports.contains(5432)


def test_what_cannot_be_a_port_is_left_out() -> None:
    assert PortSet.parse("0,70000,9-8,,") == PortSet()


def test_the_default_list_is_upstream_s() -> None:
    opaque = {port for port in range(1, 65536) if DEFAULT_OPAQUE_PORTS.contains(port)}

    assert opaque == {25, 587, 3306, 4444, 5432, 6379, 9300, 11211}


@given(st.text(max_size=60))
def test_any_text_is_a_set(text: str) -> None:
    PortSet.parse(text).contains(80, {})
