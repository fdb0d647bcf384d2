"""Requests can be watched at both ends, by the controller and by nobody else, and secrets are not shown."""

import asyncio
import contextlib
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from e2e.conftest import kind
from e2e.pods import eventually
from tests.test_docs import APPLICATION, DOCS, blocks
from tulle.testing import LiveMesh

Event = dict[str, Any]

PAGE = DOCS / "tap.md"

SERVER = """
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "5")
        self.send_header("set-cookie", "session=secret")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""

MANIFESTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: NAME}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}, annotations: ANNOTATIONS}
    spec:
      serviceAccountName: NAME
      containers:
      - {name: main, command: COMMAND, ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{port: 80, targetPort: 8080}]}
---
"""

OBSERVE = """
import sys, grpc
from tulle.wire import tap_pb2
match = tap_pb2.ObserveRequest.Match
request = tap_pb2.ObserveRequest(limit=1, match=match(all=match.Seq()))
with grpc.insecure_channel(sys.argv[1], (("grpc.enable_http_proxy", 0),)) as channel:
    observe = channel.unary_stream("/io.linkerd.proxy.tap.Tap/Observe",
        request_serializer=tap_pb2.ObserveRequest.SerializeToString,
        response_deserializer=tap_pb2.TapEvent.FromString)
    try:
        print(next(observe(request, timeout=10)))
    except grpc.RpcError as error:
        print(error.code().name)
"""


def deployment(name: str, command: list[str], **annotations: str) -> str:
    """Return a workload of one pod, and its service."""
    text = MANIFESTS.replace("NAME", name).replace("COMMAND", json.dumps(command))
    return text.replace("ANNOTATIONS", json.dumps({**kind("ours"), **annotations}))


def manifests() -> str:
    """Return a client and a server, and a workload that nobody may watch."""
    sleep = ["sleep", "infinity"]
    return (
        deployment("web", [sys.executable, "-c", SERVER])
        + deployment("client", sleep)
        + deployment("private", sleep, **{"viz.linkerd.io/disable-tap": "true"})
    )


