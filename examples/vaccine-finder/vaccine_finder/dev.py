"""Runs all parts on loopback, without a mesh: `python -m vaccine_finder.dev [--port 8080] [--rate 0]`.

There is no balancer here, so `sites` has one replica. The parts are processes as in a mesh; what is
different is only the addresses in their environment.
"""

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

READY_WITHIN_S = 30
STOP_WITHIN_S = 30
_LOOK_EVERY_S = 0.05
_FOLDER = Path(__file__).parents[1]


@dataclass(slots=True)
class Finder:
    """The running parts."""

    environments: dict[str, dict[str, str]]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def url(self, part: str) -> str:
        """Return where a part that speaks HTTP listens."""
        return f"http://{self.environments[part]['LISTEN']}"

    def start(self, part: str) -> None:
        """Start a part and wait until it accepts connections."""
        environment = os.environ | self.environments[part] | {"PYTHONPATH": str(_FOLDER)}
        command = [sys.executable, "-m", f"vaccine_finder.{part}"]
        # In a session of its own: Ctrl-C must reach only us, who stop the callers before the called.
        self.processes[part] = subprocess.Popen(command, env=environment, start_new_session=True)
        host, _, port = self.environments[part]["LISTEN"].rpartition(":")
        give_up = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                return
            except ConnectionRefusedError:
                if self.processes[part].poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"{part} did not start") from None
                time.sleep(_LOOK_EVERY_S)

    def stop(self, part: str) -> int:
        """Stop a part and return its exit code."""
        self.processes[part].terminate()
        return self.processes.pop(part).wait(STOP_WITHIN_S)


@contextlib.contextmanager
def running(data_dir: Path, *, port: int = 0, rate: float = 0) -> Iterator[Finder]:
    """Run all parts; 0 is any free port."""
    parts = ("sites", "slots", "eligibility", "members", "web", "visitors")
    listen = {part: f"127.0.0.1:{_free_port()}" for part in parts}
    if port:
        listen["web"] = f"127.0.0.1:{port}"
    environments = {part: {"LISTEN": listen[part]} for part in parts}
    for part in ("eligibility", "members"):
        environments[part]["HEALTH_LISTEN"] = f"127.0.0.1:{_free_port()}"
    environments["slots"]["DATA_DIR"] = str(data_dir)
    environments["web"] |= {
        "SESSION_KEY": secrets.token_hex(16),
        "SITES_URL": f"http://{listen['sites']}",
        "SLOTS_URL": f"http://{listen['slots']}",
        "ELIGIBILITY_ADDRESS": listen["eligibility"],
        "MEMBERS_ADDRESS": listen["members"],
    }
    environments["visitors"] |= {"WEB_URL": f"http://{listen['web']}", "RATE": str(rate)}
    finder = Finder(environments)
    try:
        for part in parts:
            finder.start(part)
        yield finder
    finally:
        for part in [part for part in reversed(parts) if part in finder.processes]:
            finder.stop(part)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def main() -> None:
    """Run until Ctrl-C."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=8080, help="of the page (8080)")
    options.add_argument("--rate", type=float, default=0, help="journeys of made-up visitors per second (0)")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory() as data_dir,
        contextlib.suppress(KeyboardInterrupt),
        running(Path(data_dir), port=chosen.port, rate=chosen.rate) as finder,
    ):
        sys.stdout.write(f"The vaccine finder is at {finder.url('web')} until Ctrl-C.\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
