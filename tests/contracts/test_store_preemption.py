"""What every store promises about who is displaced, and about places that are kept, over both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mainstay.control.decisions import DECISIONS, plan_of
from mainstay.domain.allocation import Allocation, End, Seen
from mainstay.domain.plan import DropNomination, Epoch, HoldWorkload, Preempt, Reprioritize, SetQueue
from mainstay.domain.preemption import DISPLACED_MAX, PreemptionPolicy, Reclaim, Rule, Slot, Victim, WithinQueue
from mainstay.domain.queue import QueueSpec
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase, Workload
from tests.stores import SECOND, TENANT, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]

LOWER = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.ANY, min_runtime_seconds=7)


def displaces(scene: Scene, work: Workload, *pods: Allocation, **changes: Any) -> Preempt:
    """All these pods, each of another workload, for one."""
    node = scene.store.nodes()[0]
    slots = tuple(Slot(rank=rank, node_key=node.key, resources=work.spec.choices[0]) for rank in range(work.spec.nodes))
    victims = tuple(
        Victim(workload_key=pod.workload_key, allocation_keys=(pod.key,), rule=Rule.WITHIN_QUEUE) for pod in pods
    )
    reason = Reason(code=Code.PREEMPTS, numbers={"pods": len(pods), "runs": len(pods), "nodes": node.name})
    action = Preempt(
        workload_key=work.key, attempt=1, slots=slots, until=scene.now + 60 * SECOND, victims=victims, reason=reason
    )
    return replace(action, **changes)


def decide(scene: Scene, name: str) -> None:
    """One turn of this decision."""
    scene.now += SECOND
    (decision,) = (one for one in DECISIONS if one.name == name)
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    if plan := plan_of(decision, snapshot, epoch=Epoch(name="none", number=0)):
        result = scene.store.commit(replace(plan, epoch=None))
        assert not result.refused, result.refused


def stage(scene: Scene, **changes: Any) -> tuple[Workload, Allocation, Workload]:
    """One node that is full of what runs, and who waits for it."""
    scene.fleet(cpus=1)
    low = scene.submit(name="low")
    pod = scene.run(low)
    return low, pod, scene.submit(name="high", **changes)


def test_the_policy_of_a_queue_is_as_it_was_set(scene: Scene) -> None:
    queue = QueueSpec(name="research", preemption=LOWER)
    scene.applied(SetQueue(queue=queue, reason=Reason(code=Code.QUEUE_SET, object="research")))
    assert scene.store.queues()[0].queue == queue
    tree = scene.store.snapshot(now=scene.now, seed=0).queues
    assert tree.policies[tree.names.index("research")] == LOWER
    assert tree.policies[tree.names.index("default")] == PreemptionPolicy()


def test_who_yields_is_told_to_stop_and_the_place_is_kept_in_one_commit(scene: Scene) -> None:
    low, pod, high = stage(scene)
    scene.applied(displaces(scene, high, pod))
    assert (scene.pod(pod).stop, scene.pod(pod).moves) == (True, True)
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    assert snapshot.nominations[high.key].slots[0].resources == one_cpu()
    assert snapshot.displaced_by == {low.key: (high.key,)}
    assert snapshot.allocations.preempted.tolist() == [int(Rule.WITHIN_QUEUE)]
    assert snapshot.allocations.stop_asked_at.tolist() == [scene.now]
    events = scene.store.events(tenant=TENANT, workload="", after=0, limit=100)
    assert [(event.object, event.reason.code) for event in events if event.kind == "preemption"] == [
        (low.id, Code.PREEMPTED),
        (high.id, Code.PREEMPTS),
    ]


def test_what_yields_goes_back_to_its_queue_with_its_age_and_no_failure(scene: Scene) -> None:
    low, pod, high = stage(scene)
    scene.applied(displaces(scene, high, pod))
    scene.end(pod, end=End.STOPPED, exit_code=None)
    decide(scene, "lifecycle")
    again = scene.workload(low.id)
    assert (again.phase, again.attempt, again.submitted_at) == (Phase.PENDING, 2, low.submitted_at)
    assert (again.infrastructure_failures, again.user_failures, again.not_before) == (0, 0, 0)
    assert again.reason.code is Code.WAITS_AFTER_PREEMPTION
    decide(scene, "schedule")
    assert scene.workload(high.id).phase is Phase.STARTING
    assert scene.workload(low.id).phase is Phase.QUEUED
    assert not scene.store.snapshot(now=scene.now, seed=0).nominations


def test_nobody_else_is_placed_where_a_place_is_kept(scene: Scene) -> None:
    _, pod, high = stage(scene)
    scene.applied(displaces(scene, high, pod))
    other = scene.submit(name="other")
    scene.end(pod, end=End.STOPPED, exit_code=None)
    decide(scene, "schedule")
    assert scene.workload(other.id).phase is Phase.QUEUED
    assert scene.workload(high.id).phase is Phase.STARTING


def test_a_place_is_kept_no_longer_than_was_said(scene: Scene) -> None:
    _, pod, high = stage(scene)
    scene.applied(displaces(scene, high, pod))
    scene.now += 61 * SECOND
    decide(scene, "schedule")
    assert scene.workload(high.id).reason.code is Code.NOMINATION_DROPPED
    assert not scene.store.snapshot(now=scene.now, seed=0).nominations


def two_for_one_node(scene: Scene) -> tuple[Workload, Workload, tuple[Allocation, Allocation]]:
    """A node of 16 CPUs: places for 12 and 4 are kept for two, and who yields to each holds as much."""
    scene.fleet(cpus=16)
    sizes = {"va": 12, "vb": 4, "a": 12, "b": 4}
    urgent = {"va": 1, "vb": 1, "a": 50, "b": 40}

    def submit(name: str) -> Workload:
        return scene.submit(
            name=name, choices=(one_cpu(cpu_milli=1_000 * sizes[name], memory_bytes=0),), priority=urgent[name]
        )

    pods = scene.run(submit("va")), scene.run(submit("vb"))
    a, b = submit("a"), submit("b")
    scene.applied(displaces(scene, a, pods[0], until=scene.now + 86_400 * SECOND))
    scene.applied(displaces(scene, b, pods[1], until=scene.now + 330 * SECOND))
    return a, b, pods


def test_whose_place_is_free_has_it_though_others_on_its_node_still_wait_for_theirs(scene: Scene) -> None:
    a, b, (of_a, of_b) = two_for_one_node(scene)
    scene.end(of_b, end=End.STOPPED, exit_code=None)
    other = scene.submit(name="other", choices=(one_cpu(cpu_milli=4_000, memory_bytes=0),), priority=90)
    decide(scene, "schedule")
    assert scene.workload(b.id).phase is Phase.STARTING
    assert scene.workload(a.id).phase is Phase.PENDING
    assert scene.workload(other.id).phase is Phase.QUEUED, "nobody else takes what is kept, however urgent"
    scene.end(of_a, end=End.STOPPED, exit_code=None)
    decide(scene, "schedule")
    assert scene.workload(a.id).phase is Phase.STARTING


def test_what_is_kept_for_one_is_not_taken_by_another_for_whom_a_place_is_kept(scene: Scene) -> None:
    """The store refuses it: A's place is free, B's is not, and B would sit on A's."""
    a, b, (of_a, _) = two_for_one_node(scene)
    scene.end(of_a, end=End.STOPPED, exit_code=None)
    (refused,) = scene.commit(scene.allocate(b)).refused
    assert refused.reason.code is Code.CAPACITY_TAKEN
    scene.applied(scene.allocate(a))


