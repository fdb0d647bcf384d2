"""The results as Markdown."""

from typing import Any

Json = dict[str, Any]


def render(results: Json) -> str:
    """Return the whole page."""
    lines = ["| topology | cell | req/s | CPU us/request | p50 | p90 | p99 | RSS MiB |", "|---|---|---|---|---|---|---|---|"]
    for row in results["rows"]:
        rate = "saturated" if row["rate"] is None else f"{row['rate']:g}/s"
        lines.append(
            f"| {row['topology']} | {row['protocol']} {row['body_bytes']} B {row['connections']} {rate} |"
            f" {row['requests_per_s']:.0f} | {row['cpu_us_per_request']:.1f} | {row['p50_us']:.0f} |"
            f" {row['p90_us']:.0f} | {row['p99_us']:.0f} | {row['rss_mib']:.1f} |"
        )
    return "\n".join(lines) + "\n"
