"""Starting processes and opening sockets inside other namespaces, and learning how each process ended.

The supervisor is the first process of its PID namespace, so every orphan becomes its child: one handler reaps
whatever ended and tells the waiter, if there is one. asyncio's own subprocesses are not used, since their
watchers would fight this handler for exit codes.

Entering a namespace is done by a thread that does nothing else. It moves, starts the process or opens the
socket there, and moves on; both keep the namespace they were made in. So a container is a direct child whose
pid and exit code are its own, without wrapper processes, and a probe's socket lives in the loop like any other.
The thread never goes back to the host's network namespace, which a plain user could not enter again.
"""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from tulle.local import kernel

Result = TypeVar("Result")

_KINDS = {
    "mnt": kernel.CLONE_NEWNS,
    "net": kernel.CLONE_NEWNET,
    "pid": kernel.CLONE_NEWPID,
    "uts": kernel.CLONE_NEWUTS,
    "ipc": kernel.CLONE_NEWIPC,
}


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Open descriptors of namespaces by kind; whoever holds them keeps the namespaces alive."""

    descriptors: Mapping[str, int]

    def only(self, *kinds: str) -> "Namespaces":
        """Return some of them, still owned by this object."""
        return Namespaces({kind: self.descriptors[kind] for kind in kinds})

    def path(self, kind: str) -> str:
        """Return a path by which any process of the mesh can open the namespace."""
        return f"/proc/{os.getpid()}/fd/{self.descriptors[kind]}"

    def close(self) -> None:
        """Let go of them."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start. `prepare` runs in the starting thread, after it entered the namespaces."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    stdin: int = subprocess.DEVNULL
    stdout: int = subprocess.DEVNULL
    stderr: int = subprocess.DEVNULL
    keep_open: tuple[int, ...] = ()
    inside: Namespaces | None = None
    fresh: int = 0
    """Namespaces to make for this process: CLONE_* flags."""
    prepare: Callable[[], None] | None = None


class Child:
    """A running process, or one that ended."""

    def __init__(self, pid: int, ended: "asyncio.Future[int]") -> None:
        self.pid = pid
        self._ended = ended

    @property
    def running(self) -> bool:
        """Say whether it has not ended yet."""
        return not self._ended.done()

    async def wait(self) -> int:
        """Return its exit code, or the negative number of the signal that ended it."""
        return await asyncio.shield(self._ended)

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs. Its pid cannot be another's: only the reaper frees it."""
        if self.running:
            os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a short command said."""

    code: int
    output: str


class Spawner:
    """The one place where processes are started and reaped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._home: dict[str, int] = {}
        self._thread = ThreadPoolExecutor(1, "namespaces", self._leave_shared_root)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    async def spawn(self, command: Command) -> Child:
        """Start a process.

        Raises OSError where the kernel, `prepare` or the exec said no.
        """
        return await self._loop.run_in_executor(self._thread, self._start, command)

    async def run(
        self, argv: Sequence[str], *, stdin: str = "", inside: Namespaces | None = None
    ) -> Completed:
        """Run a short command to its end."""
        given, taken = os.memfd_create("stdin"), os.memfd_create("output")
        try:
            os.write(given, stdin.encode())
            os.lseek(given, 0, os.SEEK_SET)
            child = await self.spawn(
                Command(argv, dict(os.environ), stdin=given, stdout=taken, stderr=taken, inside=inside)
            )
            code = await child.wait()
            os.lseek(taken, 0, os.SEEK_SET)
            with open(taken, errors="replace", closefd=False) as output:
                return Completed(code, output.read().strip())
        finally:
            os.close(given)
            os.close(taken)

    async def socket(self, inside: Namespaces, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Open a socket that lives in a network namespace."""

        def open_there() -> socket.socket:
            with _Visit(self._home, inside.only("net"), 0):
                made = socket.socket(family, kind)
            made.setblocking(False)
            return made

        return await self._loop.run_in_executor(self._thread, open_there)

    async def new_network(self) -> Namespaces:
        """Make a network namespace that lives as long as the answer is open."""

        def make() -> Namespaces:
            kernel.unshare(kernel.CLONE_NEWNET)
            return Namespaces({"net": _own("net")})

        return await self._loop.run_in_executor(self._thread, make)

    def _leave_shared_root(self) -> None:
        """Give the thread a root and working folder of its own, and remember where it is at home."""
        kernel.unshare(kernel.CLONE_FS)
        self._home = {kind: _own(kind) for kind in _KINDS if kind != "net"}

    def _start(self, command: Command) -> Child:
        with _Visit(self._home, command.inside, command.fresh):
            if command.prepare:
                command.prepare()
            with self._lock:
                process = subprocess.Popen(
                    command.argv,
                    env=command.env,
                    cwd=command.cwd,
                    stdin=command.stdin,
                    stdout=command.stdout,
                    stderr=command.stderr,
                    pass_fds=command.keep_open,
                    start_new_session=True,
                )
                # The handler below reaps it; Popen must not believe that it still has to.
                process.returncode = 0
                ended: asyncio.Future[int] = self._loop.create_future()
                self._waiting[process.pid] = ended
        return Child(process.pid, ended)

    def _reap(self) -> None:
        """Collect every child that ended, the orphans that we inherited too."""
        with self._lock:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                ended = self._waiting.pop(pid, None)
                if ended is not None and not ended.done():
                    ended.set_result(os.waitstatus_to_exitcode(status))


class _Visit:
    """Moves the thread into namespaces, and afterwards home."""

    def __init__(self, home: Mapping[str, int], inside: Namespaces | None, fresh: int) -> None:
        self._home = home
        self._inside = inside
        self._fresh = fresh

    def __enter__(self) -> None:
        try:
            for kind, descriptor in (self._inside.descriptors if self._inside else {}).items():
                kernel.setns(descriptor, _KINDS[kind])
            if self._fresh:
                kernel.unshare(self._fresh)
        except OSError:
            self._return()
            raise

    def __exit__(self, *_: object) -> None:
        self._return()

    def _return(self) -> None:
        for kind, descriptor in self._home.items():
            kernel.setns(descriptor, _KINDS[kind])


def open_namespaces(pid: int) -> Namespaces:
    """Open all namespaces of a process."""
    return Namespaces(
        {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in _KINDS}
    )


def _own(kind: str) -> int:
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
