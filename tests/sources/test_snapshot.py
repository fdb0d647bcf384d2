import json
from typing import Any

import msgspec
import pytest

from tests.control_plane import WEB, web_pod, web_slice
from tulle.model.endpoint import Slice
from tulle.model.pod import Pod, Probe
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.service import Namespace, ObjectName, Service, ServicePort
from tulle.sources.snapshot import decode, objects

POD = {
    "name": "web-0",
    "namespace": "shop",
    "labels": {"app": "web"},
    "annotations": {},
    "service_account": "web",
    "owner": {"kind": "Deployment", "name": "web"},
    "node": "local",
    "addresses": ["10.77.0.10", "fd77::10"],
    "ready": True,
    "terminating": False,
    "hostname": None,
    "subdomain": None,
    "meshed": True,
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    "probes": [{"port": 8080, "path": "/healthz"}],
    "opaque_ports": [],
    "skip_inbound_ports": ["4567"],
}
SERVICE = {
    "kind": "Service",
    "apiVersion": "v1",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "clusterIP": "10.78.0.5",
        "clusterIPs": ["10.78.0.5", "fd78::5"],
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
    },
    "source": {"file": "shop.yaml", "line": 1},
}


def read(pods: list[Any], *items: Any) -> list[object]:
    return list(objects(decode(json.dumps({"generation": 1, "objects": items, "pods": pods}).encode())))


def slices(pods: list[Any], service: dict[str, Any]) -> list[Slice]:
    return [item for item in read(pods, service) if isinstance(item, Slice)]


def spec(**changes: Any) -> dict[str, Any]:
    return {**SERVICE, "spec": {**SERVICE["spec"], **changes}}  # type: ignore[dict-item]


def test_a_pod_and_its_service_become_objects_and_slices_of_both_families() -> None:
    pod, service, ipv4, ipv6 = read([POD], SERVICE)

    assert pod == web_pod(
        addresses=("10.77.0.10", "fd77::10"),
        labels={"app": "web"},
        probes=(Probe(8080, "/healthz"),),
        skip_inbound_ports=PortSet.parse("4567"),
    )
    assert service == Service(WEB, (ServicePort(80, "http", "http"),), ("10.78.0.5", "fd78::5"))
    assert isinstance(pod, Pod)
    assert [ipv4, ipv6] == [web_slice(pod), web_slice(pod, family=6)]


@pytest.mark.parametrize("changes", [{"ready": False}, {"terminating": True}])
def test_a_pod_that_cannot_take_requests_stays_as_not_ready(changes: dict[str, Any]) -> None:
    (ipv4, _) = slices([POD | changes], SERVICE)
    assert [endpoint.ready for endpoint in ipv4.endpoints] == [False]

    (ipv4, _) = slices([POD | changes], spec(publishNotReadyAddresses=True))
    assert [endpoint.ready for endpoint in ipv4.endpoints] == [True]


def test_a_named_port_that_pods_number_differently_makes_slices() -> None:
    other = POD | {"name": "web-1", "addresses": ["10.77.0.11"], "ports": [{"name": "http", "port": 9090}]}

    found = slices([POD, other], spec(clusterIPs=["10.78.0.5"]))

    assert [(of.ports[0].number, [e.address for e in of.endpoints]) for of in found] == [
        (8080, ["10.77.0.10"]),
        (9090, ["10.77.0.11"]),
    ]


def test_a_port_s_name_that_two_containers_have_leads_to_the_first() -> None:
    ports = [{"name": "http", "port": 8080}, {"name": "http", "port": 9090}]

    pod, *_ = read([POD | {"ports": ports}])

    assert isinstance(pod, Pod)
    assert (pod.ports, pod.further_ports) == ({"http": 8080}, {("http", 9090)})


def test_a_headless_service_has_pods_of_both_families_and_their_names() -> None:
    pod = POD | {"hostname": "web-0", "subdomain": "web"}

    found = slices([pod], spec(clusterIP="None", clusterIPs=["None"]))

    assert [(e.address, e.hostname) for of in found for e in of.endpoints] == [
        ("10.77.0.10", "web-0"),
        ("fd77::10", "web-0"),
    ]


def test_pods_of_other_namespaces_and_labels_are_not_behind_the_service() -> None:
    strangers = [POD | {"namespace": "other"}, POD | {"name": "x", "labels": {"app": "x"}}]

    assert slices(strangers, SERVICE) == []


def test_opaque_ports_are_the_annotation_else_the_list_else_the_default() -> None:
    annotated = POD | {"annotations": {"config.linkerd.io/opaque-ports": "9000"}, "opaque_ports": [25]}

    def ports(raw: dict[str, Any]) -> PortSet:
        (pod,) = read([raw])
        assert isinstance(pod, Pod)
        return pod.opaque_ports

    assert ports(annotated) == PortSet.parse("9000")
    assert ports(POD | {"opaque_ports": [25, "587"]}) == PortSet.parse("25,587")
    assert ports(POD) == DEFAULT_OPAQUE_PORTS


def test_other_kinds_are_passed_over() -> None:
    account = {"kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "shop"}}
    namespace = {"kind": "Namespace", "metadata": {"name": "shop", "annotations": {"a": "b"}}}

    assert read([], account, namespace) == [Namespace("shop", {"a": "b"})]


def test_an_external_name_has_no_slices() -> None:
    service = spec(
        type="ExternalName", externalName="db.example.org", selector=None, clusterIP=None, clusterIPs=None
    )

    (found,) = read([POD], service)[1:]

    assert isinstance(found, Service)
    assert found.external_name == "db.example.org"
    assert found.name == ObjectName("shop", "web")


@pytest.mark.parametrize("line", [b"", b"{}", b'{"objects":[],"pods":[{}]}', b'{"objects":[{}],"pods":[]}'])
def test_a_line_that_is_no_snapshot_is_refused(line: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(line)
