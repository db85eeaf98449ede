"""Choices: equals are tried by their expected cost, the others in order; and what yields for them is compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.expected import submitted
from mainstay.decide.explain import explain, preview
from mainstay.decide.possible import impossible
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_numbers, shape_of
from mainstay.domain.billing import Price
from mainstay.domain.plan import Allocate
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, MEMORY_LABEL, Money, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, PodSet, WorkloadSpec
from tests.worlds import NOON, SECOND, ANode, AWorkload, allocation, node, workload, world

PRICES = tuple(
    Price(sku=sku, per_hour=Money(micros=micros), effective_from=0)
    for sku, micros in (("gpu", 500_000), ("gpu/L4", 1_000_000), ("gpu/A100", 3_000_000), ("gpu/H100", 7_000_000))
)
NAMES = ("L4", "A100", "H100")


def gpu(model: str, count: int = 1) -> Resources:
    return Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB, gpus=count, gpu_model=model)


def wants(*models: str, equals: int = 0, key: int = 1, **values: object) -> AWorkload:
    """One GPU of any of these; all of them equals, or so many of the first."""
    return workload(key, choices=tuple(map(gpu, models)), equals=equals or len(models), **values)


def fleet(**gpus: int) -> list[ANode]:
    """A node of each model, with so many GPUs: the keys are 1, 2 and so on, in the order of the names."""
    return [node(gpus=count, gpu_model=model) for model, count in gpus.items()]


def taken(snapshot: Snapshot) -> dict[int, str]:
    """The model that each got."""
    found = (one for one in schedule(snapshot) if isinstance(one, Allocate))
    return {one.workload_key: one.slots[0].resources.gpu_model for one in found}


@pytest.mark.parametrize("written", [("H100", "L4", "A100"), ("A100", "H100", "L4"), ("L4", "A100", "H100")])
def test_of_equals_the_cheapest_with_room_is_taken_however_they_are_written(written):
    jobs = [wants(*written, key=key, submitted_at=NOON + key) for key in (1, 2, 3, 4)]
    found = taken(world(nodes=fleet(H100=1, A100=1, L4=1), workloads=jobs, prices=PRICES))
    assert found == {1: "L4", 2: "A100", 3: "H100"}


def test_in_order_means_in_order_whatever_it_costs():
    snapshot = world(nodes=fleet(L4=1, H100=1), workloads=[wants("H100", "L4", equals=1)], prices=PRICES)
    assert taken(snapshot) == {1: "H100"}


def test_what_is_ordered_comes_behind_all_equals_however_cheap():
    nodes = fleet(L4=4, A100=1, H100=1)
    jobs = [wants("H100", "A100", "L4", equals=2, key=key, submitted_at=NOON + key) for key in (1, 2, 3)]
    assert taken(world(nodes=nodes, workloads=jobs, prices=PRICES)) == {1: "A100", 2: "H100", 3: "L4"}


def test_a_faster_one_is_taken_where_its_run_costs_less():
    nodes, choices = fleet(L4=1, H100=1), ("L4", "H100")
    slow = wants(*choices, typical_on={"L4:1": 36_000, "H100:1": 3_600})
    assert taken(world(nodes=nodes, workloads=[slow], prices=PRICES)) == {1: "H100"}
    alike = wants(*choices, typical_on={"L4:1": 3_600, "H100:1": 3_600})
    assert taken(world(nodes=nodes, workloads=[alike], prices=PRICES)) == {1: "L4"}


def test_where_only_some_run_times_are_known_the_others_count_as_the_known_ones_do():
    snapshot = world(
        nodes=fleet(L4=1, H100=1), workloads=[wants("H100", "L4", typical_on={"H100:1": 60})], prices=PRICES
    )
    assert taken(snapshot) == {1: "L4"}


def test_how_many_gpus_a_run_had_is_part_of_how_long_it_takes():
    work = workload(
        1, choices=(gpu("A100", 1), gpu("A100", 4)), equals=2, typical_on={"A100:1": 50_000, "A100:4": 10_000}
    )
    (action,) = schedule(world(nodes=fleet(A100=4), workloads=[work], prices=PRICES))
    assert isinstance(action, Allocate)
    assert action.slots[0].resources.gpus == 4


def test_without_prices_the_faster_is_taken_and_without_a_history_the_first():
    known = wants("L4", "H100", typical_on={"L4:1": 36_000, "H100:1": 3_600})
    assert taken(world(nodes=fleet(L4=1, H100=1), workloads=[known])) == {1: "H100"}
    assert taken(world(nodes=fleet(H100=1, L4=1), workloads=[wants("H100", "L4")])) == {1: "H100"}


def test_where_any_model_will_do_among_equals_the_cheapest_is_taken():
    work = workload(1, choices=(gpu("H100"), gpu("")), equals=2)
    assert taken(world(nodes=fleet(H100=1, A100=1, L4=1), workloads=[work], prices=PRICES)) == {1: "L4"}


def nameless(count: int) -> ANode:
    """A node that does not say which model its GPUs are of."""
    return node(gpus=count)


def test_gpus_without_a_model_are_taken_by_their_price_among_equals():
    """A GPU of no model has the price of `gpu`, the lowest of these."""
    nodes = [nameless(8), *fleet(H100=1)]
    either = {"choices": (gpu("", 2), gpu("", 4)), "equals": 2}
    jobs = [workload(key, submitted_at=NOON + key, **either) for key in (1, 2, 3, 4, 5)]
    found = [one for one in schedule(world(nodes=nodes, workloads=jobs, prices=PRICES)) if isinstance(one, Allocate)]
    assert [(one.workload_key, one.slots[0].node_key, one.slots[0].resources.gpus) for one in found] == [
        (key, 1, 2) for key in (1, 2, 3, 4)
    ]
    any_model = [workload(key, choices=(gpu("H100"), gpu("")), equals=2, submitted_at=NOON + key) for key in (1, 2)]
    few = world(nodes=[nameless(1), *fleet(H100=1)], workloads=any_model, prices=PRICES)
    assert taken(few) == {1: "", 2: "H100"}
    reasons = [one.reason.sentence for one in schedule(few) if isinstance(one, Allocate)]
    assert reasons == [
        "placed on node-1: 1 x GPU (0.50 USD an hour), the least expected cost of 3",
        "placed on node-2: 1 x H100 (7.00 USD an hour), as there is no room or quota for 1 x GPU (0.50 USD an hour)",
    ]


def test_equals_that_any_gpu_will_do_for_can_run_where_no_gpu_has_a_model():
    choices = (gpu("", 2), gpu("", 4))
    spec = WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=choices, equals=2)
    snapshot = world(nodes=[nameless(8), *fleet(H100=1)], prices=PRICES)
    assert impossible(snapshot, spec=spec, queue="default") is None
    assert preview(snapshot, spec=spec, priority=0).reason.code is Code.PLACED


def test_equal_choices_in_another_order_or_with_another_history_are_other_shapes():
    nodes = [node(gpus=8, gpu_model="L4"), node(gpus=8, gpu_model="H100")]
    jobs = [
        wants("H100", "L4", key=1),
        wants("H100", "L4", key=2, equals=1),
        wants("H100", "L4", key=3, typical_on={"H100:1": 1, "L4:1": 100}),
    ]
    assert taken(world(nodes=nodes, workloads=jobs, prices=PRICES)) == {1: "L4", 2: "H100", 3: "H100"}


def test_a_history_that_changes_no_order_makes_no_other_shape_and_each_is_told_its_own():
    slow = {"L4:1": 7_200, "H100:1": 3_600}
    jobs = [
        wants("H100", "L4", key=1),
        wants("H100", "L4", key=2, typical_on=slow),
        wants("H100", "L4", key=3, typical_on={"L4:1": 60}),
        wants("H100", "L4", key=4, typical_on={"L4:1": 36_000, "H100:1": 60}),
    ]
    snapshot = world(nodes=fleet(L4=8, H100=8), workloads=jobs, prices=PRICES)
    numbers = shape_numbers(snapshot, np.arange(4)).tolist()
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[3] != numbers[0]
    told = {one.workload_key: one.reason.sentence for one in schedule(snapshot) if isinstance(one, Allocate)}
    assert told[1] == "placed on node-1: 1 x L4 (1.00 USD an hour), the least expected cost of 2"
    assert told[2] == "placed on node-1: 1 x L4 (1.00 USD an hour, about 2 h), the least expected cost of 2"
    assert told[3] == "placed on node-1: 1 x L4 (1.00 USD an hour, about 1 min), the least expected cost of 2"
    assert "1 x H100" in told[4]
    assert {key: explain(snapshot, key).reason.sentence for key in told} == told


@given(
    st.lists(
        st.builds(
            lambda models, equals, known, sets, cpus: workload(
                1,
                cpus=cpus,
                nodes=2 if sets else 1,
                sets=sets,
                **(
                    {"choices": tuple(map(gpu, models)), "equals": min(equals, len(models)), "typical_on": known}
                    if models and not sets
                    else {}
                ),
            ),
            st.lists(st.sampled_from(("L4", "H100", "")), max_size=3),
            st.integers(1, 3),
            st.dictionaries(st.sampled_from(("L4:1", "H100:1")), st.integers(1, 20)),
            st.sampled_from(
                ((), (PodSet(name="a", nodes=1, resources=gpu("L4")), PodSet(name="b", nodes=1, resources=gpu("H100"))))
            ),
            st.integers(1, 2),
        ),
        max_size=8,
    ),
    st.data(),
)
def test_rows_share_a_number_exactly_when_the_same_is_tried_in_the_same_order(jobs, data):
    jobs = [replace(one, key=7 * key) for key, one in enumerate(jobs, 1)]
    snapshot = world(nodes=fleet(L4=1, H100=1), workloads=jobs, prices=PRICES)
    rows = data.draw(st.permutations(range(len(jobs)))) if jobs else []
    numbers = shape_numbers(snapshot, np.array(rows, dtype=np.int64)).tolist()
    shapes = [shape_of(snapshot, row).timed({}) for row in rows]
    asked = [
        (shape.choices, snapshot.workloads.equals.get(jobs[row].key, 1), shape_of(snapshot, row).requests, shape.sets)
        for row, shape in zip(rows, shapes, strict=True)
    ]
    for first in range(len(rows)):
        for second in range(len(rows)):
            assert (numbers[first] == numbers[second]) == (asked[first] == asked[second])


def test_quota_is_asked_for_in_the_same_order():
    quotas = {("L4", "gpu"): Quota(nominal=0), ("H100", "gpu"): Quota(nominal=8)}
    snapshot = world(
        nodes=fleet(L4=8, H100=8),
        workloads=[wants("H100", "L4", queue="a")],
        prices=PRICES,
        queues=[QueueSpec(name="a", quotas=quotas)],
    )
    assert taken(snapshot) == {1: "H100"}


def reason(snapshot: Snapshot) -> str:
    (action,) = (one for one in schedule(snapshot) if isinstance(one, Allocate))
    assert action.reason.code is Code.PLACED
    return action.reason.sentence


def test_it_is_told_which_choice_was_taken_and_why():
    nodes, history = fleet(L4=1, A100=1), {"L4:1": 3_600, "A100:1": 7_200}
    first = world(nodes=nodes, workloads=[wants("A100", "L4", typical_on=history)], prices=PRICES)
    assert reason(first) == ("placed on node-1: 1 x L4 (1.00 USD an hour, about 1 h), the least expected cost of 2")
    assert explain(first, 1).reason.sentence == reason(first)
    second = world(nodes=fleet(L4=0, A100=1), workloads=[wants("A100", "L4")], prices=PRICES)
    assert reason(second) == (
        "placed on node-2: 1 x A100 (3.00 USD an hour), as there is no room or quota for 1 x L4 (1.00 USD an hour)"
    )
    third = world(nodes=fleet(L4=1, A100=1), workloads=[wants("A100", "L4", equals=1)], prices=PRICES)
    assert reason(third) == "placed on node-2: 1 x A100 (3.00 USD an hour), the first choice"
    plain = world(nodes=fleet(L4=1), workloads=[workload(1, gpus=1)], prices=PRICES)
    assert reason(plain) == "placed on node-1"


def test_which_choice_was_taken_is_told_whatever_binds_it_at_its_turn():
    """While GPU work waits, work without GPUs leaves something for it."""
    nothing = Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB)
    jobs = [
        workload(1, choices=(gpu("H100"), nothing), submitted_at=NOON - 10_000 * SECOND),
        workload(2, gpus=2, gpu_model="L4", submitted_at=NOON - 9_000 * SECOND),
    ]
    snapshot = world(nodes=[node(gpus=2, gpu_model="L4", used_gpus=1)], workloads=jobs, prices=PRICES)
    told = "placed on node-1: no GPU (0.00 USD an hour), as there is no room or quota for 1 x H100 (7.00 USD an hour)"
    assert reason(snapshot) == told
    assert explain(snapshot, 1).reason.sentence == told


def test_of_gpus_of_several_sizes_the_one_that_was_taken_is_told():
    large, small = (replace(gpu(""), gpu_memory_bytes=gb * 10**9) for gb in (80, 40))
    nodes = [
        node(gpus=1, gpu_model="A100", labels={MEMORY_LABEL: str(mib)}, used_gpus=used)
        for mib, used in ((81_920, 1), (40_536, 0))
    ]
    snapshot = world(nodes=nodes, workloads=[workload(1, choices=(large, small))])
    assert reason(snapshot).startswith("placed on node-2: ")
    assert "as there is no room or quota for 1 x " in reason(snapshot)


def test_a_plan_says_it_too_and_knows_the_history():
    spec = WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(gpu("H100"), gpu("L4")), equals=2)
    snapshot = world(nodes=fleet(L4=1, H100=1), prices=PRICES)
    found = preview(snapshot, spec=spec, priority=0)
    assert (found.resources.gpu_model, found.price_per_hour.micros) == ("L4", 1_000_000)
    assert "1 x L4 (1.00 USD an hour), the least expected cost of 2" in found.reason.sentence
    history = {"H100:1": 60, "L4:1": 3_600}
    found = preview(snapshot, spec=spec, priority=0, seconds_on=history)
    assert found.resources.gpu_model == "H100"
    table, row = submitted(snapshot, spec=spec, priority=0, queue=0, seconds_on=history)
    assert table.workloads.equals == {int(table.workloads.key[row]): 2}
    assert taken(table)[int(table.workloads.key[row])] == "H100"


LOWER = [QueueSpec(name="a", preemption=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY))]


def full(*, equals: int, ran: dict[str, int]) -> Snapshot:
    """Every node is full with one run that has run for so many seconds; one that is more urgent waits for any of them."""
    models = list(ran)
    return world(
        nodes=fleet(**dict.fromkeys(models, 1)),
        workloads=[
            *(workload(at, queue="a", phase=Phase.RUNNING, priority=10, gpus=1) for at, _ in enumerate(models, 1)),
            wants(*models, equals=equals, key=9, queue="a", phase=Phase.QUEUED, priority=50),
        ],
        allocations=[
            allocation(
                at,
                node_key=at,
                gpus=1,
                gpu_model=model,
                created_at=NOON - seconds * SECOND,
                started_at=NOON - seconds * SECOND,
            )
            for at, (model, seconds) in enumerate(ran.items(), 1)
        ],
        prices=PRICES,
        queues=LOWER,
    )


def yields(snapshot: Snapshot) -> list[int]:
    return [one.workload_key for action in preempt(snapshot) for one in action.victims]


def test_of_equals_that_yields_of_which_the_least_is_lost():
    assert yields(full(equals=3, ran={"L4": 50_000, "A100": 9_000, "H100": 60})) == [3]
    assert yields(full(equals=3, ran={"L4": 50_000, "A100": 60, "H100": 9_000})) == [2]


def test_what_is_ordered_displaces_in_order_whatever_is_lost():
    assert yields(full(equals=1, ran={"L4": 50_000, "A100": 9_000, "H100": 60})) == [1]


def test_nobody_yields_for_an_equal_while_another_has_room():
    snapshot = full(equals=2, ran={"L4": 60, "A100": 60})
    more = world(
        nodes=fleet(L4=1, H100=1),
        workloads=[
            workload(1, queue="a", phase=Phase.RUNNING, priority=10, gpus=1),
            wants("L4", "H100", key=9, queue="a", phase=Phase.QUEUED, priority=50),
        ],
        allocations=[allocation(1, node_key=1, gpus=1, gpu_model="L4")],
        prices=PRICES,
        queues=LOWER,
    )
    assert yields(snapshot)
    assert not yields(more)
    assert taken(more) == {9: "H100"}


def test_whom_it_could_displace_says_with_what():
    found = explain(full(equals=3, ran={"L4": 50_000, "A100": 9_000, "H100": 60}), 9)
    assert found.preemption == (
        "could take the place of 1 run (1 pod): 1 in queue a; "
        "it would have 1 x H100 (7.00 USD an hour), for which the least is lost"
    )


def test_what_runs_says_which_of_its_choices_it_was_given():
    run = wants("H100", "L4", key=1, phase=Phase.RUNNING)
    plain = workload(2, phase=Phase.RUNNING)
    held = [allocation(1, gpus=1, gpu_model="L4", node_key=2), allocation(2, node_key=1)]
    snapshot = world(nodes=fleet(H100=1, L4=1), workloads=[run, plain], allocations=held)
    assert explain(snapshot, 1).reason.sentence == "runs: with 1 x L4"
    assert explain(snapshot, 2).reason.sentence == "runs"
