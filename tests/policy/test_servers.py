from dataclasses import replace

import pytest

from tests.control_plane import web_pod, world_of
from tests.policy.objects import (
    account,
    identity,
    meta,
    object_name,
    outside,
    policy,
    rate_limit,
    route,
    rule,
    server,
    to_route,
    to_server,
)
from tulle.model.authorization import GATEWAY_GROUP, POLICY_GROUP, Network, RateLimitOverride
from tulle.model.external import WorkloadPort
from tulle.model.pod import Probe, TrustDomain
from tulle.model.ports import PortSet
from tulle.model.protocol import Protocol
from tulle.model.route import (
    BackendRef,
    Filter,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Mirror,
    ParentRef,
    PathMatch,
    Redirect,
    UnknownFilter,
    UrlRewrite,
)
from tulle.model.service import Namespace
from tulle.model.update import Object
from tulle.model.workload import LabelSelector
from tulle.model.world import pod_topic, policy_topic
from tulle.policy.authorizations import ANYONE, Authorization, DefaultPolicy, Origin
from tulle.policy.index import PolicyIndex, Unknown
from tulle.policy.servers import (
    DEFAULT_POLICY,
    REQUIRE_IDENTITY,
    Failure,
    InboundPort,
    InboundRule,
    RateLimit,
)

CLUSTER = ("10.0.0.0/8",)
CONTROLLER = "controller.example"
POD = web_pod(labels={"app": "web"})
READ = HttpMatch(PathMatch("prefix", "/read"))


def index_of(*objects: Object) -> PolicyIndex:
    return PolicyIndex(
        world_of(*objects),
        cluster_domain="cluster.local",
        cluster_networks=CLUSTER,
        default=DefaultPolicy.ALL_UNAUTHENTICATED,
        trust=TrustDomain(),
        controller=CONTROLLER,
    )


def inbound(port: int, *objects: Object) -> InboundPort:
    found, _ = index_of(*objects).inbound(POD.name, port)
    assert isinstance(found, InboundPort)
    return found


def by_default(port: int, *objects: Object) -> str:
    """Return the default policy that a port falls to."""
    found = inbound(port, *objects)
    assert found.server.kind == "default"
    return found.server.name


def owner_of(port: int, *objects: Object) -> str | None:
    """Return the Server that owns a port."""
    found = inbound(port, POD, *objects)
    return found.server.name if found.server.kind == "server" else None


def routes_of(*objects: Object, **changes: str) -> list[str]:
    return [each.origin.name for each in inbound(8080, POD, server(**changes), *objects).routes]


def test_the_default_policy_is_the_pod_s_else_its_namespace_s_else_the_mesh_s() -> None:
    namespace = Namespace("shop", {DEFAULT_POLICY: "cluster-authenticated"})
    annotated = replace(POD, annotations={DEFAULT_POLICY: "deny"})

    assert by_default(8080, POD) == "all-unauthenticated"
    assert by_default(8080, POD, namespace) == "cluster-authenticated"
    assert by_default(8080, annotated, namespace) == "deny"


def test_a_value_that_is_no_policy_counts_as_absent() -> None:
    assert by_default(8080, replace(POD, annotations={DEFAULT_POLICY: "allow-all"})) == "all-unauthenticated"


@pytest.mark.parametrize(
    ("default", "required"),
    [
        ("all-unauthenticated", "all-authenticated"),
        ("cluster-unauthenticated", "cluster-authenticated"),
        ("deny", "deny"),
        ("audit", "audit"),
    ],
)
def test_ports_may_require_an_identity(default: str, required: str) -> None:
    pod = replace(POD, annotations={DEFAULT_POLICY: default, REQUIRE_IDENTITY: "http"})

    assert by_default(8080, pod) == required
    assert by_default(9090, pod) == default


def test_opaque_ports_and_probes_belong_to_their_port() -> None:
    probes = (Probe(8080, "/ready?full=1"), Probe(8080, "/live"), Probe(9090, "/live"))
    pod = replace(POD, probes=probes, opaque_ports=PortSet.parse("5432"))

    probe, default = inbound(8080, pod).routes
    assert probe.origin == Origin("probe")
    assert probe.rules == (
        InboundRule(tuple(HttpMatch(PathMatch("exact", path), method="GET") for path in ("/live", "/ready"))),
    )
    assert [each.clients for each in probe.authorizations] == [ANYONE]
    assert default.origin == Origin("default")
    assert (inbound(5432, pod).protocol, inbound(5432, pod).routes) == (Protocol.OPAQUE, ())


def test_a_pod_that_is_not_there_is_unknown() -> None:
    assert isinstance(index_of().inbound(POD.name, 8080)[0], Unknown)


