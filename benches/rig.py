"""The ground of every measurement: network namespaces, links, and processes tied to a core.

The bench runs in namespaces of its own (see `__main__`), so whatever it leaves behind ends with it. A bridge joins
two pods and the control plane; every topology uses the same two pods and links. Generator and origin share one
core, the proxies the other. A process that only spins at the lowest priority runs on each core, because a virtual
processor that halts takes longer to wake than most requests take to be answered; it must be in the session of the
servers, since the scheduler shares time between sessions first and minds priorities only within one.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benches import proc
from tulle.model.pod import ADMIN_PORT

HUB = "10.77.0.1"
CLIENT, SERVER, CONTROL = "client", "server", "control"
ADDRESSES = {CLIENT: "10.77.0.2", SERVER: "10.77.0.3", CONTROL: "10.77.0.4"}
BACKENDS = tuple(f"10.77.1.{number}" for number in range(1, 12))
"""More addresses of the server's pod, for the measurement with eleven back ends."""
CLUSTER_IPS = "10.78.0.0/16"

LOAD_CORE, PROXY_CORE = "0", "1"
PROXY_UID, NOBODY = 2102, 65534

HTTP1, GRPC, TCP = 8080, 8081, 8082
"""Where the origin listens, on every address of the server's pod."""
PORTS = {"http1": HTTP1, "grpc": GRPC, "tcp": TCP}

NAMES = Path("/run/netns")
"""Where `ip` keeps the names of namespaces; ours are in a file system of our own."""
STOP_S = 10.0
READY_S = 60.0
SYSCTL = {
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/core/somaxconn": "8192",
}
"""Set in each namespace: ten thousand connections and connections without keep-alive need the ports."""


class BenchError(Exception):
    """The bench cannot do what it was asked to; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Process:
    """A running process and where it writes to."""

    name: str
    child: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        """Its number; the programs that only set the stage replace themselves by it."""
        return self.child.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended.

        Not by way of the subprocess module, which would reap it and so hide from asyncio how it ended.
        """
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def words(self) -> str:
        """Return the last that it said."""
        lines = self.log.read_text(errors="replace").splitlines()[-8:]
        return "\n".join(lines) or "(it said nothing)"


class Rig:
    """Starts processes on their places and knows all that it started."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        """Of the source tree."""
        self.processes: list[Process] = []

    async def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        core: str,
        where: str | None = None,
        uid: int = 0,
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> Process:
        """Start a process, as another user and in a pod's namespace if so wished."""
        stage = ["taskset", "-c", core, "setpriv", "--pdeathsig", "KILL"]
        if uid:
            stage += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        if where:
            stage = ["ip", "netns", "exec", where, *stage]
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            child = await asyncio.create_subprocess_exec(
                *stage,
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if piped else file,
                stderr=file,
                env={"PATH": os.environ["PATH"], **(environment or {})},
                cwd=self.folder,
            )
        process = Process(name, child, log)
        self.processes.append(process)
        return process

    async def stop(self, processes: Iterable[Process]) -> None:
        """End processes, the stubborn by force."""
        for process in (gone := list(processes)):
            process.signal(signal.SIGTERM)
        for process in gone:
            try:
                await asyncio.wait_for(process.child.wait(), STOP_S)
            except TimeoutError:
                process.signal(signal.SIGKILL)
                await process.child.wait()
            if process in self.processes:
                self.processes.remove(process)

    @asynccontextmanager
    async def running(self, *processes: Process) -> AsyncIterator[None]:
        """End the processes in the end."""
        try:
            yield
        finally:
            await self.stop(reversed(processes))

    def own_cpu_ns(self) -> int:
        """Return the CPU time of the bench itself and all that it runs."""
        return proc.cpu_ns([os.getpid()])

    def writable(self, uid: int) -> Path:
        """Return a folder that a user may write to."""
        folder = self.folder / f"of-{uid}"
        folder.mkdir(exist_ok=True)
        os.chown(folder, uid, uid)
        return folder

    def copy(self, program: Path, name: str) -> str:
        """Copy a program to where every user can run it."""
        to = self.folder / "bin" / name
        to.parent.mkdir(exist_ok=True)
        if not to.exists() or to.stat().st_mtime < program.stat().st_mtime:
            shutil.copy2(program, to)
            to.chmod(0o755)
        return str(to)


