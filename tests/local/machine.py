"""Starts supervisors as real processes and talks to them, for tests that need a kernel."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tulle.local.client import Client
from tulle.model.errors import MeshError

APP = Path(__file__).with_name("app.py")
REPOSITORY = Path(__file__).parents[2]
SOON_S = 30.0
"""Far longer than anything takes; a machine that builds at the same time is slow in bursts."""

Json = dict[str, Any]


@dataclass(slots=True)
class Machine:
    """One mesh of one test, on this machine."""

    base: Path
    name: str
    port: int
    process: asyncio.subprocess.Process | None = None
    as_user: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def manifests(self) -> Path:
        return self.base / "manifests"

    @property
    def state_dir(self) -> Path:
        return self.base / "run" / self.name

    @property
    def persistent_dir(self) -> Path:
        return self.base / "lib" / self.name

    def write(self, text: str, file: str = "app.yaml") -> None:
        """Replace a manifest at once, as an editor does."""
        draft = self.manifests / f"{file}.draft"
        draft.write_text(text)
        draft.rename(self.manifests / file)

    async def start(self, *flags: str) -> None:
        for folder in (self.state_dir / "logs", self.persistent_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            *self.as_user,
            sys.executable,
            "-m",
            "tulle.serve.supervisor",
            f"--name={self.name}",
            f"--state-dir={self.state_dir}",
            f"--persistent-dir={self.persistent_dir}",
            *flags,
            str(self.manifests),
            cwd=REPOSITORY,
            env={**os.environ, **self.environment},
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def up(self, text: str, *flags: str) -> None:
        """Start with these manifests and wait until all is ready."""
        self.write(text)
        await self.start(*flags)
        process, socket_path = self.process, self.state_dir / "supervisor.sock"
        assert process is not None
        await eventually(lambda: socket_path.exists() or process.returncode is not None, "no socket")
        if process.returncode is not None:
            raise AssertionError((await self.words()) or "the supervisor ended")
        await self.settled()

    async def words(self) -> str:
        """Return what the supervisor said, once it ended."""
        assert self.process is not None
        _, said = await self.process.communicate()
        return said.decode()

    async def stop(self) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.communicate()
        return self.process.returncode or 0

    # What it says

    @property
    def init(self) -> int:
        """The host's number of the mesh's first process."""
        return int(json.loads((self.state_dir / "state.json").read_text())["init"])

    @property
    def client(self) -> Client:
        return Client(self.name, self.state_dir / "supervisor.sock")

    async def state(self) -> Json:
        return await self.client.get("/v1/state", dict)

    async def pods(self, prefix: str = "") -> list[Json]:
        return [pod for pod in (await self.state())["pods"] if pod["name"].startswith(prefix)]

    async def pod(self, prefix: str) -> Json:
        (found,) = await self.pods(prefix)
        return found

    async def post(self, path: str, **body: object) -> Json:
        return await self.client.post(path, body, dict)

    async def log(self, pod: str, container: str = "main") -> str:
        query = {"container": container, "follow": "0"}
        return "".join([text async for text in self.client.text(f"/v1/logs/default/{pod}", query)])

    async def settled(self, timeout_s: float = SOON_S) -> list[Json]:
        """Wait until every pod is ready or has succeeded and none is leaving."""

        async def calm() -> bool:
            pods = await self.pods()
            return bool(pods) and all(
                (pod["ready"] or pod["phase"] == "Succeeded") and pod["phase"] != "Terminating"
                for pod in pods
            )

        try:
            await eventually(calm, "", timeout_s)
        except AssertionError:
            raise AssertionError(json.dumps(await self.state(), indent=1)) from None
        return await self.pods()

    async def ask(self, endpoint: str, /, **query: str) -> Any:
        """Ask the program that is published on this machine."""
        text = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        return await get(self.port, f"/{endpoint}?{text}")

    async def fetch(self, url: str) -> Any:
        """Have the published program fetch something from inside the mesh."""
        return await self.ask("fetch", url=url)


@contextlib.asynccontextmanager
async def machine(*, as_user: Sequence[str] = ()) -> AsyncIterator[Machine]:
    """Lend a place for one mesh, and see to it that nothing of it is left."""
    base = Path(tempfile.mkdtemp(prefix="tulle-", dir="/tmp"))
    base.chmod(0o755)
    made = Machine(base, "test", free_port(), as_user=as_user)
    made.manifests.mkdir()
    shutil.copyfile(APP, made.manifests / "app.py")
    try:
        yield made
    finally:
        if made.process is not None and made.process.returncode is None:
            await made.stop()
        shutil.rmtree(base)


def leftovers(base: Path) -> list[str]:
    """Return what is there of a mesh: processes by their arguments, mounts by their place."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(base) in line:
                    found.append(f"process {entry.name}: {line}")
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(base) in line]
    return found


def children(parent: int, wanted: str) -> list[int]:
    """Return the processes below another one whose arguments contain a text."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        state, above = stat[stat.rindex(")") + 1 :].split()[:2]
        if int(above) == parent and state != "Z" and wanted in line:
            found.append(int(entry.name))
    return sorted(found)


def free_port() -> int:
    """Return a port that nobody listens on, below those that the kernel gives to clients."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def get(port: int, path: str, timeout_s: float = 15) -> Any:
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    status = int(head.split()[1])
    answer = json.loads(body)
    if status != 200:
        raise OSError(answer)
    return answer


async def eventually(condition: Callable[[], Any], what: str, timeout_s: float = SOON_S) -> Any:
    """Wait for something that another process does."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                with contextlib.suppress(OSError, IndexError, ValueError, MeshError):
                    holds = condition()
                    if asyncio.iscoroutine(holds):
                        holds = await holds
                    if holds:
                        return holds
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None
