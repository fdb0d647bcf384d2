"""Brings the pods of one mesh to what its manifests say, and tells everybody what there is.

One loop: wait until something changed, plan the next step, take it, publish. Pods report changes by waking it and
never by calling anybody, so however many changes come at once, each follower sees one new snapshot. Decisions are
in `plan` and `desired`; what is here waits.

A folder that has mistakes is not taken over at all: what runs goes on running, and the mistakes are in the state.
"""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from tulle.lib import log
from tulle.lib.latest import Latest
from tulle.local.addresses import Pair, PodAddresses, ServiceAddresses
from tulle.local.containers import service_links
from tulle.local.control import ControlPod
from tulle.local.desired import ByHand, Folder, desired, find, scale
from tulle.local.doors import Doors
from tulle.local.ground import Ground
from tulle.local.network import service_rules
from tulle.local.order import order_of
from tulle.local.plan import Create, Delete, Desired, PodView, WorkloadKey, job_expired_at, plan
from tulle.local.pod import LocalPod
from tulle.local.snapshot import Json, control_json, facts, object_json, pod_json
from tulle.local.state import control_state, pod_state
from tulle.model.errors import TulleError
from tulle.model.objects import Problem
from tulle.model.workload import Job
from tulle.rules.kinds import Object

SETTLE_S = 0.01
"""Changes come in bursts; one snapshot for all of a burst is enough."""
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"

PodKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Running:
    pod: LocalPod
    task: asyncio.Task[None]


