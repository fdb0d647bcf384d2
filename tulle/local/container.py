"""One container of a pod: started, watched, ended, and started again as its restart policy says."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tulle.local.containers import Program, User
from tulle.local.ground import Ground, found, unprivileged
from tulle.local.plan import retry_delay_s
from tulle.local.probes import ProbeFailed, Target, ask
from tulle.local.processes import Child, Command, Namespaces, open_namespaces
from tulle.local.proxy import unless
from tulle.local.rootfs import Mount, Root
from tulle.local.sandbox import Sandbox
from tulle.model.errors import TulleError
from tulle.model.workload import Container, Exec, HttpGet, Probe, RestartPolicy, Sleep, TcpSocket

STEADY_S = 10.0
"""Who ran that long starts over with the shortest delay."""
EAGER_PROBE_S = 0.25
"""How often to ask until the first good answer, where the manifest says less often."""
CANNOT_START = 127
"""The code of a container that could not be started, as a shell gives it."""


@dataclass(slots=True)
class Status:
    """How a container is, over all lives of its pod."""

    started: bool = False
    ready: bool = False
    restarts: int = 0
    code: int | None = None
    """How it ended, when it is not started again."""
    child: Child | None = None
    note: str = ""

    @property
    def word(self) -> str:
        """How it is, in one word."""
        if self.child and self.child.running:
            return "running"
        return "waiting" if self.code is None else "succeeded" if self.code == 0 else "failed"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container needs to know of the pod that it is in, for one life of it."""

    ground: Ground
    namespace: str
    pod: str
    address: str
    sandbox: Sandbox
    policy: RestartPolicy
    grace_s: float
    deadline: Callable[[], float | None]
    """When everything must have ended; None while nobody wants that."""
    program: Callable[[Container], Program]
    user: Callable[[Container], User]
    mounts: Callable[[Container], tuple[Mount, ...]]
    changed: Callable[[], None]


