"""Writes docs/conformance/README.md: which suites Tulle passes, in which version, and how to repeat each.

    tools/passport.py             run every suite that this machine can run
    tools/passport.py NAME…       run these, and keep the other rows as they are
    tools/passport.py --list      name the suites

A suite is one entry in `SUITES`: a command, and where its results are. A command that can write JUnit XML gets a file
for it; the output of the others is read. A suite whose needs are not met has no row: the table says what ran, and
the lines below it what did not and why. A suite that failed has its row and fails this program.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "conformance" / "README.md"
RESULTS = ROOT / "docs" / "conformance" / "results.json"
PYTEST = (".venv/bin/python", "-m", "pytest", "-q", "--junit-xml={junit}")
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
PAGE_HEAD = """# Conformance

Written by `make passport`; do not edit. One row per suite that ran, with the command that repeats it. The last run
was on {date}, on {machine}, at {commit}.

| suite | result | version | repeat with |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the tests of a suite."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, passed: int, failed: int, skipped: int) -> "Counts":
        """Add to them."""
        return Counts(self.passed + passed, self.failed + failed, self.skipped + skipped)


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite: its command with `{junit}` in place of a file, and what it needs."""

    name: str
    about: str
    command: tuple[str, ...]
    version: Callable[[], str]
    pattern: re.Pattern[str] | None = None
    """How its output tells the numbers, where it writes no JUnit XML."""
    environment: Mapping[str, str | None] | None = None
    """What to set; None takes a variable away."""
    needs: Callable[[], str | None] = lambda: None
    """Say what is missing."""

    @property
    def repeat(self) -> str:
        """The command as a person types it."""
        words = [word for word in self.command if "{junit}" not in word]
        variables = [f"{name}={value}" for name, value in (self.environment or {}).items() if value]
        return " ".join((*variables, *words))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    name: str
    about: str
    result: str
    version: str
    repeat: str


def own_version() -> str:
    """Return our version."""
    text = (ROOT / "tulle" / "__init__.py").read_text()
    found = re.search(r'__version__ = "([^"]+)"', text)
    return f"tulle {found[1] if found else 'of unknown version'}"


def locked(package: str) -> Callable[[], str]:
    """Return a crate's name and version out of the lock file."""

    def version() -> str:
        found = re.search(rf'name = "{package}"\nversion = "([^"]+)"', (ROOT / "Cargo.lock").read_text())
        return f"{package} {found[1] if found else 'of unknown version'}"

    return version


def stock_version() -> str:
    """Return what the stock proxy is."""
    return f"linkerd2-proxy ({Path(os.environ[STOCK]).name})"


def h2spec_version() -> str:
    """Return the version of h2spec in the Go module that builds it."""
    found = re.search(r"summerwind/h2spec (\S+)", (ROOT / "tools" / "h2spec" / "go.mod").read_text())
    return f"h2spec {found[1] if found else 'of unknown version'}"


def without_stock() -> str | None:
    """Say that there is no stock proxy."""
    return None if os.environ.get(STOCK) else f"{STOCK} names no linkerd2-proxy binary"


def without_go() -> str | None:
    """Say that h2spec cannot be built."""
    return (
        None if shutil.which("go") else "it is written in Go, which is not installed: apt-get install golang"
    )


STOCK = "TULLE_STOCK_PROXY"
SUITES = (
    Suite(
        "rust",
        "unit and dialogue tests of the data plane",
        ("cargo", "test", "--workspace", "--locked", "--no-fail-fast"),
        own_version,
        pattern=CARGO_RESULT,
    ),
    Suite("python", "unit tests of the control plane and the command line", (*PYTEST, "tests"), own_version),
    Suite(
        "end-to-end",
        "the whole system, our proxy on both sides",
        (*PYTEST, "e2e"),
        own_version,
        environment={STOCK: None},
    ),
    Suite(
        "end-to-end-stock",
        "the same with the stock proxy on either side",
        (*PYTEST, "e2e"),
        stock_version,
        needs=without_stock,
    ),
    Suite(
        "wire",
        "every message against the public crate: what one encodes the other decodes to equal values",
        ("cargo", "test", "--locked", "--package", "tulle-api"),
        locked("linkerd2-proxy-api"),
        pattern=CARGO_RESULT,
    ),
    Suite(
        "h2spec",
        "HTTP/2, strictly: inbound and outbound, plain and over mesh TLS",
        (*PYTEST, "e2e/test_h2spec.py"),
        h2spec_version,
        needs=without_go,
    ),
    Suite(
        "fuzz",
        "every parser of what comes from outside, a minute each; a test is a target",
        ("tools/fuzz", "60", "--junit={junit}"),
        own_version,
    ),
    Suite(
        "examples",
        "the example applications' own tests",
        (*PYTEST, "examples"),
        own_version,
    ),
)


