"""Which pods are watched, what they are asked, and how their events read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tulle.model.errors import NotFound, SettingError
from tulle.model.pod import Owner, Pod
from tulle.model.service import ObjectName
from tulle.viz import tap
from tulle.viz.tap import Event, Tapper, Wanted, chosen, question, readable
from tulle.wire import http_types_pb2, tap_pb2
from tulle.wire.addresses import to_wire_port

MATCH = tap_pb2.ObserveRequest.Match


def pod(name: str, owner: str = "web", *, namespace: str = "shop", **more: Any) -> Pod:
    more = {"meshed": True, "addresses": ("10.0.0.1",)} | more
    return Pod(ObjectName(namespace, name), owner=Owner("Deployment", owner), **more)


WEB = (pod("web-1"), pod("web-2"))
PODS = (
    *WEB,
    pod("web-3", terminating=True),
    pod("members-1", "members"),
    pod("bare-1", "bare", meshed=False),
    pod("quiet-1", "quiet", annotations={"viz.linkerd.io/disable-tap": "true"}),
    pod("web-9", namespace="other"),
)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("web", {"web-1", "web-2", "web-9"}),
        ("deploy/web.shop", {"web-1", "web-2"}),
        ("deployments/web.other", {"web-9"}),
        ("pod/web-1", {"web-1"}),
        ("web-1", {"web-1"}),
        ("ns/other", {"web-9"}),
    ],
)
def test_a_target_is_a_workload_a_pod_or_a_namespace(target: str, names: set[str]) -> None:
    assert {found.name.name for found in chosen(PODS, target)} == names


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("nobody", NotFound, "there are: bare, members, quiet, web"),
        ("bare", NotFound, "bare-1 is not meshed"),
        ("quiet", NotFound, "quiet-1 has the annotation viz.linkerd.io/disable-tap"),
        ("svc/web", SettingError, '"svc/web" is none of'),
        ("deploy/", SettingError, "has no name"),
    ],
)
def test_what_cannot_be_watched_is_told_with_the_reason(
    target: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        chosen(PODS, target)


def test_every_condition_goes_into_the_question() -> None:
    wanted = Wanted(
        "web",
        to="svc/members.shop",
        scheme="HTTP",
        method="get",
        authority="members:8080",
        path="/Members",
        headers=True,
    )

    asked = question(wanted, 50)

    label = MATCH.Label
    expected = [
        MATCH(any=MATCH.Seq(matches=[MATCH(destination_label=label(key="service", value="members"))])),
        MATCH(destination_label=label(key="namespace", value="shop")),
        MATCH(http=MATCH.Http(scheme=http_types_pb2.Scheme(unregistered="http"))),
        MATCH(http=MATCH.Http(method=http_types_pb2.HttpMethod(unregistered="GET"))),
        MATCH(http=MATCH.Http(authority=MATCH.Http.StringMatch(exact="members:8080"))),
        MATCH(http=MATCH.Http(path=MATCH.Http.StringMatch(prefix="/Members"))),
    ]
    assert list(asked.match.all.matches) == expected
    assert asked.limit == 50
    assert asked.extract.http.HasField("headers")


def test_a_job_has_the_name_that_proxies_give_it() -> None:
    (part,) = question(Wanted("web", to="job/nightly"), 1).match.all.matches

    (label,) = part.any.matches
    assert label.destination_label == MATCH.Label(key="k8s_job", value="nightly")


def event(**http: Any) -> tap_pb2.TapEvent:
    return tap_pb2.TapEvent(
        source=to_wire_port("10.0.0.7", 5000),
        destination=to_wire_port("fd00::8", 8080),
        source_meta=tap_pb2.TapEvent.EndpointMeta(labels={"tls": "true"}),
        proxy_direction=tap_pb2.TapEvent.INBOUND,
        http=tap_pb2.TapEvent.Http(**http),
    )


COMMON: Event = {
    "source": {"ip": "10.0.0.7", "port": 5000, "metadata": {"tls": "true"}},
    "destination": {"ip": "fd00::8", "port": 8080, "metadata": {}},
    "routeMeta": None,
    "proxyDirection": "INBOUND",
}
ID = tap_pb2.TapEvent.Http.StreamId(base=1, stream=2)


def test_a_beginning_reads_as_in_linkerds_json() -> None:
    begun = tap_pb2.TapEvent.Http.RequestInit(
        id=ID,
        method=http_types_pb2.HttpMethod(registered=http_types_pb2.HttpMethod.POST),
        authority="web",
        path="/book",
        headers=http_types_pb2.Headers(
            headers=[
                http_types_pb2.Headers.Header(name="a", value=b"b"),
                http_types_pb2.Headers.Header(name="raw", value=b"\xff"),
            ]
        ),
    )

    said = readable(event(request_init=begun))

    assert said == COMMON | {
        "requestInitEvent": {
            "id": {"base": 1, "stream": 2},
            "method": "POST",
            "scheme": "",
            "authority": "web",
            "path": "/book",
            "headers": [{"name": "a", "valueStr": "b"}, {"name": "raw", "valueBin": "ff"}],
        }
    }


def test_an_end_tells_what_it_came_to() -> None:
    ended = tap_pb2.TapEvent.Http.ResponseEnd(
        id=ID,
        since_request_init=Duration(seconds=1, nanos=5),
        since_response_init=Duration(nanos=7),
        response_bytes=3,
        eos=tap_pb2.Eos(grpc_status_code=0),
    )

    said = readable(event(response_end=ended))

    assert said["responseEndEvent"] == {
        "id": {"base": 1, "stream": 2},
        "sinceRequestInit": {"seconds": 1, "nanos": 5},
        "sinceResponseInit": {"nanos": 7},
        "responseBytes": 3,
        "trailers": None,
        "grpcStatusCode": 0,
    }


class Proxy:
    """A proxy's tap port that gives each answer of a list, one per call."""

    def __init__(self, answers: list[list[tap_pb2.TapEvent] | grpc.StatusCode]) -> None:
        self.answers = answers
        self.asked: list[tap_pb2.ObserveRequest] = []

    def observe(self, request: tap_pb2.ObserveRequest, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "no")
        else:
            yield from answer


