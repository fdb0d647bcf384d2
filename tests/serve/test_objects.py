import ipaddress
from typing import Any, get_args

from tests.control_plane import WEB_SERVICE, world_of
from tulle.model.objects import Position
from tulle.model.policies import Policy
from tulle.model.update import Object
from tulle.rules.decode import decode_value
from tulle.serve.objects import find

CLUSTER = (ipaddress.ip_network("10.0.0.0/8"),)
GATEWAY, POLICY = "gateway.networking.k8s.io/v1", "policy.linkerd.io/v1alpha1"
THEIRS = {"controllerName": "x/y", "parentRef": {"name": "gateway"}, "conditions": []}


def manifest(kind: str, spec: dict[str, Any], version: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": spec,
        **more,
    }


ROUTE = manifest(
    "HTTPRoute",
    {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}]},
    GATEWAY,
    status={"parents": [THEIRS, {"controllerName": "linkerd.io/policy-controller", "conditions": []}]},
)
LIMIT = manifest(
    "HTTPLocalRateLimitPolicy",
    {"targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "s"}},
    POLICY,
)
WORKLOAD = manifest(
    "ExternalWorkload",
    {"meshTLS": {"identity": "a", "serverName": "a"}},
    "workload.linkerd.io/v1beta1",
    status={"conditions": [{"type": "Ready", "status": "True"}]},
)


def of(kind: str, *written: dict[str, Any], **chosen: str) -> list[dict[str, Any]]:
    objects: list[Object] = [WEB_SERVICE]
    for each in written:
        item = decode_value(each, Position("a.yaml", 7))
        assert isinstance(item, get_args(Policy))
        objects.append(item)  # type: ignore[arg-type]
    where = {"namespace": None, "name": None} | chosen
    return list(find(world_of(*objects), CLUSTER, kind, **where))


def test_a_route_has_our_status_beside_that_of_other_controllers() -> None:
    (found,) = of("HTTPRoute", ROUTE)

    assert found["source"] == "a.yaml:7"
    assert {key: value for key, value in found["object"].items() if key != "status"} == {
        key: value for key, value in ROUTE.items() if key != "status"
    }
    accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}
    resolved = accepted | {"type": "ResolvedRefs", "reason": "ResolvedRefs"}
    assert found["object"]["status"] == {
        "parents": [
            THEIRS,
            {
                "parentRef": {
                    "group": "core",
                    "kind": "Service",
                    "namespace": "shop",
                    "name": "web",
                    "port": 80,
                },
                "controllerName": "linkerd.io/policy-controller",
                "conditions": [accepted, resolved],
            },
        ]
    }


def test_a_limit_names_its_target_in_its_status() -> None:
    (found,) = of("HTTPLocalRateLimitPolicy", LIMIT)

    assert found["object"]["status"]["targetRef"] == {
        "group": "policy.linkerd.io",
        "kind": "Server",
        "name": "s",
    }
    assert found["object"]["status"]["conditions"][0]["reason"] == "NoMatchingTarget"


def test_the_status_of_an_external_workload_is_its_owner_s() -> None:
    (found,) = of("ExternalWorkload", WORKLOAD)

    assert found["object"] == WORKLOAD


def test_a_service_is_shown_as_far_as_it_is_known() -> None:
    (found,) = of("Service")

    assert found["object"]["metadata"]["name"] == "web"
    assert found["object"]["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    ]
    assert found["object"]["status"] == {"conditions": []}


def test_kind_group_namespace_and_name_choose() -> None:
    ours = ROUTE | {"apiVersion": "policy.linkerd.io/v1beta3"}

    assert len(of("HTTPRoute", ROUTE, ours)) == 2
    assert [each["object"]["apiVersion"] for each in of("HTTPRoute.policy.linkerd.io", ROUTE, ours)] == [
        "policy.linkerd.io/v1beta3"
    ]
    assert of("HTTPRoute", ROUTE, name="b") == []
    assert of("HTTPRoute", ROUTE, namespace="bank") == []
    assert len(of("HTTPRoute", ROUTE, namespace="shop", name="a")) == 1
    assert of("GRPCRoute", ROUTE) == []