class Watching:
    """What one watcher has seen so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.began = asyncio.Event()
        self.more = asyncio.Event()

    def note(self, pod: str, error: str | None) -> None:
        """Take a note about a pod."""
        assert error is None, f"{pod}: {error}"
        self.began.set()

    async def whole(self, requests: int = 1) -> list[Event]:
        """Return everything, as soon as so many requests have ended."""
        async with asyncio.timeout(10):
            while sum("responseEndEvent" in event for event in self.events) < requests:
                self.more.clear()
                await self.more.wait()
        return self.events


@contextlib.asynccontextmanager
async def watching(mesh: LiveMesh, target: str, **wanted: Any) -> AsyncIterator[Watching]:
    """Watch while the block runs."""
    seen = Watching()

    async def read() -> None:
        async with contextlib.aclosing(mesh.api.tap(target, note=seen.note, **wanted)) as events:
            async for event in events:
                seen.events.append(event)
                seen.more.set()

    task = asyncio.create_task(read())
    began = asyncio.create_task(seen.began.wait())
    async with asyncio.timeout(20):
        await asyncio.wait((task, began), return_when=asyncio.FIRST_COMPLETED)
    began.cancel()
    if task.done():
        task.result()
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def fields(event: Event, kind: str, section: str = "headers") -> dict[str, str]:
    """Return the headers of an event."""
    return {field["name"]: field["valueStr"] for field in event[kind][section]}


async def test_a_request_is_seen_at_both_ends_and_its_secrets_at_none(live_mesh: LiveMesh) -> None:
    await live_mesh.up(manifests())
    secrets = {"authorization": "Bearer secret", "cookie": "session=secret", "x-open": "read me"}

    async with (
        watching(live_mesh, "deploy/client", headers=True, path="/book") as sent,
        watching(live_mesh, "deploy/web", headers=True, path="/book") as received,
    ):
        for path in ("/other", "/book?slot=3"):
            assert (await live_mesh.call("client", f"http://web{path}", headers=secrets)).status == 200
        outbound, inbound = await sent.whole(), await received.whole()

    for events, direction in ((outbound, "OUTBOUND"), (inbound, "INBOUND")):
        begun, answered, ended = events
        assert {event["proxyDirection"] for event in events} == {direction}
        request = begun["requestInitEvent"]
        assert (request["method"], request["path"]) == ("GET", "/book")
        assert request["authority"] == "web"
        shown = fields(begun, "requestInitEvent")
        assert shown[":path"] == "/book?slot=3"
        assert (shown["authorization"], shown["cookie"]) == ("[redacted]", "[redacted]")
        assert shown["x-open"] == "read me"
        assert answered["responseInitEvent"]["httpStatus"] == 200
        assert fields(answered, "responseInitEvent")["set-cookie"] == "[redacted]"
        assert ended["responseEndEvent"]["responseBytes"] == 5
        assert "secret" not in json.dumps(events)
        assert begun["source"]["metadata"]["deployment"] == "client"
        assert begun["destination"]["metadata"]["deployment"] == "web"
    identity = "default.serviceaccount.identity.linkerd.cluster.local"
    assert inbound[0]["source"]["metadata"]["client_id"] == f"client.{identity}"
    assert outbound[0]["destination"]["metadata"]["server_id"] == f"web.{identity}"


async def test_only_what_was_asked_for_is_shown(live_mesh: LiveMesh) -> None:
    await live_mesh.up(manifests())

    async with (
        watching(live_mesh, "client", to="deploy/web", method="GET", authority="web") as wanted,
        watching(live_mesh, "client", to="svc/private") as elsewhere,
        watching(live_mesh, "client", method="POST") as posted,
    ):
        assert (await live_mesh.call("client", "http://web/")).status == 200
        (begun, *_) = await wanted.whole()

    assert begun["requestInitEvent"]["headers"] is None
    assert elsewhere.events == posted.events == []


async def test_a_refused_request_is_seen_with_what_its_client_was_told(live_mesh: LiveMesh) -> None:
    await live_mesh.up(manifests())
    await live_mesh.deny("web", 8080)

    async def refused() -> bool:
        return (await live_mesh.call("client", "http://web/")).status == 403

    await eventually(refused, "the client is refused")
    async with watching(live_mesh, "web", headers=True) as received:
        assert await refused()
        events = await received.whole()

    (answered,) = (event for event in events if "responseInitEvent" in event)
    assert answered["responseInitEvent"]["httpStatus"] == 403
    assert fields(answered, "responseInitEvent")["tulle-reason"].startswith("unauthorized;")
    assert answered["source"]["metadata"]["client_id"].startswith("client.default.")


async def test_nobody_watches_but_the_controller(live_mesh: LiveMesh) -> None:
    state = await live_mesh.up(manifests())
    (address,) = {pod.address for pod in state.pods if (pod.workload or "").endswith("/web")}

    done = await live_mesh.api.exec("client", [sys.executable, "-c", OBSERVE, f"{address}:4190"])

    assert done.stdout.decode().strip() == "UNAUTHENTICATED", done


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["private"], 1, "viz.linkerd.io/disable-tap"),
        (["nobody"], 1, 'nothing is called "nobody"; there are: client, '),
        (["svc/web"], 1, "none of: pod, deployment"),
    ],
)
async def test_what_cannot_be_watched_is_said_at_once(
    live_mesh: LiveMesh, arguments: list[str], code: int, said: str
) -> None:
    await live_mesh.up(manifests())

    process = await tulle(live_mesh, "tap", *arguments)
    _, complaint = await process.communicate()

    assert said in complaint.decode()
    assert process.returncode == code, complaint


async def test_the_command_prints_linkerds_lines_and_ends_at_its_limit(live_mesh: LiveMesh) -> None:
    await live_mesh.up(manifests())

    process = await tulle(live_mesh, "tap", "deploy/web", "-o", "wide", "--limit", "1")
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while b"watching" not in (line := await process.stderr.readline()):
            assert line, "it ended before it watched"
    assert (await live_mesh.call("client", "http://web/book")).status == 200
    async with asyncio.timeout(10):
        printed, _ = await process.communicate()

    begun, answered, ended = printed.decode().splitlines()
    assert begun.startswith("req id=0:0 proxy=in  src=")
    assert " tls=true :method=GET :authority=web :path=/book src_client_id=client." in begun
    assert "rsp id=0:0 " in answered
    assert ":status=200 latency=" in answered
    assert "end id=0:0 " in ended
    assert "µs response-length=5B " in ended
    assert process.returncode == 0


@pytest.mark.parametrize("command", [line for block in blocks(PAGE, "sh") for line in block.splitlines()])
async def test_what_the_page_shows_can_be_typed(live_mesh: LiveMesh, command: str) -> None:
    await live_mesh.up(APPLICATION, "".join(blocks(PAGE, "yaml")))

    program, *arguments = shlex.split(command)
    process = await tulle(live_mesh, *arguments)
    printing = asyncio.create_task(process.communicate())
    async with asyncio.timeout(60):
        while not printing.done():
            assert (await live_mesh.call("web", "http://members:8080/")).status == 200
    printed, _ = await printing

    assert program == "tulle"
    assert process.returncode == 0
    assert len(printed.splitlines()) == 3


async def tulle(mesh: LiveMesh, *arguments: str) -> asyncio.subprocess.Process:
    """Start the command for this mesh."""
    state = mesh.api.places.state.parent.parent
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tulle.cli.main",
        *arguments,
        "--name",
        mesh.name,
        env={**os.environ, "TULLE_STATE_DIR": str(state)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