async def call(*argv: str, text: str = "") -> str:
    """Run a command to its end; return its output.

    Raises BenchError with what it said.
    """
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await child.communicate(text.encode())
    if child.returncode:
        raise BenchError(f"{' '.join(argv)}: {said.decode(errors='replace').strip()}")
    return said.decode()


async def lay_out() -> None:
    """Make the namespaces and the links between them."""
    NAMES.mkdir(exist_ok=True)
    await call("mount", "-t", "tmpfs", "tmpfs", str(NAMES))
    lines = ["link set lo up", "link add br0 type bridge", f"addr add {HUB}/16 dev br0", "link set br0 up"]
    await call("ip", "-batch", "-", text="\n".join(lines))
    for name, address in ADDRESSES.items():
        await call("ip", "netns", "add", name)
        link = [
            f"link add v-{name} type veth peer name eth0 netns {name}",
            f"link set v-{name} master br0 up",
        ]
        await call("ip", "-batch", "-", text="\n".join(link))
        more = BACKENDS if name == SERVER else ()
        inside = [
            "link set lo up",
            *(f"addr add {each}/16 dev eth0" for each in (address, *more)),
            "link set eth0 up",
            f"route add {CLUSTER_IPS} via {HUB}",
        ]
        await call("ip", "-n", name, "-batch", "-", text="\n".join(inside))
        for key, value in SYSCTL.items():
            await call("ip", "netns", "exec", name, "sh", "-c", f'echo "$0" > /proc/sys/{key}', value)


@asynccontextmanager
async def awake(rig: Rig) -> AsyncIterator[None]:
    """Keep the cores from halting."""
    spin = ["chrt", "-i", "0", "sh", "-c", "while :; do :; done"]
    spinners = [await rig.start(f"spin-{core}", spin, core=core) for core in (LOAD_CORE, PROXY_CORE)]
    async with rig.running(*spinners):
        yield


async def reachable(process: Process, address: str, port: int) -> None:
    """Return when a process accepts connections; raises BenchError when it ends before."""
    await _until(process, lambda: _connects(address, port))


async def ready(process: Process, address: str, *, pause: float = 0.01) -> None:
    """Return when a proxy says that it is ready; it is asked again after each pause."""
    await _until(process, lambda: _says_ready(address), pause)


async def listening(process: Process, where: str, port: int) -> None:
    """Return when a process listens on a port of a pod's loopback, which cannot be tried from here."""

    async def listens() -> bool:
        return bool((await inside(where, "ss", "-Hltn", f"sport = :{port}")).strip())

    await _until(process, listens)


async def inside(where: str, *argv: str, text: str = "") -> str:
    """Run a command in a pod's namespace."""
    return await call("ip", "netns", "exec", where, *argv, text=text)


async def _until(process: Process, good: Callable[[], Awaitable[bool]], pause: float = 0.01) -> None:
    try:
        async with asyncio.timeout(READY_S):
            while not await good():
                if process.child.returncode is not None:
                    raise BenchError(
                        f"{process.name} ended with {process.child.returncode}: {process.words()}"
                    )
                await asyncio.sleep(pause)
    except TimeoutError:
        raise BenchError(f"{process.name} was not ready within {READY_S:g} s: {process.words()}") from None


async def _connects(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


async def _says_ready(address: str) -> bool:
    return (await get(address, ADMIN_PORT, "/ready")).startswith(b"HTTP/1.1 200")


async def get(address: str, port: int, path: str) -> bytes:
    """Fetch over HTTP/1.1; empty if nobody answers."""
    try:
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
    except OSError:
        return b""
    writer.close()
    return answer
