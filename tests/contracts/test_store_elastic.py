"""What every store promises about elastic workloads, over both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mainstay.domain.allocation import Allocation, End, Seen
from mainstay.domain.plan import Grow, Preempt, RowVersion, Shrink
from mainstay.domain.preemption import Rule, Slot, Victim
from mainstay.domain.reason import Code
from mainstay.domain.workload import Elastic, Phase, Workload
from tests.stores import SECOND, TENANT, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]


def submitted(scene: Scene, *, least: int = 2, desired: int = 4, most: int = 6) -> Workload:
    """On a node that has room for more than it ever has."""
    scene.fleet(cpus=16)
    return scene.submit(nodes=desired, elastic=Elastic(nodes_min=least, nodes_max=most))


def slots(scene: Scene, *ranks: int) -> tuple[Slot, ...]:
    key = scene.store.nodes()[0].key
    return tuple(Slot(rank=rank, node_key=key, resources=one_cpu()) for rank in ranks)


def test_how_many_ranks_it_may_have_is_on_record(scene: Scene) -> None:
    work = submitted(scene)
    assert (work.spec.nodes_min, work.spec.nodes, work.spec.nodes_max) == (2, 4, 6)
    table = scene.store.snapshot(now=scene.now, seed=0).workloads
    assert (table.nodes_min.tolist(), table.nodes.tolist(), table.nodes_max.tolist()) == ([2], [4], [6])


def test_each_rank_says_how_many_were_placed_together(scene: Scene) -> None:
    work = submitted(scene)
    scene.applied(scene.allocate(work, slots=slots(scene, 0, 1, 2)))
    assert [(pod.rank, pod.ranks) for pod in scene.store.allocations(work.key)] == [(0, 3), (1, 3), (2, 3)]
    assert scene.store.progress([work.key])[work.key].ranks == 3


@pytest.mark.parametrize("ranks", [(0,), (0, 1, 2, 3, 4), (0, 2), (1, 2), (0, 0, 1)])
def test_it_does_not_start_with_fewer_than_it_needs_or_more_than_it_desires_or_with_a_gap(
    scene: Scene, ranks: tuple[int, ...]
) -> None:
    """Second line: the scheduler asks for no such thing."""
    work = submitted(scene)
    (refused,) = scene.commit(scene.allocate(work, slots=slots(scene, *ranks))).refused
    assert refused.reason.code is Code.GUARD_FAILED
    assert not scene.store.allocations(work.key)


def test_another_attempt_may_have_another_count(scene: Scene) -> None:
    work = submitted(scene)
    scene.applied(scene.allocate(work, slots=slots(scene, 0, 1, 2, 3)))
    for pod in scene.store.allocations(work.key):
        scene.applied(scene.see(pod, Seen.ENDED))
    scene.applied(scene.advance(work, Phase.PENDING, attempt=2))
    scene.applied(scene.allocate(scene.workload(work.id), slots=slots(scene, 0, 1)))
    assert [pod.ranks for pod in scene.store.allocations(work.key)] == [4] * 4 + [2] * 2
    assert scene.store.progress([work.key])[work.key].ranks == 2


def running(scene: Scene, *, least: int = 2, ranks: int = 4) -> tuple[Workload, tuple[Allocation, ...]]:
    """All its ranks run."""
    work = submitted(scene, least=least, desired=ranks)
    scene.applied(scene.allocate(work, slots=slots(scene, *range(ranks))))
    for pod in scene.store.allocations(work.key):
        scene.applied(scene.see(pod, Seen.RUNNING, started_at=scene.now))
    scene.applied(scene.advance(work, Phase.RUNNING))
    return scene.workload(work.id), scene.store.allocations(work.key)


def shrink(work: Workload, *pods: Allocation) -> Shrink:
    return Shrink(workload_key=work.key, attempt=1, allocation_keys=tuple(pod.key for pod in pods), reason=WHY)


def test_ranks_that_are_left_out_are_stopped_and_count_no_more(scene: Scene) -> None:
    work, pods = running(scene)
    scene.applied(shrink(work, *pods[2:]))
    after = scene.store.allocations(work.key)
    assert [(pod.stop, pod.surplus, pod.moves) for pod in after] == [(False,) * 3] * 2 + [(True, True, False)] * 2
    assert all(pod.stop_asked_at == scene.now for pod in after[2:])
    assert scene.store.progress([work.key])[work.key].ranks == 2
    assert scene.store.snapshot(now=scene.now, seed=0).allocations.surplus.tolist() == [False, False, True, True]
    now = scene.workload(work.id)
    assert (now.phase, now.reason, now.version > work.version) == (work.phase, work.reason, True)


def test_a_rank_that_has_ended_is_left_out_as_it_is(scene: Scene) -> None:
    work, pods = running(scene)
    scene.end(pods[3], end=End.LOST, exit_code=None)
    scene.applied(shrink(work, pods[3]))
    lost = scene.pod(pods[3])
    assert (lost.surplus, lost.stop, lost.end) == (True, False, End.LOST)


def test_a_rank_that_was_left_out_is_charged_to_its_end_and_closed_with_its_attempt(scene: Scene) -> None:
    work, pods = running(scene)
    scene.applied(shrink(work, pods[3]))
    out = scene.end(pods[3], end=End.STOPPED, exit_code=None, ended_at=scene.now + 9 * SECOND)
    scene.applied(scene.usage(out, start=out.started_at, end=out.ended_at))
    assert scene.commit(scene.close(out)).refused
    for pod in pods[:3]:
        scene.end(pod)
    scene.applied(scene.advance(work, Phase.SUCCEEDED))
    scene.applied(scene.close(out))


@pytest.mark.parametrize("out", [(0,), (1, 2, 3), (3, 3)])
def test_rank_0_and_enough_others_stay(scene: Scene, out: tuple[int, ...]) -> None:
    """Second line: no decision asks for such a thing."""
    work, pods = running(scene)
    (refused,) = scene.commit(shrink(work, *(pods[rank] for rank in out))).refused
    assert refused.reason.code is Code.GUARD_FAILED
    assert not any(pod.stop for pod in scene.store.allocations(work.key))


def test_nothing_is_left_out_of_a_fixed_gang_or_of_one_that_is_being_stopped(scene: Scene) -> None:
    work, pods = running(scene)
    scene.applied(scene.stop(work))
    assert scene.commit(shrink(work, pods[3])).refused
    fixed = scene.submit(nodes=3)
    scene.applied(scene.allocate(fixed))
    assert scene.commit(shrink(fixed, scene.store.allocations(fixed.key)[2])).refused


def yields(scene: Scene, work: Workload, *pods: Allocation, surplus: bool) -> Preempt:
    high = scene.submit(name="high")
    keys = tuple(pod.key for pod in pods)
    victim = Victim(workload_key=work.key, allocation_keys=keys, rule=Rule.RECLAIM, surplus=surplus)
    return Preempt(
        workload_key=high.key,
        attempt=1,
        slots=slots(scene, 0),
        until=scene.now + 60 * SECOND,
        victims=(victim,),
        reason=WHY,
    )


def test_surplus_yields_and_its_run_goes_on(scene: Scene) -> None:
    work, pods = running(scene)
    action = yields(scene, work, pods[3], surplus=True)
    scene.applied(action)
    out = scene.pod(pods[3])
    assert (out.stop, out.surplus, out.moves) == (True, True, False)
    assert scene.store.progress([work.key])[work.key].stopping_since == 0, "one rank of it stops, and not the run"
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    assert snapshot.displaced_by == {}
    assert snapshot.allocations.yields_to.tolist() == [0, 0, 0, action.workload_key]
    now = scene.workload(work.id)
    assert (now.phase, now.reason) == (Phase.RUNNING, work.reason)
    told = [event.reason.sentence for event in scene.store.events(tenant=TENANT, workload=work.id, after=0, limit=100)]
    assert told[-1].startswith("goes on without 1 node: preempted for high-")


@pytest.mark.parametrize(("out", "surplus"), [((0,), True), ((1, 2, 3), True), ((1, 2, 3), False)])
def test_nobody_yields_so_that_too_few_are_left(scene: Scene, out: tuple[int, ...], *, surplus: bool) -> None:
    """Second line: who yields whole yields every rank, and who yields surplus keeps its first one and its min."""
    work, pods = running(scene)
    (refused,) = scene.commit(yields(scene, work, *(pods[rank] for rank in out), surplus=surplus)).refused
    assert refused.reason.code is Code.GUARD_FAILED


def test_who_yields_whole_leaves_out_what_is_leaving_already(scene: Scene) -> None:
    work, pods = running(scene)
    scene.applied(shrink(work, pods[3]))
    scene.applied(yields(scene, work, *pods[:3], surplus=False))
    assert [pod.moves for pod in scene.store.allocations(work.key)] == [True, True, True, False]


def grow(scene: Scene, work: Workload, *ranks: int) -> Grow:
    return Grow(workload_key=work.key, attempt=1, slots=slots(scene, *ranks), reason=WHY)


def test_new_ranks_are_numbered_on_and_know_how_many_there_are(scene: Scene) -> None:
    work, pods = running(scene)
    scene.applied(shrink(work, pods[3]))
    now = scene.workload(work.id)
    scene.applied(grow(scene, work, 4, 5))
    after = scene.store.allocations(work.key)
    assert [(pod.rank, pod.ranks, pod.seen) for pod in after[4:]] == [(4, 5, Seen.NOTHING), (5, 5, Seen.NOTHING)]
    assert scene.store.progress([work.key])[work.key].ranks == 5
    grown = scene.workload(work.id)
    assert (grown.phase, grown.reason, grown.version > now.version) == (Phase.RUNNING, work.reason, True)
    assert scene.store.nodes()[0].used.cpu_milli == 6_000


@pytest.mark.parametrize("ranks", [(3,), (5,), (4, 4), (4, 5, 6)])
def test_it_gets_no_number_twice_none_out_of_turn_and_no_more_than_its_max(
    scene: Scene, ranks: tuple[int, ...]
) -> None:
    """Second line: four run, of six that there may be."""
    work, _ = running(scene)
    (refused,) = scene.commit(grow(scene, work, *ranks)).refused
    assert refused.reason.code is Code.GUARD_FAILED
    assert len(scene.store.allocations(work.key)) == 4


def test_nothing_grows_that_does_not_run_or_is_being_stopped(scene: Scene) -> None:
    work = submitted(scene)
    scene.applied(scene.allocate(work, slots=slots(scene, 0, 1)))
    assert scene.commit(grow(scene, work, 2)).refused
    other, pods = running(scene)
    scene.end(pods[0])
    assert scene.commit(grow(scene, other, 4)).refused
    third, _ = running(scene)
    scene.applied(scene.stop(third))
    assert scene.commit(grow(scene, third, 4)).refused


def test_it_takes_no_more_than_is_free(scene: Scene) -> None:
    work, _ = running(scene)
    scene.applied(scene.allocate(scene.submit(choices=(one_cpu(cpu_milli=11_500),))))
    (refused,) = scene.commit(grow(scene, work, 4)).refused
    assert refused.reason.code is Code.CAPACITY_TAKEN


def test_an_end_that_was_decided_before_it_grew_is_refused(scene: Scene) -> None:
    """The decision has not seen the new ranks: their pods would outlive their run."""
    work, pods = running(scene)
    for pod in pods[1:]:
        scene.end(pod)
    guard = RowVersion(kind="workload", key=work.key, version=scene.workload(work.id).version)
    scene.applied(grow(scene, work, 4))
    (refused,) = scene.commit(replace(scene.advance(work, Phase.SUCCEEDED), guards=(guard,))).refused
    assert refused.reason.code is Code.GUARD_FAILED
