from dataclasses import replace

import pytest

from tulle.viz.metrics import Inbound, Reading, Stats, Window, quantile, read

SCRAPE = """\
# HELP response_total Total count of HTTP responses.
# TYPE response_total counter
response_total{direction="inbound",target_addr="10.77.0.5:8080",target_port="8080",classification="success"} 90
response_total{direction="inbound",target_addr="10.77.0.5:8080",target_port="8080",classification="failure"} 10
response_total{direction="inbound",target_addr="10.77.0.5:4191",target_port="4191",classification="success"} 500
response_total{direction="outbound",authority="db:80",classification="success"} 700
# TYPE response_latency_ms histogram
response_latency_ms_bucket{direction="inbound",target_port="8080",status_code="200",le="1"} 50
response_latency_ms_bucket{direction="inbound",target_port="8080",status_code="200",le="10"} 90
response_latency_ms_bucket{direction="inbound",target_port="8080",status_code="200",le="+Inf"} 90
response_latency_ms_bucket{direction="inbound",target_port="8080",status_code="500",le="1"} 0
response_latency_ms_bucket{direction="inbound",target_port="8080",status_code="500",le="10"} 10
response_latency_ms_bucket{direction="inbound",target_port="8080",status_code="500",le="+Inf"} 10
response_latency_ms_bucket{direction="inbound",target_port="4191",status_code="200",le="+Inf"} 500
response_latency_ms_bucket{direction="outbound",le="+Inf"} 700
tcp_open_connections{direction="inbound",peer="src",target_port="8080",tls="true"} 3
tcp_open_connections{direction="inbound",peer="src",target_port="9090",tls="true"} 2
tcp_open_connections{direction="inbound",peer="dst"} 9
tcp_open_connections{direction="outbound",peer="src"} 9
control_identity_cert_expiration_timestamp_seconds 1767225600
# EOF
"""


def reading(at: float, success: float, failure: float = 0, **more: object) -> Reading:
    return Reading(at, success, failure, **more)  # type: ignore[arg-type]


def test_a_scrape_is_read_for_the_application_s_inbound_side_only() -> None:
    inf = float("inf")

    assert read(SCRAPE, at=5.0) == Reading(
        at=5.0,
        success=90,
        failure=10,
        tcp_open=5,
        certificate_expires=1767225600,
        buckets={1.0: 50, 10.0: 100, inf: 100},
    )


def test_rates_are_differences_over_the_window() -> None:
    window = Window()
    window.add(reading(0, 100, 0, buckets={1.0: 100.0, 10.0: 100.0}))
    window.add(reading(4, 130, 10, tcp_open=2, certificate_expires=7, buckets={1.0: 120.0, 10.0: 140.0}))

    stats = window.stats()
    assert stats is not None
    assert stats.p99_ms == pytest.approx(9.82)
    assert replace(stats, p99_ms=None) == Stats(
        requests_per_s=10.0,
        success_rate=0.75,
        p50_ms=1.0,
        p99_ms=None,
        tcp_open=2,
        certificate_expires=7,
        inbound=Inbound(130, 10),
    )


def test_readings_older_than_the_window_fall_out() -> None:
    window = Window()
    for second in range(30):
        window.add(reading(second, 1000.0 if second == 0 else 2000.0 + second))

    stats = window.stats()

    assert stats is not None
    assert stats.requests_per_s == 1.0


def test_a_proxy_that_was_started_anew_begins_a_new_window() -> None:
    window = Window()
    window.add(reading(0, 1000))
    window.add(reading(1, 5))
    window.add(reading(2, 8))

    stats = window.stats()

    assert stats is not None
    assert stats.requests_per_s == 3.0


def test_without_requests_there_is_no_rate_of_success_and_no_latency() -> None:
    window = Window()
    assert window.stats() is None

    window.add(reading(0, 0))
    stats = window.stats()

    assert stats == Stats(0.0, None, None, None, 0, None, Inbound(0, 0))


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.5), (0.5, 1.0), (0.75, 5.5), (1.0, 10.0)])
def test_a_quantile_is_interpolated_in_its_bucket(share: float, expected: float) -> None:
    assert quantile(share, {1.0: 50, 10.0: 100, float("inf"): 100}) == expected


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(0.9, {1.0: 0, 10.0: 1, float("inf"): 100}) == 10.0
    assert quantile(0.9, {}) is None