def test_a_server_owns_a_port_by_number_or_name_of_the_pods_that_it_selects() -> None:
    assert owner_of(8080, server()) == "web"
    assert owner_of(8080, server(port="http")) == "web"
    assert owner_of(8081, server()) is None
    assert owner_of(8080, server(port="grpc")) is None
    assert owner_of(8080, server(pods=LabelSelector())) == "web"
    assert owner_of(8080, server(pods=LabelSelector({"app": "till"}))) is None
    assert owner_of(8080, server(meta=meta("web", "other"))) is None


def test_a_port_s_name_stands_for_every_port_that_has_it() -> None:
    twice = replace(POD, further_ports=frozenset({("http", 9090)}))

    for port in (8080, 9090):
        assert inbound(port, twice, server(port="http")).server.name == "web"


def test_of_several_servers_the_oldest_then_the_first_by_name_owns_the_port() -> None:
    young = server(meta=meta("a", created="2026-02-01T00:00:00Z"))
    old = server(meta=meta("b", created="2026-01-01T00:00:00Z"))

    assert owner_of(8080, young, old) == "b"
    assert owner_of(8080, server("b"), server("a")) == "a"


@pytest.mark.parametrize(
    ("written", "protocol"),
    [
        ("unknown", Protocol.DETECT),
        ("HTTP/1", Protocol.HTTP1),
        ("HTTP/2", Protocol.HTTP2),
        ("gRPC", Protocol.GRPC),
        ("opaque", Protocol.OPAQUE),
        ("TLS", Protocol.TLS),
    ],
)
def test_a_server_s_protocol_alone_decides(written: str, protocol: Protocol) -> None:
    opaque = replace(POD, opaque_ports=PortSet.parse("8080"))

    assert inbound(8080, opaque, server(protocol=written)).protocol is protocol


def test_a_server_denies_unless_something_lets_in() -> None:
    assert inbound(8080, POD, server()).authorizations == ()
    assert len(inbound(8080, POD, server(), policy("all", to_server())).authorizations) == 1


def test_probes_stay_open_on_a_server_without_routes() -> None:
    probed = replace(POD, probes=(Probe(8080, "/live"),))

    assert [each.origin.name for each in inbound(8080, probed, server()).routes] == ["probe", "default"]
    attached = inbound(8080, probed, server(), route("read", rule(READ))).routes
    assert [each.origin.name for each in attached] == ["read"]


def test_a_route_brings_its_rules_and_those_whom_its_policies_let_in() -> None:
    there = inbound(
        8080,
        POD,
        server(),
        route("read", rule(READ), hostnames=("web.example",)),
        policy("readers", to_route("read"), account("reader")),
        policy("all-servers", to_server()),
    )

    (read,) = there.routes
    assert read.origin == Origin("read", "HTTPRoute", GATEWAY_GROUP)
    assert (read.rules, read.hostnames) == ((InboundRule((READ,)),), ("web.example",))
    assert [each.origin.name for each in read.authorizations] == ["readers"]
    assert [each.origin.name for each in there.authorizations] == ["all-servers"]


def test_routes_come_in_order_of_age() -> None:
    first = route("z", rule(), meta=meta("z", created="2026-01-01T00:00:00Z"))
    second = route("a", rule(), meta=meta("a", created="2026-01-02T00:00:00Z"))

    assert routes_of(second, first) == ["z", "a"]


@pytest.mark.parametrize(
    "parent",
    [
        ParentRef(POLICY_GROUP, "Server", "web", port=8080),
        ParentRef(POLICY_GROUP, "Server", "web", section="http"),
        ParentRef(POLICY_GROUP, "Server", "till"),
        ParentRef(POLICY_GROUP, "Server", "web", namespace="other"),
        ParentRef("", "Service", "web"),
    ],
)
def test_a_route_that_the_server_does_not_accept_does_not_count(parent: ParentRef) -> None:
    assert routes_of(route("read", rule(READ), parents=(parent,))) == ["default"]


def test_a_route_of_another_namespace_does_not_count() -> None:
    foreign = route(
        "read",
        rule(READ),
        meta=meta("read", "other"),
        parents=(ParentRef(POLICY_GROUP, "Server", "web", namespace="shop"),),
    )

    assert routes_of(foreign) == ["default"]


def test_grpc_routes_are_for_grpc_servers_and_http_routes_for_all_others() -> None:
    http = route("http", rule(READ))
    grpc = route("grpc", rule(GrpcMatch("Members", "Get")), kind="GRPCRoute")

    assert routes_of(grpc, protocol="gRPC") == ["grpc"]
    assert routes_of(http, protocol="gRPC") == []
    for protocol in ("unknown", "HTTP/1", "HTTP/2"):
        assert routes_of(http, protocol=protocol) == ["http"]
        assert routes_of(grpc, protocol=protocol) == ["default"]
    for protocol in ("opaque", "TLS"):
        assert routes_of(http, grpc, protocol=protocol) == []


