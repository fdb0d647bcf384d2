from dataclasses import replace

import pytest

from tests.control_plane import WEB, WEB_IDENTITY, WEB_SERVICE, web_pod, web_slice, world_of
from tulle.destination.index import (
    Ambiguous,
    Client,
    DestinationIndex,
    EmptyProfile,
    EndpointProfile,
    Peer,
    Resolution,
    ServiceProfile,
    Unknown,
)
from tulle.model.authority import AddressAuthority, ServiceAuthority
from tulle.model.endpoint import Endpoint, Slice, SlicePort
from tulle.model.external import ExternalWorkload, WorkloadPort
from tulle.model.objects import Metadata, Position
from tulle.model.pod import Owner, TrustDomain
from tulle.model.ports import PortSet
from tulle.model.service import ObjectName, Service, ServicePort
from tulle.model.update import Object

POD_LABELS = (
    ("namespace", "shop"),
    ("pod", "web-0"),
    ("serviceaccount", "web"),
    ("deployment", "web"),
    ("control_plane_ns", "linkerd"),
    ("zone_locality", "unknown"),
)
MESHED = Peer("10.77.0.10", 8080, POD_LABELS, identity=WEB_IDENTITY, h2=True, inbound_port=4143)
HTTP = ServiceAuthority(WEB, 80)


def index_of(*objects: Object) -> DestinationIndex:
    return DestinationIndex(world_of(*objects), TrustDomain(), cluster_domain="cluster.local")


def peers(*objects: Object, authority: ServiceAuthority = HTTP, client: Client = Client()) -> list[Peer]:
    resolution, _ = index_of(*objects).resolve(authority, client)
    assert isinstance(resolution, Resolution)
    return list(resolution.peers.values())


def profile(address: str, port: int, *objects: Object) -> object:
    return index_of(*objects).profile(AddressAuthority(address, port))[0]


def test_a_meshed_pod_is_reached_by_its_identity_through_its_inbound_port() -> None:
    pod = web_pod()

    assert peers(WEB_SERVICE, pod, web_slice(pod)) == [MESHED]


@pytest.mark.parametrize(("terminating", "expected"), [(False, MESHED.identity), (True, "vm.elsewhere")])
def test_an_external_workload_takes_no_living_pod_s_address(terminating: bool, expected: str) -> None:
    pod = web_pod(terminating=terminating)
    claimed = ExternalWorkload(
        Metadata("claim", "elsewhere", {}, {}),
        "vm.elsewhere",
        "vm.elsewhere",
        (WorkloadPort(8080),),
        (pod.addresses[0],),
        True,
        {},
        Position("claim.yaml", 1),
    )

    index = index_of(pod, claimed)
    found, _ = index.profile(AddressAuthority(pod.addresses[0], 8080), "elsewhere")

    assert isinstance(found, EndpointProfile)
    assert found.peer.identity == expected


def test_a_pod_without_a_proxy_has_neither_identity_nor_hints() -> None:
    pod = web_pod(meshed=False)

    (peer,) = peers(WEB_SERVICE, pod, web_slice(pod))

    labels = tuple(label for label in POD_LABELS if label[0] != "control_plane_ns")
    assert peer == Peer("10.77.0.10", 8080, labels)


def test_a_port_that_skips_the_proxy_is_unmeshed() -> None:
    pod = web_pod(skip_inbound_ports=PortSet.parse("8080"))

    (peer,) = peers(WEB_SERVICE, pod, web_slice(pod))

    assert peer == Peer("10.77.0.10", 8080, POD_LABELS)


def test_an_opaque_port_of_the_pod_is_not_upgraded() -> None:
    pod = web_pod(opaque_ports=PortSet.parse("http"))

    assert peers(WEB_SERVICE, pod, web_slice(pod)) == [replace(MESHED, opaque=True, h2=False)]


@pytest.mark.parametrize(("owner", "label"), [("StatefulSet", "statefulset"), ("Job", "k8s_job")])
def test_the_owner_s_kind_is_a_label(owner: str, label: str) -> None:
    pod = web_pod(owner=Owner(owner, "web"))

    (peer,) = peers(WEB_SERVICE, pod, web_slice(pod))

    assert (label, "web") in peer.labels


def test_of_a_pod_with_both_families_the_ipv4_address_is_named_in_either_order() -> None:
    pod = web_pod()

    assert peers(WEB_SERVICE, pod, web_slice(pod, family=6), web_slice(pod)) == [MESHED]
    assert peers(WEB_SERVICE, pod, web_slice(pod), web_slice(pod, family=6)) == [MESHED]


def test_a_pod_with_only_ipv6_is_named_by_it() -> None:
    pod = web_pod(addresses=("fd77::10",))

    assert peers(WEB_SERVICE, pod, web_slice(pod, family=6)) == [replace(MESHED, address="fd77::10")]


def test_a_service_without_a_ready_endpoint_is_empty_and_not_unknown() -> None:
    pod = web_pod()

    assert peers(WEB_SERVICE) == []
    assert peers(WEB_SERVICE, pod, web_slice(pod, ready=False)) == []
    assert isinstance(index_of().resolve(HTTP, Client())[0], Unknown)


def test_an_external_name_never_has_endpoints() -> None:
    service = replace(WEB_SERVICE, external_name="db.example.org")

    unknown, _ = index_of(service).resolve(HTTP, Client())

    assert isinstance(unknown, Unknown)
    assert unknown.final