def test_a_pod_that_asks_for_nothing_is_not_refused_for_what_is_kept(scene: Scene) -> None:
    two_for_one_node(scene)
    scene.applied(scene.allocate(scene.submit(name="none", choices=(one_cpu(cpu_milli=0, memory_bytes=0),))))


@pytest.mark.parametrize("how", ["stop", "hold"])
def test_a_place_is_kept_for_nobody_who_does_not_want_it(scene: Scene, how: str) -> None:
    _, pod, high = stage(scene)
    scene.applied(displaces(scene, high, pod))
    if how == "stop":
        scene.applied(scene.stop(high))
        decide(scene, "lifecycle")
    else:
        scene.applied(HoldWorkload(workload_key=high.key, reason=Reason(code=Code.HELD, numbers={"by": "ada"})))
    assert not scene.store.snapshot(now=scene.now, seed=0).nominations


def test_another_tenant_is_not_told_for_whom_its_work_yields(scene: Scene) -> None:
    low, pod, theirs = stage(scene, tenant="chemistry")
    scene.applied(displaces(scene, theirs, pod))
    words = scene.workload(low.id).reason.sentence
    assert theirs.id not in words
    assert "chemistry" not in words
    assert words.startswith("preempted for other work: ")


def test_the_owner_is_told_for_which_of_its_own_runs_another_yields(scene: Scene) -> None:
    low, pod, high = stage(scene)
    scene.applied(displaces(scene, high, pod))
    assert scene.workload(low.id).reason.sentence.startswith(f"preempted for {high.id}: ")


def test_one_that_was_displaced_does_not_displace_the_one_for_whom_it_was(scene: Scene) -> None:
    """Until somebody says anew how urgent it is."""
    low, pod, high = stage(scene)
    scene.applied(displaces(scene, high, pod))
    scene.end(pod, end=End.STOPPED, exit_code=None)
    decide(scene, "lifecycle")
    decide(scene, "schedule")
    (placed,) = scene.store.allocations(high.key)
    scene.applied(scene.see(placed, Seen.RUNNING, started_at=scene.now))
    decide(scene, "lifecycle")
    back = displaces(scene, low, placed, attempt=2)
    (refused,) = scene.commit(back).refused
    assert refused.reason.code is Code.GUARD_FAILED
    reason = Reason(code=Code.REPRIORITIZED, numbers={"by": "ada", "priority": 90, "before": 50})
    scene.applied(Reprioritize(workload_key=low.key, priority=90, preemptible=True, reason=reason))
    scene.applied(back)


def test_dropping_what_is_not_kept_changes_nothing(scene: Scene) -> None:
    _, _, high = stage(scene)
    before = scene.workload(high.id)
    scene.applied(DropNomination(workload_key=high.key, reason=WHY))
    assert scene.workload(high.id) == before


def test_so_often_is_work_displaced_and_no_more(scene: Scene) -> None:
    low, pod, _ = stage(scene)
    for _ in range(DISPLACED_MAX):
        high = scene.submit()
        scene.applied(displaces(scene, high, pod))
        scene.end(pod, end=End.STOPPED, exit_code=None)
        decide(scene, "lifecycle")
        scene.applied(scene.stop(high))
        decide(scene, "lifecycle")
        scene.applied(scene.allocate(scene.workload(low.id)))
        pod = scene.store.allocations(low.key)[-1]
    (refused,) = scene.commit(displaces(scene, scene.submit(), pod)).refused
    assert refused.reason.code is Code.GUARD_FAILED
