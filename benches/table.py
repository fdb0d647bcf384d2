"""The results as a page for people: the targets first, reached or not, then every row.

Pure: `latest.json` goes in, Markdown comes out. A figure is judged only against rows of the same run; what was not
measured is said to be so and counts as nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Row = Mapping[str, Any]

SOUGHT = {"protocol": "http1", "body_bytes": 1024, "connections": 48, "keepalive": True}
"""The cell that the targets are about."""
HAPROXY = ("haproxy-h1", "haproxy-h2")
"""HAProxy's HTTP modes; the better one is the measure."""
HEAD = (
    "topology",
    "requests/s",
    "CPU µs/request",
    "origin's",
    "p50 µs",
    "p90 µs",
    "p99 µs (range)",
    "RSS MiB",
    "errors",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the targets; None is: not measured, or no aim."""

    name: str
    must: str
    aim: str
    measured: str | None
    reached: bool | None = None
    aim_reached: bool | None = None


def render(results: Json) -> str:
    """Return the whole page."""
    machine, rows = results["machine"], results.get("rows", [])
    parts = [
        "# Bench",
        "Written by `make bench`; how to read it: [README](../README.md).",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}"
        f" ({machine['architecture']}). "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + ".",
        "## Targets",
        "Ratios in one run; HTTP/1.1, 1 KiB, 48 connections, one worker, unless the line says something else.",
        _table(
            ("figure", "must", "aim", "measured", "must reached", "aim reached"),
            [
                (
                    each.name,
                    each.must,
                    each.aim,
                    each.measured or "not measured",
                    _word(each.reached),
                    _word(each.aim_reached),
                )
                for each in figures(results)
            ],
        ),
        "## Cells",
    ]
    for title, cells in _cells(rows):
        parts += [f"### {title}", _table(HEAD, [_line(row) for row in cells])]
    measurements = results.get("measurements", {})
    if measurements:
        parts.append("## Measurements by name")
    for name, figures_of in measurements.items():
        parts += [
            f"### {name}",
            _table(("figure", "value"), [(key, _value(value)) for key, value in figures_of.items()]),
        ]
    return "\n\n".join(parts) + "\n"


def figures(results: Json) -> list[Figure]:
    """Judge what was measured."""
    rows, measured = results.get("rows", []), results.get("measurements", {})
    return [
        *_cpu(rows),
        *(_added(rows, name) for name in ("p50", "p90")),
        *_memory(measured.get("idle-connections")),
        _instructions(measured.get("instructions")),
        _download(measured.get("download")),
        *_workers(measured.get("workers")),
        _slow(measured.get("slow-backend")),
        _ratio(
            "50 routes, retries and authorization: CPU per request",
            "plain",
            measured.get("features", {}).get("configured_ratio"),
            1.15,
        ),
        _ratio(
            "access log: user instructions of the pair",
            "without",
            measured.get("access-log", {}).get("ratio"),
            1.05,
        ),
    ]


def find(rows: Sequence[Row], topology: str, rate: float | None) -> Row | None:
    """Return a topology's row of the cell that the targets are about."""
    for row in rows:
        sought = {**SOUGHT, "topology": topology, "rate": rate}
        if all(row.get(key) == value for key, value in sought.items()):
            return row
    return None


def _cpu(rows: Sequence[Row]) -> list[Figure]:
    def ratio(rate: float | None, *others: str) -> float | None:
        ours = find(rows, "tulle", rate)
        theirs = [row["cpu_us_per_request"] for other in others if (row := find(rows, other, rate))]
        return ours["cpu_us_per_request"] / min(theirs) if ours and theirs else None

    envoy, haproxy = ratio(2000, "envoy-h2"), ratio(2000, *HAPROXY)
    saturated, h2 = ratio(None, "envoy-h2"), ratio(None, "haproxy-h2")
    return [
        Figure(
            "CPU per request at 2,000/s, pair",
            "≤ 0.6 × Envoy and ≤ 1.1 × HAProxy",
            "≤ 0.9 × HAProxy",
            _ratios(("Envoy", envoy), ("HAProxy", haproxy)),
            _all(_at_most(envoy, 0.6), _at_most(haproxy, 1.1)),
            _at_most(haproxy, 0.9),
        ),
        Figure(
            "CPU per request saturated, pair",
            "≤ 0.6 × Envoy",
            "≤ 1.3 × HAProxy h2",
            _ratios(("Envoy", saturated), ("HAProxy h2", h2)),
            _at_most(saturated, 0.6),
            _at_most(h2, 1.3),
        ),
    ]


def _added(rows: Sequence[Row], name: str) -> Figure:
    def added(topology: str) -> float | None:
        row, direct = find(rows, topology, 2000), find(rows, "direct", 2000)
        return row[f"{name}_us"] - direct[f"{name}_us"] if row and direct else None

    ours, envoy = added("tulle"), added("envoy-h2")
    haproxy = min((value for each in HAPROXY if (value := added(each)) is not None), default=None)
    to_envoy = ours / envoy if ours is not None and envoy else None
    to_haproxy = ours / haproxy if ours is not None and haproxy else None
    return Figure(
        f"added {name} at 2,000/s",
        "≤ 0.5 × Envoy",
        "≤ 1.0 × HAProxy",
        _ratios(("Envoy", to_envoy), ("HAProxy", to_haproxy)),
        _at_most(to_envoy, 0.5),
        _at_most(to_haproxy, 1.0),
    )


def _memory(measured: Json | None) -> list[Figure]:
    rest = max(measured["at_rest_mib"]) if measured else None
    loaded = max(measured["at_48_connections_mib"]) if measured else None
    kinds = [value for key, value in (measured or {}).items() if isinstance(value, dict)]
    each = max((max(kind["kib_per_connection"]) for kind in kinds), default=None)
    return [
        _limit("RSS of a proxy, idle", rest, 10, 6, "MiB"),
        _limit("RSS of a proxy at 48 connections", loaded, 15, 10, "MiB"),
        _limit("RSS per idle connection", each, 20, 10, "KiB"),
    ]


def _instructions(measured: Json | None) -> Figure:
    most = max(measured["outbound"], measured["inbound"]) if measured else None
    return _limit("user instructions per request and proxy", most, 80_000, 50_000, "")


def _download(measured: Json | None) -> Figure:
    speeds = {name: each["gigabits_per_s"] for name, each in (measured or {}).items()}
    others = {name: speed for name, speed in speeds.items() if name not in ("direct", "tulle")}
    best = max(others, key=lambda name: others[name], default=None)
    ratio = speeds["tulle"] / others[best] if best and "tulle" in speeds else None
    return Figure(
        "one big download, mTLS",
        "≥ 0.9 × the best pair",
        "≥ 1.3 ×",
        f"{ratio:.3f} × {best}" if ratio is not None else None,
        _at_least(ratio, 0.9),
        _at_least(ratio, 1.3),
    )


def _workers(measured: Json | None) -> list[Figure]:
    ratio = measured["ratio"] if measured else None
    low, high = (measured["lowest_share"], measured["highest_share"]) if measured else (None, None)
    return [
        _ratio("two workers: CPU per request", "of one", ratio, 1.1),
        Figure(
            "two workers: share of 256 connections each",
            "35-65 %",
            "",
            f"{low:.1%} - {high:.1%}" if low is not None and high is not None else None,
            _all(_at_least(low, 0.35), _at_most(high, 0.65)),
        ),
    ]


def _slow(measured: Json | None) -> Figure:
    part = measured["within_100_ms"] if measured else None
    return Figure(
        "slow back end of 11: answers within 100 ms",
        "≥ 99.5 %",
        "≥ 99.9 %",
        f"{part:.2%}" if part is not None else None,
        _at_least(part, 0.995),
        _at_least(part, 0.999),
    )


def _ratio(name: str, of: str, value: float | None, must: float) -> Figure:
    return Figure(
        name,
        f"≤ {must} × {of}",
        "",
        f"{value:.3f} ×" if value is not None else None,
        _at_most(value, must),
    )


def _limit(name: str, value: float | None, must: float, aim: float, unit: str) -> Figure:
    def written(number: float) -> str:
        return f"{number:,.0f} {unit}".strip() if number >= 1000 else f"{number:.3g} {unit}".strip()

    return Figure(
        name,
        f"≤ {written(must)}",
        f"≤ {written(aim)}",
        written(value) if value is not None else None,
        _at_most(value, must),
        _at_most(value, aim),
    )


def _ratios(*named: tuple[str, float | None]) -> str | None:
    return ", ".join(f"{value:.3f} × {name}" for name, value in named if value is not None) or None


def _at_most(value: float | None, limit: float) -> bool | None:
    return None if value is None else value <= limit


def _at_least(value: float | None, limit: float) -> bool | None:
    return None if value is None else value >= limit


def _all(*judged: bool | None) -> bool | None:
    if False in judged:
        return False
    return None if None in judged else True


def _word(reached: bool | None) -> str:
    return "" if reached is None else "yes" if reached else "**no**"


def _cells(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        rate = "saturated" if row["rate"] is None else f"{row['rate']:,.0f}/s"
        close = "" if row.get("keepalive", True) else ", a connection for each request"
        title = (
            f"{row['protocol']}, {_bytes(row['body_bytes'])}, {row['connections']} connections, {rate}{close}"
        )
        found.setdefault(title, []).append(row)
    return list(found.items())


def _line(row: Row) -> tuple[str, ...]:
    low, high = row["p99_range_us"]
    proxied = row["topology"] != "direct"
    return (
        row["topology"],
        f"{row['requests_per_s']:,.0f}",
        f"{row['cpu_us_per_request']:.1f}" if proxied else "-",
        f"{row['origin_cpu_us_per_request']:.1f}",
        f"{row['p50_us']:,.0f}",
        f"{row['p90_us']:,.0f}",
        f"{row['p99_us']:,.0f} ({low:,.0f}-{high:,.0f})",
        f"{row['rss_mib']:.1f}" if proxied else "-",
        str(row["errors"]),
    )


def _bytes(count: int) -> str:
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} B"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(each)}" for key, each in value.items())
    if isinstance(value, list):
        return " / ".join(map(_value, value))
    return (
        f"{value:,.4g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows: list[Sequence[str]] = [head, ["---"] * len(head), *lines]
    write: Callable[[Sequence[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join(map(write, rows))
