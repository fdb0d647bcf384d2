from dataclasses import replace

from tests.control_plane import WEB, WEB_SERVICE, web_pod, web_slice, world_of
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.service import Namespace, ObjectName
from tulle.model.update import Changed, Object, Removed, key_of
from tulle.model.world import address_topic, pod_topic, service_topic

OPAQUE = "config.linkerd.io/opaque-ports"


def test_a_service_touches_itself_and_its_addresses_old_and_new() -> None:
    world = world_of(WEB_SERVICE)

    touched = world.apply([Changed(replace(WEB_SERVICE, cluster_ips=("10.78.0.6",)))])

    addresses = ("10.78.0.5", "fd78::5", "10.78.0.6")
    assert touched == {service_topic(WEB), *map(address_topic, addresses)}
    assert world.services_at("10.78.0.5") == []
    assert [service.name for service in world.services_at("10.78.0.6")] == [WEB]


def test_a_pod_touches_the_services_that_it_stands_behind() -> None:
    pod = web_pod()
    world = world_of(WEB_SERVICE, pod, web_slice(pod))

    assert service_topic(WEB) in world.apply([Changed(replace(pod, service_account="other"))])

    world.apply([Removed(key_of(web_slice(pod)))])
    assert service_topic(WEB) not in world.apply([Removed(key_of(pod))])


def test_a_pod_may_come_after_the_slice_that_names_it() -> None:
    pod = web_pod()
    world = world_of(web_slice(pod))

    assert service_topic(WEB) in world.apply([Changed(pod)])


def test_an_address_that_two_pods_have_belongs_to_the_one_that_lives() -> None:
    ending, fresh = web_pod(0, terminating=True), web_pod(1, addresses=("10.77.0.10",))

    world = world_of(ending, fresh)

    assert world.pod_at("10.77.0.10") == fresh
    world.apply([Removed(key_of(fresh))])
    assert world.pod_at("10.77.0.10") == ending


def test_a_slice_that_moves_to_another_service_touches_both() -> None:
    pod = web_pod()
    world = world_of(web_slice(pod))
    other = ObjectName("shop", "other")

    touched = world.apply([Changed(replace(web_slice(pod), service=other))])

    assert touched == {service_topic(WEB), service_topic(other)}
    assert list(world.slices(WEB)) == []


def test_a_namespace_touches_all_that_inherits_from_it() -> None:
    world = world_of(WEB_SERVICE, web_pod())

    touched = world.apply([Changed(Namespace("shop", {OPAQUE: "9000"}))])

    assert {service_topic(WEB), pod_topic(web_pod().name), address_topic("10.78.0.5")} <= touched


def test_opaque_ports_are_the_service_s_else_its_namespace_s_else_the_default() -> None:
    world = world_of(WEB_SERVICE)
    assert world.opaque_ports(WEB_SERVICE) == DEFAULT_OPAQUE_PORTS

    world.apply([Changed(Namespace("shop", {OPAQUE: "9000"}))])
    assert world.opaque_ports(WEB_SERVICE) == PortSet.parse("9000")

    assert world.opaque_ports(replace(WEB_SERVICE, opaque_ports=PortSet())) == PortSet()


def test_what_was_removed_leaves_nothing_behind() -> None:
    pod = web_pod()
    objects: list[Object] = [WEB_SERVICE, pod, web_slice(pod), Namespace("shop")]
    world = world_of(*objects)

    world.apply([Removed(key_of(item)) for item in objects])

    assert world.policies() == ()
    dictionaries = {name: value for name, value in vars(world).items() if isinstance(value, dict)}
    assert {name: {key: at for key, at in of.items() if at} for name, of in dictionaries.items()} == {
        name: {} for name in dictionaries
    }
    assert len(dictionaries) >= 8
