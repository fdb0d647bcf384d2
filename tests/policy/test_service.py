import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
import structlog

from tests.control_plane import WEB_SERVICE, code_of, open_gate, served, stub, web_pod
from tests.policy.objects import WHERE, by_name, meta, names, outside, policy, route, rule, server, to_server
from tulle.lib.stream import Gate
from tulle.model.authorization import EgressNetwork, Ref
from tulle.model.external import WorkloadPort
from tulle.model.pod import TrustDomain
from tulle.model.route import BackendRef, ParentRef, UrlRewrite
from tulle.model.service import Namespace, ObjectName
from tulle.model.update import Changed, Object, Removed, key_of
from tulle.model.workload import LabelSelector
from tulle.model.world import World
from tulle.policy.authorizations import DefaultPolicy
from tulle.policy.index import PolicyIndex
from tulle.policy.servers import DEFAULT_POLICY
from tulle.policy.service import PolicyService
from tulle.wire import inbound_pb2, outbound_pb2
from tulle.wire.addresses import to_wire_port
from tulle.wire.inbound_pb2_grpc import InboundServerPoliciesStub
from tulle.wire.outbound_pb2_grpc import OutboundPoliciesStub

POD = web_pod()
PARENT = ParentRef("", "Service", "web")
WORKLOAD = '{"ns":"shop","pod":"web-0"}'


@dataclass
class Mesh:
    world: World
    service: PolicyService
    inbound: Any
    outbound: Any

    def change(self, *objects: Object) -> None:
        self.service.touch(set(self.world.apply([Changed(item) for item in objects])))

    def remove(self, item: Object) -> None:
        self.service.touch(set(self.world.apply([Removed(key_of(item))])))

    def watch_port(self, port: int = 8080, workload: str = WORKLOAD) -> Any:
        return self.inbound.WatchPort(inbound_pb2.PortSpec(workload=workload, port=port))

    def watch(self, address: str, port: int = 80, *, workload: str = WORKLOAD, **options: Any) -> Any:
        asked = outbound_pb2.TrafficSpec(source_workload=workload, addr=to_wire_port(address, port))
        return self.outbound.Watch(asked, **options)


@asynccontextmanager
async def mesh(*objects: Object, gate: Gate | None = None, patience: float = 0) -> AsyncIterator[Mesh]:
    networks = ("10.0.0.0/8", "fd00::/8")
    world = World()
    world.apply([Changed(item) for item in objects])
    service = PolicyService(
        PolicyIndex(
            world,
            cluster_domain="cluster.local",
            cluster_networks=networks,
            default=DefaultPolicy.ALL_UNAUTHENTICATED,
            trust=TrustDomain(),
            controller="controller.example",
        ),
        gate or open_gate(),
        cluster_domain="cluster.local",
        patience=patience,
    )
    async with served(service.handlers()) as channel:
        yield Mesh(
            world, service, stub(InboundServerPoliciesStub, channel), stub(OutboundPoliciesStub, channel)
        )


async def test_a_port_s_policy_comes_at_once_and_again_when_it_changes() -> None:
    async with mesh(POD) as shop:
        stream = shop.watch_port()
        first = await stream.read()

        shop.change(replace(POD, node="elsewhere"))
        shop.change(replace(POD, annotations={DEFAULT_POLICY: "deny"}))
        second = await stream.read()

        assert first.labels["name"] == "all-unauthenticated"
        assert second.labels["name"] == "deny"


async def test_an_external_workload_asks_by_a_name_of_its_own_kind() -> None:
    machine = outside("vm", WorkloadPort(8080, "http"), app="web")
    workload = '{"ns":"shop","external_workload":"vm"}'
    async with mesh(machine, Namespace("shop", {DEFAULT_POLICY: "deny"})) as shop:
        stream = shop.watch_port(workload=workload)
        first = await stream.read()

        shop.change(server(pods=None, external_workloads=LabelSelector({"app": "web"}), port="http"))
        second = await stream.read()
        shop.change(Namespace("shop", {}), replace(machine, meta=replace(machine.meta, labels={})))
        third = await stream.read()
        shop.remove(machine)

        assert [each.labels["name"] for each in (first, second, third)] == [
            "deny",
            "web",
            "all-unauthenticated",
        ]
        assert await code_of(stream) is grpc.StatusCode.NOT_FOUND


