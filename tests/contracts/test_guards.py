"""Every guard alone, over both databases: it refuses, and without it the same action would have been applied.

Most of them are a second line: a decision that acts on a row that has changed is refused by its `RowVersion` already,
and a replica that leads no more by its epoch. The simulation shows what the first line holds; this shows the second.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

import pytest

from mainstay.domain.affinity import Requirement
from mainstay.domain.allocation import Allocation, End, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.flavor import NODE_FLAVORS_MAX, NodeFlavor
from mainstay.domain.fleet import ClusterKind, NewCluster
from mainstay.domain.plan import (
    Action,
    AddCluster,
    CordonNode,
    DrainCluster,
    Grow,
    HoldWorkload,
    IdentifyCluster,
    ObserveNodes,
    OfCluster,
    Preempt,
    QuarantineNode,
    RemoveCluster,
    RemoveNodeFlavor,
    RemoveQueue,
    Reprioritize,
    ResumeCluster,
    RowVersion,
    SetLocalQueue,
    SetNodeFlavor,
    SetQueue,
    Shrink,
    Submit,
    UncordonNode,
)
from mainstay.domain.preemption import Rule, Slot, Victim
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import LocalQueue, QueueSpec, Quota
from mainstay.domain.workload import Elastic, Kind, Phase, Workload
from mainstay.store import guards
from tests.stores import SECOND, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]

Contradiction = Callable[[Scene], Action]
"""Brings a scene to where the action that is answered contradicts it."""


def what_was_read_has_changed(scene: Scene) -> Action:
    work = scene.submit()
    guard = RowVersion(kind="workload", key=work.key, version=work.version - 1)
    return scene.allocate(work, node=scene.fleet()[0], guards=(guard,))


def the_node_is_full(scene: Scene) -> Action:
    scene.fleet(cpus=1)
    scene.place(scene.submit())
    return scene.allocate(scene.submit())


def the_node_is_down(scene: Scene) -> Action:
    scene.fleet(ready=False)
    return scene.allocate(scene.submit())


def the_gang_is_larger_than_what_is_left(scene: Scene) -> Action:
    scene.fleet(cpus=3)
    return scene.allocate(scene.submit(nodes=2, choices=(one_cpu(cpu_milli=2_000),)))


def a_stop_was_asked_for(scene: Scene) -> Action:
    scene.fleet()
    work = scene.submit()
    scene.applied(scene.stop(work))
    return scene.allocate(work)


def it_is_another_attempt_that_waits(scene: Scene) -> Action:
    scene.fleet()
    return scene.allocate(scene.submit(), attempt=2)


def it_does_not_wait_any_more(scene: Scene) -> Action:
    scene.fleet()
    work = scene.submit()
    scene.applied(scene.advance(work, Phase.FAILED))
    return scene.allocate(work)


def a_pod_of_the_last_attempt_lives(scene: Scene) -> Action:
    scene.fleet()
    work = scene.submit()
    scene.run(work)
    scene.applied(scene.advance(work, Phase.PENDING, attempt=2))
    return scene.allocate(scene.workload(work.id))


def a_rank_is_missing(scene: Scene) -> Action:
    scene.fleet()
    whole = scene.allocate(scene.submit(nodes=2))
    return scene.allocate(scene.submit(nodes=2), slots=whole.slots[:1])


def a_rank_comes_twice(scene: Scene) -> Action:
    scene.fleet()
    whole = scene.allocate(scene.submit(nodes=2))
    return scene.allocate(scene.submit(), slots=whole.slots)


def it_is_final(scene: Scene) -> Action:
    work = scene.submit()
    scene.applied(scene.advance(work, Phase.STOPPED))
    return scene.advance(work, Phase.QUEUED)


def it_has_never_run(scene: Scene) -> Action:
    return scene.advance(scene.submit(), Phase.SUCCEEDED)


def it_goes_back_under_the_same_number(scene: Scene) -> Action:
    scene.fleet()
    work = scene.submit()
    scene.run(work)
    return scene.advance(work, Phase.PENDING)


def it_moves_on_under_another_number(scene: Scene) -> Action:
    scene.fleet()
    work = scene.submit()
    scene.place(work)
    return scene.advance(work, Phase.RUNNING, attempt=2)


def its_end_is_on_record(scene: Scene) -> Action:
    return scene.see(_ended(scene), Seen.RUNNING)


def it_lives(scene: Scene) -> Action:
    scene.fleet()
    return scene.close(scene.run(scene.submit()))


def its_usage_is_not_recorded(scene: Scene) -> Action:
    pod = _ended(scene)
    scene.applied(scene.advance(_work(scene), Phase.SUCCEEDED))
    return scene.close(pod)


def its_end_is_not_judged(scene: Scene) -> Action:
    pod = _ended(scene)
    scene.applied(scene.usage(pod, start=pod.started_at, end=pod.ended_at))
    return scene.close(pod)


def it_was_recorded_before(scene: Scene) -> Action:
    pod = _ended(scene)
    scene.applied(scene.usage(pod, start=pod.started_at, end=pod.started_at + SECOND))
    return scene.usage(pod, start=pod.started_at + 1, end=pod.ended_at)


def there_is_a_gap(scene: Scene) -> Action:
    pod = _ended(scene)
    return scene.usage(pod, start=pod.started_at + 1, end=pod.ended_at)


def it_had_ended_by_then(scene: Scene) -> Action:
    pod = _ended(scene)
    return scene.usage(pod, start=pod.started_at, end=pod.ended_at + 1)


def it_never_started(scene: Scene) -> Action:
    scene.fleet()
    return scene.usage(scene.place(scene.submit()), start=scene.now, end=scene.now + 1)


def it_changes_the_past(scene: Scene) -> Action:
    scene.applied(scene.price(30_000))
    return scene.price(40_000, since=1)


def it_has_another_name(scene: Scene) -> Action:
    scene.applied(_cluster("east", identity="one"))
    return _cluster("west", identity="one")


def its_name_is_taken(scene: Scene) -> Action:
    scene.applied(_cluster("east", identity="one"))
    return _cluster("east", identity="two")


def it_holds_a_pod(scene: Scene) -> Action:
    its_cluster_is_drained(scene)
    scene.applied(ResumeCluster(cluster="east", reason=WHY))
    scene.place(scene.submit())
    return RemoveCluster(cluster="east", reason=WHY)


def its_cluster_is_drained(scene: Scene) -> Action:
    scene.applied(_cluster("east", identity="one"))
    scene.fleet(cluster="east")
    scene.applied(DrainCluster(cluster="east", reason=WHY))
    return scene.allocate(scene.submit())


def it_is_in_quarantine(scene: Scene) -> Action:
    scene.fleet()
    scene.applied(QuarantineNode(cluster="local", node="local-0", reason=WHY))
    return UncordonNode(cluster="local", node="local-0", reason=WHY)


def it_is_kept_out(scene: Scene) -> Action:
    scene.fleet()
    scene.applied(CordonNode(cluster="local", node="local-0", reason=WHY))
    return scene.allocate(scene.submit())


def it_speaks_for_another_cluster(scene: Scene) -> Action:
    scene.fleet()
    pod = scene.place(scene.submit())
    guard = OfCluster(kind="allocation", key=pod.key, cluster="east")
    return replace(scene.see(pod, Seen.STARTING), guards=(guard,))


def it_withdraws_guests_of_another_cluster(scene: Scene) -> Action:
    return _withdrawn(scene, kind=Kind.POD, cluster="west")


def it_withdraws_a_job_of_a_user(scene: Scene) -> Action:
    return _withdrawn(scene, kind=Kind.JOB, cluster="east")


def _withdrawn(scene: Scene, *, kind: Kind, cluster: str) -> Action:
    work = scene.submit(kind=kind, cluster=cluster)
    guard = OfCluster(kind="workload", key=work.key, cluster="east")
    return replace(scene.advance(work, Phase.STOPPED), guards=(guard,))


def its_agent_found_another_one(scene: Scene) -> Action:
    scene.applied(_cluster("east", identity="one"))
    return IdentifyCluster(cluster="east", identity="two", reason=WHY)


def its_agent_found_one_that_the_fleet_has(scene: Scene) -> Action:
    scene.applied(_cluster("east", identity="one"), _cluster("west", identity=""))
    return IdentifyCluster(cluster="west", identity="one", reason=WHY)


def it_is_held(scene: Scene) -> Action:
    scene.fleet()
    work = scene.submit()
    scene.applied(HoldWorkload(workload_key=work.key, reason=WHY))
    return scene.allocate(scene.workload(work.id))


def it_has_a_place(scene: Scene) -> Action:
    scene.fleet()
    work = scene.submit()
    scene.place(work)
    return HoldWorkload(workload_key=work.key, reason=WHY)


def it_is_over(scene: Scene) -> Action:
    work = scene.submit()
    scene.applied(scene.advance(work, Phase.STOPPED))
    return Reprioritize(workload_key=work.key, priority=99, preemptible=True, reason=WHY)


def a_cohort_would_hold_work(scene: Scene) -> Action:
    scene.submit(queue="ml")
    return SetQueue(queue=QueueSpec(name="ml", cohort=True), reason=WHY)


def a_queue_would_have_children(scene: Scene) -> Action:
    scene.applied(SetQueue(queue=QueueSpec(name="research"), reason=WHY))
    return SetQueue(queue=QueueSpec(name="below", parent="research"), reason=WHY)


def work_is_in_the_queue(scene: Scene) -> Action:
    scene.applied(SetQueue(queue=QueueSpec(name="research"), reason=WHY))
    scene.submit(queue="research")
    return RemoveQueue(queue="research", reason=WHY)


def a_queue_is_below_it(scene: Scene) -> Action:
    scene.applied(SetQueue(queue=QueueSpec(name="ml", cohort=True), reason=WHY))
    scene.applied(SetQueue(queue=QueueSpec(name="research", parent="ml"), reason=WHY))
    return RemoveQueue(queue="ml", reason=WHY)


def a_queue_has_a_quota_of_it(scene: Scene) -> Action:
    scene.applied(SetNodeFlavor(flavor=_flavor("spot"), reason=WHY))
    queue = QueueSpec(name="research", quotas={("spot", "cpu"): Quota(nominal=1)})
    scene.applied(SetQueue(queue=queue, reason=WHY))
    return RemoveNodeFlavor(name="spot", reason=WHY)


def the_tenant_has_as_many_as_it_may(scene: Scene) -> Action:
    for _ in range(2):
        scene.submit()
    return Submit(workload=scene.new(), reason=WHY, open_max=2)


def a_name_would_stand_for_a_cohort(scene: Scene) -> Action:
    scene.applied(SetQueue(queue=QueueSpec(name="ml", cohort=True), reason=WHY))
    return SetLocalQueue(local=LocalQueue(namespace="team-a", name="user-queue", queue="ml"), reason=WHY)


def a_name_stands_for_the_queue(scene: Scene) -> Action:
    scene.applied(
        SetQueue(queue=QueueSpec(name="ml"), reason=WHY),
        SetLocalQueue(local=LocalQueue(namespace="team-a", name="user-queue", queue="ml"), reason=WHY),
    )
    return RemoveQueue(queue="ml", reason=WHY)


def a_name_would_stand_for_a_new_cohort(scene: Scene) -> Action:
    a_name_stands_for_the_queue(scene)
    return SetQueue(queue=QueueSpec(name="ml", cohort=True), reason=WHY)


def a_name_would_stand_for_nothing(_scene: Scene) -> Action:
    return SetLocalQueue(local=LocalQueue(namespace="team-a", name="user-queue", queue="nowhere"), reason=WHY)


def there_are_too_many_flavors(scene: Scene) -> Action:
    scene.applied(*(SetNodeFlavor(flavor=_flavor(f"f{at}"), reason=WHY) for at in range(NODE_FLAVORS_MAX)))
    return SetNodeFlavor(flavor=_flavor("one-more"), reason=WHY)


def _flavor(name: str) -> NodeFlavor:
    return NodeFlavor(name=name, requirements=(Requirement(key="pool", operator="Exists"),))


def _displaces(scene: Scene, work: Workload, *pods: Allocation) -> Preempt:
    """All these pods, of one workload, for another."""
    node = scene.store.nodes()[0]
    slots = tuple(Slot(rank=rank, node_key=node.key, resources=work.spec.choices[0]) for rank in range(work.spec.nodes))
    keys = tuple(pod.key for pod in pods)
    victim = Victim(workload_key=pods[0].workload_key, allocation_keys=keys, rule=Rule.WITHIN_QUEUE)
    until = scene.now + 60 * SECOND
    return Preempt(workload_key=work.key, attempt=1, slots=slots, until=until, victims=(victim,), reason=WHY)


def a_place_is_kept_for_it_already(scene: Scene) -> Action:
    scene.fleet()
    one, other, work = scene.run(scene.submit()), scene.run(scene.submit()), scene.submit()
    scene.applied(_displaces(scene, work, one))
    return _displaces(scene, work, other)


def a_rank_would_have_no_place(scene: Scene) -> Action:
    scene.fleet()
    action = _displaces(scene, scene.submit(nodes=2), scene.run(scene.submit()))
    return replace(action, slots=action.slots[:1])


def half_a_gang_would_yield(scene: Scene) -> Action:
    scene.fleet()
    return _displaces(scene, scene.submit(), scene.run(scene.submit(nodes=2)))


def it_may_not_be_displaced(scene: Scene) -> Action:
    scene.fleet()
    low = scene.submit()
    pod = scene.run(low)
    scene.applied(Reprioritize(workload_key=low.key, priority=50, preemptible=False, reason=WHY))
    return _displaces(scene, scene.submit(), pod)


def it_yields_already(scene: Scene) -> Action:
    scene.fleet()
    pod = scene.run(scene.submit())
    scene.applied(_displaces(scene, scene.submit(), pod))
    return _displaces(scene, scene.submit(), pod)


def its_place_is_kept_for_another(scene: Scene) -> Action:
    """Who yields has ended, so that there is room; but not for anybody."""
    scene.fleet(cpus=1)
    pod, late = scene.run(scene.submit()), scene.submit()
    scene.applied(_displaces(scene, scene.submit(), pod))
    scene.end(pod, end=End.STOPPED, exit_code=None)
    return scene.allocate(late)


def its_last_pod_is_kept_for_another(scene: Scene) -> Action:
    """There is room, but for one more pod only, and that is the one that is kept."""
    state = NodeState(name="small", capacity=Resources(cpu_milli=9_000, memory_bytes=9 << 30), ready=True, pods_max=1)
    scene.applied(ObserveNodes(cluster="local", nodes=(state,), reason=WHY))
    pod, late = scene.run(scene.submit()), scene.submit()
    scene.applied(_displaces(scene, scene.submit(), pod))
    scene.end(pod, end=End.STOPPED, exit_code=None)
    return scene.allocate(late)


def _elastic(scene: Scene) -> tuple[Workload, tuple[Allocation, ...]]:
    """One that has as many ranks as it may have, two, and needs one; its rank 0 runs."""
    scene.fleet()
    work = scene.submit(nodes=2, elastic=Elastic(nodes_min=1, nodes_max=2))
    scene.run(work)
    return work, scene.store.allocations(work.key)


def too_few_ranks_would_be_left(scene: Scene) -> Action:
    work, pods = _elastic(scene)
    return Shrink(workload_key=work.key, attempt=1, allocation_keys=tuple(pod.key for pod in pods), reason=WHY)


def its_first_rank_would_go(scene: Scene) -> Action:
    work, pods = _elastic(scene)
    return Shrink(workload_key=work.key, attempt=1, allocation_keys=(pods[0].key,), reason=WHY)


def it_has_all_ranks_that_it_may_have(scene: Scene) -> Action:
    work, _ = _elastic(scene)
    slot = Slot(rank=2, node_key=scene.store.nodes()[0].key, resources=one_cpu())
    return Grow(workload_key=work.key, attempt=1, slots=(slot,), reason=WHY)


def a_number_would_be_left_out(scene: Scene) -> Action:
    work, pods = _elastic(scene)
    scene.applied(Shrink(workload_key=work.key, attempt=1, allocation_keys=(pods[1].key,), reason=WHY))
    slot = Slot(rank=3, node_key=scene.store.nodes()[0].key, resources=one_cpu())
    return Grow(workload_key=work.key, attempt=1, slots=(slot,), reason=WHY)


REFUSED: tuple[tuple[str, Contradiction], ...] = (
    ("place_is_not_kept", its_place_is_kept_for_another),
    ("place_is_not_kept", its_last_pod_is_kept_for_another),
    ("may_preempt", a_place_is_kept_for_it_already),
    ("may_preempt", a_rank_would_have_no_place),
    ("may_preempt", half_a_gang_would_yield),
    ("may_preempt", it_may_not_be_displaced),
    ("may_preempt", it_yields_already),
    ("may_go_on_without", too_few_ranks_would_be_left),
    ("may_go_on_without", its_first_rank_would_go),
    ("may_grow", it_has_all_ranks_that_it_may_have),
    ("may_grow", a_number_would_be_left_out),
    ("row_version_holds", what_was_read_has_changed),
    ("capacity_left", the_node_is_full),
    ("capacity_left", the_node_is_down),
    ("capacity_left", the_gang_is_larger_than_what_is_left),
    ("attempt_may_start", a_stop_was_asked_for),
    ("attempt_may_start", it_does_not_wait_any_more),
    ("attempt_may_start", it_is_another_attempt_that_waits),
    ("no_attempt_lives", a_pod_of_the_last_attempt_lives),
    ("slot_is_new", a_rank_is_missing),
    ("slot_is_new", a_rank_comes_twice),
    ("phase_may_follow", it_is_final),
    ("phase_may_follow", it_has_never_run),
    ("attempt_may_follow", it_goes_back_under_the_same_number),
    ("attempt_may_follow", it_moves_on_under_another_number),
    ("pod_has_not_ended", its_end_is_on_record),
    ("pod_may_close", it_lives),
    ("pod_may_close", its_usage_is_not_recorded),
    ("pod_may_close", its_end_is_not_judged),
    ("usage_is_next", it_was_recorded_before),
    ("usage_is_next", there_is_a_gap),
    ("usage_is_next", it_had_ended_by_then),
    ("usage_is_next", it_never_started),
    ("price_fits_the_book", it_changes_the_past),
    ("cluster_may_join", it_has_another_name),
    ("cluster_may_join", its_name_is_taken),
    ("cluster_may_leave", it_holds_a_pod),
    ("capacity_left", its_cluster_is_drained),
    ("capacity_left", it_is_kept_out),
    ("node_is_kept_as", it_is_in_quarantine),
    ("of_cluster", it_speaks_for_another_cluster),
    ("of_cluster", it_withdraws_guests_of_another_cluster),
    ("of_cluster", it_withdraws_a_job_of_a_user),
    ("cluster_may_be", its_agent_found_another_one),
    ("cluster_may_be", its_agent_found_one_that_the_fleet_has),
    ("attempt_may_start", it_is_held),
    ("may_be_held", it_has_a_place),
    ("may_be_reprioritized", it_is_over),
    ("queue_may_be", a_cohort_would_hold_work),
    ("queue_may_be", a_queue_would_have_children),
    ("queue_may_leave", work_is_in_the_queue),
    ("queue_may_leave", a_queue_is_below_it),
    ("local_queue_may_be", a_name_would_stand_for_a_cohort),
    ("local_queue_may_be", a_name_would_stand_for_nothing),
    ("queue_may_leave", a_name_stands_for_the_queue),
    ("queue_may_be", a_name_would_stand_for_a_new_cohort),
    ("node_flavor_may_be", there_are_too_many_flavors),
    ("tenant_may_submit", the_tenant_has_as_many_as_it_may),
    ("node_flavor_may_leave", a_queue_has_a_quota_of_it),
)
each = pytest.mark.parametrize(("guard", "contradiction"), REFUSED, ids=[row.__name__ for _, row in REFUSED])


@each
def test_a_guard_refuses_what_contradicts_the_rows(scene: Scene, guard: str, contradiction: Contradiction) -> None:
    action = contradiction(scene)
    version = scene.store.version()
    assert len(scene.commit(action).refused) == 1, guard
    assert scene.store.version() == version


@each
def test_without_its_guard_it_is_applied(
    scene: Scene, guard: str, contradiction: Contradiction, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = contradiction(scene)
    monkeypatch.setattr(guards, guard, lambda *_: None)
    scene.applied(action)


def test_a_slot_is_not_given_out_again_even_if_the_workload_waits_for_the_same_attempt(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = _ended(scene)
    with monkeypatch.context() as patch:
        patch.setattr(guards, "attempt_may_follow", lambda *_: None)
        scene.applied(scene.advance(_work(scene), Phase.PENDING))
    assert len(scene.commit(scene.allocate(_work(scene))).refused) == 1
    assert scene.store.allocations(pod.workload_key) == (pod,)


def test_every_guard_is_held_to_this() -> None:
    answers = {name for name, value in inspect.getmembers(guards, inspect.isfunction) if not name.startswith("_")}
    words = {"changed", "missing", "no_such_cluster", "no_such_node", "pod_of", "is_shape", "tree_of"}
    assert answers - words == {guard for guard, _ in REFUSED} | {"epoch_holds"}, "epoch_holds: see the simulation"


def _ended(scene: Scene) -> Allocation:
    """The pod of a job that ran for some seconds and has ended well; its workload is still running on record."""
    scene.fleet()
    pod = scene.run(scene.submit(id="job"))
    return scene.end(pod)


def _cluster(name: str, *, identity: str) -> AddCluster:
    return AddCluster(cluster=NewCluster(name=name, kind=ClusterKind.KUBERNETES, identity=identity), reason=WHY)


def _work(scene: Scene) -> Workload:
    return scene.workload("job")
