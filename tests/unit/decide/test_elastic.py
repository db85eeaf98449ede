"""Elastic workloads: they start with as many ranks as there is room for, never with fewer than they need."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide import cycle
from mainstay.decide.explain import explain, preview
from mainstay.decide.placement import POLICIES
from mainstay.decide.possible import impossible
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_of
from mainstay.decide.turns import ledger_of
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import RESERVED_AFTER_SECONDS, QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Elastic, Kind, Phase, WorkloadSpec
from tests.worlds import NOON, SECOND, AWorkload, allocation, node, workload, world

CPU = ("default", "cpu")


def elastic(key: int = 1, least: int = 2, desired: int = 8, **values: object) -> AWorkload:
    """A core for each rank."""
    return workload(key, **{"nodes_min": least, "nodes": desired, "nodes_max": desired, **values})


def placed(snapshot: Snapshot, policy: str = "best-fit") -> dict[int, list[str]]:
    """The node of each rank, by key."""
    names = dict(zip(snapshot.nodes.key.tolist(), snapshot.nodes.names, strict=True))
    return {
        action.workload_key: [names[slot.node_key] for slot in action.slots]
        for action in schedule(snapshot, policy=policy)
        if isinstance(action, Allocate)
    }


def counts(snapshot: Snapshot, policy: str = "best-fit") -> dict[int, int]:
    """How many ranks each gets."""
    return {key: len(nodes) for key, nodes in placed(snapshot, policy).items()}


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_it_starts_with_as_many_ranks_as_fit(policy):
    assert counts(world(nodes=[node(cpus=4), node(cpus=2)], workloads=[elastic()]), policy) == {1: 6}


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_it_takes_no_more_than_it_desires(policy):
    snapshot = world(nodes=[node(cpus=16)], workloads=[elastic(desired=4, nodes_max=12)])
    assert counts(snapshot, policy) == {1: 4}


def test_with_less_room_than_its_min_it_waits_and_is_told_what_it_needs():
    (action,) = schedule(world(nodes=[node(cpus=2)], workloads=[elastic(least=3)]))
    assert isinstance(action, Advance)
    assert action.phase is Phase.QUEUED
    assert action.reason.numbers["needs"] == "3 to 8 x (1 CPU, 1 GiB)"


def test_of_the_clusters_that_hold_as_many_it_takes_the_one_with_the_least_room():
    nodes = [node("a", cpus=9, cluster="east"), node("b", cpus=8, cluster="west"), node("c", cpus=5, cluster="north")]
    assert set(placed(world(nodes=nodes, workloads=[elastic()]))[1]) == {"b"}


def test_where_none_holds_all_it_takes_the_roomiest():
    nodes = [node("a", cpus=3, cluster="east"), node("b", cpus=5, cluster="west")]
    assert placed(world(nodes=nodes, workloads=[elastic()])) == {1: ["b"] * 5}


def test_all_of_it_lies_in_one_domain_of_a_level_that_is_required():
    nodes = [
        node("a", cpus=3, topology={"rack": "one"}),
        node("b", cpus=2, topology={"rack": "two"}),
        node("c", cpus=2, topology={"rack": "two"}),
    ]
    needs, prefers = elastic(topology="required rack"), elastic(topology="preferred rack")
    assert sorted(placed(world(nodes=nodes, workloads=[needs]))[1]) == ["b", "b", "c", "c"]
    assert counts(world(nodes=nodes, workloads=[prefers])) == {1: 7}


def test_its_quota_bounds_it_and_counts_what_it_got():
    queue = QueueSpec(name="a", quotas={CPU: Quota(nominal=5_000)})
    jobs = [elastic(1, queue="a", desired=4), elastic(2, least=1, queue="a"), workload(3, queue="a")]
    assert counts(world(nodes=[node(cpus=16)], queues=[queue], workloads=jobs)) == {1: 4, 2: 1}


def test_the_share_of_its_queue_counts_what_it_got():
    """Two of three, so the queue is next before one that holds three, whose job is older."""
    queues = [QueueSpec(name="a"), QueueSpec(name="b")]
    jobs = [elastic(1, desired=3, queue="a", cluster="small"), workload(2, queue="a", submitted_at=NOON + 2)]
    jobs += [workload(3, queue="b", nodes=3, submitted_at=NOON - 1), workload(4, queue="b", submitted_at=NOON + 1)]
    nodes = [node(cpus=2, cluster="small"), node(cpus=4, cluster="large")]
    assert counts(world(nodes=nodes, queues=queues, workloads=jobs)) == {1: 2, 2: 1, 3: 3}


def test_the_first_choice_that_holds_enough_is_taken():
    choices = tuple(Resources(cpu_milli=cores * 1000, memory_bytes=BYTES_PER_GIB) for cores in (4, 1))
    job = elastic(least=2, desired=4, choices=choices)
    assert counts(world(nodes=[node(cpus=8)], workloads=[job])) == {1: 2}
    assert counts(world(nodes=[node(cpus=7)], workloads=[job])) == {1: 4}


def test_a_start_is_reserved_for_as_many_as_it_needs_and_others_start_beside_it():
    late = NOON + (RESERVED_AFTER_SECONDS + 1) * SECOND
    runs = [workload(9, phase=Phase.RUNNING, cpus=3, max_duration_seconds=1_000, stop_grace_seconds=0)]
    held = [allocation(9, cpus=3, started_at=late)]
    jobs = [elastic(1, least=3), workload(2, cpus=1, submitted_at=NOON + 1)]
    snapshot = world(nodes=[node(cpus=4)], workloads=[*runs, *jobs], allocations=held, now=late)
    one = cycle.Cycle(snapshot, POLICIES["best-fit"])
    assert [snapshot.workloads.key[found.rows].tolist() for found in one.placements()] == [[2]]
    (start,) = one.reserved.values()
    assert (len(start.nodes), start.starts_at - late) == (3, 1_000 * SECOND)


def test_others_yield_for_as_many_as_it_needs_and_no_more():
    queue = QueueSpec(name="a", preemption=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY))
    low = [workload(key, queue="a", phase=Phase.RUNNING) for key in range(11, 19)]
    held = [allocation(job.key, created_at=NOON - SECOND) for job in low]
    high = elastic(1, least=3, queue="a", priority=9, phase=Phase.QUEUED)
    (found,) = preempt(world(nodes=[node(cpus=8)], queues=[queue], workloads=[high, *low], allocations=held))
    assert (len(found.slots), len(found.victims)) == (3, 3)


def test_explain_and_plan_say_how_many_of_how_many():
    snapshot = world(nodes=[node("n", cpus=6)], workloads=[elastic()])
    found = explain(snapshot, 1)
    assert (found.reason.code, found.reason.sentence) == (Code.PLACED_ELASTIC, "placed with 6 nodes of 2 to 8 on n")
    answer = preview(replace(snapshot, workloads=world().workloads), spec=spec(2, 8), priority=0)
    assert (answer.starts_now, len(answer.nodes)) == (True, 6)
    one, six = (preview(world(nodes=[node(cpus=count)]), spec=spec(1, 8), priority=0) for count in (1, 6))
    assert six.price_per_hour.micros == 6 * one.price_per_hour.micros


def test_of_one_that_runs_it_is_told_how_many_it_has():
    job = elastic(phase=Phase.RUNNING)
    pods = [allocation(1, rank=rank, surplus=rank == 3, stop=rank == 3) for rank in range(4)]
    found = explain(world(nodes=[node()], workloads=[job], allocations=pods), 1)
    assert found.reason.sentence == "runs: 3 nodes of 2 to 8"


def test_what_could_start_at_once_is_told_by_its_min():
    found = explain(world(nodes=[node(cpus=2)], workloads=[elastic(least=3)]), 1)
    nodes = next(one for one in found.alternatives if one.change == "nodes")
    assert (nodes.before, nodes.after) == ("3", "2")


def test_what_it_may_never_get_even_at_its_min_is_refused():
    snapshot = world(nodes=[node(cpus=4)], workloads=[])
    assert impossible(snapshot, spec=spec(4, 8), queue="default") is None
    found = impossible(snapshot, spec=spec(5, 8), queue="default")
    assert found is not None
    assert found.nearest[0] == "nodes 4 instead of 5"
    limited = [QueueSpec(name="a", quotas={CPU: Quota(nominal=3_000)})]
    found = impossible(world(nodes=[node(cpus=4)], queues=limited), spec=spec(4, 8), queue="a")
    assert found is not None
    assert found.reason.code is Code.EXCEEDS_QUOTA


def spec(least: int, most: int) -> WorkloadSpec:
    one = Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB)
    bounds = Elastic(nodes_min=least, nodes_max=most)
    return WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(one,), nodes=most, elastic=bounds)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from(sorted(POLICIES)))
def test_it_gets_as_many_as_the_largest_fixed_gang_that_fits(seed, policy):
    """The closed form, held against trying every count."""
    rng = random.Random(seed)
    fleet = [
        node(
            cpus=rng.choice((1, 2, 4, 7)),
            gpus=rng.choice((0, 1, 4)),
            gpu_model=rng.choice(("A100", "L4")),
            cluster=rng.choice(("east", "west")),
            topology={"rack": rng.choice("xyz"), "block": rng.choice("pq")},
        )
        for _ in range(rng.randint(1, 9))
    ]
    limit = {} if rng.random() < 0.4 else {CPU: Quota(nominal=rng.randint(0, 20) * 1_000)}
    queue = QueueSpec(name="a", quotas=limit)
    least = rng.randint(1, 6)
    job = elastic(
        1,
        least=least,
        desired=least + rng.randint(0, 9),
        queue="a",
        cpus=rng.choice((1, 2)),
        gpus=rng.choice((0, 0, 1)),
        topology=rng.choice(("", "required rack", "preferred block", "required host")),
    )
    snapshot = world(nodes=fleet, queues=[queue], workloads=[job])
    tried = cycle.Cycle(snapshot, POLICIES[policy])
    at, shape = snapshot.queues.names.index("a"), shape_of(snapshot, 0)
    fixed = (replace(shape, nodes=count, least=count) for count in range(job.nodes, least - 1, -1))
    most = next((each.nodes for each in fixed if tried.place(each, at) is not None), 0)
    assert counts(snapshot, policy) == ({1: most} if most else {})


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_shares_are_those_of_what_was_placed(seed):
    """The ledger of a cycle ends where a ledger of its outcome begins: no share counts a rank that was not given."""
    rng = random.Random(seed)
    queues = [QueueSpec(name=name, weight=rng.choice((1, 2))) for name in "ab"]
    jobs = [
        elastic(
            key,
            least=(least := rng.randint(1, 3)),
            desired=least + rng.randint(0, 5),
            queue=rng.choice("ab"),
            cpus=rng.choice((1, 2)),
        )
        for key in range(1, rng.randint(2, 9))
    ]
    snapshot = world(nodes=[node(cpus=rng.randint(1, 9)) for _ in range(4)], queues=queues, workloads=jobs)
    ledger, pods = ledger_of(snapshot), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycle, "ledger_of", lambda _: ledger)
        batches = list(cycle.Cycle(snapshot, POLICIES["best-fit"]).placements())
    for found in batches:
        for row, nodes in zip(found.rows.tolist(), found.nodes.tolist(), strict=True):
            job = jobs[row]
            assert job.nodes_min <= len(nodes) <= job.nodes
            pods += [
                allocation(job.key, rank=rank, node_key=int(snapshot.nodes.key[at]), cpus=job.cpus)
                for rank, at in enumerate(nodes)
            ]
    after = world(nodes=[node()], queues=queues, workloads=jobs, allocations=pods)
    np.testing.assert_array_equal(ledger.held, ledger_of(after).held)
