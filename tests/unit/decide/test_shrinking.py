"""Elastic attempts go on with fewer ranks: what is lost, what is drained, what is taken for other work."""

from __future__ import annotations

import pytest

from mainstay.decide.explain import explain
from mainstay.decide.lifecycle import lifecycle
from mainstay.decide.nodes import tend
from mainstay.decide.preemption import preempt
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.preemption.search import Search
from mainstay.decide.shapes import shape_of
from mainstay.domain.allocation import End, Seen
from mainstay.domain.plan import Action, Advance, Shrink, StopPod
from mainstay.domain.preemption import PreemptionPolicy, Reclaim, Rule, Victim, WithinQueue
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AnAllocation, AWorkload, allocation, ended, node, workload, world

EARLIER = NOON - 3_600 * SECOND
LOWER = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
DRAINED = {"closed_at": EARLIER, "drains": True}


def runs(key: int = 1, least: int = 2, most: int = 4, **values: object) -> AWorkload:
    return workload(key, **{"phase": Phase.RUNNING, "nodes": most, "nodes_min": least, "nodes_max": most, **values})


def up(rank: int, **values: object) -> AnAllocation:
    return allocation(1, rank=rank, **{"created_at": EARLIER, "started_at": EARLIER, **values})


def gone(rank: int, end: End = End.LOST, **values: object) -> AnAllocation:
    return ended(1, end, **{"rank": rank, "created_at": EARLIER, **values})


def judged(*pods: AnAllocation, least: int = 2, **values: object) -> list[Action]:
    return list(lifecycle(world(workloads=[runs(least=least, **values)], allocations=pods)))


def left_out(*pods: AnAllocation, least: int = 2, **values: object) -> tuple[int, ...]:
    """Keys, which count from 1 in the order given."""
    (action,) = judged(*pods, least=least, **values)
    assert isinstance(action, Shrink), action
    return action.allocation_keys


def phase_after(*pods: AnAllocation, least: int = 2, **values: object) -> Phase | None:
    actions = judged(*pods, least=least, **values)
    assert all(isinstance(action, Advance) for action in actions), actions
    return actions[0].phase if actions else None


@pytest.mark.parametrize("end", [End.LOST, End.MACHINE_RESTARTED, End.NEVER_STARTED, End.STOPPED])
def test_it_goes_on_without_a_rank_that_is_lost(end):
    assert left_out(up(0), gone(1, end), up(2)) == (2,)
    assert left_out(up(0), gone(1, end), gone(2, end), up(3)) == (2, 3)


def test_why_is_told():
    (action,) = judged(up(0), up(1), gone(2))
    assert action.reason.sentence == "goes on without 1 node: rank 2 was lost to the infrastructure: lost"


def test_with_fewer_than_its_min_or_without_rank_0_it_ends():
    for pods in ([up(0), gone(1)], [gone(0), up(1), up(2)], [up(0), gone(1), gone(2)]):
        stops = judged(*pods)
        assert stops
        assert all(isinstance(action, StopPod) for action in stops)
    assert phase_after(gone(0), gone(1), phase=Phase.RUNNING) is Phase.PENDING


@pytest.mark.parametrize("end", [End.EXITED, End.OUT_OF_MEMORY, End.START_FAILED, End.DEADLINE])
def test_what_the_program_does_is_no_loss(end):
    stops = judged(up(0), up(1), gone(2, end, exit_code=1))
    assert [action.allocation_key for action in stops if isinstance(action, StopPod)] == [1, 2]


def test_a_fixed_gang_ends_with_any_of_its_ranks():
    stops = judged(up(0), up(1), gone(2), least=3, nodes=3, nodes_max=3)
    assert all(isinstance(action, StopPod) for action in stops)
    assert len(stops) == 2


def test_a_rank_that_was_left_out_is_no_failure_whatever_its_end():
    out = {"stop": True, "surplus": True}
    for end in End:
        assert judged(up(0), up(1), gone(2, end, exit_code=1, **out)) == []
    good = gone(0, End.EXITED), gone(1, End.EXITED)
    assert phase_after(*good, gone(2, End.STOPPED, **out)) is Phase.SUCCEEDED
    assert phase_after(gone(0, End.EXITED, exit_code=1), gone(1, End.EXITED), gone(2, **out)) is Phase.FAILED