async def test_an_authentication_of_another_namespace_is_followed() -> None:
    staff = names("staff", "*", namespace="people")
    async with mesh(replace(POD, labels={"app": "web"}), server()) as shop:
        stream = shop.watch_port()
        lengths = [len((await stream.read()).authorizations)]
        shop.change(policy("staff", to_server(), by_name("staff", "people")))
        shop.change(staff)
        lengths.append(len((await stream.read()).authorizations))
        shop.remove(staff)
        lengths.append(len((await stream.read()).authorizations))

        assert lengths == [0, 1, 0]


async def test_a_pod_that_is_not_there_is_not_found() -> None:
    async with mesh() as shop:
        assert await code_of(shop.watch_port()) is grpc.StatusCode.NOT_FOUND


async def test_a_pod_whose_news_come_a_little_later_than_its_proxy_is_waited_for() -> None:
    async with mesh(patience=60) as shop:
        answer = asyncio.ensure_future(shop.watch_port().read())
        while not shop.service.inbound.followers:  # noqa: ASYNC110  # the begin of a call has no event
            await asyncio.sleep(0)

        shop.change(POD)

        assert (await answer).labels["name"] == "all-unauthenticated"


@pytest.mark.parametrize(("port", "workload"), [(0, WORKLOAD), (65536, WORKLOAD), (80, "{}"), (80, "")])
async def test_a_port_or_workload_that_cannot_be_read_is_final(port: int, workload: str) -> None:
    async with mesh(POD) as shop:
        assert await code_of(shop.watch_port(port, workload)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_target_that_cannot_be_read_is_final() -> None:
    async with mesh() as shop:
        empty = shop.outbound.Watch(outbound_pb2.TrafficSpec())
        portless = shop.watch("10.78.0.5", 0)

        assert await code_of(empty) is grpc.StatusCode.INVALID_ARGUMENT
        assert await code_of(portless) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_service_s_policy_follows_its_port() -> None:
    async with mesh(WEB_SERVICE) as shop:
        stream = shop.watch("10.78.0.5")
        kinds = [(await stream.read()).protocol.WhichOneof("kind")]
        for name in ("grpc", "https"):
            shop.change(replace(WEB_SERVICE, ports=(replace(WEB_SERVICE.ports[0], app_protocol=name),)))
            kinds.append((await stream.read()).protocol.WhichOneof("kind"))

        assert kinds == ["detect", "grpc", "tls"]


async def test_an_address_that_ceases_to_be_a_service_s_is_left_to_the_profile() -> None:
    async with mesh(WEB_SERVICE) as shop:
        stream = shop.watch("10.78.0.5")
        await stream.read()

        shop.remove(WEB_SERVICE)

        assert await code_of(stream) is grpc.StatusCode.NOT_FOUND
        assert await code_of(shop.watch("10.77.0.10")) is grpc.StatusCode.NOT_FOUND


async def test_the_unary_calls_answer_the_same() -> None:
    async with mesh(WEB_SERVICE, POD) as shop:
        port = inbound_pb2.PortSpec(workload=WORKLOAD, port=8080)
        target = outbound_pb2.TrafficSpec(authority="web.shop.svc.cluster.local")

        assert await shop.inbound.GetPort(port) == await shop.watch_port().read()
        assert await shop.outbound.Get(target) == await shop.watch("10.78.0.5").read()
        assert await code_of(shop.inbound.GetPort(inbound_pb2.PortSpec())) is grpc.StatusCode.INVALID_ARGUMENT


async def test_no_policy_is_sent_before_the_world_is_known() -> None:
    gate = Gate()
    async with mesh(gate=gate) as shop:
        inbound = asyncio.ensure_future(shop.watch_port().read())
        outbound = asyncio.ensure_future(shop.watch("10.78.0.5").read())
        assert await code_of(shop.watch_port(0)) is grpc.StatusCode.INVALID_ARGUMENT
        assert not inbound.done()
        assert not outbound.done()

        shop.change(POD, WEB_SERVICE)
        gate.open()

        assert (await inbound).labels["name"] == "all-unauthenticated"
        assert (await outbound).metadata.resource.name == "web"


async def test_a_protocol_name_that_is_not_known_is_reported_once() -> None:
    odd = replace(WEB_SERVICE, ports=(replace(WEB_SERVICE.ports[0], app_protocol="smoke-signals"),))
    with structlog.testing.capture_logs() as logs:
        async with mesh(odd) as shop:
            await shop.watch("10.78.0.5").read()
            await shop.watch("fd78::5").read()

    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["parent"] for entry in warnings] == ["shop/web"]


