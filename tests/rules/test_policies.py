"""Kinds other than routes, as they are decoded when nothing is wrong; and names that lead outside the input."""

from datetime import timedelta

import pytest

from tulle.model.authorization import (
    POLICY_GROUP,
    AuthorizationPolicy,
    EgressNetwork,
    MeshTLSAuthentication,
    Network,
    NetworkAuthentication,
    RateLimitOverride,
    RateLimitPolicy,
    Ref,
    Server,
    ServerAuthorization,
)
from tulle.model.external import ExternalWorkload, WorkloadPort
from tulle.model.profile import (
    Override,
    ProfileRoute,
    RequestMatch,
    ResponseClass,
    ResponseMatch,
    RetryBudget,
    ServiceProfile,
)
from tulle.model.service import ObjectName
from tulle.model.workload import LabelSelector
from tulle.rules.decode import decode


def only(kind: str, spec: str, version: str = f"{POLICY_GROUP}/v1alpha1", rest: str = "") -> object:
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web.shop.svc.x, namespace: shop}}\nspec: {spec}\n{rest}"
    (found,) = decode([("a.yaml", text)], whole=False).accepted()
    return found


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1", "v1beta2", "v1beta3"])
def test_a_server_is_read_in_every_version(version: str) -> None:
    found = only(
        "Server", "{podSelector: {matchLabels: {app: web}}, port: http}", f"{POLICY_GROUP}/{version}"
    )

    assert isinstance(found, Server)
    assert (found.port, found.protocol, found.access_policy) == ("http", "unknown", "deny")
    assert (found.pods, found.external_workloads) == (LabelSelector({"app": "web"}), None)


def test_a_server_may_be_about_external_workloads() -> None:
    found = only(
        "Server", "{externalWorkloadSelector: {}, port: 80, accessPolicy: audit}", f"{POLICY_GROUP}/v1beta3"
    )

    assert isinstance(found, Server)
    assert (found.pods, found.external_workloads, found.access_policy) == (None, LabelSelector(), "audit")


def test_a_server_authorization_names_accounts_of_its_own_namespace() -> None:
    found = only(
        "ServerAuthorization",
        "{server: {name: web}, client: {networks: [{cidr: 10.0.0.1, except: []}], meshTLS: {identities: ['*.x'], "
        "serviceAccounts: [{name: a}, {name: b, namespace: bank}]}}}",
        f"{POLICY_GROUP}/v1beta1",
    )

    assert isinstance(found, ServerAuthorization)
    assert (found.server, found.selector) == ("web", None)
    assert found.networks == (Network("10.0.0.1/32"),)
    assert found.identities == ("*.x",)
    assert found.service_accounts == (ObjectName("shop", "a"), ObjectName("bank", "b"))


def test_groups_and_kinds_of_references_are_spelled_in_any_way() -> None:
    found = only(
        "AuthorizationPolicy",
        "{targetRef: {group: Policy.Linkerd.IO, kind: server, name: web}, "
        "requiredAuthenticationRefs: [{group: core, kind: serviceaccount, name: a}]}",
    )

    assert isinstance(found, AuthorizationPolicy)
    assert found.target == Ref(POLICY_GROUP, "Server", "web")
    assert found.required == (Ref("", "ServiceAccount", "a"),)


def test_authentications_are_read() -> None:
    names = only("MeshTLSAuthentication", "{identities: ['*', '*.a.b', a, 'spiffe://root.test/a/b']}")
    refs = only(
        "MeshTLSAuthentication",
        "{identityRefs: [{kind: ServiceAccount, name: a}, {kind: Namespace, name: b}]}",
    )
    networks = only(
        "NetworkAuthentication", "{networks: [{cidr: 10.1.2.3/8, except: [10.1.0.0/16]}, {cidr: 'fd00::1'}]}"
    )

    assert isinstance(names, MeshTLSAuthentication)
    assert names.identities == ("*", "*.a.b", "a", "spiffe://root.test/a/b")
    assert isinstance(refs, MeshTLSAuthentication)
    assert refs.refs == (Ref("", "ServiceAccount", "a"), Ref("", "Namespace", "b"))
    assert isinstance(networks, NetworkAuthentication)
    assert networks.networks == (Network("10.0.0.0/8", ("10.1.0.0/16",)), Network("fd00::1/128"))


def test_a_limit_without_a_number_is_none() -> None:
    found = only(
        "HTTPLocalRateLimitPolicy",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: web}, total: {requestsPerSecond: 9}, "
        "overrides: [{requestsPerSecond: 3, clientRefs: [{kind: ServiceAccount, name: a, namespace: b}]}]}",
    )

    assert isinstance(found, RateLimitPolicy)
    assert (found.total, found.identity) == (9, None)
    assert found.overrides == (RateLimitOverride(3, (Ref("", "ServiceAccount", "a", "b"),)),)


def test_an_egress_network_without_networks_means_everything_outside() -> None:
    found = only("EgressNetwork", "{trafficPolicy: Allow}")

    assert isinstance(found, EgressNetwork)
    assert (found.allow, found.networks) == (True, None)


def test_a_profile_is_read() -> None:
    found = only(
        "ServiceProfile",
        "{routes: [{name: r, condition: {any: [{method: GET}, {not: {pathRegex: /b}}]}, isRetryable: true, timeout: 300ms, "
        "responseClasses: [{condition: {status: {max: 499}}, isFailure: true}]}], "
        "retryBudget: {retryRatio: 0.5, minRetriesPerSecond: 3, ttl: 1m}, "
        "dstOverrides: [{authority: 'a.b.svc.x:80', weight: 500m}, {authority: c.b.svc.x, weight: 2}]}",
        "linkerd.io/v1alpha2",
    )

    assert isinstance(found, ServiceProfile)
    condition = RequestMatch(
        any_of=(RequestMatch(method="GET"), RequestMatch(negated=RequestMatch(path_regex="/b")))
    )
    classes = (ResponseClass(ResponseMatch(status=(100, 499)), is_failure=True),)
    assert found.routes == (ProfileRoute("r", condition, classes, True, timedelta(milliseconds=300)),)
    assert found.budget == RetryBudget(0.5, 3, timedelta(minutes=1))
    assert found.overrides == (Override("a.b.svc.x:80", 500), Override("c.b.svc.x", 2000))