def test_it_is_over_only_when_those_that_were_left_out_have_ended_too():
    """Attempts never overlap: what is told to stop may still run."""
    good = gone(0, End.EXITED), gone(1, End.EXITED)
    assert judged(*good, up(2, stop=True, surplus=True)) == []


def test_what_is_lost_while_it_ends_is_judged_before_the_end_is():
    assert left_out(gone(0, End.EXITED), gone(1), gone(2, End.EXITED)) == (2,)


def test_it_runs_as_soon_as_its_first_rank_and_its_min_do():
    starting = [up(rank, seen=Seen.STARTING, started_at=0) for rank in range(4)]
    assert phase_after(up(0), up(1), *starting[2:], phase=Phase.STARTING) is Phase.RUNNING
    assert phase_after(up(0), *starting[1:], phase=Phase.STARTING) is None
    assert phase_after(starting[0], *(up(rank) for rank in (1, 2, 3)), phase=Phase.STARTING) is None
    assert phase_after(up(0), up(1), up(2, seen=Seen.UNKNOWN)) is None


def test_who_joined_too_late_is_left_out_once_rank_0_has_ended_well():
    first, late = (gone(0, End.EXITED), gone(1, End.EXITED)), {"created_at": NOON}
    assert left_out(*first, up(2, seen=Seen.PULLING, **late)) == (3,)
    assert left_out(*first, gone(2, End.EXITED, exit_code=1, **late)) == (3,)
    assert judged(*first, up(2, **late)) == []
    assert phase_after(*first, gone(2, End.EXITED, exit_code=1)) is Phase.FAILED


def drained(*pods: AnAllocation, least: int = 2, **values: object) -> tuple[Action, ...]:
    nodes = [node("a", **DRAINED), node("b"), node("c")]
    return tend(world(nodes=nodes, workloads=[runs(least=least, **values)], allocations=pods))


def test_a_drain_takes_its_ranks_there_and_leaves_the_rest():
    (action,) = drained(up(0, node_key=2), up(1, node_key=1), up(2, node_key=1), up(3, node_key=3))
    assert isinstance(action, Shrink)
    assert action.allocation_keys == (2, 3)
    assert action.reason.sentence == "goes on without 2 nodes: node a is being drained"


@pytest.mark.parametrize(("where", "least"), [((1, 2, 2), 2), ((2, 1, 1), 2), ((2, 2, 1), 3)])
def test_where_its_first_rank_is_or_too_many_are_it_moves_whole(where, least):
    pods = [up(rank, node_key=key) for rank, key in enumerate(where)]
    actions = drained(*pods, least=least)
    assert [(action.allocation_key, action.moves) for action in actions if isinstance(action, StopPod)] == [
        (1, True),
        (2, True),
        (3, True),
    ]


def test_a_drain_is_done_once():
    told = up(1, node_key=1, stop=True, surplus=True)
    assert drained(up(0, node_key=2), told, up(2, node_key=2)) == ()


def taken(
    elastic: AWorkload,
    pods: list[AnAllocation],
    *others: AWorkload,
    cpus: int = 1,
    more: list[AnAllocation] | None = None,
) -> list[Victim]:
    """Who yields for one of priority 90 that asks for so much, on nodes of 4 CPUs."""
    waits = workload(99, queue="a", priority=90, phase=Phase.QUEUED, cpus=cpus)
    held = [*pods, *(more or [])]
    nodes = [node(cpus=4) for _ in range(max(pod.node_key for pod in held))]
    snapshot = world(
        nodes=nodes,
        queues=[QueueSpec(name="a", preemption=LOWER)],
        workloads=[elastic, *others, waits],
        allocations=held,
    )
    return [victim for action in preempt(snapshot) for victim in action.victims]


