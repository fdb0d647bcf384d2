"""What to start and what to stop next, so that the pods become what the manifests say.

Pure: what is wanted, what there is, and the time go in; actions come out. It is asked again after every change
and when `again_s` has passed, so it never plans further than the next step: start what may be started now, stop
what may be stopped now.

A pod that is on its way out counts for nothing but its name. A rolling update keeps as many ready pods as the
manifest demands at every moment, as Kubernetes does; what differs is that a pod of an old revision which is not
ready is replaced even in a StatefulSet, where Kubernetes would wait for a human.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tulle.model.workload import Deployment, Job, Pod, StatefulSet, Workload

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0


class WorkloadKey(NamedTuple):
    """A workload's name."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Desired:
    """A workload as it is wanted now; a new `revision` means that its pods have to be replaced."""

    key: WorkloadKey
    workload: Workload
    replicas: int
    revision: str


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that there is."""

    name: str
    workload: WorkloadKey
    revision: str
    number: int | None
    """A StatefulSet's ordinal or an indexed Job's index."""
    phase: Phase
    ready: bool
    ready_since: float
    terminating: bool
    created: float
    ended: float
    restarts: int

    @property
    def finished(self) -> bool:
        """Say whether it has run to its end."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Create:
    """Start a pod."""

    desired: Desired
    name: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Stop a pod."""

    workload: WorkloadKey
    name: str


Action = Create | Delete


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to ask again if nothing changes before."""

    actions: tuple[Action, ...]
    again_s: float | None


def plan(desired: Iterable[Desired], pods: Sequence[PodView], now: float, suffix: Callable[[], str]) -> Plan:
    """Return the next step; `suffix` makes the random end of a name."""
    wanted = {each.key: each for each in desired}
    actions: list[Action] = [
        Delete(pod.workload, pod.name) for pod in pods if pod.workload not in wanted and not pod.terminating
    ]
    waits: list[float] = []
    for key, each in wanted.items():
        mine = [pod for pod in pods if pod.workload == key]
        match each.workload:
            case Deployment() as deployment:
                actions += _deployment(each, deployment, mine, now, suffix, waits)
            case StatefulSet() as stateful:
                actions += _stateful_set(each, stateful, mine, now, waits)
            case Job() as job:
                actions += _job(each, job, mine, now, suffix, waits)
            case Pod():
                actions += _single(each, mine)
    return Plan(tuple(actions), min(waits, default=None))


def job_failed(job: Job, pods: Sequence[PodView], now: float) -> bool:
    """Say whether a Job has been tried often or long enough."""
    failures = sum(1 for pod in pods if pod.phase == "Failed") + sum(pod.restarts for pod in pods)
    begun = min((pod.created for pod in pods), default=now)
    late = job.active_deadline_s is not None and now - begun >= job.active_deadline_s
    return failures > job.backoff_limit or late


def job_expired_at(job: Job, pods: Sequence[PodView]) -> float | None:
    """Return when a finished Job's pods are to be removed; None while it is not finished or may stay."""
    needed = 1 if job.completions is None else job.completions
    done = sum(1 for pod in pods if pod.phase == "Succeeded") >= needed
    if job.ttl_after_finished_s is None or not done or not all(pod.finished for pod in pods):
        return None
    return max(pod.ended for pod in pods) + job.ttl_after_finished_s


def retry_delay_s(failures: int) -> float:
    """Return how long to wait after that many failures in a row."""
    return float(min(FIRST_RETRY_S * 2 ** min(failures - 1, 16), LONGEST_RETRY_S)) if failures else 0.0


def _deployment(
    desired: Desired,
    deployment: Deployment,
    pods: Sequence[PodView],
    now: float,
    suffix: Callable[[], str],
    waits: list[float],
) -> list[Action]:
    live = [pod for pod in pods if not pod.terminating]
    new = [pod for pod in live if pod.revision == desired.revision or deployment.paused]
    old = [pod for pod in live if pod not in new]
    available = {pod.name for pod in live if _available(pod, deployment.min_ready_s, now, waits)}
    rolling = deployment.rolling
    if rolling is None:
        if old:
            return _deletes(old)
        if any(pod.revision != desired.revision for pod in pods if pod.terminating):
            return []
        surge, unavailable = 0, desired.replicas
    else:
        surge = _share(rolling.max_surge, desired.replicas, math.ceil)
        unavailable = _share(rolling.max_unavailable, desired.replicas, math.floor)
        if not surge and not unavailable:
            unavailable = 1
    missing = min(desired.replicas - len(new), desired.replicas + surge - len(live))
    creates: list[Action] = [
        Create(desired, f"{desired.key.name}-{desired.revision}-{suffix()}", None) for _ in range(missing)
    ]
    # The pods to let go first: those that serve nobody, then the youngest.
    new_by_worth = sorted(new, key=lambda pod: (pod.name in available, -pod.created))
    surplus = new_by_worth[: max(0, len(new) - desired.replicas)]
    least = desired.replicas - unavailable
    coming = sum(1 for pod in new if pod.name not in available)
    budget = len(live) - least - coming
    idle = [pod for pod in old if pod.name not in available][: max(0, budget)]
    serving = [pod for pod in old if pod.name in available]
    replaced = serving[: max(0, min(budget - len(idle), len(available) - least))]
    return [*creates, *_deletes([*surplus, *idle, *replaced])]