REQUEST = HeaderModifier(response=False, set=(("x", "1"),))
RESPONSE = HeaderModifier(response=True, set=(("x", "1"),))
MIRROR = Mirror(BackendRef(to_server(), 80, 1, (), server().source))


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ((REQUEST, Redirect(port=1)), (REQUEST, Redirect(port=1))),
        ((RESPONSE, MIRROR), ()),
        ((UrlRewrite("h"),), (Failure("the filter URLRewrite is not for a Server's routes"),)),
        ((UnknownFilter("Teleport"),), (Failure("the filter Teleport is not known"),)),
    ],
)
def test_a_filter_that_cannot_be_done_fails_the_request(
    written: tuple[Filter, ...], kept: tuple[object, ...]
) -> None:
    (found,) = inbound(8080, POD, server(), route("read", rule(READ, filters=written))).routes

    assert found.rules == (InboundRule((READ,), kept),)  # type: ignore[arg-type]


def test_only_the_oldest_rate_limit_is_in_force() -> None:
    old = rate_limit("b", total=9, identity=3, created="2026-01-01T00:00:00Z")
    young = rate_limit("a", total=1, created="2026-01-02T00:00:00Z")
    override = RateLimitOverride(5, (account("till"), account("staff", "people")))

    assert inbound(8080, POD, server(), young, old).limit == RateLimit(
        Origin("b", "HTTPLocalRateLimitPolicy", POLICY_GROUP), 9, 3
    )
    limit = inbound(8080, POD, server(), rate_limit("a", overrides=(override,))).limit
    assert limit is not None
    assert limit.overrides == ((5, (identity("till"), identity("staff", "people"))),)


@pytest.mark.parametrize("protocol", ["gRPC", "opaque", "TLS"])
def test_a_protocol_without_http_requests_has_no_rate_limit(protocol: str) -> None:
    assert inbound(8080, POD, server(protocol=protocol), rate_limit("a", total=1)).limit is None


@pytest.mark.parametrize("protocol", ["", "unknown", "HTTP/1", "opaque", "TLS", "gRPC"])
@pytest.mark.parametrize("attached", [(), (route("read", rule(READ)),)])
def test_the_proxy_s_own_port_always_admits_the_controller_to_metrics_and_anyone_to_readiness(
    protocol: str, attached: tuple[Object, ...]
) -> None:
    pod = replace(POD, opaque_ports=PortSet.parse("4191"), annotations={DEFAULT_POLICY: "deny"})
    servers = (server(port="linkerd-admin", protocol=protocol),) if protocol else ()

    found = inbound(4191, pod, *servers, *attached)

    probe, metrics = found.routes[:2]
    paths = [match.path for match in probe.rules[0].matches if isinstance(match, HttpMatch)]
    assert paths == [PathMatch("exact", "/live"), PathMatch("exact", "/ready")]
    assert [each.clients for each in probe.authorizations] == [ANYONE]
    assert [each.clients.names for each in metrics.authorizations] == [(CONTROLLER,)]
    assert found.authorizations == ()
    assert found.server.kind == ("server" if protocol else "default")


def test_an_external_workload_has_servers_of_its_own_and_no_probes() -> None:
    vm = outside("vm", WorkloadPort(9000, "db"), app="web")
    mine = server(pods=None, external_workloads=LabelSelector({"app": "web"}), port="db")
    index = index_of(
        vm, mine, server(meta=meta("pods"), port=9000), Namespace("shop", {DEFAULT_POLICY: "deny"})
    )

    owned, topics = index.inbound(vm.name, 9000, external=True)
    fallen, _ = index.inbound(vm.name, 9001, external=True)

    assert isinstance(owned, InboundPort)
    assert isinstance(fallen, InboundPort)
    assert owned.server.name == "web"
    assert fallen.server.name == "deny"
    assert policy_topic("shop") in topics
    assert isinstance(index.inbound(object_name("absent"), 1, external=True)[0], Unknown)


def test_the_answer_depends_on_the_pod_and_on_the_policies_of_its_namespace() -> None:
    _, topics = index_of(POD).inbound(POD.name, 8080)

    assert topics == {pod_topic(POD.name), policy_topic("shop")}


def test_a_default_policy_admits_from_the_networks_that_its_name_says() -> None:
    pod = replace(POD, annotations={DEFAULT_POLICY: "cluster-unauthenticated"})

    assert inbound(8080, pod).authorizations == (
        Authorization(Origin("cluster-unauthenticated"), (Network("10.0.0.0/8"),), ANYONE),
    )