class ContainerKeeper:
    """Runs one container during one life of its pod."""

    def __init__(self, around: Surroundings, container: Container, status: Status) -> None:
        self._around = around
        self._container = container
        self._status = status

    async def keep(self, stop: asyncio.Event, *, initial: bool = False) -> None:
        """Run it, and again when it ends, until it ended for good or is to stop.

        Args:
            stop: ends it when set.
            initial: it is an init container, which has done its work when it succeeded once.
        """
        around, status = self._around, self._status
        policy = "Always" if self._container.sidecar else around.policy
        if initial and policy == "Always":
            policy = "OnFailure"
        failures = 0
        while not stop.is_set():
            begun = around.ground.clock()
            try:
                code = await self._run(stop)
            except (TulleError, OSError) as error:
                code, status.note = CANNOT_START, str(error)
            else:
                if code != 0 and not stop.is_set():
                    status.note = status.note or f"ended with {shown(code)}"
            status.started = status.ready = False
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                status.code = code
                around.changed()
                return
            around.changed()
            failures = 0 if around.ground.clock() - begun >= STEADY_S else failures + 1
            await unless(stop, retry_delay_s(failures))
            if not stop.is_set():
                status.restarts += 1

    async def run_inside(self, command: tuple[str, ...]) -> int:
        """Run a command in the container, as its user; return its exit code.

        Raises ProbeFailed where there is nothing to run it in.
        """
        around, child = self._around, self._status.child
        if child is None or not child.running:
            raise ProbeFailed("the container does not run")
        told = around.program(self._container)
        try:
            own = open_namespaces(child.pid)
        except OSError as error:
            raise ProbeFailed("the container has just ended") from error
        try:
            inside = Namespaces({**around.sandbox.namespaces.descriptors, "mnt": own.descriptors["mnt"]})
            who = unprivileged(around.user(self._container), many_ids=around.ground.many_ids)
            started = await around.ground.spawner.spawn(
                Command([*who, *command], told.environment, told.folder or "/", inside=inside)
            )
        except OSError as error:
            raise ProbeFailed(str(error)) from error
        finally:
            own.close()
        try:
            return await started.wait()
        except asyncio.CancelledError:
            started.signal(signal.SIGKILL)
            raise

    # From start to end

    async def _run(self, stop: asyncio.Event) -> int:
        """Start the container and see it through to its end; return its exit code."""
        child = await self._start()
        self._status.child = child
        self._status.note = ""
        self._around.changed()
        failed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(failed))
            ending = group.create_task(self._end(child, stop, failed))
            code = await child.wait()
            watching.cancel()
            ending.cancel()
        # What it left running in its session would hold its ports and files.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        return code

    async def _start(self) -> Child:
        around, container = self._around, self._container
        ground = around.ground
        told, who = around.program(container), around.user(container)
        folder = told.folder or "/"
        binary = found(told.argv[0], told.environment.get("PATH", ""), folder)
        own = () if binary is None else (binary, os.path.realpath(binary))
        log = ground.log(around.namespace, around.pod, container.name, who.uid)
        try:
            return await ground.start(
                told.argv,
                environment=told.environment,
                folder=folder,
                user=who,
                root=Root(around.mounts(container), ground.hidden, (*ground.reach, *own)),
                inside=around.sandbox.namespaces,
                log=log,
            )
        finally:
            os.close(log)

    async def _end(self, child: Child, stop: asyncio.Event, failed: asyncio.Event) -> None:
        """Wait until the container is to stop, or its probes say that it has to; then end it."""
        waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(failed.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        container, deadline = self._container, self._around.deadline()
        grace = self._around.grace_s
        if deadline is not None:
            grace = max(0.0, deadline - self._around.ground.clock())
        elif failed.is_set() and container.liveness and container.liveness.termination_grace_s is not None:
            grace = container.liveness.termination_grace_s
        try:
            async with asyncio.timeout(grace):
                if container.pre_stop is not None:
                    with contextlib.suppress(ProbeFailed):
                        await self._hook(container.pre_stop)
                child.signal(signal.SIGTERM)
                await child.wait()
        except TimeoutError:
            child.signal(signal.SIGKILL)

    # Health

    async def _watch(self, failed: asyncio.Event) -> None:
        container, status = self._container, self._status
        if container.post_start is not None:
            try:
                await self._hook(container.post_start)
            except ProbeFailed as error:
                status.note = f"its postStart hook failed: {error}"
                failed.set()
                return
        if container.startup is not None and not await self._startup(container.startup):
            failed.set()
            return
        status.started = True
        status.ready = container.readiness is None
        self._around.changed()
        async with asyncio.TaskGroup() as group:
            if container.readiness is not None:
                group.create_task(self._readiness(container.readiness))
            if container.liveness is not None:
                group.create_task(self._liveness(container.liveness, failed))

    async def _startup(self, probe: Probe) -> bool:
        """Ask until the container has started; say whether it did in time."""
        await asyncio.sleep(probe.initial_delay_s)
        clock = self._around.ground.clock
        give_up = clock() + probe.period_s * probe.failure_threshold
        while (problem := await self._ask(probe)) is not None:
            if clock() >= give_up:
                self._status.note = f"did not start in time: {problem}"
                return False
            await asyncio.sleep(min(probe.period_s, EAGER_PROBE_S))
        return True

    async def _readiness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay_s)
        status = self._status
        good = bad = 0
        while True:
            problem = await self._ask(probe)
            good, bad = (good + 1, 0) if problem is None else (0, bad + 1)
            before = (status.ready, status.note)
            if good >= probe.success_threshold:
                status.ready = True
            elif bad >= probe.failure_threshold:
                status.ready = False
            # Until it is ready the reason is worth showing; a single slow answer later is not.
            status.note = "" if status.ready else f"not ready: {problem}" if problem else status.note
            if (status.ready, status.note) != before:
                self._around.changed()
            await asyncio.sleep(probe.period_s if status.ready else min(probe.period_s, EAGER_PROBE_S))

    async def _liveness(self, probe: Probe, failed: asyncio.Event) -> None:
        await asyncio.sleep(probe.initial_delay_s)
        bad = 0
        while True:
            problem = await self._ask(probe)
            bad = 0 if problem is None else bad + 1
            if bad >= probe.failure_threshold:
                self._status.note = f"not alive: {problem}"
                failed.set()
                return
            await asyncio.sleep(probe.period_s)

    async def _ask(self, probe: Probe) -> str | None:
        """Ask once; return what was wrong, if anything."""
        try:
            await ask(probe.action, self._target(), probe.timeout_s)
        except ProbeFailed as error:
            return str(error)
        return None

    async def _hook(self, hook: Exec | HttpGet | TcpSocket | Sleep) -> None:
        if isinstance(hook, Sleep):
            await asyncio.sleep(hook.seconds)
            return
        await ask(hook, self._target(), self._around.grace_s)

    def _target(self) -> Target:
        around = self._around
        return Target(
            around.ground.spawner,
            around.sandbox.namespaces,
            around.address,
            {port.name: port.port for port in self._container.ports if port.name},
            self.run_inside,
            around.ground.state / "probes",
        )


def shown(code: int) -> str:
    """Name an exit code."""
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