@pytest.mark.parametrize(("version", "field"), [("v1beta1", "meshTLS"), ("v1alpha1", "meshTls")])
def test_an_external_workload_is_ready_when_its_status_says_so(version: str, field: str) -> None:
    spec = f"{{{field}: {{identity: 'spiffe://a/b', serverName: b.test}}, ports: [{{port: 80, name: http}}], workloadIPs: [{{ip: 192.0.2.1}}]}}"
    ready = "status: {conditions: [{type: Ready, status: 'True'}]}"

    found = only("ExternalWorkload", spec, f"workload.linkerd.io/{version}", ready)
    other = only("ExternalWorkload", spec, f"workload.linkerd.io/{version}", ready.replace("True", "False"))

    assert isinstance(found, ExternalWorkload)
    assert (found.identity, found.server_name) == ("spiffe://a/b", "b.test")
    assert (found.ports, found.addresses) == ((WorkloadPort(80, "http"),), ("192.0.2.1",))
    assert found.ready
    assert isinstance(other, ExternalWorkload)
    assert not other.ready


OUTSIDE = """\
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: a, namespace: shop}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: webs}
  requiredAuthenticationRefs:
  - {group: policy.linkerd.io, kind: MeshTLSAuthentication, name: m, namespace: bank}
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: shop}
spec: {podSelector: {}, port: 80}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs:
  - {group: '', kind: Service, name: web}
  - {name: gateway}
  rules:
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}}}]
    backendRefs:
    - {name: web, port: 80}
    - {name: other, port: 80, namespace: bank}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
"""


def test_a_name_of_nothing_in_the_input_is_a_warning() -> None:
    found = decode([("a.yaml", OUTSIDE)], whole=False)

    assert found.problems == ()
    assert [str(remark) for remark in found.remarks] == [
        'a.yaml:5: spec.targetRef.name: there is no Server "webs" in namespace shop here; did you mean web?',
        'a.yaml:7: spec.requiredAuthenticationRefs[0].name: there is no MeshTLSAuthentication "m" in namespace bank here',
        'a.yaml:22: spec.rules[0].filters[0].requestMirror.backendRef.name: there is no Service "copy" in namespace shop here',
        'a.yaml:25: spec.rules[0].backendRefs[1].name: there is no Service "other" in namespace bank here',
    ]


POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: web}}
spec:
  containers:
  - {name: c, image: i, command: [x], envFrom: [{configMapRef: {name: settings}}], ports: [{name: http, containerPort: 80}]}
"""


def test_a_configuration_that_is_not_here_is_a_mistake_only_where_there_is_nothing_else() -> None:
    part = decode([("a.yaml", POD)], whole=False)
    whole = decode([("a.yaml", POD)])

    assert part.problems == ()
    assert [remark.severity for remark in part.remarks] == ["warning"]
    assert [problem.field for problem in whole.problems] == [
        "spec.containers[0].envFrom[0].configMapRef.name"
    ]


def test_a_parent_on_which_nothing_acts_is_a_warning() -> None:
    route = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs:
  - {name: web}
  - {kind: Server, name: web}
  - {group: policy.linkerd.io, kind: Service, name: web}
"""

    found = decode([("a.yaml", route)], whole=False)

    assert [str(remark) for remark in found.remarks] == [
        "a.yaml:6: spec.parentRefs[0]: nothing here acts on a route of a Gateway of the group "
        'gateway.networking.k8s.io; for a Service write group: "" and kind: Service',
        "a.yaml:7: spec.parentRefs[1]: nothing here acts on a route of a Server of the group "
        'gateway.networking.k8s.io; write group: "policy.linkerd.io"',
        "a.yaml:8: spec.parentRefs[2]: nothing here acts on a route of a Service of the group "
        'policy.linkerd.io; write group: ""',
    ]


def test_a_server_that_another_one_hides_is_named() -> None:
    servers = "".join(
        f"---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {{name: {name}}}\n"
        f"spec:\n  podSelector: {{matchLabels: {{app: web}}}}\n  port: {port}\n"
        for name, port in (("b", 80), ("a", "http"), ("c", 81))
    )

    found = decode([("a.yaml", POD.replace("envFrom: [{configMapRef: {name: settings}}], ", "") + servers)])

    assert [str(remark) for remark in found.remarks] == [
        'a.yaml:13: spec.port: Server "a" of a.yaml:15 selects this port too, and comes first'
    ]


def test_a_folder_of_many_servers_and_missing_names_is_checked_at_once() -> None:
    """It took minutes when each Server was compared with each other one, over all objects."""
    many = "".join(
        f"---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {{name: server-{number}}}\n"
        f"spec: {{podSelector: {{matchLabels: {{app: a{number}}}}}, port: 80}}\n"
        "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: a{number}}}\nspec:\n"
        f"  targetRef: {{group: policy.linkerd.io, kind: Server, name: sever-{number}}}\n"
        "  requiredAuthenticationRefs: []\n"
        for number in range(500)
    )

    found = decode([("a.yaml", many)], whole=False)

    assert len(found.remarks) == 500
    assert "did you mean server-0?" in str(found.remarks[0])
    assert "did you mean" not in str(found.remarks[-1])
