"""Builds the fuzz targets once, runs each for a time, and fails where one finds something.

Coverage-guided fuzzing on stable Rust: LLVM's instrumentation is there without a nightly compiler, and a sanitizer is
not needed where `unsafe` is forbidden. What was learnt stays in the build folder and the next run begins with it;
what is committed under `proxy/fuzz/corpus/` are seeds, and the inputs that once were findings.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "proxy" / "fuzz" / "corpus"
HOME = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute() / "fuzz"
INSTRUMENTED = (
    "-Cpasses=sancov-module",
    *(
        f"-Cllvm-args=-sanitizer-coverage-{what}"
        for what in ("level=4", "inline-8bit-counters", "pc-table", "trace-compares")
    ),
)
MANIFESTS = "manifests"
"""The one target in Python."""
MEMORY_MIB = {MANIFESTS: 2048}
"""Where YAML may become 200,000 nodes."""
USUAL_MEMORY_MIB = 512
SLOW_S = 10
LONGEST = {MANIFESTS: 16_384, "client_hello": 20_000, "transport_header": 70_000}
USUAL_LONGEST = 4_096
STARTUP_S = 120
"""Beyond its time a target reads its corpus first, and minimizes nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one target."""

    target: str
    seed: int
    seconds: float
    executions: int = 0
    coverage: int = 0
    finding: str | None = None
    skipped: str | None = None

    @property
    def result(self) -> str:
        """The outcome in words."""
        return self.finding or (f"skipped: {self.skipped}" if self.skipped else "ok")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="tools/fuzz", description="Fuzz every parser of what comes from outside."
    )
    parser.add_argument("seconds", type=int, help="how long each target runs")
    parser.add_argument("targets", nargs="*", help="all of them unless named")
    parser.add_argument("--seed", type=int, help="repeat a run; random unless told")
    parser.add_argument("--junit", type=Path, help="write the results as JUnit XML")
    options = parser.parse_args()

    known = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
    unknown = sorted(set(options.targets) - set(known))
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(known)}")
    targets = options.targets or known
    seed = options.seed or random.randrange(1, 2**31)
    missing = "" if set(targets) == {MANIFESTS} else build()
    print(f"{'target':18} {'executions':>12} {'coverage':>9} {'seed':>11}  result", flush=True)
    runs = []
    for target in targets:
        runs.append(fuzz(target, options.seconds, seed, missing))
        run = runs[-1]
        print(f"{target:18} {run.executions:12,} {run.coverage:9,} {run.seed:11}  {run.result}", flush=True)
    if options.junit:
        write_junit(options.junit, runs)
    return 1 if any(run.finding for run in runs) else 0


def build() -> str:
    """Build the targets in Rust; return what this machine lacks for that, if anything."""
    if shutil.which("c++") is None:
        return "libFuzzer needs a C++ compiler: apt-get install g++"
    environment = {**os.environ, "RUSTFLAGS": " ".join(INSTRUMENTED)}
    command = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--manifest-path",
        "proxy/fuzz/Cargo.toml",
    ]
    # With the target named, build scripts and macros stay as they are.
    command += ["--target", host(), "--target-dir", str(HOME)]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        raise SystemExit(
            "the fuzz targets cannot be built; after a change of dependencies: "
            "cargo update --workspace --manifest-path proxy/fuzz/Cargo.toml"
        )
    return ""


def host() -> str:
    """Return the compiler's own target."""
    told = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(line.removeprefix("host: ") for line in told.splitlines() if line.startswith("host: "))


def fuzz(target: str, seconds: int, seed: int, missing: str) -> Run:
    """Run one target."""
    if target == MANIFESTS:
        missing = "" if importable("atheris") or fetched() else "atheris has no wheel for this machine"
        program = [sys.executable, str(ROOT / "tools" / "fuzz_manifests.py")]
    else:
        program = [str(HOME / host() / "release" / "tulle-fuzz")] if not missing else []
    if missing:
        return Run(target, seed, 0, skipped=missing)
    learnt, findings = HOME / "corpus" / target, HOME / "findings" / target
    for folder in (learnt, findings):
        folder.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "timeout": SLOW_S,
        "max_len": LONGEST.get(target, USUAL_LONGEST),
        "rss_limit_mb": MEMORY_MIB.get(target, USUAL_MEMORY_MIB),
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    command = [
        *program,
        *(f"-{name}={value}" for name, value in options.items()),
        str(learnt),
        str(CORPUS / target),
    ]
    environment = {**os.environ, "TULLE_FUZZ_TARGET": target, "PYTHONPATH": str(ROOT), "RUST_BACKTRACE": "1"}
    begun = time.monotonic()
    log = HOME / f"{target}.log"
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds + STARTUP_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    said = log.read_text(errors="replace")
    finding = None
    if code != 0:
        kept = re.findall(r"Test unit written to (\S+)", said)
        finding = f"FOUND {kept[-1] if kept else 'nothing that repeats it'}; see {log}"
    return Run(
        target,
        seed,
        time.monotonic() - begun,
        executions=last_number(said, r"stat::number_of_executed_units: +(\d+)")
        or last_number(said, r"^#(\d+)"),
        coverage=last_number(said, r"\bcov: (\d+)"),
        finding=finding,
    )


def importable(module: str) -> bool:
    """Say whether a module is there, in a process of its own: it may change how others are loaded."""
    tried = [sys.executable, "-c", f"import {module}"]
    return subprocess.run(tried, stderr=subprocess.DEVNULL, check=False).returncode == 0


def fetched() -> bool:
    """Install the group `fuzz` into the environment; say whether the module is there then."""
    sync = [".venv/bin/uv", "sync", "--quiet", "--frozen", "--inexact", "--group", "fuzz"]
    subprocess.run([*sync, "--no-install-package", "tulle-proxy"], cwd=ROOT, check=False)
    return importable("atheris")


def last_number(text: str, pattern: str) -> int:
    """Return the last number that a pattern finds."""
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


def write_junit(path: Path, runs: list[Run]) -> None:
    """Write the results in the form that test runners share."""
    suite = ET.Element("testsuite", name="fuzz", tests=str(len(runs)))
    for run in runs:
        case = ET.SubElement(suite, "testcase", classname="fuzz", name=run.target, time=f"{run.seconds:.1f}")
        if run.finding:
            ET.SubElement(case, "failure", message=run.finding)
        elif run.skipped:
            ET.SubElement(case, "skipped", message=run.skipped)
        output = ET.SubElement(case, "system-out")
        output.text = f"{run.executions} executions, coverage {run.coverage}, seed {run.seed}"
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(path, encoding="unicode")


if __name__ == "__main__":
    sys.exit(main())
