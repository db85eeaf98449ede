"""What every store promises about queues, names of priorities and workloads that are held, over both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mainstay.domain.errors import Conflict
from mainstay.domain.plan import (
    HoldWorkload,
    ReleaseWorkload,
    RemovePriorityClass,
    RemoveQueue,
    Reprioritize,
    RowVersion,
    SetPriorityClass,
    SetQueue,
    Submit,
)
from mainstay.domain.queue import PriorityClass, QueueSpec, QueueTree, Quota
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase
from tests.stores import ALL, TENANT, USER, Scene, scene, store

__all__ = ["scene", "store"]

GPUS = Quota(nominal=8, borrowing_limit=4, lending_limit=2)
RESEARCH = QueueSpec(
    name="research", parent="ml", weight=2.5, quotas={("H100", "gpu"): GPUS, ("default", "cpu"): Quota(nominal=64_000)}
)
ML = QueueSpec(name="ml", cohort=True, quotas={("H100", "gpu"): Quota(nominal=4)})


def put(queue: QueueSpec, *, read: int | None = None) -> SetQueue:
    reason = Reason(code=Code.QUEUE_SET, object=queue.name, numbers={"by": USER})
    guards = () if read is None else (RowVersion(kind="queue", key=queue.name, version=read),)
    return SetQueue(queue=queue, guards=guards, reason=reason)


def drop(name: str) -> RemoveQueue:
    return RemoveQueue(queue=name, reason=Reason(code=Code.QUEUE_REMOVED, object=name, numbers={"by": USER}))


def tree(scene: Scene) -> QueueTree:
    return scene.store.snapshot(now=scene.now, seed=0).queues


def queue_of(scene: Scene) -> list[str]:
    """Of each open workload, by key."""
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    return [snapshot.queues.names[row] for row in snapshot.workloads.queue.tolist()]


def hold(key: int) -> HoldWorkload:
    return HoldWorkload(workload_key=key, reason=Reason(code=Code.HELD, numbers={"by": USER}))


def release(key: int) -> ReleaseWorkload:
    return ReleaseWorkload(workload_key=key, reason=Reason(code=Code.RELEASED, numbers={"by": USER}))


def rank(key: int, priority: int, *, preemptible: bool = True) -> Reprioritize:
    reason = Reason(code=Code.REPRIORITIZED, numbers={"by": USER, "priority": priority, "before": 50})
    return Reprioritize(workload_key=key, priority=priority, preemptible=preemptible, reason=reason)


def test_the_time_limits_that_queues_give_are_known_by_name(scene: Scene) -> None:
    assert dict(scene.store.default_limits()) == {}
    scene.applied(put(ML), put(replace(RESEARCH, default_max_duration_seconds=28_800)), put(QueueSpec(name="other")))
    assert dict(scene.store.default_limits()) == {"research": 28_800}
    (found,) = (one.queue for one in scene.store.queues() if one.queue.name == "research")
    assert found.default_max_duration_seconds == 28_800


def test_a_queue_is_there_as_it_was_set_until_it_is_removed(scene: Scene) -> None:
    scene.applied(put(RESEARCH), put(ML))
    first, second = scene.store.queues()
    assert (first.queue, second.queue) == (ML, RESEARCH)
    assert (second.set_by, second.set_at) == (USER, scene.now)
    changed = replace(RESEARCH, weight=0.0, quotas={})
    scene.applied(put(changed))
    assert [row.queue for row in scene.store.queues()] == [ML, changed]
    scene.applied(drop("research"), drop("ml"))
    assert scene.store.queues() == ()


def test_the_snapshot_has_the_tree_and_follows_it(scene: Scene) -> None:
    assert tree(scene).names == ("default",)
    scene.applied(put(RESEARCH))
    assert tree(scene).names == ("default", "ml", "research")
    assert tree(scene).cohort.tolist() == [False, True, False]
    scene.applied(drop("research"))
    assert tree(scene).names == ("default",)


def test_workloads_count_in_their_queue_or_in_the_default_where_nobody_has_defined_it(scene: Scene) -> None:
    scene.submit(queue="research")
    scene.submit()
    assert queue_of(scene) == ["default", "default"]
    scene.applied(put(RESEARCH))
    assert queue_of(scene) == ["research", "default"]
    scene.submit(queue="ml")
    scene.submit(queue="research")
    assert queue_of(scene) == ["research", "default", "default", "research"], "nothing waits in a cohort"
    scene.applied(put(QueueSpec(name="a")))
    assert queue_of(scene) == ["research", "default", "default", "research"], "rows of the tree have moved"


def test_a_snapshot_that_was_handed_out_keeps_its_queues(scene: Scene) -> None:
    scene.submit(queue="research")
    before = scene.store.snapshot(now=scene.now, seed=0)
    scene.applied(put(RESEARCH))
    queue_of(scene)
    assert [before.queues.names[row] for row in before.workloads.queue.tolist()] == ["default"]


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        (QueueSpec(name="lower", parent="research"), "only a cohort has children"),
        (QueueSpec(name="lower", parent="default"), "only a cohort has children"),
        (QueueSpec(name="ml", parent="below", cohort=True), "cohorts in a circle"),
        (QueueSpec(name="ml"), "only a cohort has children"),
        (QueueSpec(name="x", weight=-1.0), "the weight of x"),
        (QueueSpec(name="x", parent="ml", quotas={("a", "gpu"): Quota(nominal=1, lending_limit=2)}), "nobody lends"),
        (QueueSpec(name="x", quotas={("a", "gpu"): Quota(nominal=1, borrowing_limit=2)}), "in no cohort"),
        (QueueSpec(name="x", quotas={("a", "gpu"): Quota(nominal=1 << 60)}), "nominal quota"),
    ],
)
def test_what_would_be_no_tree_is_refused_in_its_words(scene: Scene, queue: QueueSpec, words: str) -> None:
    scene.applied(put(RESEARCH), put(QueueSpec(name="below", parent="ml", cohort=True)))
    before = scene.store.queues()
    (refused,) = scene.commit(put(queue)).refused
    assert refused.reason.code is Code.QUEUE_IMPOSSIBLE
    assert words in refused.reason.sentence
    assert scene.store.queues() == before


def test_of_two_who_read_the_same_queue_the_second_is_refused(scene: Scene) -> None:
    scene.applied(put(RESEARCH, read=0))
    (row,) = scene.store.queues()
    scene.applied(put(replace(RESEARCH, weight=3.0), read=row.version))
    (refused,) = scene.commit(put(replace(RESEARCH, weight=4.0), read=row.version)).refused
    assert refused.reason.code is Code.GUARD_FAILED
    (refused,) = scene.commit(put(RESEARCH, read=0)).refused
    assert refused.reason.code is Code.GUARD_FAILED
    assert scene.store.queues()[0].queue.weight == 3.0


def test_a_queue_in_use_stays_and_says_by_what(scene: Scene) -> None:
    scene.applied(put(RESEARCH), put(ML))
    work = scene.submit(queue="research")
    (refused,) = scene.commit(drop("research")).refused
    assert (refused.reason.code, refused.reason.numbers) == (Code.QUEUE_IN_USE, {"workloads": 1, "children": 0})
    (refused,) = scene.commit(drop("ml")).refused
    assert (refused.reason.code, refused.reason.numbers) == (Code.QUEUE_IN_USE, {"workloads": 0, "children": 1})
    (refused,) = scene.commit(put(replace(ML, name="research"))).refused
    assert refused.reason.code is Code.QUEUE_IN_USE, "a cohort would have workloads in it"
    scene.applied(scene.advance(work, Phase.STOPPED))
    scene.applied(drop("research"))


def test_what_is_not_there_cannot_be_removed(scene: Scene) -> None:
    refused = scene.commit(drop("none"), RemovePriorityClass(name="none", reason=drop("none").reason)).refused
    assert [row.reason.code for row in refused] == [Code.NO_SUCH_QUEUE, Code.NO_SUCH_PRIORITY_CLASS]


def test_the_same_once_more_writes_nothing(scene: Scene) -> None:
    work = scene.submit()
    names = SetPriorityClass(priority_class=PriorityClass(name="urgent", priority=90), reason=put(ML).reason)
    version = scene.applied(put(RESEARCH), names, hold(work.key)).version
    assert scene.applied(put(RESEARCH), names, hold(work.key), rank(work.key, 50)).version == version


def test_a_plan_that_is_refused_in_part_changes_nothing_if_it_is_atomic(scene: Scene) -> None:
    with pytest.raises(Conflict, match="only a cohort has children"):
        scene.commit(put(RESEARCH), put(QueueSpec(name="lower", parent="research")), atomic=True)
    assert scene.store.queues() == ()
    assert tree(scene).names == ("default",)


def test_queues_are_told_in_events_and_audit(scene: Scene) -> None:
    names = SetPriorityClass(
        priority_class=PriorityClass(name="urgent", priority=90),
        reason=Reason(code=Code.PRIORITY_CLASS_SET, object="urgent", numbers={"by": USER}),
    )
    scene.applied(put(RESEARCH), names, drop("research"))
    events = scene.store.events(tenant="", workload="", after=0, limit=ALL)
    assert [(event.kind, event.object, event.reason.sentence) for event in events] == [
        ("queue", "research", "queue research set by ada"),
        ("priority_class", "urgent", "priority class urgent set by ada"),
        ("queue", "research", "queue research removed by ada"),
    ]
    assert scene.store.events(tenant=TENANT, workload="", after=0, limit=ALL) == ()
    rows = scene.store.audit(after=0, limit=ALL)
    assert [(row.action, row.object) for row in rows] == [
        ("set_queue", "research"),
        ("set_priority_class", "urgent"),
        ("remove_queue", "research"),
    ]


def test_waiting_and_placed_workloads_are_counted_by_queue_and_tenant(scene: Scene) -> None:
    scene.fleet(cpus=8)
    scene.run(scene.submit(queue="research"))
    scene.submit(queue="research")
    scene.submit(queue="research", tenant="chemistry")
    scene.applied(scene.advance(scene.submit(), Phase.STOPPED))
    assert scene.store.queue_counts() == {"research": (2, 1)}
    assert scene.store.queue_counts(tenant=TENANT) == {"research": (1, 1)}
    assert scene.store.queue_counts(tenant="nobody") == {}


def test_priority_classes_are_listed_by_urgency_until_they_are_removed(scene: Scene) -> None:
    reason = put(ML).reason
    for name, priority, preemptible in (("low", 10, True), ("urgent", 90, False), ("also-low", 10, True)):
        row = PriorityClass(name=name, priority=priority, preemptible=preemptible)
        scene.applied(SetPriorityClass(priority_class=row, reason=reason))
    assert [row.name for row in scene.store.priority_classes()] == ["urgent", "also-low", "low"]
    assert scene.store.priority_classes()[0] == PriorityClass(name="urgent", priority=90, preemptible=False)
    scene.applied(RemovePriorityClass(name="low", reason=reason))
    assert [row.name for row in scene.store.priority_classes()] == ["urgent", "also-low"]


def test_a_held_workload_has_no_place_until_it_is_released(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    scene.applied(scene.advance(work, Phase.QUEUED), hold(work.key))
    held = scene.workload(work.id)
    assert (held.held, held.phase, held.reason.sentence) == (
        True,
        Phase.QUEUED,
        "held by ada: waits until it is released",
    )
    assert scene.store.snapshot(now=scene.now, seed=0).workloads.held.tolist() == [True]
    assert scene.commit(scene.allocate(held)).refused
    scene.applied(release(work.key), release(work.key))
    free = scene.workload(work.id)
    assert (free.held, free.phase, free.reason.code) == (False, Phase.PENDING, Code.RELEASED)
    scene.applied(scene.allocate(free))


def test_what_runs_cannot_be_held_and_what_is_over_not_reprioritized(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    scene.run(work)
    (refused,) = scene.commit(hold(work.key)).refused
    assert refused.reason.sentence == f"{work.id} does not wait: it is running"
    scene.applied(rank(work.key, 70))
    scene.applied(scene.advance(work, Phase.FAILED))
    assert scene.commit(rank(work.key, 80)).refused
    assert scene.workload(work.id).priority == 70


def test_a_priority_is_changed_with_an_event_and_an_audit_row(scene: Scene) -> None:
    work = scene.submit()
    scene.applied(rank(work.key, 90, preemptible=False))
    changed = scene.workload(work.id)
    assert (changed.priority, changed.preemptible, changed.reason) == (90, False, work.reason)
    table = scene.store.snapshot(now=scene.now, seed=0).workloads
    assert (table.priority.tolist(), table.preemptible.tolist()) == ([90], [False])
    assert scene.store.audit(after=0, limit=ALL)[-1].action == "reprioritize"
    event = scene.store.events(tenant=TENANT, workload=work.id, after=0, limit=ALL)[-1]
    assert event.reason.sentence == "priority 90 instead of 50, by ada"


def test_what_is_not_preemptible_says_so_from_its_submission_on(scene: Scene) -> None:
    scene.applied(
        Submit(workload=replace(scene.new(id="sure-1"), preemptible=False), reason=Reason(code=Code.SUBMITTED))
    )
    assert not scene.workload("sure-1").preemptible
