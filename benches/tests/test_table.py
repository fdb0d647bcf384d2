from typing import Any

from benches import table

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 8.0, "kernel": "6.1", "architecture": "x86_64"}


def row(topology: str, rate: float | None = 2000, **facts: Any) -> dict[str, Any]:
    return {
        "topology": topology,
        "protocol": "http1",
        "body_bytes": 1024,
        "rate": rate,
        "connections": 48,
        "keepalive": True,
        "requests_per_s": 2000.0,
        "cpu_us_per_request": 100.0,
        "origin_cpu_us_per_request": 20.0,
        "p50_us": 200.0,
        "p90_us": 300.0,
        "p99_us": 400.0,
        "p99_range_us": [350.0, 500.0],
        "rss_mib": 9.0,
        "errors": 0,
        "rounds": 3,
        **facts,
    }


def figure(results: dict[str, Any], name: str) -> table.Figure:
    return next(each for each in table.figures(results) if each.name == name)


def test_cpu_is_judged_against_envoy_and_the_better_mode_of_haproxy() -> None:
    rows = [
        row("tulle", cpu_us_per_request=100.0),
        row("envoy-h2", cpu_us_per_request=200.0),
        row("haproxy-h1", cpu_us_per_request=125.0),
        row("haproxy-h2", cpu_us_per_request=95.0),
    ]

    judged = figure({"rows": rows}, "CPU per request at 2,000/s, pair")

    assert judged.measured == "0.500 × Envoy, 1.053 × HAProxy"
    assert judged.reached is True
    assert judged.aim_reached is False


def test_latency_is_what_a_pair_adds_to_a_direct_connection() -> None:
    rows = [
        row("direct", p50_us=50.0),
        row("tulle", p50_us=150.0),
        row("envoy-h2", p50_us=300.0),
        row("haproxy-h2", p50_us=130.0),
    ]

    judged = figure({"rows": rows}, "added p50 at 2,000/s")

    assert judged.measured == "0.400 × Envoy, 1.250 × HAProxy"
    assert judged.reached is True
    assert judged.aim_reached is False


def test_a_row_of_another_cell_is_not_compared_with() -> None:
    rows = [row("tulle"), row("envoy-h2", connections=16), row("haproxy-h1", keepalive=False)]

    judged = figure({"rows": rows}, "CPU per request at 2,000/s, pair")

    assert judged == table.Figure(
        judged.name, judged.must, judged.aim, measured=None, reached=None, aim_reached=None
    )


def test_a_half_measured_target_that_misses_one_part_is_missed() -> None:
    rows = [row("tulle", cpu_us_per_request=190.0), row("envoy-h2", cpu_us_per_request=200.0)]

    assert figure({"rows": rows}, "CPU per request at 2,000/s, pair").reached is False


def test_memory_is_judged_by_the_larger_proxy_and_the_worst_kind_of_connection() -> None:
    measured = {
        "at_rest_mib": [5.0, 7.0],
        "at_48_connections_mib": [9.0, 16.0],
        "http1_10000": {"rss_mib": [90.0, 9.0], "kib_per_connection": [8.5, 0.1]},
        "tcp_1000": {"rss_mib": [20.0, 25.0], "kib_per_connection": [15.0, 18.0]},
    }
    results = {"rows": [], "measurements": {"idle-connections": measured}}

    judged = {each.name: (each.measured, each.reached, each.aim_reached) for each in table.figures(results)}

    assert judged["RSS of a proxy, idle"] == ("7 MiB", True, False)
    assert judged["RSS of a proxy at 48 connections"] == ("16 MiB", False, False)
    assert judged["RSS per idle connection"] == ("18 KiB", True, False)


def test_a_download_is_compared_with_the_fastest_other_pair_and_not_with_none() -> None:
    speeds = {"direct": 12.0, "tulle": 4.6, "haproxy-h1": 4.0, "envoy-h2": 3.0}
    measured = {name: {"gigabits_per_s": speed} for name, speed in speeds.items()}

    judged = figure({"measurements": {"download": measured}}, "one big download, mTLS")

    assert judged.measured == "1.150 × haproxy-h1"
    assert (judged.reached, judged.aim_reached) == (True, False)


def test_the_page_names_every_cell_and_says_what_was_not_measured() -> None:
    rows = [row("direct"), row("tulle"), row("tulle", None), row("tulle", keepalive=False)]

    page = table.render({"machine": MACHINE, "versions": {"tulle-proxy": "1"}, "rows": rows})

    assert "### http1, 1 KiB, 48 connections, 2,000/s\n" in page
    assert "### http1, 1 KiB, 48 connections, saturated\n" in page
    assert "### http1, 1 KiB, 48 connections, 2,000/s, a connection for each request\n" in page
    assert "| direct | 2,000 | - | 20.0 | 200 | 300 | 400 (350-500) | - | 0 |" in page
    assert "| one big download, mTLS | ≥ 0.9 × the best pair | ≥ 1.3 × | not measured |  |  |" in page
