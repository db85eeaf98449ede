"""Laws of a cycle by every policy: nobody is passed within a queue who would fit, and no number of a table decides anything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mainstay.decide.cycle import Cycle
from mainstay.decide.placement import POLICIES
from mainstay.decide.placement.sets import take_parts
from mainstay.decide.schedule import schedule
from mainstay.decide.submitters import lines_of
from mainstay.domain.arrays import Ints
from mainstay.domain.plan import Action, Advance, Allocate
from mainstay.domain.snapshot import Snapshot
from tests.unit.decide.test_kernel import a_world


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(POLICIES)))
@example(8365, "best-fit")  # two submitters, the second of whom has his turn first when another gang finds no place
def test_within_a_queue_nobody_starts_past_a_more_urgent_one_who_would_fit(seed, policy):
    """Without those of its queue who come after it, it still finds no room or no quota: there was more at its turn. As urgent
    ones of other submitters do not come after it: their turns change with what each of them got.
    Without starts that are reserved: how they bind others, test_reservation says.
    """
    snapshot = a_world(seed, nodes=30, jobs=30)
    table = snapshot.workloads
    cycle = Cycle(snapshot, POLICIES[policy], tries_max=0)
    placed = [
        (row, found.nodes[at], found.parts)
        for found in cycle.placements()
        for at, row in enumerate(found.rows.tolist())
    ]
    turn = {row: place for place, row in enumerate(cycle.order.tolist())}
    line = lines_of(snapshot, cycle.order).of
    line_of = dict(zip(cycle.order.tolist(), line.tolist(), strict=True))
    number = dict(zip(cycle.order.tolist(), cycle.numbers.tolist(), strict=True))

    def comes_after(row: int, waits: int) -> bool:
        same = table.queue[row] == table.queue[waits] and turn[row] > turn[waits]
        return bool(same and (table.priority[row] < table.priority[waits] or line_of[row] == line_of[waits]))

    for queue in np.unique(table.queue).tolist():
        waiting = [row for row in turn if table.queue[row] == queue and not cycle.started[row]]
        passed = [row for row in waiting if any(comes_after(one, row) for one, *_ in placed)]
        for waits in passed[:3]:
            again = Cycle(snapshot, POLICIES[policy], tries_max=0)
            for row, nodes, parts in placed:
                if not comes_after(row, waits):
                    take_parts(again.free, nodes, parts)
                    again.allowance.use_parts(int(table.queue[row]), parts)
            shape = again.shape(waits, number[waits])
            if cycle.free.headroom and not any(request.gpus for request in shape.requests):
                continue  # What was kept at its turn for GPU work of others is free in hindsight, once that has started.
            assert again.place(shape, queue) is None, f"{table.key[waits]} was passed"


def shuffled(names: Sequence[object], rng: random.Random) -> tuple[tuple[object, ...], Ints]:
    """The names in another order, but for the first; and what number each has then."""
    order = list(range(1, len(names)))
    rng.shuffle(order)
    order = [0, *order]
    numbers = np.zeros(len(names), dtype=np.int64)
    numbers[order] = np.arange(len(names))
    return tuple(names[one] for one in order), numbers


def renumbered(snapshot: Snapshot, seed: int) -> Snapshot:
    """The same world, in which models, clusters, restrictions and kinds of nodes have come to be known in another order."""
    rng = random.Random(seed)
    models, model = shuffled(snapshot.gpu_models, rng)
    clusters, cluster = shuffled(snapshot.cluster_names, rng)
    restrictions, restriction = shuffled(snapshot.restrictions, rng)
    nodes, work, held = snapshot.nodes, snapshot.workloads, snapshot.allocations
    assert nodes.traits is not None
    kinds, kind = shuffled((None, *nodes.traits.each), rng)
    traits = replace(nodes.traits, each=kinds[1:], number=kind[nodes.traits.number + 1] - 1)
    return replace(
        snapshot,
        gpu_models=models,
        cluster_names=clusters,
        restrictions=restrictions,
        nodes=replace(nodes, gpu_model=model[nodes.gpu_model], traits=traits),
        workloads=replace(
            work,
            gpu_model=model[work.gpu_model],
            cluster=cluster[work.cluster],
            restriction=restriction[work.restriction],
        ),
        allocations=replace(held, gpu_model=model[held.gpu_model]),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(POLICIES)))
def test_the_plan_does_not_depend_on_the_numbers_of_what_has_a_name(seed, policy):
    """With choices, and any model that will do: what goes first is said by names and by the order of the file."""
    snapshot = a_world(seed, nodes=30, jobs=30)
    here, there = (schedule(one, policy=policy) for one in (snapshot, renumbered(snapshot, seed)))
    assert sorted(there, key=_workload) == sorted(here, key=_workload), "equal requests come together, in any order"


def _workload(action: Action) -> int:
    assert isinstance(action, Allocate | Advance)
    return action.workload_key


def test_the_worlds_have_names_to_put_in_another_order():
    snapshot = a_world(1, nodes=60)
    other = renumbered(snapshot, 3)
    assert other.gpu_models != snapshot.gpu_models
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(other.nodes.gpu_model, snapshot.nodes.gpu_model)
