"""Whether and how a pod is meshed."""

import json
from collections.abc import Mapping

import pytest

from tests.local.builders import one, pod
from tulle.model.ports import PortSet
from tulle.model.workload import Pod
from tulle.rules.injection import (
    Injection,
    Membership,
    Site,
    Subject,
    asks_for_injection,
    effective_annotations,
    inbound_ports,
    membership,
    plan,
)

SITE = Site(
    identity_address="10.77.0.2:8080",
    destination_address="10.77.0.2:8086",
    policy_address="10.77.0.2:8090",
    control_identity="linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local",
    trust_anchors="PEM",
    identity_folder="/tulle/identity",
    token_file="/tulle/token",
    cluster_networks=("10.0.0.0/8", "fd00::/8"),
    identity_suffix="serviceaccount.identity.linkerd.cluster.local",
    cluster_domain="cluster.local",
    has_proxy_uid=True,
)
PORTS = """command: ["true"]
    ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}, {name: db, containerPort: 5432}]
    readinessProbe: {httpGet: {path: /, port: 9000}}
    livenessProbe: {httpGet: {path: /, port: http}}"""


def planned(
    own: Mapping[str, str] | None = None,
    inherited: Mapping[str, str] | None = None,
    *,
    site: Site = SITE,
    member: Membership = Membership(True),
) -> Injection:
    lone = one(Pod, pod(container=PORTS))
    addresses = ("10.77.0.5", "fd77::5")

    def prefixed(annotations: Mapping[str, str] | None) -> dict[str, str]:
        return {f"config.linkerd.io/{key}": value for key, value in (annotations or {}).items()}

    return plan(
        Subject("lone", "default", "local", addresses, lone.spec, prefixed(own), prefixed(inherited)),
        site,
        member,
    )


def setting(
    name: str, own: Mapping[str, str] | None = None, inherited: Mapping[str, str] | None = None
) -> str | None:
    return planned(own, inherited).environment.get(f"LINKERD2_PROXY_{name}")


@pytest.mark.parametrize(
    ("own", "inherited", "otherwise", "expected"),
    [
        ("enabled", "disabled", False, True),
        ("ingress", "", False, True),
        ("disabled", "enabled", True, False),
        ("", "enabled", False, True),
        ("", "ingress", False, True),
        ("", "disabled", True, False),
        ("", "", False, False),
        ("", "", True, True),
        ("yes", "enabled", True, False),
        ("", "true", True, False),
    ],
)
def test_the_pod_decides_before_its_namespace(
    own: str, inherited: str, otherwise: bool, expected: bool
) -> None:
    lone = one(Pod, pod())

    member = membership(
        lone.spec,
        {"linkerd.io/inject": own} if own else {},
        {"linkerd.io/inject": inherited} if inherited else {},
        otherwise=otherwise,
    )

    assert member.meshed is expected
    assert bool(member.reason) is not expected


def test_a_pod_on_the_hosts_network_is_not_meshed() -> None:
    lone = one(Pod, pod(spec="hostNetwork: true"))

    assert not membership(lone.spec, {"linkerd.io/inject": "enabled"}, {}, otherwise=True).meshed


def test_a_pod_with_a_proxy_of_its_own_is_not_meshed() -> None:
    lone = one(Pod, pod(container="command: ['true']\n  - name: linkerd-proxy\n    command: ['true']"))

    assert membership(lone.spec, {}, {}, otherwise=True).reason == "it brings a proxy of its own"


def test_a_folder_chooses_whom_to_mesh_as_soon_as_one_object_asks_for_it() -> None:
    assert not asks_for_injection([{}, {"other": "x"}, {"linkerd.io/inject": "disabled"}])
    assert asks_for_injection([{}, {"linkerd.io/inject": "enabled"}])
    assert asks_for_injection([{}, {"linkerd.io/inject": "ingress"}])


def test_a_namespace_hands_on_its_settings_and_nothing_else() -> None:
    inherited = {
        "config.linkerd.io/opaque-ports": "1",
        "config.linkerd.io/enable-gateway": "true",
        "linkerd.io/inject": "enabled",
        "team": "a",
    }

    assert effective_annotations({"config.linkerd.io/opaque-ports": "2", "own": "x"}, inherited) == {
        "config.linkerd.io/opaque-ports": "2",
        "linkerd.io/inject": "enabled",
        "own": "x",
    }


