"""The life of one pod: namespaces, proxy, init containers, containers, and all of it backwards.

The order is a promise. Packet rules are there before anything runs; the proxy is ready before the application
starts and ends after it; a pod that is to stop leaves the endpoints first, and its application hears of it only
when that had time to reach every client. If the namespaces are lost, the pod begins anew with the same name and
addresses.

What is tried again waits half a second first, then twice as long each time up to half a minute. Kubernetes waits
from ten seconds to five minutes; on a machine that somebody sits in front of, nothing is gained by that.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping

from tulle.lib import tokens
from tulle.local.addresses import Pair
from tulle.local.container import STEADY_S, ContainerKeeper, Status, Surroundings
from tulle.local.containers import Program, Settings, User, program, user
from tulle.local.ground import Ground
from tulle.local.order import PodOrder
from tulle.local.plan import Phase, PodView, retry_delay_s
from tulle.local.proxy import Host, Proxy, unless
from tulle.local.rootfs import Mount
from tulle.local.sandbox import Sandbox
from tulle.local.volumes import Volumes
from tulle.model.errors import SettingError, TulleError
from tulle.model.workload import Container
from tulle.rules.injection import Injection, plan

SPREAD_S = 1.0
"""How long the news that a pod leaves may take to reach every proxy, resolver and rule before it stops serving."""
POLL_S = 0.05


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
            each.name: Status() for each in (*order.spec.containers, *order.spec.init_containers)
        }
        self.phase: Phase = "Pending"
        self.terminating = False
        self.injection: Injection | None = None
        self._created = ground.clock()
        self._ended = 0.0
        self._ready_since = 0.0
        self._was_ready = False
        self._note = ""
        self._proxy: Proxy | None = None
        self._proxy_restarts = 0
        self._sandbox: Sandbox | None = None
        self._volumes: Volumes | None = None
        self._leaving = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._deadline: float | None = None

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
        """How often a container or the proxy was started again."""
        proxy = self._proxy.restarts if self._proxy else 0
        return sum(status.restarts for status in self.containers.values()) + proxy + self._proxy_restarts

    @property
    def note(self) -> str:
        """What there is to say about it, if anything."""
        member = self.order.membership
        parts = [
            self._note,
            self._proxy.note if self._proxy else "",
            *(f"{name}: {status.note}" for name, status in self.containers.items() if status.note),
            "" if member.meshed else f"not meshed: {member.reason}",
        ]
        return "; ".join(part for part in parts if part)

    @property
    def pid(self) -> int | None:
        """The process that holds its namespaces."""
        return self._sandbox.pid if self._sandbox else None

    def view(self) -> PodView:
        """Return what the planner looks at."""
        return PodView(
            name=self.order.name,
            workload=self.order.workload,
            revision=self.order.revision,
            number=self.order.number,
            phase=self.phase,
            ready=self.ready,
            ready_since=self._ready_since,
            terminating=self.terminating,
            created=self._created,
            ended=self._ended,
            restarts=sum(status.restarts for status in self.containers.values()),
        )

    # What others do

    async def run(self) -> None:
        """Live; return when the pod was told to stop and is gone."""
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
            # A pod that ran to its end stays in the list until somebody takes it off.
            await self._leaving.wait()
        finally:
            if self._volumes:
                self._volumes.remove()

    def stop(self, *, spread: bool) -> None:
        """Take it out of the endpoints now and end it soon; `run` returns when that is done.

        Args:
            spread: let the news reach its clients first.
        """
        if self.terminating:
            return
        delay = SPREAD_S if spread and self.ready else 0.0
        self.terminating = True
        self._leaving.set()
        self._changed()
        asyncio.get_running_loop().call_later(delay, self._stop)

    async def load_services(self, rules: str) -> None:
        """Replace the rules for services, if the pod has namespaces at this moment."""
        if self._sandbox:
            await self._sandbox.load(rules)

    def refresh(self, settings: Settings) -> None:
        """Take over changed ConfigMaps and Secrets; raises SettingError where one is missing."""
        self._settings = settings
        if self._volumes:
            self._volumes.refresh(settings)

    def _stop(self) -> None:
        self._deadline = self._ground.clock() + self.order.spec.termination_grace_s
        self._stop_now.set()

    # Its life

    async def _live(self) -> None:
        """Go through one life, from making the namespaces to their end."""
        order, ground = self.order, self._ground
        volumes = self._volumes = self._make_volumes()
        volumes.prepare(self._settings)
        self._write_etc()
        services = ground.service_rules()
        redirect: tuple[str, ...] = ()
        if order.membership.meshed:
            if not await self._wait_for_site():
                return
            injection = self.injection = self._inject()
            redirect = ground.redirect(injection.firewall)
            self._say("; ".join(injection.remarks))
        else:
            self._say("")
        sandbox = self._sandbox = await Sandbox.open(
            ground.spawner,
            ground.bridge,
            hostname=order.host_name,
            addresses=self.addresses,
            rules=services,
            redirect=redirect,
        )
        self._changed()
        try:
            if ground.service_rules() != services:
                await sandbox.load(ground.service_rules())
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(sandbox))
                await self._stages(sandbox, volumes, group)
                watching.cancel()
        finally:
            self._sandbox = None
            await sandbox.close()

    async def _stages(self, sandbox: Sandbox, volumes: Volumes, group: asyncio.TaskGroup) -> None:
        order = self.order
        if self.injection is not None:
            folder, account = self._folder / "proxy", order.spec.service_account
            host = Host(order.namespace, order.name, account, self.addresses[0], folder, self._etc_mounts())
            proxy = self._proxy = Proxy(self._ground, sandbox, host, self._inject, self._changed)
            group.create_task(proxy.keep())
            if self.injection.wait_until_ready:
                await self._unless_leaving(proxy.ready())
        around = self._surroundings(sandbox, volumes)
        sidecars: list[asyncio.Task[None]] = []
        enough = asyncio.Event()
        if await self._initialise(around, group, sidecars, enough):
            self.phase = "Running"
            self._changed()
            async with asyncio.TaskGroup() as applications:
                for container in order.spec.containers:
                    applications.create_task(self._keeper(around, container).keep(self._stop_now))
            self._finish()
        enough.set()
        for sidecar in sidecars:
            await sidecar
        if self._proxy:
            await self._proxy.stop()

    async def _initialise(
        self,
        around: Surroundings,
        group: asyncio.TaskGroup,
        sidecars: list[asyncio.Task[None]],
        enough: asyncio.Event,
    ) -> bool:
        """Run the init containers one after another; say whether the application may start."""
        for container in self.order.spec.init_containers:
            if self._leaving.is_set():
                return False
            keeper, status = self._keeper(around, container), self.containers[container.name]
            if container.sidecar:
                sidecars.append(group.create_task(keeper.keep(enough)))
                while not status.started and not self._leaving.is_set():
                    await unless(self._leaving, POLL_S)
                continue
            await keeper.keep(self._stop_now, initial=True)
            if status.code != 0:
                if not self._leaving.is_set():
                    self._end("Failed")
                return False
        return not self._leaving.is_set()

    async def _watch(self, sandbox: Sandbox) -> None:
        await sandbox.lost()
        raise _Lost

    async def _wait_for_site(self) -> bool:
        """Wait until proxies can be certified; say whether the pod may go on."""
        while self._ground.site() is None:
            self._say("waits for the mesh's control plane")
            await unless(self._leaving, POLL_S)
            if self._leaving.is_set():
                return False
        return True

    async def _unless_leaving(self, wanted: Coroutine[None, None, None]) -> None:
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

    # Its parts

    def _surroundings(self, sandbox: Sandbox, volumes: Volumes) -> Surroundings:
        order = self.order
        return Surroundings(
            ground=self._ground,
            namespace=order.namespace,
            pod=order.name,
            address=self.addresses[0],
            sandbox=sandbox,
            policy=order.spec.restart_policy,
            grace_s=order.spec.termination_grace_s,
            deadline=lambda: self._deadline,
            program=self._program,
            user=self._user,
            mounts=lambda container: (*self._etc_mounts(), *volumes.mounts(container)),
            changed=self._changed,
        )

    def _keeper(self, around: Surroundings, container: Container) -> ContainerKeeper:
        return ContainerKeeper(around, container, self.containers[container.name])

    def _program(self, container: Container) -> Program:
        return program(
            container,
            self.order.spec,
            self.order.face(self.addresses),
            self._settings,
            base={"PATH": self._ground.path, "HOME": "/tmp", "LANG": "C.UTF-8"},
            links=self._links,
        )

    def _user(self, container: Container) -> User:
        return user(container, self.order.spec, many_ids=self._ground.many_ids)

    def _inject(self) -> Injection:
        site = self._ground.site()
        if site is None:
            raise SettingError("the mesh's trust anchors are gone")
        return plan(self.order.subject(self.addresses), site, self.order.membership)

    def _make_volumes(self) -> Volumes:
        order = self.order
        who = self._user(order.spec.containers[0])
        subject = tokens.Subject(order.namespace, order.spec.service_account, order.name)
        return Volumes(
            folder=self._folder,
            claims=self._ground.persistent / "volumes" / order.namespace,
            spec=order.spec,
            face=order.face(self.addresses),
            token=tokens.mint(self._ground.token_key, subject),
            owner=(who.uid, who.groups[0] if who.groups else who.gid),
        )

    def _write_etc(self) -> None:
        folder = self._folder / "etc"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.order.etc(self.addresses).items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)

    def _etc_mounts(self) -> tuple[Mount, ...]:
        names = self.order.etc(self.addresses)
        return tuple(Mount(str(self._folder / "etc" / name), f"/etc/{name}", True) for name in names)

    # Its state

    def _finish(self) -> None:
        """Say how the pod ended, if its containers ended by themselves."""
        codes = [self.containers[container.name].code for container in self.order.spec.containers]
        if all(code is not None for code in codes):
            self._end("Succeeded" if not any(codes) else "Failed")

    def _end(self, phase: Phase) -> None:
        self.phase = phase
        self._ended = self._ground.clock()
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
            self._ready_since = self._ground.clock()
        self._was_ready = ready
        self._ground.changed()


def leaves(group: BaseExceptionGroup[Exception]) -> Iterator[BaseException]:
    """Yield the errors of a group, however deep they are."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