def test_a_member_of_a_stateful_set_is_found_by_its_host_name() -> None:
    first, second = web_pod(0, hostname="web-0"), web_pod(1, hostname="web-1")
    objects = (WEB_SERVICE, first, second, web_slice(first, second))

    (peer,) = peers(*objects, authority=ServiceAuthority(WEB, 80, "web-1"))
    found, _ = index_of(*objects).profile(ServiceAuthority(WEB, 80, "web-1"))
    absent, _ = index_of(*objects).profile(ServiceAuthority(WEB, 80, "web-2"))

    assert peer.address == "10.77.0.11"
    assert found == EndpointProfile(peer)
    assert isinstance(absent, Unknown)


def test_a_port_that_the_service_does_not_define_is_the_endpoint_s_own() -> None:
    pod = web_pod()

    (peer,) = peers(WEB_SERVICE, pod, web_slice(pod), authority=ServiceAuthority(WEB, 9000))

    assert peer.port == 9000


def test_each_port_of_a_service_has_its_own_target() -> None:
    service = replace(WEB_SERVICE, ports=(ServicePort(80, "http"), ServicePort(81, "admin")))
    pod = web_pod()
    both = replace(web_slice(pod), ports=(SlicePort("http", 8080), SlicePort("admin", 9090)))

    (peer,) = peers(service, pod, both, authority=ServiceAuthority(WEB, 81))

    assert peer.port == 9090


def test_traffic_that_stays_on_the_node_goes_to_pods_of_the_client_s_node() -> None:
    service = replace(WEB_SERVICE, local_traffic_only=True)
    here, there = web_pod(0, node="a"), web_pod(1, node="b")

    found = peers(service, here, there, web_slice(here, there), client=Client(node="b"))

    assert [peer.address for peer in found] == ["10.77.0.11"]


@pytest.mark.parametrize(("client", "locality"), [("a", "local"), ("b", "remote"), (None, "unknown")])
def test_the_zone_is_compared_with_the_client_s(client: str | None, locality: str) -> None:
    pod = web_pod(zone="a")

    (peer,) = peers(WEB_SERVICE, pod, web_slice(pod), client=Client(zone=client))

    assert peer.labels[-2:] == (("zone", "a"), ("zone_locality", locality))


def test_an_endpoint_that_is_no_pod_is_an_address_and_no_more() -> None:
    foreign = Slice(ObjectName("shop", "x"), WEB, (SlicePort("http", 8080),), (Endpoint("192.0.2.7"),))

    assert peers(WEB_SERVICE, foreign) == [Peer("192.0.2.7", 8080, (("zone_locality", "unknown"),))]


def test_a_service_address_has_the_service_s_profile_in_both_families() -> None:
    assert profile("10.78.0.5", 80, WEB_SERVICE) == ServiceProfile(WEB, 80, opaque=False)
    assert profile("fd78::5", 80, WEB_SERVICE) == ServiceProfile(WEB, 80, opaque=False)


def test_a_service_address_with_an_undefined_port_has_an_empty_profile() -> None:
    assert profile("10.78.0.5", 81, WEB_SERVICE) == EmptyProfile()


def test_an_address_of_several_services_is_ambiguous() -> None:
    other = Service(ObjectName("shop", "other"), cluster_ips=("10.78.0.5",))

    assert isinstance(profile("10.78.0.5", 80, WEB_SERVICE, other), Ambiguous)


def test_a_pod_s_address_has_the_pod_as_its_endpoint() -> None:
    assert profile("10.77.0.10", 8080, web_pod()) == EndpointProfile(MESHED)
    assert profile("fd77::10", 8080, web_pod()) == EndpointProfile(replace(MESHED, address="fd77::10"))


def test_a_proxy_s_own_ports_are_reached_directly() -> None:
    admin, control = profile("10.77.0.10", 4191, web_pod()), profile("10.77.0.10", 4190, web_pod())

    assert admin == EndpointProfile(replace(MESHED, port=4191, h2=False, inbound_port=None))
    assert control == EndpointProfile(replace(MESHED, port=4190, inbound_port=None))


def test_an_address_that_is_nobody_s_is_an_endpoint_as_it_is() -> None:
    assert profile("192.0.2.7", 443) == EndpointProfile(Peer("192.0.2.7", 443))


def test_an_annotated_service_port_is_opaque_to_its_clients() -> None:
    service = replace(WEB_SERVICE, opaque_ports=PortSet.parse("80"))

    assert profile("10.78.0.5", 80, service) == ServiceProfile(WEB, 80, opaque=True)


def test_endpoints_with_hints_serve_the_zones_that_they_are_meant_for() -> None:
    here, there = web_pod(0, zone="a"), web_pod(1, zone="b")
    of = web_slice(here, there)
    first, second = of.endpoints
    hinted = replace(of, endpoints=(replace(first, hints=("a",)), replace(second, hints=("b", "c"))))
    partly = replace(of, endpoints=(replace(first, hints=("a",)), second))

    def addresses(of: Slice, zone: str | None) -> list[str]:
        return [peer.address for peer in peers(WEB_SERVICE, here, there, of, client=Client(zone=zone))]

    everything = ["10.77.0.10", "10.77.0.11"]
    assert addresses(hinted, "a") == ["10.77.0.10"]
    assert addresses(hinted, "c") == ["10.77.0.11"]
    assert addresses(hinted, "d") == everything
    assert addresses(hinted, None) == everything
    assert addresses(partly, "a") == everything
