from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.control_plane import WEB, WEB_SERVICE, web_pod, world_of
from tulle.model.protocol import Protocol
from tulle.model.update import Object
from tulle.policy.targets import Egress, OutboundKey, ServiceTarget, TargetIndex, UndefinedPort, Unknown

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
POD = web_pod()


def index_of(*objects: Object) -> TargetIndex:
    return TargetIndex(world_of(*objects), cluster_domain="cluster.local", cluster_networks=NETWORKS)


def outbound(key: OutboundKey, *objects: Object) -> object:
    return index_of(*objects).find(key)[0]


def test_a_service_address_leads_to_the_service_in_both_families() -> None:
    target = ServiceTarget(WEB, 80, Protocol.DETECT)

    assert outbound(OutboundKey("10.78.0.5", 80), WEB_SERVICE) == target
    assert outbound(OutboundKey("fd78::5", 80), WEB_SERVICE) == target
    assert outbound(OutboundKey("10.78.0.5", 81), WEB_SERVICE) == UndefinedPort(WEB, 81)


def test_a_pod_s_address_is_for_the_profile_to_say() -> None:
    outside = web_pod(addresses=("192.0.2.9",))

    assert isinstance(outbound(OutboundKey("10.77.0.10", 8080), POD), Unknown)
    assert isinstance(outbound(OutboundKey("192.0.2.9", 8080), outside), Unknown)
    assert isinstance(outbound(OutboundKey("10.9.9.9", 8080)), Unknown)


def test_an_address_outside_the_cluster_is_egress() -> None:
    assert outbound(OutboundKey("192.0.2.7", 443)) == Egress("192.0.2.7", 443)
    assert outbound(OutboundKey("2001:db8::7", 443)) == Egress("2001:db8::7", 443)


@pytest.mark.parametrize(
    ("authority", "known"),
    [
        ("web.shop.svc.cluster.local", True),
        ("web.shop.svc.cluster.local:80", True),
        ("absent.shop.svc.cluster.local", False),
        ("web-0.web.shop.svc.cluster.local", False),
        ("10.78.0.5:80", False),
        ("example.org", False),
    ],
)
def test_a_service_may_be_asked_for_by_name(authority: str, known: bool) -> None:
    found = outbound(OutboundKey(authority=authority), WEB_SERVICE)

    assert isinstance(found, ServiceTarget) is known


def test_an_unknown_protocol_name_is_detected_and_reported() -> None:
    odd = replace(WEB_SERVICE, ports=(replace(WEB_SERVICE.ports[0], app_protocol="smoke-signals"),))
    index = index_of(odd)

    target, _ = index.find(OutboundKey("10.78.0.5", 80))

    assert target == ServiceTarget(WEB, 80, Protocol.DETECT)
    assert index.mistakes(target) == ("appProtocol 'smoke-signals' is not known; the protocol is detected",)
    assert index_of(WEB_SERVICE).mistakes(target) == ()
