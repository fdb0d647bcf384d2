"""The life of one pod: namespaces, proxy, init containers, containers, and all of it backwards.

The order is a promise. Packet rules are there before anything runs; the proxy is ready before the application
starts and ends after it; a pod that is to stop leaves the endpoints first, and its application hears of it only
when that had time to reach every client. If the namespaces are lost, the pod begins anew with the same name and
addresses.

What is tried again waits half a second first, then twice as long each time up to half a minute. Kubernetes waits
from ten seconds to five minutes; on a machine that somebody sits in front of, nothing is gained by that.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass

from tulle.lib import tokens
from tulle.local.addresses import BRIDGE, CLUSTER_DOMAIN, Pair
from tulle.local.containers import PodFace, Program, Settings, program, user
from tulle.local.ground import Ground, unprivileged
from tulle.local.plan import Phase, PodView, WorkloadKey, retry_delay_s
from tulle.local.probes import ProbeFailed, Runner, Target, ask
from tulle.local.processes import Child, Command, Namespaces, open_namespaces
from tulle.local.proxy import Host, Proxy, unless
from tulle.local.rootfs import Mount, Root
from tulle.local.sandbox import Sandbox
from tulle.local.volumes import Volumes
from tulle.model.errors import SettingError, TulleError
from tulle.model.objects import Position
from tulle.model.workload import Container, Exec, HttpGet, PodSpec, Probe, Sleep, TcpSocket
from tulle.rules import firewall
from tulle.rules.injection import Injection, Membership, Subject, plan

NODE = "local"
SPREAD_S = 1.0
"""How long the news that a pod leaves may take to reach every proxy, resolver and rule before it stops serving."""
STEADY_S = 10.0
"""Who ran that long starts over with the shortest delay."""
EAGER_PROBE_S = 0.25
"""How often to ask until the first good answer, where the manifest says less often."""
NAME_SERVICE = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nservices: files\n"
)


@dataclass(frozen=True, slots=True)
class PodOrder:
    """A pod that is to be run."""

    workload: WorkloadKey
    name: str
    number: int | None
    revision: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    namespace_annotations: Mapping[str, str]
    spec: PodSpec
    source: Position
    membership: Membership
    claim_names: Mapping[str, str]
    uid: str

    @property
    def namespace(self) -> str:
        """The namespace, which is that of the workload."""
        return self.workload.namespace


@dataclass(slots=True)
class Status:
    """How one container is."""

    started: bool = False
    ready: bool = False
    restarts: int = 0
    code: int | None = None
    """How it ended, when it is not started again."""
    child: Child | None = None
    note: str = ""


class _Lost(Exception):
    """The pod's namespaces ended under it."""