def http_routes(policy: outbound_pb2.OutboundPolicy) -> list[str]:
    return [route.metadata.resource.name for route in policy.protocol.detect.http1.routes]


async def test_a_route_and_the_service_behind_it_are_pushed() -> None:
    split = route(
        "split",
        rule(backends=(BackendRef(Ref("", "Service", "canary"), 80, 1, (), WHERE),)),
        parents=(PARENT,),
    )
    async with mesh(WEB_SERVICE) as shop:
        stream = shop.watch("10.78.0.5")
        assert http_routes(await stream.read()) == [""]

        shop.change(split)
        lost = await stream.read()
        shop.change(replace(WEB_SERVICE, name=ObjectName("shop", "canary"), cluster_ips=()))
        found = await stream.read()
        shop.remove(split)
        without = await stream.read()

    def backend(policy: outbound_pb2.OutboundPolicy) -> str:
        (rule,) = policy.protocol.detect.http1.routes[0].rules
        (choice,) = rule.backends.random_available.backends
        return choice.backend.backend.balancer.discovery.dst.path

    assert (backend(lost), backend(found)) == ("", "canary.shop.svc.cluster.local:80")
    assert http_routes(without) == [""]


async def test_a_client_whose_namespace_gets_routes_of_its_own_changes_over_on_its_stream() -> None:
    consumer = route("own", rule(), meta=meta("own", "depot"), parents=(replace(PARENT, namespace="shop"),))
    producer = route("all", rule(), parents=(PARENT,))
    async with mesh(WEB_SERVICE) as shop:
        depot = shop.watch("10.78.0.5", workload='{"ns":"depot","pod":"x"}')
        other = shop.watch("10.78.0.5", workload="other:y")
        assert [http_routes(await stream.read()) for stream in (depot, other)] == [[""], [""]]
        assert len(shop.service.outbound) == 1

        shop.change(consumer)
        assert http_routes(await depot.read()) == ["own"]
        shop.change(producer)
        # The one before changed nothing for the others, so nothing was sent to them.
        assert http_routes(await other.read()) == ["all"]
        assert http_routes(await depot.read()) == ["own", "all"]
        assert len(shop.service.outbound) == 2

        shop.remove(consumer)
        assert http_routes(await depot.read()) == ["all"]
        assert len(shop.service.outbound) == 1


async def test_our_part_of_the_contract_is_sent_to_who_says_that_it_understands_it() -> None:
    rewriting = route("web", rule(filters=(UrlRewrite("inside.example"),)), parents=(PARENT,))

    async def filters(shop: Mesh, capabilities: str) -> list[str | None]:
        found = await shop.watch("10.78.0.5", metadata=(("tulle-capabilities", capabilities),)).read()
        return [of.WhichOneof("kind") for of in found.protocol.detect.http1.routes[0].rules[0].filters]

    with structlog.testing.capture_logs() as logs:
        async with mesh(WEB_SERVICE, rewriting) as shop:
            assert await filters(shop, "other, routes") == ["url_rewrite"]
            assert not [entry for entry in logs if entry["log_level"] == "warning"]
            assert await filters(shop, "other") == ["failure_injector"]

    (warning,) = (entry for entry in logs if entry["log_level"] == "warning")
    assert warning["event"] == "HTTPRoute shop/web: URLRewrite is beyond a client's proxy"


async def test_a_namespace_s_setting_reaches_its_egress_network() -> None:
    network = EgressNetwork(meta("all"), True, None, {}, WHERE)
    async with mesh(network) as shop:
        stream = shop.watch("192.0.2.7", metadata=(("tulle-capabilities", "routes"),))

        def is_off(policy: outbound_pb2.OutboundPolicy) -> bool:
            return policy.protocol.detect.http1.routes[0].rules[0].no_default_retry

        assert not is_off(await stream.read())
        shop.change(Namespace("shop", {"retry.tulle.dev/default": "off"}))
        assert is_off(await stream.read())