def test_the_proxy_is_told_who_the_pod_is() -> None:
    environment = planned().environment

    assert planned().identity == "default.default.serviceaccount.identity.linkerd.cluster.local"
    assert environment["LINKERD2_PROXY_IDENTITY_LOCAL_NAME"] == planned().identity
    assert json.loads(environment["LINKERD2_PROXY_POLICY_WORKLOAD"]) == {"ns": "default", "pod": "lone"}
    assert json.loads(environment["LINKERD2_PROXY_DESTINATION_CONTEXT"]) == {
        "ns": "default",
        "nodeName": "local",
        "pod": "lone",
    }
    assert environment["LINKERD2_PROXY_INBOUND_IPS"] == "10.77.0.5,fd77::5"


def test_the_ports_to_know_from_the_start_are_those_of_containers_and_probes() -> None:
    assert inbound_ports(one(Pod, pod(container=PORTS)).spec) == {8080, 5432, 9000}
    assert setting("INBOUND_PORTS") == "5432,8080,9000"


@pytest.mark.parametrize(
    ("annotation", "value", "name", "expected"),
    [
        ("proxy-log-level", "debug", "LOG", "debug,[{headers}]=off,[{request}]=off"),
        ("proxy-log-http-headers", "insecure", "LOG", "warn,linkerd=info,tulle=info,hickory=error"),
        ("proxy-log-format", "json", "LOG_FORMAT", "json"),
        ("access-log", "apache", "ACCESS_LOG", "apache"),
        ("proxy-admin-shutdown", "enabled", "SHUTDOWN_ENDPOINT_ENABLED", "true"),
        ("shutdown-grace-period", "1m30s", "SHUTDOWN_GRACE_PERIOD", "90000ms"),
        ("default-inbound-policy", "deny", "INBOUND_DEFAULT_POLICY", "deny"),
        ("inbound-port", "5143", "INBOUND_LISTEN_ADDR", "[::]:5143"),
        ("outbound-port", "5140", "OUTBOUND_LISTEN_ADDRS", "127.0.0.1:5140,[::1]:5140"),
        ("admin-port", "5191", "ADMIN_LISTEN_ADDR", "[::]:5191"),
        ("control-port", "5190", "CONTROL_LISTEN_ADDR", "[::]:5190"),
        ("opaque-ports", "db,9-10", "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", "9-10,5432"),
        ("proxy-outbound-connect-timeout", "2s", "OUTBOUND_CONNECT_TIMEOUT", "2000ms"),
        ("proxy-inbound-connect-timeout", "0.5s", "INBOUND_CONNECT_TIMEOUT", "500ms"),
        ("proxy-outbound-discovery-cache-unused-timeout", "1m", "OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "60s"),
        ("proxy-inbound-discovery-cache-unused-timeout", "10s", "INBOUND_DISCOVERY_IDLE_TIMEOUT", "10s"),
        ("proxy-disable-outbound-protocol-detect-timeout", "true", "OUTBOUND_DETECT_TIMEOUT", "365d"),
        ("proxy-disable-inbound-protocol-detect-timeout", "true", "INBOUND_DETECT_TIMEOUT", "365d"),
        ("enable-external-profiles", "true", "DESTINATION_PROFILE_SUFFIXES", "."),
        ("enable-gateway", "true", "INBOUND_GATEWAY_SUFFIXES", "svc.cluster.local."),
        ("proxy-metrics-hostname-labels", "T", "OUTBOUND_METRICS_HOSTNAME_LABELS", "true"),
        ("proxy-cpu-request", "1500m", "CORES_MIN", "2"),
        ("proxy-cpu-limit", "3", "CORES_MAX", "3"),
        ("proxy-cpu-ratio-limit", "0.5", "CORES_MAX_RATIO", "0.5"),
    ],
)
def test_an_annotation_sets_what_it_says(annotation: str, value: str, name: str, expected: str) -> None:
    assert setting(name, {annotation: value}) == expected


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("proxy-log-format", "xml"),
        ("default-inbound-policy", "allow"),
        ("inbound-port", "99999"),
        ("shutdown-grace-period", "soon"),
        ("proxy-await", "yes"),
        ("proxy-cpu-limit", "many"),
        ("proxy-cpu-ratio-limit", "2"),
        ("proxy-metrics-hostname-labels", "maybe"),
        ("skip-subnets", "10.0.0.0/99"),
        ("proxy-uid", "0"),
        ("proxy-additional-env", "{"),
        ("proxy-additional-env", '[{"name": "A", "valueFrom": {}}]'),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named(annotation: str, value: str) -> None:
    injection = planned({annotation: value})

    (remark,) = injection.remarks
    assert annotation in remark
    assert "left out" in remark
    assert injection.environment == planned().environment
    assert injection.firewall == planned().firewall


def test_the_pods_value_comes_before_the_namespaces() -> None:
    assert setting("LOG_FORMAT", {"proxy-log-format": "plain"}, {"proxy-log-format": "json"}) == "plain"
    assert setting("LOG_FORMAT", {}, {"proxy-log-format": "json"}) == "json"


def test_additional_variables_are_merged_by_name_and_win() -> None:
    injection = planned(
        {
            "proxy-additional-env": '[{"name": "LINKERD2_PROXY_LOG", "value": "trace"}, {"name": "A", "value": "pod"}]'
        },
        {"proxy-additional-env": '[{"name": "A", "value": "ns"}, {"name": "B", "value": "ns"}]'},
    )

    environment = injection.environment
    assert [environment[name] for name in ("LINKERD2_PROXY_LOG", "A", "B")] == ["trace", "pod", "ns"]


def test_the_rules_follow_the_annotations() -> None:
    firewall = planned(
        {
            "skip-inbound-ports": "db,22",
            "skip-outbound-ports": "25",
            "skip-subnets": "10.1.2.3/16",
            "proxy-uid": "3000",
            "admin-port": "5191",
        }
    ).firewall

    assert firewall.skip_inbound == PortSet.parse("22,5432")
    assert firewall.skip_outbound == PortSet.parse("25")
    assert firewall.skip_subnets == ("10.1.0.0/16",)
    assert firewall.proxy_uid == 3000
    assert firewall.own_ports == (4190, 5191)


def test_ingress_mode_is_told_to_the_proxy() -> None:
    injection = planned(member=Membership(True, ingress=True))

    assert injection.environment["LINKERD2_PROXY_INGRESS_MODE"] == "true"
    assert "LINKERD2_PROXY_INGRESS_MODE" not in planned().environment


def test_without_a_uid_of_its_own_the_proxy_marks_its_packets() -> None:
    site = Site(**{name: getattr(SITE, name) for name in SITE.__slots__} | {"has_proxy_uid": False})

    injection = planned(site=site)

    assert injection.environment["TULLE_PROXY_MARK"] == str(0x2D4C)
    assert injection.firewall.proxy_uid is None
    assert "TULLE_PROXY_MARK" not in planned().environment


def test_the_application_may_start_before_the_proxy_where_it_is_told_to() -> None:
    assert planned().wait_until_ready
    assert not planned({"proxy-await": "disabled"}).wait_until_ready


@pytest.mark.parametrize("level", ["pod", "namespace"])
def test_requests_may_be_watched_by_the_controller_unless_somebody_says_no(level: str) -> None:
    lone = one(Pod, pod(container=PORTS))
    no = {"viz.linkerd.io/disable-tap": "true"}

    own, inherited = (no, {}) if level == "pod" else ({}, no)
    untapped = plan(
        Subject("lone", "default", "local", ("10.77.0.5", "fd77::5"), lone.spec, own, inherited),
        SITE,
        Membership(True),
    )

    assert setting("TAP_SVC_NAME") == SITE.control_identity
    assert "LINKERD2_PROXY_TAP_SVC_NAME" not in untapped.environment


def test_a_traced_pod_describes_itself() -> None:
    lone = one(Pod, pod(container=PORTS))
    collector = {"name": "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR", "value": "collector:4317"}
    annotations = {
        "config.linkerd.io/proxy-additional-env": json.dumps([collector]),
        "resource.opentelemetry.io/deployment.environment": "test",
    }
    labels = {"app.kubernetes.io/name": "web"}
    addresses = ("10.77.0.5", "fd77::5")

    traced = plan(
        Subject("lone", "default", "local", addresses, lone.spec, annotations, {}, labels),
        SITE,
        Membership(True),
    )

    assert traced.environment["LINKERD2_PROXY_TRACE_SERVICE_NAME"] == "web"
    assert traced.environment["LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES"].splitlines() == [
        'k8s.pod.name="lone"',
        'k8s.namespace.name="default"',
        'k8s.container.name="linkerd-proxy"',
        'deployment.environment="test"',
    ]
    assert setting("TRACE_SERVICE_NAME") is None