class LocalPod:
    """One pod, from `run` until it returns."""

    def __init__(
        self, ground: Ground, order: PodOrder, addresses: Pair, settings: Settings, links: Mapping[str, str]
    ) -> None:
        self._ground = ground
        self.order = order
        self.addresses = addresses
        self._settings = settings
        self._links = links
        self._folder = ground.state / "pods" / order.namespace / order.name
        self.containers = {
            each.name: Status() for each in (*order.spec.init_containers, *order.spec.containers)
        }
        self.phase: Phase = "Pending"
        self.terminating = False
        self.injection: Injection | None = None
        self.created = ground.clock()
        self.ended = 0.0
        self.ready_since = 0.0
        self._was_ready = False
        self._note = ""
        self._proxy: Proxy | None = None
        self._proxy_restarts = 0
        self._sandbox: Sandbox | None = None
        self._volumes: Volumes | None = None
        self._leaving = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._deadline = 0.0

    # What others see

    @property
    def ready(self) -> bool:
        """Say whether it serves."""
        spec = self.order.spec
        serving = (*spec.containers, *(each for each in spec.init_containers if each.sidecar))
        return (
            self.phase == "Running"
            and not self.terminating
            and (self._proxy is None or self._proxy.is_ready)
            and all(self.containers[each.name].ready for each in serving)
        )

    @property
    def restarts(self) -> int:
        """How often a container was started again."""
        proxy = self._proxy.restarts if self._proxy else 0
        return sum(status.restarts for status in self.containers.values()) + proxy + self._proxy_restarts

    @property
    def note(self) -> str:
        """What there is to say about it, if anything."""
        parts = [
            self._note,
            self._proxy.note if self._proxy else "",
            *(f"{name}: {status.note}" for name, status in self.containers.items() if status.note),
        ]
        if not self.order.membership.meshed:
            parts.append(f"not meshed: {self.order.membership.reason}")
        return "; ".join(part for part in parts if part)

    @property
    def pid(self) -> int | None:
        """The process that holds its namespaces."""
        return self._sandbox.pid if self._sandbox else None

    def container_pid(self, container: str) -> int | None:
        """Return the process of a container."""
        child = self.containers[container].child
        return child.pid if child and child.running else None

    def container_state(self, container: str) -> str:
        """Say in one word how a container is."""
        status = self.containers[container]
        if status.child and status.child.running:
            return "running"
        return "waiting" if status.code is None else "succeeded" if status.code == 0 else "failed"

    def view(self) -> PodView:
        """Return what the planner looks at."""
        return PodView(
            name=self.order.name,
            workload=self.order.workload,
            revision=self.order.revision,
            number=self.order.number,
            phase=self.phase,
            ready=self.ready,
            ready_since=self.ready_since,
            terminating=self.terminating,
            created=self.created,
            ended=self.ended,
            restarts=sum(status.restarts for status in self.containers.values()),
        )

    # What others do

    async def run(self) -> None:
        """Live; return when the pod is gone."""
        failures = 0
        try:
            while not self._leaving.is_set() and self.phase in ("Pending", "Running"):
                begun = self._ground.clock()
                try:
                    await self._live()
                except* (TulleError, OSError) as errors:
                    self._say("; ".join(str(error) for error in leaves(errors)))
                except* _Lost:
                    self._say("its namespaces ended and were made anew")
                self._after_life()
                failures = failures + 1 if self._ground.clock() - begun < STEADY_S else 0
                if self.phase in ("Pending", "Running"):
                    await unless(self._leaving, retry_delay_s(failures))
            self._changed()
            # A pod that ran to its end stays in the list until somebody takes it off.
            await self._leaving.wait()
        finally:
            if self._volumes:
                self._volumes.remove()

    def stop(self) -> None:
        """Take it out of the endpoints now and end it soon; `run` returns when that is done."""
        if self.terminating:
            return
        delay = SPREAD_S if self.ready else 0.0
        self.terminating = True
        self._leaving.set()
        self._changed()
        asyncio.get_running_loop().call_later(delay, self._stop)

    def _stop(self) -> None:
        self._deadline = self._ground.clock() + self.order.spec.termination_grace_s
        self._stop_now.set()

    async def load_services(self, rules: str) -> None:
        """Replace the rules for services, if the pod has namespaces at this moment."""
        if self._sandbox:
            await self._sandbox.load(rules)

    def refresh(self, settings: Settings) -> None:
        """Take over changed ConfigMaps and Secrets."""
        self._settings = settings
        if self._volumes:
            self._volumes.refresh(settings)

    async def exec_in(self, container: str, command: tuple[str, ...], output: int) -> int:
        """Run a command inside a container, as its user; return its exit code."""
        spec = self._container(container)
        child = self.containers[container].child
        if child is None or not child.running or self._sandbox is None:
            raise ProbeFailed(f"container {container} does not run")
        who = user(spec, self.order.spec, many_ids=self._ground.many_ids)
        told = self._program(spec)
        own = open_namespaces(child.pid)
        try:
            inside = Namespaces({**self._sandbox.namespaces.descriptors, "mnt": own.descriptors["mnt"]})
            started = await self._ground.spawner.spawn(
                Command(
                    [*unprivileged(who, many_ids=self._ground.many_ids), *command],
                    told.environment,
                    told.folder or "/",
                    stdout=output,
                    stderr=output,
                    inside=inside,
                )
            )
        finally:
            own.close()
        try:
            return await started.wait()
        except asyncio.CancelledError:
            started.signal(signal.SIGKILL)
            raise

    # Its life

    async def _live(self) -> None:
        """Go through one life, from making the namespaces to their end."""
        order, ground = self.order, self._ground
        self._volumes = self._make_volumes()
        self._volumes.prepare(self._settings)
        self._write_files()
        services = ground.service_rules()
        rules = [services]
        if order.membership.meshed:
            while ground.site() is None:
                self._say("waits for the mesh's trust anchors")
                await unless(self._leaving, 0.1)
                if self._leaving.is_set():
                    return
            self.injection = self._inject()
            rules.append(firewall.ruleset(self.injection.firewall))
        self._say("; ".join(self.injection.remarks) if self.injection else "")
        sandbox = self._sandbox = await Sandbox.open(
            ground.spawner,
            ground.bridge,
            hostname=self._hostname,
            addresses=self.addresses,
            rules=tuple(rules),
        )
        self._changed()
        try:
            if ground.service_rules() != services:
                await sandbox.load(ground.service_rules())
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(sandbox))
                await self._stages(sandbox, group)
                watching.cancel()
        finally:
            self._sandbox = None
            await sandbox.close()

    async def _stages(self, sandbox: Sandbox, group: asyncio.TaskGroup) -> None:
        if self.injection is not None:
            host = Host(
                self.order.namespace,
                self.order.name,
                self.order.spec.service_account,
                self.addresses[0],
                self._folder / "proxy",
            )
            proxy = self._proxy = Proxy(self._ground, sandbox, host, self._inject, self._changed)
            group.create_task(proxy.keep())
            if self.injection.wait_until_ready:
                await self._first(proxy.ready())
        sidecars: list[asyncio.Task[None]] = []
        enough = asyncio.Event()
        if await self._initialise(group, sidecars, enough):
            self.phase = "Running"
            self._changed()
            async with asyncio.TaskGroup() as applications:
                for container in self.order.spec.containers:
                    applications.create_task(self._keep(container, self._stop_now))
            self._finish()
        enough.set()
        for sidecar in sidecars:
            await sidecar
        if self._proxy:
            await self._proxy.stop()

    async def _initialise(
        self, group: asyncio.TaskGroup, sidecars: list[asyncio.Task[None]], enough: asyncio.Event
    ) -> bool:
        """Run the init containers one after another; say whether the application may start."""
        for container in self.order.spec.init_containers:
            if self._stop_now.is_set() or self._leaving.is_set():
                return False
            if container.sidecar:
                sidecars.append(group.create_task(self._keep(container, enough)))
                while not self.containers[container.name].started and not self._stop_now.is_set():
                    await asyncio.sleep(0.02)
                continue
            await self._keep(container, self._stop_now, initial=True)
            if self.containers[container.name].code != 0:
                if not self._leaving.is_set():
                    self._end("Failed")
                return False
        return not self._leaving.is_set()

    async def _keep(self, container: Container, stop: asyncio.Event, *, initial: bool = False) -> None:
        """Run a container, and again when it ends, as the restart policy says."""
        status = self.containers[container.name]
        policy = "Always" if container.sidecar else self.order.spec.restart_policy
        if initial and policy == "Always":
            policy = "OnFailure"
        failures = 0
        while not stop.is_set():
            begun = self._ground.clock()
            try:
                code = await self._run_once(container, status, stop)
            except (TulleError, OSError) as error:
                code, status.note = 127, str(error)
            else:
                status.note = "" if code == 0 or stop.is_set() else f"ended with {_shown(code)}"
            status.started = status.ready = False
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                status.code = code
                self._changed()
                return
            self._changed()
            if stop.is_set():
                return
            failures = 0 if self._ground.clock() - begun >= STEADY_S else failures + 1
            await unless(stop, retry_delay_s(failures))
            if not stop.is_set():
                status.restarts += 1

    async def _run_once(self, container: Container, status: Status, stop: asyncio.Event) -> int:
        """Start a container and see it through to its end."""
        sandbox, volumes = self._sandbox, self._volumes
        assert sandbox is not None and volumes is not None, "a container runs in a pod that lives"
        told = self._program(container)
        who = user(container, self.order.spec, many_ids=self._ground.many_ids)
        log = self._ground.log(self.order.namespace, self.order.name, container.name, who.uid)
        try:
            child = status.child = await self._ground.start(
                told.argv,
                environment=told.environment,
                folder=told.folder or "/",
                user=who,
                root=Root(
                    mounts=(*self._file_mounts(), *volumes.mounts(container)),
                    hidden=self._ground.hidden,
                    reach=self._ground.reach,
                ),
                inside=sandbox.namespaces,
                log=log,
            )
        finally:
            os.close(log)
        failed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch_health(container, status, child, failed))
            ending = group.create_task(self._end_in_time(container, child, stop, failed))
            code = await child.wait()
            watching.cancel()
            ending.cancel()
        # What it left running in its session would hold its ports and files.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        return code

    async def _end_in_time(
        self, container: Container, child: Child, stop: asyncio.Event, failed: asyncio.Event
    ) -> None:
        """End a container when the pod stops or its probes say so."""
        waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(failed.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        grace = float(self.order.spec.termination_grace_s)
        if stop.is_set():
            grace = max(0.0, self._deadline - self._ground.clock()) if self._deadline else grace
        elif container.liveness and container.liveness.termination_grace_s is not None:
            grace = container.liveness.termination_grace_s
        try:
            async with asyncio.timeout(grace):
                if container.pre_stop is not None:
                    with contextlib.suppress(ProbeFailed):
                        await self._hook(container, container.pre_stop)
                child.signal(signal.SIGTERM)
                await child.wait()
        except TimeoutError:
            child.signal(signal.SIGKILL)

    # Health

    async def _watch_health(
        self, container: Container, status: Status, child: Child, failed: asyncio.Event
    ) -> None:
        if container.post_start is not None:
            try:
                await self._hook(container, container.post_start)
            except ProbeFailed as error:
                status.note = f"its postStart hook failed: {error}"
                failed.set()
                return
        if container.startup is not None and not await self._startup(container, container.startup, status):
            failed.set()
            return
        status.started = True
        if container.readiness is None:
            status.ready = True
        self._changed()
        async with asyncio.TaskGroup() as group:
            if container.readiness is not None:
                group.create_task(self._readiness(container, container.readiness, status))
            if container.liveness is not None:
                group.create_task(self._liveness(container, container.liveness, status, failed))

    async def _startup(self, container: Container, probe: Probe, status: Status) -> bool:
        await asyncio.sleep(probe.initial_delay_s)
        give_up = self._ground.clock() + probe.period_s * probe.failure_threshold
        while True:
            problem = await self._ask(container, probe)
            if problem is None:
                return True
            if self._ground.clock() >= give_up:
                status.note = f"did not start in time: {problem}"
                return False
            await asyncio.sleep(min(probe.period_s, EAGER_PROBE_S))

    async def _readiness(self, container: Container, probe: Probe, status: Status) -> None:
        await asyncio.sleep(probe.initial_delay_s)
        good = bad = 0
        while True:
            problem = await self._ask(container, probe)
            good, bad = (good + 1, 0) if problem is None else (0, bad + 1)
            before = status.ready
            if good >= probe.success_threshold:
                status.ready = True
            elif bad >= probe.failure_threshold:
                status.ready = False
            # Until it is ready the reason is worth showing; a single slow answer later is not.
            note = "" if status.ready else f"not ready: {problem}" if problem else status.note
            if (status.ready, note) != (before, status.note):
                status.note = note
                self._changed()
            await asyncio.sleep(probe.period_s if status.ready else min(probe.period_s, EAGER_PROBE_S))

    async def _liveness(
        self, container: Container, probe: Probe, status: Status, failed: asyncio.Event
    ) -> None:
        await asyncio.sleep(probe.initial_delay_s)
        bad = 0
        while True:
            problem = await self._ask(container, probe)
            bad = 0 if problem is None else bad + 1
            if bad >= probe.failure_threshold:
                status.note = f"not alive: {problem}"
                failed.set()
                return
            await asyncio.sleep(probe.period_s)

    async def _ask(self, container: Container, probe: Probe) -> str | None:
        """Ask once; return what was wrong, if anything."""
        try:
            await ask(probe.action, self._target(container), probe.timeout_s)
        except ProbeFailed as error:
            return str(error)
        return None

    async def _hook(self, container: Container, hook: Exec | HttpGet | TcpSocket | Sleep) -> None:
        if isinstance(hook, Sleep):
            await asyncio.sleep(hook.seconds)
            return
        await ask(hook, self._target(container), self.order.spec.termination_grace_s)

    def _target(self, container: Container) -> Target:
        sandbox = self._sandbox
        if sandbox is None:
            raise ProbeFailed("the pod has ended")
        return Target(
            self._ground.spawner,
            sandbox.namespaces,
            self.addresses[0],
            {port.name: port.port for port in container.ports if port.name},
            self._runner(container),
            self._ground.state / "probes",
        )

    def _runner(self, container: Container) -> Runner:
        async def run(command: tuple[str, ...]) -> int:
            try:
                return await self.exec_in(container.name, command, subprocess.DEVNULL)
            except OSError as error:
                raise ProbeFailed(str(error)) from error

        return run

    # Its parts

    def _program(self, container: Container) -> Program:
        return program(
            container,
            self.order.spec,
            self._face,
            self._settings,
            base={"PATH": self._ground.path, "HOME": "/tmp", "LANG": "C.UTF-8"},
            links=self._links,
        )

    @property
    def _face(self) -> PodFace:
        return PodFace(
            name=self.order.name,
            namespace=self.order.namespace,
            uid=self.order.uid,
            labels=self.order.labels,
            annotations=self.order.annotations,
            node=NODE,
            addresses=self.addresses,
            host_address=BRIDGE[0],
        )

    @property
    def _hostname(self) -> str:
        return (self.order.spec.hostname or self.order.name)[:63]

    def _inject(self) -> Injection:
        site = self._ground.site()
        if site is None:
            raise SettingError("the mesh's trust anchors are gone")
        order = self.order
        subject = Subject(
            order.name,
            order.namespace,
            NODE,
            self.addresses,
            order.spec,
            order.annotations,
            order.namespace_annotations,
        )
        return plan(subject, site, order.membership)

    def _make_volumes(self) -> Volumes:
        order = self.order
        first = order.spec.containers[0]
        who = user(first, order.spec, many_ids=self._ground.many_ids)
        subject = tokens.Subject(order.namespace, order.spec.service_account, order.name)
        return Volumes(
            folder=self._folder,
            claims=self._ground.persistent / "volumes" / order.namespace,
            spec=order.spec,
            face=self._face,
            claim_names=order.claim_names,
            token=tokens.mint(self._ground.token_key, subject),
            owner=(who.uid, who.groups[0] if who.groups else who.gid),
        )

    def _write_files(self) -> None:
        order = self.order
        own = self._hostname
        if order.spec.subdomain:
            own = f"{own}.{order.spec.subdomain}.{order.namespace}.svc.{CLUSTER_DOMAIN} {own}"
        search = f"{order.namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}"
        servers = "".join(f"nameserver {address}\n" for address in BRIDGE)
        files = {
            "resolv.conf": f"search {search}\n{servers}options ndots:5\n",
            "nsswitch.conf": NAME_SERVICE,
            "hostname": f"{self._hostname}\n",
            "hosts": "127.0.0.1 localhost\n::1 localhost\n"
            + "".join(f"{address} {own}\n" for address in self.addresses)
            + "".join(f"{alias.ip} {' '.join(alias.names)}\n" for alias in order.spec.host_aliases),
        }
        folder = self._folder / "etc"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)

    def _file_mounts(self) -> tuple[Mount, ...]:
        names = ("resolv.conf", "nsswitch.conf", "hostname", "hosts")
        return tuple(Mount(str(self._folder / "etc" / name), f"/etc/{name}", True) for name in names)

    def _container(self, name: str) -> Container:
        everyone = (*self.order.spec.containers, *self.order.spec.init_containers)
        return next(each for each in everyone if each.name == name)

    # Its state

    async def _watch(self, sandbox: Sandbox) -> None:
        await sandbox.lost()
        raise _Lost

    async def _first(self, wanted: Coroutine[None, None, None]) -> None:
        """Wait for something, unless the pod is to stop before."""
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(wanted),
            asyncio.create_task(self._leaving.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _finish(self) -> None:
        """Say how the pod ended, if its containers ended by themselves."""
        codes = [self.containers[container.name].code for container in self.order.spec.containers]
        if all(code is not None for code in codes):
            self._end("Succeeded" if not any(codes) else "Failed")

    def _end(self, phase: Phase) -> None:
        self.phase = phase
        self.ended = self._ground.clock()
        self._changed()

    def _after_life(self) -> None:
        if self._proxy:
            self._proxy_restarts += self._proxy.restarts
            self._proxy = None
        for status in self.containers.values():
            status.started = status.ready = False
        self._changed()

    def _say(self, note: str) -> None:
        if note != self._note:
            self._note = note
            self._changed()

    def _changed(self) -> None:
        ready = self.ready
        if ready and not self._was_ready:
            self.ready_since = self._ground.clock()
        self._was_ready = ready
        self._ground.changed()


def _shown(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    """Yield the errors of a group, however deep they are."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
