"""Two proxies take part in the trace that an application began, and tell a collector so."""

import asyncio
import itertools
import json
import sys
from typing import Any

import pytest

from e2e.test_tap import deployment
from tests.test_docs import APPLICATION, DOCS, blocks
from tulle.testing import LiveMesh

Span = dict[str, Any]

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

COLLECTOR = """
import concurrent.futures, grpc, json
from tulle.wire import otlp_pb2 as otlp

def export(request, _):
    with open("/tmp/spans", "a") as file:
        for of in request.resource_spans:
            resource = {pair.key: pair.value.string_value for pair in of.resource.attributes}
            for span in (span for scope in of.scope_spans for span in scope.spans):
                file.write(json.dumps({
                    "trace": span.trace_id.hex(), "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(), "name": span.name,
                    "kind": otlp.Span.SpanKind.Name(span.kind), "resource": resource,
                    "took": span.end_time_unix_nano - span.start_time_unix_nano,
                    "attributes": {pair.key: pair.value.string_value for pair in span.attributes},
                }) + "\\n")
    return otlp.ExportTraceServiceResponse()

server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
handler = grpc.unary_unary_rpc_method_handler(export,
    otlp.ExportTraceServiceRequest.FromString, otlp.ExportTraceServiceResponse.SerializeToString)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
    "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": handler})])
server.add_insecure_port("[::]:4317")
server.start()
server.wait_for_termination()
"""

ECHO = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Echo).serve_forever()
"""

COLLECTOR_SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: otlp}
spec: {selector: {app: collector}, ports: [{port: 4317, appProtocol: kubernetes.io/h2c}]}
---
"""

ENVIRONMENT = json.dumps(
    [
        {"name": f"LINKERD2_PROXY_TRACE_COLLECTOR_SVC_{part}", "value": value}
        for part, value in (
            ("ADDR", "otlp.default.svc.cluster.local:4317"),
            ("NAME", "collector.default.serviceaccount.identity.linkerd.cluster.local"),
        )
    ]
)


def manifests() -> str:
    """Return an application whose proxies know a collector, and the collector."""
    traced = {
        "config.linkerd.io/proxy-additional-env": ENVIRONMENT,
        "resource.opentelemetry.io/deployment.environment": "test",
    }
    return (
        deployment("web", [sys.executable, "-c", ECHO], **traced)
        + deployment("client", ["sleep", "infinity"], **traced)
        + deployment("plain", [sys.executable, "-c", ECHO])
        + deployment("collector", [sys.executable, "-c", COLLECTOR])
        + COLLECTOR_SERVICE
    )


async def collected(mesh: LiveMesh, count: int) -> list[Span]:
    """Return the spans that the collector has, as soon as there are so many."""
    async with asyncio.timeout(30):
        while True:
            done = await mesh.api.exec("collector", ["cat", "/tmp/spans"])
            spans = [json.loads(line) for line in done.stdout.splitlines()]
            if len(spans) >= count:
                return spans
            await asyncio.sleep(0.2)  # the collector's file has no event that reaches us


CONTEXTS = {
    "w3c": {"traceparent": f"00-{TRACE}-{PARENT}-01"},
    "b3": {"b3": f"{TRACE}-{PARENT}-1"},
    "b3-multi": {"x-b3-traceid": TRACE, "x-b3-spanid": PARENT, "x-b3-sampled": "1"},
}


def sender(headers: dict[str, str]) -> str:
    """Return the span that a request says it was sent by."""
    if "traceparent" in headers:
        return headers["traceparent"].split("-")[2]
    return headers["b3"].split("-")[1] if "b3" in headers else headers["x-b3-spanid"]


@pytest.mark.parametrize("context", CONTEXTS)
async def test_one_trace_goes_through_both_proxies(live_mesh: LiveMesh, context: str) -> None:
    await live_mesh.up(manifests())

    answer = await live_mesh.call("client", "http://web/book?slot=3", headers=CONTEXTS[context])
    spans = await collected(live_mesh, 4)

    by_parent = {span["parent"]: span for span in spans}
    chain = [by_parent[PARENT]]
    while chain[-1]["span"] in by_parent:
        chain.append(by_parent[chain[-1]["span"]])
    hops = [(span["attributes"]["direction"], span["kind"].removeprefix("SPAN_KIND_")) for span in chain]
    assert hops == [
        ("outbound", "SERVER"),
        ("outbound", "CLIENT"),
        ("inbound", "SERVER"),
        ("inbound", "CLIENT"),
    ]
    # What the application sends on belongs below the last of them.
    assert sender(answer.json()) == chain[-1]["span"]  # type: ignore[arg-type]
    assert {span["trace"] for span in spans} == {TRACE}
    assert {span["name"] for span in spans} == {"/book"}
    assert {span["attributes"]["http.response.status_code"] for span in spans} == {"200"}
    assert {span["attributes"]["url.query"] for span in spans} == {"slot=3"}
    assert {span["resource"]["deployment.environment"] for span in spans} == {"test"}
    pods = [span["resource"]["k8s.pod.name"].split("-")[0] for span in chain]
    assert pods == ["client", "client", "web", "web"]
    assert all(outer["took"] >= inner["took"] for outer, inner in itertools.pairwise(chain))


async def test_what_is_not_sampled_or_not_traced_goes_through_untouched(live_mesh: LiveMesh) -> None:
    await live_mesh.up(manifests())
    sampled = CONTEXTS["w3c"] | {"tracestate": "a=b"}
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00", "tracestate": "a=b"}

    through = await live_mesh.call("client", "http://web/", headers=unsampled)
    # Neither of these proxies knows a collector.
    untraced = await live_mesh.call("collector", "http://plain/", headers=sampled)

    for answer, sent in ((through, unsampled), (untraced, sampled)):
        received = answer.json()
        assert isinstance(received, dict)
        assert {key: received[key] for key in sent} == sent


async def test_the_page_holds(live_mesh: LiveMesh) -> None:
    (page,) = blocks(DOCS / "tracing.md", "yaml")
    # Not a word about injection, so that all of it is meshed.
    collector = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "collector", "labels": {"app": "collector"}},
            "spec": {
                "serviceAccountName": "collector",
                "containers": [{"name": "main", "command": [sys.executable, "-c", COLLECTOR]}],
            },
        }
    )
    await live_mesh.up(APPLICATION, page, collector)

    await live_mesh.call("web", "http://members:8080/", headers=CONTEXTS["w3c"])
    spans = await collected(live_mesh, 4)

    assert {span["attributes"]["direction"] for span in spans} == {"inbound", "outbound"}
    assert {span["resource"]["k8s.pod.name"] for span in spans} == {"web", "members"}
