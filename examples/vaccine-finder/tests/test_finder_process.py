import asyncio

import grpc
import httpx2
import pytest

from vaccine_finder import dev, settings
from vaccine_finder.visitors.__main__ import Settings
from vaccine_finder.wire.health_pb2 import HealthCheckRequest, HealthCheckResponse
from vaccine_finder.wire.members_pb2 import Family, FamilyRequest


def test_a_part_that_is_told_to_stop_answers_what_it_was_asked_and_leaves(finder: dev.Finder) -> None:
    async def ask_then_stop() -> tuple[int, int]:
        async with httpx2.AsyncClient(base_url=finder.url("sites"), trust_env=False) as client:
            await client.post("/admin/slow?ms=500")
            asking = asyncio.create_task(client.get("/places"))
            await client.get("/healthz")  # is answered after `asking` has been taken in
            code = await asyncio.to_thread(finder.stop, "sites")
            return (await asking).status_code, code

    try:
        assert asyncio.run(ask_then_stop()) == (200, 0)
    finally:
        finder.start("sites")


@pytest.mark.parametrize("part", ["eligibility", "members"])
def test_the_grpc_parts_answer_health_checks(finder: dev.Finder, part: str) -> None:
    with grpc.insecure_channel(finder.environments[part]["HEALTH_LISTEN"]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )

        assert check(HealthCheckRequest(), timeout=5).status == HealthCheckResponse.SERVING


def test_the_port_of_health_checks_gives_no_health_data(finder: dev.Finder) -> None:
    with grpc.insecure_channel(finder.environments["members"]["HEALTH_LISTEN"]) as channel:
        find_family = channel.unary_unary(
            "/vaccine_finder.members.Members/FindFamily",
            request_serializer=FamilyRequest.SerializeToString,
            response_deserializer=Family.FromString,
        )

        with pytest.raises(grpc.RpcError) as refusal:
            find_family(FamilyRequest(number="100001"), timeout=5)

    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_setting_of_the_wrong_type_is_named_and_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE", "many")

    with pytest.raises(SystemExit, match=r"Expected `float`.*rate"):
        settings.read(Settings)
