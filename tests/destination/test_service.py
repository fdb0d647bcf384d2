import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.control_plane import (
    WEB,
    WEB_IDENTITY,
    WEB_SERVICE,
    code_of,
    open_gate,
    served,
    stub,
    web_pod,
    web_slice,
)
from tulle.destination.index import DestinationIndex
from tulle.destination.service import DestinationService
from tulle.lib.stream import Gate
from tulle.model.endpoint import Endpoint, Slice, SlicePort
from tulle.model.external import ExternalWorkload, WorkloadPort
from tulle.model.objects import Metadata, Position
from tulle.model.pod import TrustDomain
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
from tulle.model.update import Changed, Object, Removed, key_of
from tulle.model.world import World
from tulle.wire import destination_pb2 as wire
from tulle.wire.addresses import from_wire
from tulle.wire.destination_pb2_grpc import DestinationStub

WEB_PATH = "web.shop.svc.cluster.local:80"
POD = web_pod()


@dataclass
class Mesh:
    world: World
    service: DestinationService
    stub: Any

    def change(self, *objects: Object) -> None:
        self.service.touch(set(self.world.apply([Changed(item) for item in objects])))

    def remove(self, *objects: Object) -> None:
        self.service.touch(set(self.world.apply([Removed(key_of(item)) for item in objects])))

    def get(self, path: str = WEB_PATH, token: str = "") -> Any:
        return self.stub.Get(wire.GetDestination(path=path, context_token=token))

    def profile(self, path: str, token: str = "") -> Any:
        return self.stub.GetProfile(wire.GetDestination(path=path, context_token=token))


@asynccontextmanager
async def mesh(*objects: Object, gate: Gate | None = None) -> AsyncIterator[Mesh]:
    world = World()
    world.apply([Changed(item) for item in objects])
    service = DestinationService(
        DestinationIndex(world, TrustDomain(), cluster_domain="cluster.local"),
        gate or open_gate(),
        cluster_domain="cluster.local",
    )
    async with served([service.handlers()]) as channel:
        yield Mesh(world, service, stub(DestinationStub, channel))


def addresses(update: wire.Update) -> list[str | None]:
    return [from_wire(of.addr.ip) for of in update.add.addrs] + [
        from_wire(of.ip) for of in update.remove.addrs
    ]


async def test_endpoints_come_at_once_and_then_their_changes() -> None:
    async with mesh(WEB_SERVICE, POD, web_slice(POD)) as shop:
        stream = shop.get()
        first = await stream.read()
        assert first == wire.Update(
            add=wire.WeightedAddrSet(
                metric_labels={"namespace": "shop", "service": "web"},
                addrs=[
                    wire.WeightedAddr(
                        addr={"ip": {"ipv4": 0x0A4D000A}, "port": 8080},
                        weight=10_000,
                        metric_labels={
                            "namespace": "shop",
                            "pod": "web-0",
                            "serviceaccount": "web",
                            "deployment": "web",
                            "control_plane_ns": "linkerd",
                            "zone_locality": "unknown",
                        },
                        tls_identity={"dns_like_identity": {"name": WEB_IDENTITY}},
                        protocol_hint={"h2": {}, "opaque_transport": {"inbound_port": 4143}},
                    )
                ],
            )
        )

        second = web_pod(1)
        shop.change(second, web_slice(POD, second))
        added = await stream.read()
        shop.change(web_slice(second))
        removed = await stream.read()
        shop.change(web_slice(second, ready=False))
        emptied = await stream.read()

        assert (added.WhichOneof("update"), addresses(added)) == ("add", ["10.77.0.11"])
        assert (removed.WhichOneof("update"), addresses(removed)) == ("remove", ["10.77.0.10"])
        assert emptied == wire.Update(no_endpoints=wire.NoEndpoints(exists=True))


