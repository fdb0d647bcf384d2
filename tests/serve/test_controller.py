import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.control_plane import WEB_IDENTITY, WEB_SERVICE, web_pod, web_slice
from tests.sources.test_snapshot import POD, SERVICE
from tulle.identity.rotation import Report
from tulle.model.errors import SettingError
from tulle.policy.index import DefaultPolicy
from tulle.serve.controller import Controller, settings
from tulle.sources.memory import MemorySource

NO_NAMESPACES = shutil.which("unshare") is None or bool(
    subprocess.run(["unshare", "-Urn", "true"], capture_output=True, check=False).returncode
)


class Api:
    def __init__(self, controller: Controller, source: MemorySource, client: httpx2.AsyncClient) -> None:
        self.controller = controller
        self.source = source
        self._client = client

    async def get(self, path: str) -> tuple[int, Any]:
        response = await self._client.get(f"http://controller{path}")
        return response.status_code, response.json()

    async def post(self, path: str, body: object = None) -> tuple[int, Any]:
        response = await self._client.post(f"http://controller{path}", json=body)
        return response.status_code, response.json()


@asynccontextmanager
async def controller(folder: Path) -> AsyncIterator[Api]:
    arguments = ["--state-dir", str(folder), "--persistent-dir", str(folder)]
    source = MemorySource()
    built = Controller(settings(arguments, {}), [source], bytes(32))
    running = asyncio.create_task(built.sources.run())
    await source.running.wait()
    transport = httpx2.ASGITransport(app=built.api)
    async with httpx2.AsyncClient(transport=transport) as client:
        yield Api(built, source, client)
    running.cancel()
    await asyncio.wait([running])


async def test_it_is_not_ready_before_its_sources_have_delivered(tmp_path: Path) -> None:
    async with controller(tmp_path) as api:
        status, body = await api.get("/v1/ready")
        assert (status, body["waiting_for"]) == (503, ["memory"])
        assert (await api.get("/v1/diagnostics/endpoints?authority=web.shop.svc.cluster.local"))[0] == 503

        api.source.deliver([])

        status, body = await api.get("/v1/ready")
        assert (status, body["ready"], body["waiting_for"]) == (200, True, [])


async def test_objects_have_their_status(tmp_path: Path) -> None:
    async with controller(tmp_path) as api:
        assert (await api.get("/v1/objects/Service"))[0] == 503
        api.source.deliver([WEB_SERVICE])

        status, body = await api.get("/v1/objects/Service?namespace=shop&name=web")

    assert status == 200
    assert [item["object"]["status"] for item in body["items"]] == [{"conditions": []}]


async def test_diagnostics_say_what_a_proxy_would_be_sent(tmp_path: Path) -> None:
    pod = web_pod()
    async with controller(tmp_path) as api:
        api.source.deliver([WEB_SERVICE, pod, web_slice(pod)])

        _, endpoints = await api.get("/v1/diagnostics/endpoints?authority=web.shop.svc.cluster.local:80")
        _, profile = await api.get("/v1/diagnostics/profile?authority=[fd77::10]:8080")
        _, inbound = await api.get("/v1/diagnostics/policy?pod=shop/web-0&port=8080")
        _, outbound = await api.get("/v1/diagnostics/policy?authority=10.78.0.5:80")
        _, short = await api.get("/v1/diagnostics/endpoints?authority=web.shop:80")
        _, named = await api.get("/v1/diagnostics/policy?authority=web.shop.svc.cluster.local")

    assert short["endpoints"] == endpoints["endpoints"]
    assert endpoints["exists"]
    assert [(of["address"], of["port"], of["identity"], of["hint"]) for of in endpoints["endpoints"]] == [
        ("10.77.0.10", 8080, WEB_IDENTITY, "h2")
    ]
    assert profile["endpoint"]["addr"] == {"ip": "fd77::10", "port": 8080}
    assert inbound["labels"]["name"] == "all-unauthenticated"
    assert outbound["metadata"]["resource"]["name"] == "web"
    assert named == outbound


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/diagnostics/endpoints?authority=absent.shop.svc.cluster.local", 404),
        ("/v1/diagnostics/endpoints?authority=10.1.2.3:80", 400),
        ("/v1/diagnostics/endpoints", 400),
        ("/v1/diagnostics/profile?authority=web", 400),
        ("/v1/diagnostics/policy?pod=web-0&port=80", 400),
        ("/v1/diagnostics/policy?pod=shop/web-0&port=http", 400),
        ("/v1/diagnostics/policy?pod=shop/web-0&port=80", 404),
        ("/v1/diagnostics/policy?authority=10.77.9.9:80", 404),
    ],
)
async def test_a_question_without_an_answer_says_why(tmp_path: Path, path: str, status: int) -> None:
    async with controller(tmp_path) as api:
        api.source.deliver([])

        found, body = await api.get(path)

    assert (found, set(body) & {"error"}) == (status, {"error"})


async def test_a_request_is_explained_by_what_the_proxies_are_sent(tmp_path: Path) -> None:
    pod = web_pod()
    async with controller(tmp_path) as api:
        asked = {"source": "web", "target": "web"}
        assert (await api.post("/v1/why", asked))[0] == 503
        api.source.deliver([WEB_SERVICE, pod, web_slice(pod)])

        status, said = await api.post("/v1/why", asked)
        _, allowed = await api.post("/v1/allow", asked)
        wrong = [
            (await api.post("/v1/why", asked | change))[0]
            for change in ({"source": "nobody"}, {"target": "web:x"}, {"path": 7})
        ]

    assert (status, said["allowed"], said["branches"][0]["endpoints"]) == (
        200,
        True,
        ["web-0 at 10.77.0.10:8080"],
    )
    assert allowed["manifests"] == ""
    assert wrong == [404, 422, 400]