class Runner:
    """The pods of one mesh, from `run` until they are stopped."""

    def __init__(
        self,
        name: str,
        addresses: PodAddresses,
        doors: Doors,
        check: Callable[[Folder], list[Problem]],
        clock: Callable[[], float],
    ) -> None:
        self.snapshots: Latest[bytes] = Latest()
        self.states: Latest[bytes] = Latest()
        self.service_rules = ""
        self._name = name
        self._addresses = addresses
        self._doors = doors
        self._check = check
        self._clock = clock
        self._folder = Folder()
        self._problems: tuple[Problem, ...] = ()
        self._by_hand = ByHand()
        self._expired: dict[WorkloadKey, str] = {}
        self._pods: dict[PodKey, _Running] = {}
        self._services = ServiceAddresses()
        self._assigned: dict[str, Pair] = {}
        self._wake = asyncio.Event()
        self._said: Latest[tuple[str, Json]] = Latest()
        self._was_running = False
        self._stopping = False
        self._last = b""
        self._log = log.logger("runner")

    # What others ask for

    def changed(self) -> None:
        """Look again soon."""
        self._wake.set()

    @property
    def folder(self) -> Folder:
        """The objects that are in force."""
        return self._folder

    def apply(self, objects: tuple[Object, ...], problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        """Take over what the manifests say now, or nothing of it; return what is wrong with them."""
        folder = Folder.of(objects)
        wrong = problems or tuple(self._check(folder))
        wrong += tuple(self._doors.open(folder.services, only_try=bool(wrong)))
        self._problems = wrong
        self._wake.set()
        if wrong:
            return wrong
        self._folder = folder
        self._assigned = self._services.assign(
            f"{each.meta.namespace}/{each.meta.name}"
            for each in folder.services
            if not each.headless and each.type != "ExternalName"
        )
        for running in self._pods.values():
            try:
                running.pod.refresh(folder.settings_of(running.pod.order.namespace))
            except TulleError as error:
                self._log.warning("files not refreshed", pod=running.pod.order.name, error=str(error))
        return ()

    def restart(self, name: str) -> None:
        """Replace the pods of a workload; raises NotFound."""
        key = find(self._folder, name)
        self._by_hand.restarts[key] = self._by_hand.restarts.get(key, 0) + 1
        self._expired.pop(key, None)
        self._wake.set()

    def scale(self, name: str, replicas: int) -> None:
        """Change a workload's number of pods; raises NotFound or MeshError."""
        scale(self._by_hand, self._folder, find(self._folder, name), replicas)
        self._wake.set()

    def pod(self, namespace: str, name: str) -> LocalPod | None:
        """Return a pod."""
        running = self._pods.get((namespace, name))
        return running.pod if running else None

    def stop(self) -> None:
        """Begin to stop everything; `run` returns when that is done."""
        self._stopping = True
        self._wake.set()

    # The loop

    async def run(self, ground: Ground, control: ControlPod) -> None:
        """Keep the pods as they are wanted."""
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(control))
            controlling: asyncio.Task[None] | None = None
            timer: asyncio.TimerHandle | None = None
            while not (self._stopping and not self._pods):
                await self._wake.wait()
                await asyncio.sleep(SETTLE_S)
                self._wake.clear()
                if timer:
                    timer.cancel()
                if controlling is None and not self._stopping and self._meshed():
                    controlling = group.create_task(control.keep())
                again_s = self._step(ground, group)
                timer = asyncio.get_running_loop().call_later(again_s, self._wake.set) if again_s else None
                self._publish(control)
            control.stop()
            if controlling:
                await controlling
            telling.cancel()

    def _step(self, ground: Ground, group: asyncio.TaskGroup) -> float | None:
        """Take the next step; return when to look again at the latest."""
        views = [running.pod.view() for running in self._pods.values()]
        wanted = [] if self._stopping else self._wanted(views)
        step = plan(wanted, views, self._clock(), _suffix)
        for action in step.actions:
            match action:
                case Create():
                    self._create(action, ground, group)
                case Delete(workload, name):
                    # With all clients gone too there is nobody to tell first.
                    self._pods[(workload.namespace, name)].pod.stop(spread=not self._stopping)
        return step.again_s

    def _wanted(self, views: list[PodView]) -> list[Desired]:
        """Return what is wanted, without the Jobs whose time is over."""
        kept: list[Desired] = []
        for each in desired(self._folder, self._by_hand):
            if isinstance(each.workload, Job):
                mine = [pod for pod in views if pod.workload == each.key and pod.revision == each.revision]
                over = job_expired_at(each.workload, mine)
                if over is not None and over <= self._clock():
                    self._expired[each.key] = each.revision
                elif over is not None:
                    asyncio.get_running_loop().call_later(over - self._clock(), self._wake.set)
            if self._expired.get(each.key) != each.revision:
                kept.append(each)
        return kept

    def _create(self, action: Create, ground: Ground, group: asyncio.TaskGroup) -> None:
        key = (action.desired.key.namespace, action.name)
        if key in self._pods:
            # Another workload has a pod of this name; its turn comes when that one is gone.
            return
        order = order_of(self._folder, action, str(uuid.uuid4()))
        settings = self._folder.settings_of(order.namespace)
        addresses = self._addresses.take()
        links = service_links(
            [each for each in self._folder.services if each.meta.namespace == order.namespace], self._assigned
        )
        pod = LocalPod(ground, order, addresses, settings, links)
        self._pods[key] = _Running(pod, group.create_task(self._live(key, pod)))

    async def _live(self, key: PodKey, pod: LocalPod) -> None:
        await pod.run()
        del self._pods[key]
        self._addresses.give_back(pod.addresses)
        self._wake.set()

    # What is said to others

    def _publish(self, control: ControlPod) -> None:
        pods = [running.pod for running in self._pods.values()]
        with_control = self._meshed()
        objects = [object_json(item, self._assigned) for item in self._folder.objects]
        content = {
            "objects": [item for item in objects if item is not None],
            "pods": [*map(pod_json, pods), *([control_json(control)] if with_control else [])],
        }
        encoded = msgspec.json.encode(content)
        if encoded != self._last:
            self._last = encoded
            generation = self.snapshots.generation + 1
            self.snapshots.set(msgspec.json.encode({"generation": generation, **content}) + b"\n")
        state = {
            "name": self._name,
            "phase": self._phase(pods),
            "problems": [str(problem) for problem in self._problems],
            "pods": [*map(pod_state, pods), *([control_state(control)] if with_control else [])],
            "published": self._doors.state(),
        }
        self._said.set((service_rules(self._folder.services, self._assigned, map(facts, pods)), state))

    def _phase(self, pods: list[LocalPod]) -> str:
        if self._stopping:
            return "stopping"
        settled = all(pod.ready or pod.phase == "Succeeded" for pod in pods)
        self._was_running = self._was_running or settled
        return "running" if self._was_running else "starting"

    async def _tell(self, control: ControlPod) -> None:
        """Load changed service rules into every pod and only then publish the state, until cancelled.

        Whoever reads there that a pod is ready may call it from any other at once.
        """
        generation = 0
        while True:
            generation, (rules, state) = await self._said.next(generation)
            if rules != self.service_rules:
                self.service_rules = rules
                pods = [each.pod.load_services for each in self._pods.values()]
                await asyncio.gather(*(self._load(load, rules) for load in (control.load_services, *pods)))
            encoded = msgspec.json.encode(state)
            if encoded != self.states.value:
                self.states.set(encoded)

    async def _load(self, load: Callable[[str], Awaitable[None]], rules: str) -> None:
        try:
            await load(rules)
        except (TulleError, OSError) as error:
            # The pod has just ended, or will have the newest rules in its next life.
            self._log.info("rules not loaded", error=str(error))

    def _meshed(self) -> bool:
        return any(self._folder.membership(each).meshed for each in self._folder.workloads.values())


def _suffix() -> str:
    return "".join(random.choices(SUFFIX_LETTERS, k=5))  # noqa: S311 (a name, not a secret)