async def test_a_service_without_endpoints_is_said_to_be_empty_at_once() -> None:
    async with mesh(WEB_SERVICE) as shop:
        assert await shop.get().read() == wire.Update(no_endpoints=wire.NoEndpoints(exists=True))


async def test_a_service_that_goes_becomes_empty_and_may_come_back_on_the_same_stream() -> None:
    async with mesh(WEB_SERVICE, POD, web_slice(POD)) as shop:
        stream = shop.get()
        await stream.read()

        shop.remove(WEB_SERVICE)
        assert await stream.read() == wire.Update(no_endpoints=wire.NoEndpoints(exists=False))

        shop.change(WEB_SERVICE)
        assert addresses(await stream.read()) == ["10.77.0.10"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("10.78.0.5:80", grpc.StatusCode.INVALID_ARGUMENT),
        ("web", grpc.StatusCode.INVALID_ARGUMENT),
        ("web.shop.svc.cluster.local:http", grpc.StatusCode.INVALID_ARGUMENT),
        ("web.shop.svc.elsewhere:80", grpc.StatusCode.INVALID_ARGUMENT),
        ("external.shop.svc.cluster.local:80", grpc.StatusCode.INVALID_ARGUMENT),
        ("absent.shop.svc.cluster.local:80", grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_what_has_no_endpoints_ends_with_its_code(path: str, code: grpc.StatusCode) -> None:
    external = replace(
        WEB_SERVICE, name=WEB_SERVICE.name._replace(name="external"), external_name="x.example"
    )
    async with mesh(WEB_SERVICE, external) as shop:
        assert await code_of(shop.get(path)) is code


async def test_no_message_is_sent_before_the_world_is_known() -> None:
    gate = Gate()
    async with mesh(gate=gate) as shop:
        endpoints = asyncio.ensure_future(shop.get().read())
        profile = asyncio.ensure_future(shop.profile("10.78.0.5:80").read())
        # A call that is answered at once, made after them, shows that the server has had its turn.
        assert await code_of(shop.get("web")) is grpc.StatusCode.INVALID_ARGUMENT
        assert not endpoints.done()
        assert not profile.done()

        shop.change(WEB_SERVICE, POD, web_slice(POD))
        gate.open()

        assert addresses(await endpoints) == ["10.77.0.10"]
        assert (await profile).fully_qualified_name == "web.shop.svc.cluster.local"


async def test_streams_of_one_service_share_a_view_that_goes_with_the_last() -> None:
    async with mesh(WEB_SERVICE, POD, web_slice(POD)) as shop:
        streams = [
            shop.get(),
            shop.get(token='{"ns":"shop","nodeName":"local","pod":"web-0"}'),
            shop.get(token="?"),
        ]
        for stream in streams:
            await stream.read()
        assert (len(shop.service.endpoints), shop.service.endpoints.followers) == (1, 3)

        for stream in streams:
            stream.cancel()
        while shop.service.endpoints.followers:  # noqa: ASYNC110  # the end of a call has no event
            await asyncio.sleep(0)

        assert len(shop.service.endpoints) == 0


async def test_a_service_that_becomes_node_local_asks_its_clients_to_begin_anew() -> None:
    token = '{"ns":"shop","nodeName":"local","pod":"web-0"}'
    async with mesh(WEB_SERVICE, POD, web_slice(POD)) as shop:
        stream = shop.get(token=token)
        await stream.read()

        shop.change(replace(WEB_SERVICE, local_traffic_only=True))

        assert await code_of(stream) is grpc.StatusCode.UNAVAILABLE
        assert addresses(await shop.get(token=token).read()) == ["10.77.0.10"]
        elsewhere = await shop.get(token='{"ns":"shop","nodeName":"far"}').read()
        assert elsewhere == wire.Update(no_endpoints=wire.NoEndpoints(exists=True))


async def test_a_service_s_profile_names_it_and_follows_its_annotations() -> None:
    async with mesh(WEB_SERVICE) as shop:
        stream = shop.profile(WEB_PATH)
        first = await stream.read()

        shop.change(replace(WEB_SERVICE, ports=(replace(WEB_SERVICE.ports[0], app_protocol="tcp"),)))
        second = await stream.read()

        assert first == wire.DestinationProfile(
            fully_qualified_name="web.shop.svc.cluster.local",
            retry_budget={"retry_ratio": 0.2, "min_retries_per_second": 10, "ttl": {"seconds": 10}},
            parent_ref={
                "resource": {
                    "group": "core",
                    "kind": "Service",
                    "name": "web",
                    "namespace": "shop",
                    "port": 80,
                }
            },
        )
        assert second.opaque_protocol


async def test_an_address_becomes_a_pod_s_when_the_pod_appears() -> None:
    async with mesh() as shop:
        stream = shop.profile("10.77.0.10:8080")
        bare = await stream.read()

        shop.change(POD)
        meshed = await stream.read()

        assert bare == wire.DestinationProfile(
            endpoint=wire.WeightedAddr(addr={"ip": {"ipv4": 0x0A4D000A}, "port": 8080}, weight=10_000)
        )
        assert meshed.endpoint.tls_identity.dns_like_identity.name == WEB_IDENTITY


async def test_an_undefined_port_of_a_service_has_an_empty_profile_and_an_open_stream() -> None:
    async with mesh(WEB_SERVICE) as shop:
        stream = shop.profile("10.78.0.5:9999")

        assert await stream.read() == wire.DestinationProfile()
        assert not stream.done()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("example.org:443", grpc.StatusCode.INVALID_ARGUMENT),
        ("absent.shop.svc.cluster.local:80", grpc.StatusCode.NOT_FOUND),
        ("10.78.0.5:80", grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_what_has_no_profile_ends_with_its_code(path: str, code: grpc.StatusCode) -> None:
    twin = replace(WEB_SERVICE, name=WEB_SERVICE.name._replace(name="twin"))
    async with mesh(WEB_SERVICE, twin) as shop:
        assert await code_of(shop.profile(path)) is code


FQN = "web.shop.svc.cluster.local"


def service_profile(namespace: str = "shop", **changes: Any) -> ServiceProfile:
    fields: dict[str, Any] = {
        "meta": Metadata(FQN, namespace, {}, {}),
        "routes": (),
        "budget": None,
        "overrides": (),
        "raw": {},
        "source": Position("profile.yaml", 1),
    }
    return ServiceProfile(**fields | changes)


async def test_a_profile_says_what_its_routes_and_overrides_say() -> None:
    condition = RequestMatch(
        path_regex="/book/.*",
        method="POST",
        any_of=(RequestMatch(method="PURGE"), RequestMatch(negated=RequestMatch(path_regex="/x"))),
    )
    failing = ResponseMatch(
        all_of=(ResponseMatch(status=(500, 599)), ResponseMatch(negated=ResponseMatch(status=(503, 503))))
    )
    route = ProfileRoute(
        "book", condition, (ResponseClass(failing, is_failure=True),), True, timedelta(milliseconds=300)
    )
    profile = service_profile(
        routes=(route,),
        budget=RetryBudget(0.5, 3, timedelta(minutes=5)),
        overrides=(Override("canary.shop.svc.cluster.local:8080", 100), Override("example.org.", 900)),
    )
    async with mesh(WEB_SERVICE, profile) as shop:
        said = await shop.profile("10.78.0.5:80").read()

    assert said == wire.DestinationProfile(
        fully_qualified_name=FQN,
        parent_ref={
            "resource": {"group": "core", "kind": "Service", "name": "web", "namespace": "shop", "port": 80}
        },
        profile_ref={
            "resource": {"group": "linkerd.io", "kind": "ServiceProfile", "name": FQN, "namespace": "shop"}
        },
        retry_budget={"retry_ratio": 0.5, "min_retries_per_second": 3, "ttl": {"seconds": 60}},
        routes=[
            {
                "condition": {
                    "all": {
                        "matches": [
                            {"path": {"regex": "/book/.*"}},
                            {"method": {"registered": "POST"}},
                            {
                                "any": {
                                    "matches": [
                                        {"method": {"unregistered": "PURGE"}},
                                        {"not": {"path": {"regex": "/x"}}},
                                    ]
                                }
                            },
                        ]
                    }
                },
                "response_classes": [
                    {
                        "condition": {
                            "all": {
                                "matches": [
                                    {"status": {"min": 500, "max": 599}},
                                    {"not": {"status": {"min": 503, "max": 503}}},
                                ]
                            }
                        },
                        "is_failure": True,
                    }
                ],
                "metrics_labels": {"route": "book"},
                "is_retryable": True,
                "timeout": {"nanos": 300_000_000},
            }
        ],
        dst_overrides=[
            {
                "authority": "canary.shop.svc.cluster.local:8080",
                "weight": 1000,
                "backend_ref": {
                    "resource": {
                        "group": "core",
                        "kind": "Service",
                        "name": "canary",
                        "namespace": "shop",
                        "port": 8080,
                    }
                },
            },
            {"authority": "example.org:80", "weight": 9000},
        ],
    )


async def test_a_client_s_own_profile_comes_before_the_service_s_and_may_come_and_go() -> None:
    own = service_profile("depot", overrides=(Override("own.depot.svc.cluster.local", 1000),))
    service_s = service_profile(overrides=(Override("shared.shop.svc.cluster.local", 1000),))

    def overrides(profile: wire.DestinationProfile) -> list[str]:
        return [of.authority for of in profile.dst_overrides]

    async with mesh(WEB_SERVICE) as shop:
        depot, other = (
            shop.profile("10.78.0.5:80", token=f'{{"ns":"{namespace}"}}') for namespace in ("depot", "other")
        )
        assert [overrides(await stream.read()) for stream in (depot, other)] == [[], []]
        assert len(shop.service.profiles) == 1

        shop.change(own)
        assert overrides(await depot.read()) == ["own.depot.svc.cluster.local:80"]
        shop.change(service_s)
        assert overrides(await other.read()) == ["shared.shop.svc.cluster.local:80"]
        assert len(shop.service.profiles) == 2
        shop.remove(own)
        assert overrides(await depot.read()) == ["shared.shop.svc.cluster.local:80"]


async def test_an_external_workload_is_known_by_its_certificate() -> None:
    vm = ExternalWorkload(
        Metadata("vm", "shop", {}, {}),
        "spiffe://mesh/vm",
        "vm.example",
        (WorkloadPort(8080, "http"),),
        ("192.0.2.1",),
        True,
        {},
        Position("vm.yaml", 1),
    )
    slice_ = Slice(
        ObjectName("shop", "x"), WEB, (SlicePort("http", 8080),), (Endpoint("192.0.2.1", external=vm.name),)
    )
    expected = wire.WeightedAddr(
        addr={"ip": {"ipv4": 0xC0000201}, "port": 8080},
        weight=10_000,
        metric_labels={"namespace": "shop", "external_workload": "vm", "zone_locality": "unknown"},
        tls_identity={
            "uri_like_identity": {"uri": "spiffe://mesh/vm"},
            "server_name": {"name": "vm.example"},
        },
        protocol_hint={"h2": {}, "opaque_transport": {"inbound_port": 4143}},
    )

    async with mesh(WEB_SERVICE, slice_, vm) as shop:
        endpoints = await shop.get().read()
        profile = await shop.profile("192.0.2.1:8080", '{"ns":"shop"}').read()
        elsewhere = await shop.profile("192.0.2.1:8080", '{"ns":"bank"}').read()

    assert list(endpoints.add.addrs) == [expected]
    assert profile.endpoint == expected
    assert elsewhere.endpoint == wire.WeightedAddr(addr=expected.addr, weight=10_000)