def main() -> int:
    """Run suites and write the page."""
    parser = argparse.ArgumentParser(
        prog="tools/passport.py", description="Write docs/conformance/README.md."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these suites; the other rows stay")
    parser.add_argument("--list", action="store_true", help="name the suites")
    options = parser.parse_args()
    if options.list:
        for suite in SUITES:
            print(f"{suite.name:18} {suite.repeat}")
        return 0
    known = {suite.name for suite in SUITES}
    if unknown := sorted(set(options.names) - known):
        parser.error(f"no suite {', '.join(unknown)}; --list names them")

    rows = read_rows() if options.names else {}
    absent: list[str] = []
    failed = False
    for suite in SUITES:
        missing = suite.needs()
        if missing:
            rows.pop(suite.name, None)
            absent.append(f"{suite.about}: {missing}")
            continue
        if options.names and suite.name not in options.names:
            continue
        row, passed = run(suite)
        rows[suite.name] = row
        failed |= not passed
        print(f"{suite.name:18} {row.result}", flush=True)
    write_page(rows, absent)
    return 1 if failed else 0


def run(suite: Suite) -> tuple[Row, bool]:
    """Run one suite."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        command = [word.replace("{junit}", str(junit)) for word in suite.command]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for name, value in (suite.environment or {}).items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        print(f"{suite.name}: {' '.join(command)}", file=sys.stderr, flush=True)
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=None, text=True, check=False
        )
        counts = counted_in(done.stdout, suite.pattern) if suite.pattern else counted(junit)
    passed = done.returncode == 0 and counts.passed > 0 and not counts.failed
    if not passed:
        print(done.stdout[-8000:], file=sys.stderr)
    return Row(suite.name, suite.about, told(counts, passed=passed), suite.version(), suite.repeat), passed


def told(counts: Counts, *, passed: bool) -> str:
    """Return a result in words."""
    total = counts.passed + counts.failed
    skipped = f", {counts.skipped} skipped" if counts.skipped else ""
    return f"{'passed' if passed else '**failed**'}: {counts.passed} of {total}{skipped}"


def counted(junit: Path) -> Counts:
    """Count the cases of JUnit XML; none where a run ended before it wrote any."""
    counts = Counts()
    if not junit.exists():
        return counts
    for case in ET.parse(junit).iter("testcase"):
        wrong = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        counts = counts.plus(not wrong and not skipped, wrong, skipped and not wrong)
    return counts


def counted_in(output: str, pattern: re.Pattern[str]) -> Counts:
    """Add up what a program's output says: passed, failed, left out."""
    counts = Counts()
    for passed, failed, skipped in pattern.findall(output):
        counts = counts.plus(int(passed), int(failed), int(skipped))
    return counts


def read_rows() -> dict[str, Row]:
    """Return the rows of the last time."""
    if not RESULTS.exists():
        return {}
    return {row["name"]: Row(**row) for row in json.loads(RESULTS.read_text())}


def write_page(rows: Mapping[str, Row], absent: list[str]) -> None:
    """Write the table, in the order of the suites."""
    ordered = [rows[suite.name] for suite in SUITES if suite.name in rows]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    ).stdout.strip()
    system = os.uname()
    machine = f"{system.sysname} {system.release} ({system.machine}, {os.cpu_count()} processors)"
    text = PAGE_HEAD.format(
        date=time.strftime("%Y-%m-%d"), machine=machine, commit=f"commit {commit}" if commit else "no commit"
    )
    for row in ordered:
        text += f"| {row.about} | {row.result} | {row.version} | `{row.repeat}` |\n"
    if absent:
        text += "\nNot run:\n\n" + "".join(f"- {line}\n" for line in absent)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text)
    RESULTS.write_text(json.dumps([asdict(row) for row in ordered], indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
