"""The application that the fault tests hurt, and the load that must not notice.

`LAYOUT` is three replicas of a small server behind a Service, and a pod to call from. `loading` runs the client
program in that pod while a block runs, and hands out what became of its requests.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from e2e.pods import eventually
from tulle.mesh import State
from tulle.testing import LiveMesh

HERE = Path(__file__).parent
PYTHON = "python3"

CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  containers:
  - {name: main, command: [sleep, infinity]}
---
"""
SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{{annotations}}}}}
    spec:
      containers:
      - name: main
        command: [{python}, {program}]
        env: [{{name: EDITION, value: "{edition}"}}]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"""


def server(replicas: int = 3, edition: str = "1", annotations: str = "") -> str:
    """Return the manifests of the server; another edition is another revision of its pods."""
    return SERVER.format(
        replicas=replicas,
        edition=edition,
        annotations=annotations,
        python=PYTHON,
        program=HERE / "origin.py",
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the requests so far."""

    done: int
    failed: int
    failures: list[dict[str, object]]
    replaced: int
    servers: dict[str, int]
    slowest_ms: int
    longest_gap_ms: int
    trouble_ended: float
    seconds: float


class Clients:
    """The client program in its pod."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def report(self) -> Report:
        """Return what became of the requests so far."""
        return await self._ask(b"report\n")

    async def pause(self) -> None:
        """Send nothing more; connections stay open."""
        self._say(b"pause\n")

    async def go(self) -> None:
        """Go on."""
        self._say(b"go\n")

    async def more(self, count: int, *, within_s: float = 30) -> Report:
        """Return when this many further requests were answered."""
        least = (await self.report()).done + count

        async def enough() -> bool:
            return (await self.report()).done >= least

        await eventually(enough, f"{count} more answers", within_s=within_s)
        return await self.report()

    async def unharmed(self, what: str) -> Report:
        """Return what became of the requests so far, none of which may have failed."""
        report = await self.report()
        print(f"{what}: {report}")  # noqa: T201 (the figures belong to the test's output)
        assert report.failed == 0, f"{what}: {report.failed} of {report.done} failed: {report.failures}"
        return report

    async def end(self) -> None:
        """End the program."""
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def _say(self, order: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order)

    async def _ask(self, order: bytes) -> Report:
        self._say(order)
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 20)
        assert line, "the client program ended; its error is above"
        return Report(**json.loads(line))


@contextlib.asynccontextmanager
async def loading(
    mesh: LiveMesh,
    host: str = "web",
    *,
    client: str = "client",
    rate: int = 500,
    connections: int = 50,
    methods: str = "GET,POST",
    port: int = 80,
) -> AsyncIterator[Clients]:
    """Load a service from inside a pod while the block runs."""
    command = [PYTHON, str(HERE / "clients.py"), host, f"--rate={rate}", f"--connections={connections}"]
    command += [f"--methods={methods}", f"--port={port}"]
    process = await asyncio.create_subprocess_exec(
        *await mesh.api.exec_arguments(client, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    clients = Clients(process)
    try:
        await clients.more(min(rate, 200))
        yield clients
    finally:
        await clients.end()


async def replaced(mesh: LiveMesh, before: State, count: int, *, within_s: float = 60) -> State:
    """Return when the server's pods are `count` other ready ones than before."""
    old = {pod.name for pod in before.pods if pod.workload == "Deployment/web"}

    async def settled() -> bool:
        pods = [pod for pod in (await mesh.api.state()).pods if pod.workload == "Deployment/web"]
        return len(pods) == count and all(pod.ready and pod.name not in old for pod in pods)

    await eventually(settled, f"{count} new pods of web", within_s=within_s)
    return await mesh.api.state()