def _stateful_set(
    desired: Desired, stateful: StatefulSet, pods: Sequence[PodView], now: float, waits: list[float]
) -> list[Action]:
    first, end = stateful.first_ordinal, stateful.first_ordinal + desired.replicas
    by_number: Mapping[int, PodView] = {pod.number: pod for pod in pods if pod.number is not None}
    available = {
        number for number, pod in by_number.items() if _available(pod, stateful.min_ready_s, now, waits)
    }
    actions: list[Action] = []
    for number in range(first, end):
        pod = by_number.get(number)
        if pod is None:
            actions.append(Create(desired, f"{desired.key.name}-{number}", number))
        elif pod.phase == "Failed" and not pod.terminating:
            actions.append(Delete(pod.workload, pod.name))
        if not stateful.parallel and number not in available:
            outdated = pod is not None and pod.revision != desired.revision and not pod.terminating
            if pod is not None and outdated and not stateful.on_delete and number >= stateful.partition:
                actions.append(Delete(pod.workload, pod.name))
            break
    else:
        if not actions:
            actions += _outdated(desired, stateful, by_number, available)
    beyond = sorted((number for number in by_number if not first <= number < end), reverse=True)
    leaving = [by_number[number] for number in (beyond if stateful.parallel else beyond[:1])]
    return [*actions, *_deletes([pod for pod in leaving if not pod.terminating])]


def _outdated(
    desired: Desired, stateful: StatefulSet, by_number: Mapping[int, PodView], available: set[int]
) -> list[Action]:
    """Replace the last pod of an old revision, once all others serve."""
    if stateful.on_delete:
        return []
    last = stateful.first_ordinal + desired.replicas - 1
    for number in range(last, max(stateful.first_ordinal, stateful.partition) - 1, -1):
        pod = by_number[number]
        if pod.terminating:
            return []
        if pod.revision != desired.revision:
            others = {other for other in by_number if other <= last and other != number}
            return _deletes([pod]) if number not in available or others <= available else []
        if number not in available:
            return []
    return []


def _job(
    desired: Desired,
    job: Job,
    pods: Sequence[PodView],
    now: float,
    suffix: Callable[[], str],
    waits: list[float],
) -> list[Action]:
    old = [pod for pod in pods if pod.revision != desired.revision]
    if old:
        # A changed Job is a new Job: it starts when nothing of the old one runs any more.
        return _deletes([pod for pod in old if not pod.terminating])
    mine = [pod for pod in pods if not pod.terminating]
    active = [pod for pod in mine if not pod.finished]
    if job.suspended or job_failed(job, mine, now):
        return _deletes(active)
    if job.active_deadline_s is not None and mine:
        waits.append(max(0.0, min(pod.created for pod in mine) + job.active_deadline_s - now))
    succeeded = [pod for pod in mine if pod.phase == "Succeeded"]
    needed = 1 if job.completions is None else job.completions
    if len(succeeded) >= needed:
        return []
    failed = [pod for pod in mine if pod.phase == "Failed"]
    wait = max((pod.ended for pod in failed), default=now) + retry_delay_s(len(failed)) - now
    if failed and wait > 0:
        waits.append(wait)
        return []
    remaining = job.parallelism if job.completions is None else needed - len(succeeded)
    count = min(job.parallelism, remaining) - len(active)
    if not job.indexed:
        return [Create(desired, f"{desired.key.name}-{suffix()}", None) for _ in range(count)]
    taken = {pod.number for pod in (*succeeded, *active)}
    free = [number for number in range(needed) if number not in taken][: max(0, count)]
    return [Create(desired, f"{desired.key.name}-{number}-{suffix()}", number) for number in free]


def _single(desired: Desired, pods: Sequence[PodView]) -> list[Action]:
    if not pods:
        return [Create(desired, desired.key.name, None)]
    return _deletes([pod for pod in pods if pod.revision != desired.revision and not pod.terminating])


def _available(pod: PodView, min_ready_s: int, now: float, waits: list[float]) -> bool:
    if not pod.ready or pod.terminating:
        return False
    wait = pod.ready_since + min_ready_s - now
    if wait > 0:
        waits.append(wait)
    return wait <= 0


def _share(value: int | str, of: int, rounded: Callable[[float], int]) -> int:
    return value if isinstance(value, int) else rounded(of * int(value.removesuffix("%")) / 100)


def _deletes(pods: Iterable[PodView]) -> list[Action]:
    return [Delete(pod.workload, pod.name) for pod in pods]
