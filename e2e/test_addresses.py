"""Ways to name a server: service, headless service, pod address; IPv4 and IPv6."""

import socket

import pytest

from e2e.conftest import Field, Pair
from e2e.http1 import Recorder, ask, get

FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["{}", "{}-headless", "{}.default.svc.cluster.local"])
async def test_a_name_leads_to_the_server_as_its_client(pair: Pair, family: str, name: str) -> None:
    recorder = Recorder()
    host = name.format(pair.server.name)

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(host, served.port, family=FAMILIES[family]) as stream:
            response = await ask(stream, get())

    assert response.body == b"hello"
    assert recorder.seen[0]["l5d-client-id"] is not None


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_pod_address_leads_to_the_pod_as_its_client(pair: Pair, family: str) -> None:
    recorder = Recorder()
    address = pair.server.address if family == "ipv4" else pair.server.address6

    async with pair.server.serving(recorder) as served:
        async with await pair.client.connect(address, served.port, family=FAMILIES[family]) as stream:
            response = await ask(stream, get())

    assert response.body == b"hello"
    assert recorder.seen[0]["l5d-client-id"] is not None


async def test_a_pod_can_call_itself_through_its_service(field: Field, which: str) -> None:
    recorder = Recorder()
    pod = field[f"server-{which}"]

    async with pod.serving(recorder) as served:
        async with await pod.connect(pod.name, served.port) as stream:
            response = await ask(stream, get())

    assert response.body == b"hello"