@contextlib.asynccontextmanager
async def serving(proxy: Proxy) -> AsyncIterator[int]:
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_stream_rpc_method_handler(
        proxy.observe,
        tap_pb2.ObserveRequest.FromString,
        tap_pb2.TapEvent.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("io.linkerd.proxy.tap.Tap", {"Observe": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None)


async def test_a_proxy_is_asked_again_until_it_says_that_nobody_may_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tap, "WINDOW_S", 0.0)
    begun = event(request_init=tap_pb2.TapEvent.Http.RequestInit(id=ID))
    proxy = Proxy([[begun], grpc.StatusCode.UNAVAILABLE, [begun], grpc.StatusCode.UNAUTHENTICATED])
    local = pod("web-1", addresses=("127.0.0.1",))
    told: list[Event] = []

    async def tell(what: Event) -> None:
        told.append(what)

    async with serving(proxy) as port:
        monkeypatch.setattr(tap, "CONTROL_PORT", port)
        watch = Tapper(lambda: (local,), {"10.0.0.7": WEB[0]}.get).ask(Wanted("web", max_rps=7))
        async with asyncio.timeout(20):
            await watch.run(tell)

    assert [request.limit for request in proxy.asked] == [7] * 4
    assert [{k: v for k, v in each.items() if k in ("watching", "error")} for each in told] == [
        {"watching": True},
        {},
        {"error": "UNAVAILABLE: no"},
        {"watching": True},
        {},
        {"error": "UNAUTHENTICATED: no"},
    ]
    assert told[1]["source"]["metadata"] == {
        "namespace": "shop",
        "pod": "web-1",
        "serviceaccount": "default",
        "deployment": "web",
        "tls": "true",
    }
    assert {each["pod"] for each in told} == {"shop/web-1"}


def test_the_rate_is_shared_by_the_pods() -> None:
    def limits(rate: float) -> int:
        watch = Tapper(lambda: WEB, lambda _: None).ask(Wanted("web", max_rps=rate))
        return watch.request.limit

    assert [limits(rate) for rate in (100, 1)] == [50, 1]
