import pytest

from tests.control_plane import web_pod
from tulle.model.pod import pod_of_workload
from tulle.model.ports import PortSet
from tulle.model.service import ObjectName


@pytest.mark.parametrize("workload", ['{"ns":"shop","pod":"web-0"}', "shop:web-0"])
def test_a_workload_names_its_pod(workload: str) -> None:
    assert pod_of_workload(workload) == ObjectName("shop", "web-0")


@pytest.mark.parametrize(
    "workload", ["", "shop", ":web-0", "shop:", "{", '{"ns":"shop"}', '{"ns":"","pod":"x"}', "[]"]
)
def test_anything_else_names_none(workload: str) -> None:
    assert pod_of_workload(workload) is None


def test_a_skipped_port_is_not_reached_through_the_proxy() -> None:
    pod = web_pod(skip_inbound_ports=PortSet.parse("4567-4568"))

    assert not pod.reached_through_proxy(4568)
    assert pod.reached_through_proxy(8080)
    assert not web_pod(meshed=False).reached_through_proxy(8080)


def test_addresses_have_one_spelling() -> None:
    assert web_pod(addresses=("FD77:0:0::0A",)).addresses == ("fd77::a",)


def test_a_pod_cannot_have_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="tomorrow"):
        web_pod(addresses=("tomorrow",))
