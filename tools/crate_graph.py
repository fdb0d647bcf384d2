"""Checks that the proxy's crates depend only downwards, over `cargo metadata`.

A crate may use crates of lower layers, and those beside it that the table names. Some outside libraries belong
to one crate, so that replacing one, or judging what a peer can reach of it, stays a matter of one crate.
Dependencies of tests are free.
"""

import json
import subprocess
import sys
from typing import Any

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"core", "api"}),
    frozenset({"policy", "balance", "http", "tls", "transport", "metrics", "config", "telemetry"}),
    frozenset({"discovery", "identity", "tap", "trace", "admin"}),
    frozenset({"inbound", "outbound"}),
    frozenset({"app"}),
    frozenset({"proxy", "testkit", "engine", "load"}),
)

BESIDE = {
    ("tls", "transport"): "TLS is read off a connection whose first bytes were looked at already",
    ("admin", "discovery"): "a proxy is ready when the policies of its ports are known",
    ("telemetry", "http"): "it observes bodies",
    ("telemetry", "metrics"): "and counts what it observes",
}

OWNERS = {
    "hyper": {
        "http": "the only HTTP/2",
        "discovery": "tonic's connector is written in hyper's types",
        "tap": "tonic's server is one of hyper's services",
    },
    "h2": {"http": "the only HTTP/2"},
    "httparse": {
        "http": "the only HTTP/1",
        "transport": "a request line is told from other bytes by the parser that will read it",
    },
    "rustls": {"tls": "the only TLS"},
    "tokio-rustls": {"tls": "the only TLS"},
    "tonic": {
        "api": "generated code",
        "discovery": "client",
        "identity": "client",
        "trace": "client",
        "tap": "server",
    },
    "anyhow": {"proxy": "errors that end the process"},
}

PURE = {"core", "api", "config", "policy"}
"""Crates that never wait: no tokio."""

OUTSIDE = {"load", "testkit"}
"""Programs for tests and benches; outside libraries are free there."""


def main() -> int:
    """Print what is wrong and return how many lines that were, at most 1."""
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    crates = {short(package["name"]): package for package in metadata["packages"]}
    mistakes = [mistake for name, package in crates.items() for mistake in check(name, package)]
    for mistake in mistakes:
        sys.stderr.write(f"{mistake}\n")
    sys.stdout.write(f"crate graph: {len(crates)} crates, {len(mistakes)} mistakes\n")
    return min(len(mistakes), 1)


def short(name: str) -> str:
    """Return a crate's name without the product's."""
    return name.removeprefix("tulle-")


def layer(name: str) -> int | None:
    """Return how high a crate is, from 0."""
    return next((index for index, names in enumerate(LAYERS) if name in names), None)


def check(name: str, package: dict[str, Any]) -> list[str]:
    """Return what is wrong with one crate's dependencies."""
    height = layer(name)
    if height is None:
        return [f"{name}: not in the table of tools/crate_graph.py"]
    mistakes: list[str] = []
    for dependency in package["dependencies"]:
        if dependency["kind"] is not None:
            continue
        used = short(dependency["name"])
        if dependency.get("path") is not None:
            below = layer(used)
            if below is not None and below >= height and (name, used) not in BESIDE:
                mistakes.append(f"{name} uses {used}, which is not below it")
        elif name not in OUTSIDE and name not in OWNERS.get(used, {name: ""}):
            mistakes.append(f"{name} uses {used}, which belongs to {', '.join(OWNERS[used])}")
        elif name in PURE and used == "tokio":
            mistakes.append(f"{name} uses tokio, but it is pure")
    return mistakes


if __name__ == "__main__":
    sys.exit(main())