async def test_a_rotation_is_planned_begun_and_shown(tmp_path: Path) -> None:
    pod = web_pod()
    async with controller(tmp_path) as api:
        api.source.deliver([pod])
        _, planned = await api.post("/v1/identity/rotate", {"root": True, "plan": True})
        assert (planned["phase"], len(planned["steps"])) == ("steady", 3)

        _, begun = await api.post("/v1/identity/rotate", {"root": True})
        assert begun["phase"] == "distributing"
        assert [of["pod"] for of in begun["blockers"]] == ["shop/web-0"]
        assert (await api.post("/v1/identity/rotate", {"root": True}))[0] == 409

        state = api.controller.authority.state
        api.controller.authority.report(pod.name, Report(state.bundle_digest, state.issuer.digest))
        _, shown = await api.get("/v1/identity")
        assert (shown["phase"], shown["epoch"], shown["reported"]) == ("renewing", 1, ["shop/web-0"])

        _, forced = await api.post("/v1/identity/rotate", {"force": True})
        assert (forced["phase"], forced["rotating_root"]) == ("steady", False)


async def test_recovery_says_what_it_did(tmp_path: Path) -> None:
    async with controller(tmp_path) as api:
        api.source.deliver([])

        status, body = await api.post("/v1/identity/recover")

    assert (status, body["done"]) == (200, ["every proxy is told to renew"])


async def test_a_body_that_cannot_be_read_is_the_caller_s_mistake(tmp_path: Path) -> None:
    async with controller(tmp_path) as api:
        assert (await api.post("/v1/identity/rotate", {"root": "maybe"}))[0] == 400


async def test_only_meshed_and_living_pods_are_asked_for_their_metrics(tmp_path: Path) -> None:
    pods = [
        web_pod(0),
        web_pod(1, meshed=False),
        web_pod(2, terminating=True),
        web_pod(3, addresses=("fd77::3",)),
    ]
    async with controller(tmp_path) as api:
        api.source.deliver(pods)

        targets = api.controller._scrape_targets()

    assert targets == {
        "shop/web-0": "http://10.77.0.10:4191/metrics",
        "shop/web-3": "http://[fd77::3]:4191/metrics",
    }


def test_settings_are_read_and_all_mistakes_reported(tmp_path: Path) -> None:
    arguments = ["--state-dir", str(tmp_path), "--persistent-dir", "/p", "--pod-ip", "10.77.0.2,fd77::2"]

    chosen = settings(arguments, {"TULLE_LEAF_LIFETIME": "20s", "TULLE_DEFAULT_INBOUND_POLICY": "deny"})

    assert chosen.pod_ips == ("10.77.0.2", "fd77::2")
    assert chosen.lifetimes.leaf == timedelta(seconds=20)
    assert chosen.default_policy is DefaultPolicy.DENY
    with pytest.raises(SettingError, match=r"TULLE_LEAF_LIFETIME='x'(.|\n)*TULLE_DEFAULT_INBOUND_POLICY='y'"):
        settings(arguments, {"TULLE_LEAF_LIFETIME": "x", "TULLE_DEFAULT_INBOUND_POLICY": "y"})


@pytest.mark.root
@pytest.mark.skipif(NO_NAMESPACES, reason="user namespaces are not allowed here")
async def test_the_process_follows_its_supervisor_and_ends_when_told(tmp_path: Path) -> None:
    (tmp_path / "token.key").write_bytes(bytes(32))
    delivered = asyncio.Event()

    async def supervise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await delivered.wait()
        line = json.dumps({"generation": 1, "objects": [SERVICE], "pods": [POD]}).encode() + b"\n"
        writer.write(b"%x\r\n%s\r\n" % (len(line), line))
        await reader.read()

    async with await asyncio.start_unix_server(supervise, tmp_path / "supervisor.sock"):
        command = f"ip link set lo up; exec {sys.executable} -m tulle.serve.controller"
        arguments = ["--state-dir", str(tmp_path), "--persistent-dir", str(tmp_path), "--pod-ip", "127.0.0.2"]
        process = await asyncio.create_subprocess_exec(
            "unshare", "-Urn", "sh", "-c", f'{command} "$@"', "controller", *arguments, env=os.environ
        )
        transport = httpx2.AsyncHTTPTransport(uds=str(tmp_path / "controller.sock"), retries=0)
        async with httpx2.AsyncClient(transport=transport) as client:
            assert await _status_when_not(client, None) == 503

            delivered.set()

            assert await _status_when_not(client, 503) == 200
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert "BEGIN CERTIFICATE" in (tmp_path / "identity" / "ca-bundle.crt").read_text()


async def _status_when_not(client: httpx2.AsyncClient, unwanted: int | None) -> int:
    """Ask until there is an answer and it is another one; the test's own time-out is the limit."""
    while True:
        try:
            status = (await client.get("http://controller/v1/ready")).status_code
        except httpx2.TransportError:
            status = unwanted or 0
        if status and status != unwanted:
            return int(status)
        await asyncio.sleep(0.01)
