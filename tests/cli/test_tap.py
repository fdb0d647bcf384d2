"""The lines are those of Linkerd's tap."""

from typing import Any

import pytest

from tulle.cli.commands.tap import line

EVENT: dict[str, Any] = {
    "source": {"ip": "10.0.0.7", "port": 5000, "metadata": {"tls": "true", "pod": "web-1"}},
    "destination": {"ip": "fd00::8", "port": 8080, "metadata": {"tls": "loopback", "namespace": "shop"}},
    "routeMeta": {"route_name": "read"},
    "proxyDirection": "INBOUND",
}
ID = {"base": 1, "stream": 2}
BEGUN = {"id": ID, "method": "GET", "scheme": "", "authority": "web", "path": "/", "headers": None}
ANSWERED = {"id": ID, "sinceRequestInit": {"seconds": 1, "nanos": 2000}, "httpStatus": 200}
ENDED = {"id": ID, "sinceRequestInit": {"nanos": 5000}, "sinceResponseInit": {}, "responseBytes": 7}
ENDS = "src=10.0.0.7:5000 dst=[fd00::8]:8080"


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            {"requestInitEvent": BEGUN},
            f"req id=1:2 proxy=in  {ENDS} tls=true :method=GET :authority=web :path=/",
        ),
        (
            {"responseInitEvent": ANSWERED},
            f"rsp id=1:2 proxy=in  {ENDS} tls=true :status=200 latency=1000002µs",
        ),
        (
            {"responseEndEvent": ENDED | {"grpcStatusCode": 5}},
            f"end id=1:2 proxy=in  {ENDS} tls=true grpc-status=NOT_FOUND duration=0µs response-length=7B",
        ),
        (
            {"responseEndEvent": ENDED | {"resetErrorCode": 8}},
            f"end id=1:2 proxy=in  {ENDS} tls=true reset-error=CANCEL duration=0µs response-length=7B",
        ),
        (
            {"responseEndEvent": ENDED, "proxyDirection": "OUTBOUND"},
            f"end id=1:2 proxy=out {ENDS} tls=loopback duration=0µs response-length=7B",
        ),
    ],
)
def test_an_event_is_a_line(event: dict[str, Any], shown: str) -> None:
    assert line(EVENT | event, wide=False) == shown


def test_a_wide_line_says_what_is_known_of_both_ends() -> None:
    wide = line(EVENT | {"requestInitEvent": BEGUN}, wide=True)

    assert wide.endswith(" :path=/ src_pod=web-1 dst_namespace=shop rt_route_name=read")
