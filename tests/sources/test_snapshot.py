import json
from typing import Any

import msgspec
import pytest

from tests.control_plane import WEB, web_pod, web_slice
from tulle.model.endpoint import Endpoint, Slice, SlicePort
from tulle.model.external import ExternalWorkload
from tulle.model.pod import Pod, Probe
from tulle.model.ports import DEFAULT_OPAQUE_PORTS, PortSet
from tulle.model.route import Route
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
        list(objects(decode(line)))


VM = {
    "apiVersion": "workload.linkerd.io/v1beta1",
    "kind": "ExternalWorkload",
    "metadata": {"name": "vm", "namespace": "shop", "labels": {"app": "web"}},
    "spec": {
        "meshTLS": {"identity": "vm.test", "serverName": "vm.test"},
        "ports": [{"name": "http", "port": 9090}],
        "workloadIPs": [{"ip": "192.0.2.7"}],
    },
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    "source": {"file": "vm.yaml", "line": 3},
}


def test_an_external_workload_stands_behind_a_service_with_its_own_port() -> None:
    workload, _, slice_ = (item for item in read([], VM, SERVICE) if not isinstance(item, Pod))

    assert isinstance(workload, ExternalWorkload)
    assert str(workload.source) == "vm.yaml:3"
    assert isinstance(slice_, Slice)
    assert slice_.ports == (SlicePort("http", 9090),)
    assert slice_.endpoints == (Endpoint("192.0.2.7", external=ObjectName("shop", "vm")),)


def test_an_external_workload_that_nobody_calls_ready_takes_no_traffic() -> None:
    (slice_,) = (item for item in read([], VM | {"status": {}}, SERVICE) if isinstance(item, Slice))

    assert [endpoint.ready for endpoint in slice_.endpoints] == [False]


def test_what_policies_and_services_are_annotated_with_arrives() -> None:
    annotated = {"name": "web", "namespace": "shop", "annotations": {"retry.linkerd.io/limit": "2"}}
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": annotated | {"creationTimestamp": "2026-01-31T12:00:00Z", "labels": {"a": "b"}},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}]},
        "source": {"file": "r.yaml", "line": 1},
    }

    found, service, *_ = read([], route, {**SERVICE, "metadata": annotated})

    assert isinstance(found, Route)
    assert found.meta.annotations == {"retry.linkerd.io/limit": "2"}
    assert (found.meta.created, found.meta.labels) == ("2026-01-31T12:00:00Z", {"a": "b"})
    assert "source" not in found.raw
    assert isinstance(service, Service)
    assert service.annotations == {"retry.linkerd.io/limit": "2"}


def test_a_pod_s_zone_is_a_hint_where_the_service_asks_for_its_topology() -> None:
    own = {
        **POD,
        "annotations": {"tulle.dev/zone": "a"},
        "labels": {"app": "web", "topology.kubernetes.io/zone": "z"},
    }
    labelled = {**POD, "name": "web-1", "addresses": ["10.77.0.11"], "labels": {**own["labels"]}}
    asking = {
        **SERVICE,
        "metadata": {**SERVICE["metadata"], "annotations": {"service.kubernetes.io/topology-mode": "Auto"}},  # type: ignore[dict-item]
    }

    def zones(service: dict[str, Any]) -> list[tuple[str | None, tuple[str, ...]]]:
        return [(of.zone, of.hints) for of in slices([own, labelled], service)[0].endpoints]

    assert zones(asking) == [("a", ("a",)), ("z", ("z",))]
    assert zones(SERVICE) == [("a", ()), ("z", ())]