def test_surplus_ranks_yield_before_anything_else_even_where_that_is_less_urgent():
    pods = [up(rank, node_key=1) for rank in range(3)]
    other = runs(2, least=1, most=1, queue="a", priority=1)
    (victim,) = taken(runs(queue="a", priority=50), pods, other, more=[allocation(2, node_key=1, created_at=EARLIER)])
    assert victim == Victim(workload_key=1, allocation_keys=(3,), rule=Rule.WITHIN_QUEUE, surplus=True)


def test_no_more_surplus_yields_than_is_needed():
    pods = [up(rank, node_key=1 + rank // 4) for rank in range(8)]
    (victim,) = taken(runs(least=2, most=8, queue="a"), pods, cpus=2)
    assert (len(victim.allocation_keys), victim.surplus) == (2, True)
    assert min(victim.allocation_keys) > 2


def test_who_needs_the_rest_takes_all_of_it():
    """The node is needed whole; ranks elsewhere go with it, since nothing of the attempt is left."""
    pods = [up(rank, node_key=1 if rank < 4 else 2) for rank in range(5)]
    more = [allocation(2, node_key=2, cpus=3, created_at=EARLIER)]
    (victim,) = taken(
        runs(most=5, queue="a"), pods, runs(2, least=1, most=1, cpus=3, queue="a", priority=95), cpus=4, more=more
    )
    assert victim == Victim(workload_key=1, allocation_keys=(1, 2, 3, 4, 5), rule=Rule.WITHIN_QUEUE)


def test_ranks_that_leave_already_are_no_part_of_the_rest():
    leaving = up(4, node_key=2, stop=True, surplus=True, preempted=1)
    pods = [*(up(rank, node_key=1) for rank in range(4)), leaving]
    more = [allocation(2, node_key=2, cpus=3, created_at=EARLIER)]
    (victim,) = taken(
        runs(most=5, queue="a"), pods, runs(2, least=1, most=1, cpus=3, queue="a", priority=95), cpus=4, more=more
    )
    assert victim.allocation_keys == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "values", [{"stop_requested": True}, {"preemptible": False}, {"phase": Phase.UNKNOWN}, {"attempt": 2}]
)
def test_who_may_not_yield_keeps_its_surplus_too(values):
    assert not taken(runs(queue="a", **values), [up(rank, node_key=1) for rank in range(4)])


def test_a_quota_that_was_lent_comes_back_by_surplus_alone():
    policy = PreemptionPolicy(reclaim=Reclaim.ANY)
    own = {("default", "cpu"): Quota(nominal=2_000)}
    queues = [QueueSpec(name=name, parent="all", quotas=own, preemption=policy) for name in "ab"]
    queues.append(QueueSpec(name="all", cohort=True))
    pods = [up(rank, node_key=1) for rank in range(4)]
    jobs = [runs(queue="a"), workload(2, queue="b", phase=Phase.QUEUED, cpus=2)]
    snapshot = world(nodes=[node(), node()], queues=queues, workloads=jobs, allocations=pods)
    (action,) = preempt(snapshot)
    assert action.victims == (Victim(workload_key=1, allocation_keys=(3, 4), rule=Rule.RECLAIM, surplus=True),)
    assert (
        "could take the place of 1 run (2 pods, without 2 of which its run goes on)" in explain(snapshot, 2).preemption
    )


def test_what_is_put_back_is_as_it_was():
    """Whatever was tried: the world of the search is the same after a search that finds nobody."""
    pods = [up(rank, node_key=1) for rank in range(4)]
    jobs = [runs(queue="a", priority=10), workload(2, queue="a", phase=Phase.QUEUED, priority=50, cpus=5)]
    snapshot = world(
        nodes=[node(cpus=4)], queues=[QueueSpec(name="a", preemption=LOWER)], workloads=jobs, allocations=pods
    )
    search, fresh = Search(snapshot), Search(snapshot)
    assert search.displace(wish_of(snapshot, 1), shape_of(snapshot, 1)) is None
    assert (search.staying.free.nodes.free == fresh.staying.free.nodes.free).all()
    assert search.staying.balance.share(0) == fresh.staying.balance.share(0)
