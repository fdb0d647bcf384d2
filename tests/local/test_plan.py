"""The next step from what is wanted and what there is: a table of situations."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.local.builders import deployment, one, pod
from tulle.local.plan import (
    Action,
    Create,
    Delete,
    Desired,
    Phase,
    PodView,
    WorkloadKey,
    job_expired_at,
    plan,
    retry_delay_s,
)
from tulle.model.workload import Deployment, Job, Pod, StatefulSet

NOW = 100.0

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  %s
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, command: ["true"]}]
"""
STATEFUL = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: %d
  %s
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: main, command: ["true"]}]
"""


def wanted(
    workload: Deployment | StatefulSet | Job | Pod, *, replicas: int = 1, revision: str = "new"
) -> Desired:
    key = WorkloadKey(workload.meta.namespace, type(workload).__name__, workload.meta.name)
    return Desired(key, workload, replicas, revision)


def view(
    of: Desired,
    name: str,
    *,
    revision: str = "new",
    ready: bool = True,
    phase: Phase = "Running",
    number: int | None = None,
    terminating: bool = False,
    ready_since: float = 0.0,
    ended: float = 0.0,
    restarts: int = 0,
) -> PodView:
    return PodView(
        name,
        of.key,
        revision,
        number,
        phase,
        ready and phase == "Running",
        ready_since,
        terminating,
        0.0,
        ended,
        restarts,
    )


def steps(desired: list[Desired], pods: list[PodView], now: float = NOW) -> list[str]:
    return [_shown(action) for action in plan(desired, pods, now, lambda: "x").actions]


def _shown(action: Action) -> str:
    match action:
        case Create(_, name, _):
            return f"+{name}"
        case Delete(_, name):
            return f"-{name}"


@pytest.fixture
def web() -> Desired:
    return wanted(one(Deployment, deployment()), replicas=2)


def test_an_empty_mesh_gets_all_replicas_at_once(web: Desired) -> None:
    assert steps([web], []) == ["+web-new-x", "+web-new-x"]


def test_what_is_as_wanted_is_left_alone(web: Desired) -> None:
    assert steps([web], [view(web, "a"), view(web, "b")]) == []


def test_a_pod_of_a_workload_that_is_gone_is_stopped(web: Desired) -> None:
    assert steps([], [view(web, "a")]) == ["-a"]


def test_a_pod_on_its_way_out_is_not_stopped_again(web: Desired) -> None:
    assert steps([], [view(web, "a", terminating=True)]) == []


def test_a_rolling_update_begins_with_one_pod_more_and_none_fewer(web: Desired) -> None:
    old = [view(web, "a", revision="old"), view(web, "b", revision="old")]

    assert steps([web], old) == ["+web-new-x"]


def test_an_old_pod_leaves_only_when_a_new_one_is_ready(web: Desired) -> None:
    old = [view(web, "a", revision="old"), view(web, "b", revision="old")]

    assert steps([web], [*old, view(web, "c", ready=False)]) == []
    assert steps([web], [*old, view(web, "c")]) == ["-a"]


def test_a_new_pod_has_to_stay_ready_for_as_long_as_the_manifest_says() -> None:
    web = wanted(one(Deployment, deployment(strategy="minReadySeconds: 5")), replicas=1)
    pods = [view(web, "a", revision="old"), view(web, "b", ready_since=NOW - 2)]

    next_step = plan([web], pods, NOW, lambda: "x")

    assert next_step.actions == ()
    assert next_step.again_s == 3.0


def test_old_pods_that_serve_nobody_leave_first(web: Desired) -> None:
    pods = [view(web, "a", revision="old"), view(web, "b", revision="old", ready=False), view(web, "c")]

    assert steps([web], pods) == ["-b"]


def test_recreate_starts_the_new_ones_when_the_old_ones_are_gone() -> None:
    web = wanted(one(Deployment, deployment(strategy="strategy: {type: Recreate}")), replicas=1)
    old = view(web, "a", revision="old")

    assert steps([web], [old]) == ["-a"]
    assert steps([web], [replace(old, terminating=True, ready=False)]) == []
    assert steps([web], []) == ["+web-new-x"]


def test_scaling_down_lets_the_pods_go_that_are_not_ready(web: Desired) -> None:
    pods = [view(web, "a"), view(web, "b", ready=False), view(web, "c")]

    assert steps([web], pods) == ["-b"]


def test_a_paused_deployment_keeps_its_old_pods() -> None:
    web = wanted(one(Deployment, deployment(strategy="paused: true")), replicas=1)

    assert steps([web], [view(web, "a", revision="old")]) == []


@given(
    replicas=st.integers(1, 8),
    pods=st.lists(st.tuples(st.sampled_from(["old", "new"]), st.booleans(), st.booleans()), max_size=12),
)
def test_a_rolling_update_never_takes_a_ready_pod_below_what_is_demanded(
    replicas: int, pods: list[tuple[str, bool, bool]]
) -> None:
    web = wanted(one(Deployment, deployment()), replicas=replicas)
    there = [
        view(web, f"p{number}", revision=revision, ready=ready, terminating=terminating)
        for number, (revision, ready, terminating) in enumerate(pods)
    ]

    stopped = {name[1:] for name in steps([web], there) if name.startswith("-")}

    serving = [pod for pod in there if pod.ready and not pod.terminating]
    left = [pod for pod in serving if pod.name not in stopped]
    least = replicas - replicas // 4
    assert len(left) >= min(least, len(serving))


def test_a_stateful_set_starts_one_after_the_other() -> None:
    db = wanted(one(StatefulSet, STATEFUL % (3, "")), replicas=3)

    assert steps([db], []) == ["+db-0"]
    assert steps([db], [view(db, "db-0", number=0, ready=False)]) == []
    assert steps([db], [view(db, "db-0", number=0)]) == ["+db-1"]


def test_a_parallel_stateful_set_starts_all_at_once() -> None:
    db = wanted(one(StatefulSet, STATEFUL % (2, "podManagementPolicy: Parallel")), replicas=2)

    assert steps([db], []) == ["+db-0", "+db-1"]


def test_a_stateful_set_is_updated_from_its_end_when_all_others_serve() -> None:
    db = wanted(one(StatefulSet, STATEFUL % (2, "")), replicas=2)
    old = [view(db, f"db-{number}", number=number, revision="old") for number in range(2)]

    assert steps([db], old) == ["-db-1"]
    assert steps([db], [old[0], replace(old[1], terminating=True)]) == []
    assert steps([db], [old[0], view(db, "db-1", number=1)]) == ["-db-0"]


def test_a_broken_pod_of_an_old_revision_is_replaced_instead_of_waited_for() -> None:
    db = wanted(one(StatefulSet, STATEFUL % (1, "")), replicas=1)

    assert steps([db], [view(db, "db-0", number=0, revision="old", ready=False)]) == ["-db-0"]


def test_a_stateful_set_shrinks_from_its_end_one_by_one() -> None:
    db = wanted(one(StatefulSet, STATEFUL % (1, "")), replicas=1)
    pods = [view(db, f"db-{number}", number=number) for number in range(3)]

    assert steps([db], pods) == ["-db-2"]


def test_a_job_runs_until_it_has_succeeded_often_enough() -> None:
    job = wanted(one(Job, JOB % "completions: 3\n  parallelism: 2"))
    done = view(job, "a", phase="Succeeded")

    assert steps([job], []) == ["+work-x", "+work-x"]
    assert steps([job], [done, view(job, "b")]) == ["+work-x"]
    assert steps([job], [done, replace(done, name="b"), view(job, "c")]) == []
    assert steps([job], [done, replace(done, name="b"), replace(done, name="c")]) == []


def test_a_failed_job_is_tried_again_after_a_growing_delay() -> None:
    job = wanted(one(Job, JOB % "backoffLimit: 2"))
    failed = [view(job, "a", phase="Failed", ended=NOW - 0.1)]

    next_step = plan([job], failed, NOW, lambda: "x")

    assert next_step.actions == ()
    assert next_step.again_s == pytest.approx(0.4)
    assert steps([job], failed, NOW + 1) == ["+work-x"]


def test_a_job_that_failed_too_often_is_given_up() -> None:
    job = wanted(one(Job, JOB % "backoffLimit: 1"))
    failed = [view(job, name, phase="Failed") for name in "ab"]

    assert steps([job], failed) == []


def test_a_job_past_its_deadline_is_stopped() -> None:
    job = wanted(one(Job, JOB % "activeDeadlineSeconds: 50"))

    assert steps([job], [view(job, "a")]) == ["-a"]


def test_an_indexed_job_gives_each_pod_the_next_free_index() -> None:
    job = wanted(one(Job, JOB % "completionMode: Indexed\n  completions: 3\n  parallelism: 2"))
    pods = [view(job, "a", number=1, phase="Succeeded"), view(job, "b", number=0)]

    (action,) = plan([job], pods, NOW, lambda: "x").actions

    assert action == Create(job, "work-2-x", 2)


def test_a_changed_job_begins_anew_when_the_old_one_is_gone() -> None:
    job = wanted(one(Job, JOB % ""))
    old = view(job, "a", revision="old", phase="Succeeded")

    assert steps([job], [old]) == ["-a"]
    assert steps([job], [replace(old, terminating=True)]) == []


def test_a_finished_job_may_be_taken_off_after_its_time_to_live() -> None:
    job = one(Job, JOB % "ttlSecondsAfterFinished: 10")
    done = view(wanted(job), "a", phase="Succeeded", ended=NOW)

    assert job_expired_at(job, [done]) == NOW + 10
    assert job_expired_at(job, [view(wanted(job), "a")]) is None


def test_a_lone_pod_is_replaced_when_it_changed_and_not_when_it_ended() -> None:
    lone = wanted(one(Pod, pod()))

    assert steps([lone], []) == ["+lone"]
    assert steps([lone], [view(lone, "lone", phase="Succeeded")]) == []
    assert steps([lone], [view(lone, "lone", revision="old")]) == ["-lone"]


def test_retries_wait_twice_as_long_each_time_up_to_half_a_minute() -> None:
    assert [retry_delay_s(failures) for failures in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
