"""The texts for ip and nft."""

from tests.local.builders import one, service
from tulle.local.endpoints import PodFacts
from tulle.local.network import link_batch, pod_batch, service_rules
from tulle.model.objects import Service


def facts(name: str, number: int, *, ready: bool = True, terminating: bool = False) -> PodFacts:
    return PodFacts(
        name,
        "default",
        {"app": "web"},
        (f"10.77.0.{number}", f"fd77::{number:x}"),
        ready,
        terminating,
        name,
        None,
        {"http": 8080},
    )


ASSIGNED = {"default/web": ("10.78.1.1", "fd78::101")}


def test_a_link_is_made_with_an_address_that_stays() -> None:
    assert link_batch(("10.77.1.5", "fd77::105"), "/proc/1/fd/9") == (
        "link add v1-5 type veth peer name eth0 address 02:00:0a:4d:01:05 netns /proc/1/fd/9\n"
        "link set v1-5 master br0 up\n"
    )


def test_a_pod_has_routes_into_the_mesh_and_none_out_of_it() -> None:
    batch = pod_batch(("10.77.0.5", "fd77::5"))

    assert "addr add 10.77.0.5/16 dev eth0\n" in batch
    assert "route add 10.78.0.0/16 via 10.77.0.1\n" in batch
    assert "default" not in batch


def test_a_cluster_address_leads_to_any_ready_endpoint_in_both_families() -> None:
    web = one(Service, service())

    rules = service_rules([web], ASSIGNED, [facts("a", 5), facts("b", 6)])

    assert (
        "ip daddr 10.78.1.1 tcp dport 80 dnat ip to numgen random mod 2 map "
        "{ 0 : 10.77.0.5 . 8000, 1 : 10.77.0.6 . 8000 }"
    ) in rules
    assert (
        "ip6 daddr fd78::101 tcp dport 80 dnat ip6 to numgen random mod 2 map "
        "{ 0 : fd77::5 . 8000, 1 : fd77::6 . 8000 }"
    ) in rules


def test_named_target_ports_are_those_of_the_pod() -> None:
    web = one(Service, service(spec="ports: [{port: 80, targetPort: http}]"))

    assert "map { 0 : 10.77.0.5 . 8080 }" in service_rules([web], ASSIGNED, [facts("a", 5)])


def test_pods_that_are_not_ready_or_leave_are_no_endpoints() -> None:
    web = one(Service, service())

    rules = service_rules([web], ASSIGNED, [facts("a", 5, ready=False), facts("b", 6, terminating=True)])

    assert "dnat" not in rules


def test_a_service_may_ask_for_pods_that_are_not_ready() -> None:
    web = one(Service, service(spec="ports: [{port: 80}]\n  publishNotReadyAddresses: true"))

    assert "10.77.0.5 . 80" in service_rules([web], ASSIGNED, [facts("a", 5, ready=False)])


def test_what_leads_nowhere_is_refused_at_once() -> None:
    rules = service_rules([], {}, [])

    assert "ip daddr 10.78.0.0/16 meta l4proto tcp reject with tcp reset" in rules
    assert "ip6 daddr fd78::/112 meta l4proto tcp reject with tcp reset" in rules


def test_loading_the_rules_replaces_those_before() -> None:
    assert service_rules([], {}, []).startswith("table inet services\ndelete table inet services\n")
