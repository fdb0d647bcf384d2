import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
import structlog

from tests.control_plane import WEB_SERVICE, code_of, open_gate, served, stub, web_pod
from tulle.lib.stream import Gate
from tulle.model.pod import TrustDomain
from tulle.model.update import Changed, Object, Removed, key_of
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

    def watch(self, address: str, port: int = 80) -> Any:
        return self.outbound.Watch(
            outbound_pb2.TrafficSpec(source_workload=WORKLOAD, addr=to_wire_port(address, port))
        )


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
