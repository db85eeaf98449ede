"""A queue may have a policy of its own: its work is placed by that, in the turns of everybody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain
from mainstay.decide.growth import grow
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES, policies_of
from mainstay.decide.preemption import preempt
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.queue import QueueSpec, QueueTree
from mainstay.domain.workload import Phase
from tests.unit.decide.test_headroom import placed
from tests.unit.decide.test_kernel import a_world, plan, with_placements
from tests.worlds import NOON, SECOND, allocation, node, workload, world

WEB = QueueSpec(name="web", placement="spread")
HALF_FULL = [node(cpus=8, used_cpus=4), node(cpus=8)]


def test_each_queue_is_placed_by_its_own_policy_in_one_cycle():
    jobs = [workload(1), workload(2, queue="web"), workload(3, queue="web", nodes=2), workload(4)]
    assert placed(world(nodes=HALF_FULL, workloads=jobs, queues=[WEB])) == {1: [1], 2: [2], 3: [2, 1], 4: [1]}


def test_a_queue_with_the_policy_of_everybody_needs_nothing_of_its_own():
    """Its work has the same shapes, and the loop keeps no bounds for it."""
    queues = [QueueSpec(name="web", placement=DEFAULT_POLICY), QueueSpec(name="gone", placement="of another version")]
    snapshot = world(nodes=HALF_FULL, workloads=[workload(1), workload(2, queue="web")], queues=queues)
    cycle = Cycle(snapshot, POLICIES[DEFAULT_POLICY])
    assert np.unique(cycle.numbers).size == 1
    assert cycle.free.nodes.rankings.shape[0] == 2
    assert set(policies_of(snapshot.queues, POLICIES[DEFAULT_POLICY])) == {POLICIES[DEFAULT_POLICY]}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(POLICIES)), st.sampled_from(sorted(POLICIES)))
def test_with_one_policy_for_all_queues_the_plan_is_that_of_this_policy(seed, named, default):
    snapshot = a_world(seed, nodes=40, jobs=30)
    everywhere = with_placements(snapshot, **dict.fromkeys(snapshot.queues.names, named))
    assert plan(everywhere, default) == plan(snapshot, named)


def test_who_waits_is_told_by_which_policy():
    snapshot = world(
        nodes=[node(cpus=1)], workloads=[workload(1, cpus=2), workload(2, cpus=2, queue="web")], queues=[WEB]
    )
    assert [explain(snapshot, key).placement for key in (1, 2)] == ["", "spread"]


def test_an_elastic_run_grows_by_the_policy_of_its_queue():
    run = workload(1, queue="web", nodes=1, nodes_min=1, nodes_max=2, phase=Phase.RUNNING)
    held = allocation(1, created_at=NOON - 3_600 * SECOND, started_at=NOON - 3_600 * SECOND)
    nodes = [node(cpus=8), node(cpus=8)]
    for queue, taken in ((WEB, 2), (replace(WEB, placement=""), 1)):
        (found,) = grow(world(nodes=nodes, workloads=[run], allocations=[held], queues=[queue]))
        assert [slot.node_key for slot in found.slots] == [taken]


def test_who_displaces_others_is_placed_by_the_policy_of_its_queue():
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
    long_ago = NOON - 3_600 * SECOND
    mild = [workload(key, queue="web", cpus=4, phase=Phase.RUNNING, started_at=long_ago) for key in (2, 3)]
    held = [allocation(key, cpus=4, node_key=at, started_at=long_ago) for key, at in ((2, 1), (3, 2))]
    urgent = workload(1, queue="web", nodes=2, cpus=2, priority=50, phase=Phase.QUEUED)
    nodes = [node(cpus=5), node(cpus=5)]
    for name, victims in (("spread", 1), ("", 1)):
        queue = QueueSpec(name="web", placement=name, preemption=policy)
        (found,) = preempt(world(nodes=nodes, workloads=[urgent, *mild], allocations=held, queues=[queue]))
        assert len(found.victims) == victims


def test_a_cohort_places_nothing():
    with pytest.raises(Exception, match="set it on the queues below it"):
        QueueTree.of([QueueSpec(name="all", cohort=True, placement="spread")])
