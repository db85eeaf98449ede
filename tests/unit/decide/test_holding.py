"""Who holds what is short: queues by name, one's own runs, and when that is expected to end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.explain import explain, preview
from mainstay.domain.allocation import Seen
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase
from tests.unit.decide.test_explain import spec
from tests.worlds import NOON, SECOND, allocation, node, workload, world

HOUR = 3_600
QUEUES = [QueueSpec(name=name) for name in "abcdef"]


def running(key: int, queue: str, **values: object):
    return workload(key, phase=Phase.RUNNING, queue=queue, **values)


def gpus_of(cohort: str, *queues: tuple[str, Quota]):
    """Queues with a quota of GPUs in one cohort."""
    return [
        QueueSpec(name=cohort, cohort=True),
        *(QueueSpec(name=name, parent=cohort, quotas={("default", "gpu"): own}) for name, own in queues),
    ]


def test_of_capacity_those_with_the_most_are_named_and_the_others_added_up():
    held = {2: "a", 3: "b", 4: "c", 5: "d", 6: "e"}
    snapshot = world(
        nodes=[node(gpus=8, gpu_model="H100"), node(gpus=8, gpu_model="H100"), node(cpus=64)],
        queues=QUEUES,
        workloads=[workload(1, gpus=8, gpu_model="H100", queue="f"), *(running(key, held[key]) for key in held)],
        allocations=[
            *(allocation(key, gpus=6 - key + 1, gpu_model="H100", node_key=1 + key % 2) for key in held),
            allocation(2, cpus=32, node_key=3),
        ],
    )
    found = explain(snapshot, 1).holding
    assert found is not None
    assert (found.kind, found.resource, found.nodes) == ("capacity", "gpu", 2)
    assert [(one.queue, one.queues, one.amount) for one in found.holders] == [
        ("a", 1, 5),
        ("b", 1, 4),
        ("c", 1, 3),
        ("", 2, 3),
    ]
    assert found.sentence.startswith("on the 2 nodes that would do, queue a holds 5 GPUs in 1 run, ")
    assert found.sentence.endswith("2 other queues together hold 3 GPUs in 2 runs, of which nobody knows when one ends")


def test_only_the_runs_of_the_tenant_that_asks_are_named():
    snapshot = world(
        nodes=[node(cpus=8)],
        workloads=[workload(1, cpus=8), running(2, "default", max_duration_seconds=HOUR), running(3, "default")],
        allocations=[allocation(2, cpus=2, started_at=NOON), allocation(3, cpus=4)],
        owners={2: ("acme", "vision", "mine-1"), 3: ("other", "secret", "theirs-1")},
    )
    found = explain(snapshot, 1, tenant="acme").holding
    assert found is not None
    assert [(one.run, one.amount) for one in found.own] == [("mine-1", 2_000)]
    assert found.own_sentence == "of yours: mine-1 (2 CPUs, expected to end in 33 min)"
    assert "theirs" not in found.sentence + found.own_sentence
    assert [(one.queue, one.amount, one.runs, one.endless) for one in found.holders] == [("default", 6_000, 2, 1)]
    nobody = explain(snapshot, 1).holding
    assert nobody is not None
    assert (nobody.own, nobody.own_sentence) == ((), "")


def test_of_more_own_runs_than_are_named_it_says_how_many():
    keys = range(2, 10)
    snapshot = world(
        nodes=[node(cpus=8)],
        workloads=[workload(1, cpus=8), *(running(key, "default") for key in keys)],
        allocations=[allocation(key) for key in keys],
        owners={key: ("acme", "vision", f"run-{key}") for key in keys},
    )
    found = explain(snapshot, 1, tenant="acme").holding
    assert found is not None
    assert (len(found.own), found.own_more) == (5, 3)
    assert found.own_sentence.endswith(", and 3 more runs")


def test_when_it_ends_is_by_the_history_then_by_the_limit():
    snapshot = world(
        nodes=[node(cpus=2)],
        queues=QUEUES,
        workloads=[
            workload(1, cpus=2),
            running(2, "a", typical_seconds=600, spread_permille=50),
            running(3, "a", max_duration_seconds=HOUR),
        ],
        allocations=[allocation(2, started_at=NOON - 300 * SECOND), allocation(3, started_at=NOON)],
    )
    found = explain(snapshot, 1).holding
    assert found is not None
    (one,) = found.holders
    assert one.first_end == pytest.approx(NOON + 300 * SECOND, abs=5 * SECOND)
    assert one.last_end == pytest.approx(NOON + 2_000 * SECOND, abs=5 * SECOND)  # 5 of 9 tenths of its limit
    assert "the first expected to end in 5 min, the last in 33 min" in found.sentence


def test_of_a_quota_the_own_queue_comes_first_then_who_borrows():
    snapshot = world(
        nodes=[node(gpus=32)],
        queues=gpus_of("all", ("a", Quota(nominal=8)), ("b", Quota(nominal=2)), ("c", Quota(nominal=4))),
        workloads=[workload(1, gpus=4, queue="a"), running(2, "a"), running(3, "b"), running(4, "c")],
        allocations=[allocation(2, gpus=1), allocation(3, gpus=9), allocation(4, gpus=4)],
    )
    found = explain(snapshot, 1)
    assert found.reason.code is Code.WAITS_FOR_QUOTA
    assert found.holding is not None
    assert [(one.queue, one.amount, one.borrowed) for one in found.holding.holders] == [
        ("a", 1, 0),
        ("b", 9, 7),
        ("c", 4, 0),
    ]
    assert "of the quota of gpu (default) queue a uses 1 GPU in 1 run" in found.holding.sentence
    assert "queue b uses 9 GPUs (7 GPUs borrowed) in 1 run" in found.holding.sentence


def test_a_gang_that_asks_for_nothing_is_told_why_it_waits_and_of_nobody_who_holds_anything():
    """More at once than there are nodes to lie apart on."""
    snapshot = world(
        nodes=[node(), node(ready=False)],
        workloads=[workload(1, cpus=0, gib=0, nodes=2, topology="/host 1")],
    )
    answer = explain(snapshot, 1)
    assert answer.reason.code is not Code.PLACED
    assert answer.holding is None


def test_who_uses_only_what_is_kept_for_them_alone_holds_nothing_of_a_quota():
    snapshot = world(
        nodes=[node(gpus=32)],
        queues=gpus_of(
            "all", ("a", Quota(nominal=2)), ("b", Quota(nominal=4, lending_limit=0)), ("c", Quota(nominal=4))
        ),
        workloads=[workload(1, gpus=4, queue="a"), running(3, "b"), running(4, "c")],
        allocations=[allocation(3, gpus=4), allocation(4, gpus=4)],
    )
    found = explain(snapshot, 1).holding
    assert found is not None
    assert [one.queue for one in found.holders] == ["c"]


def test_where_a_borrowing_limit_stops_it_others_hold_nothing():
    snapshot = world(
        nodes=[node(gpus=32)],
        queues=gpus_of("all", ("a", Quota(nominal=2, borrowing_limit=2)), ("b", Quota(nominal=20))),
        workloads=[workload(1, gpus=2, queue="a"), running(2, "a"), running(3, "b")],
        allocations=[allocation(2, gpus=3), allocation(3, gpus=5)],
    )
    found = explain(snapshot, 1).holding
    assert found is not None
    assert [(one.queue, one.amount, one.borrowed) for one in found.holders] == [("a", 3, 1)]


def test_what_is_kept_for_a_reserved_start_is_held_by_the_queue_of_that():
    snapshot = world(
        nodes=[node(cpus=8)],
        queues=[QueueSpec(name="a", weight=10), *QUEUES[1:]],
        workloads=[
            workload(1, cpus=8, queue="a", submitted_at=NOON - 2 * HOUR * SECOND),
            running(2, "b", max_duration_seconds=HOUR, stop_grace_seconds=0),
            workload(3, cpus=2, queue="c"),
        ],
        allocations=[allocation(2, cpus=4, started_at=NOON)],
    )
    first, small = explain(snapshot, 1), explain(snapshot, 3)
    assert (first.reason.code, small.reason.code) == (Code.START_RESERVED, Code.WAITS_FOR_RESERVED)
    assert first.holding is not None
    assert small.holding is not None
    assert [(one.queue, one.amount) for one in first.holding.holders] == [("b", 4_000)]
    assert small.holding.sentence == "queue a keeps 1 node for 1 start in 1 h"


def test_what_starts_or_waits_its_turn_is_held_by_nobody():
    snapshot = world(nodes=[node(cpus=4)], workloads=[workload(1, cpus=4, priority=1), workload(2, cpus=4)])
    assert explain(snapshot, 1).holding is None
    assert explain(snapshot, 2).holding is None


def test_a_plan_says_it_too():
    snapshot = world(nodes=[node(cpus=4)], workloads=[running(2, "default")], allocations=[allocation(2, cpus=4)])
    found = preview(snapshot, spec=spec(cpus=4), priority=50).holding
    assert found is not None
    assert [(one.queue, one.amount) for one in found.holders] == [("default", 4_000)]


def test_slices_pods_and_other_resources_are_counted_in_their_own_way():
    slices = world(
        nodes=[node(shapes={"mig-1g.10gb": 7}, used_shapes={"mig-1g.10gb": 7}, gpus=0)],
        workloads=[workload(1, gpus=2, gpu_model="mig-1g.10gb"), running(2, "default")],
        allocations=[allocation(2, gpus=7, gpu_model="mig-1g.10gb")],
    )
    pods = world(
        nodes=[node(others={"pods": 2}, used_others={"pods": 2})],
        workloads=[workload(1), running(2, "default")],
        allocations=[allocation(2, rank=0), allocation(2, rank=1)],
    )
    for snapshot, resource, amount in ((slices, "mig-1g.10gb", 7), (pods, "pods", 2)):
        found = explain(snapshot, 1).holding
        assert found is not None
        assert (found.resource, [one.amount for one in found.holders]) == (resource, [amount])


def test_of_several_choices_the_holders_of_each_are_named_to_whom_they_belong():
    choices = tuple(Resources(cpu_milli=1_000, memory_bytes=1, gpus=1, gpu_model=one) for one in ("H100", "A100"))
    snapshot = world(
        nodes=[node(gpus=2, gpu_model="H100"), node(gpus=2, gpu_model="A100")],
        queues=[
            QueueSpec(name="a"),
            QueueSpec(name="b"),
            QueueSpec(name="c"),
        ],
        workloads=[
            workload(1, choices=choices, equals=2, queue="c"),
            running(2, "a"),
            running(3, "b", gpu_model="A100", gpus=2),
        ],
        allocations=[
            allocation(2, gpus=2, gpu_model="H100", node_key=1),
            allocation(3, gpus=2, gpu_model="A100", node_key=2),
        ],
        owners={2: ("acme", "p", "mine-2"), 3: ("other", "p", "theirs-3")},
    )
    found = explain(snapshot, 1, tenant="acme").holdings
    assert {one.choice: [holder.queue for holder in one.holders] for one in found} == {
        "1 x H100": ["a"],
        "1 x A100": ["b"],
    }
    assert found[0].sentence.startswith("for 1 x H100: on the 1 node that would do, queue a holds 2 GPUs in 1 run")
    said = " ".join(one.sentence + one.own_sentence for one in found)
    assert "mine-2" in said
    assert "theirs" not in said


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_without_what_they_hold_it_would_have_what_is_short(data: st.DataObject):
    """Explain never lies: once the holders have let go, that of which there was too little is not short any more."""
    draw = data.draw
    names = ["a", "b", "c"]
    nominal = {name: draw(st.integers(0, 6)) for name in names}
    quotas = {
        name: Quota(
            nominal=own,
            borrowing_limit=draw(st.none() | st.integers(0, 6)),
            lending_limit=draw(st.none() | st.integers(0, own)),
        )
        for name, own in nominal.items()
    }
    tree = [
        QueueSpec(name="top", cohort=True),
        QueueSpec(
            name="low", cohort=True, parent="top", quotas={("default", "gpu"): Quota(nominal=draw(st.integers(0, 3)))}
        ),
        *(
            QueueSpec(name=name, parent=draw(st.sampled_from(["top", "low"])), quotas={("default", "gpu"): quota})
            for name, quota in quotas.items()
        ),
    ]
    keys = range(2, 2 + draw(st.integers(1, 6)))
    runs = [running(key, draw(st.sampled_from(names))) for key in keys]
    held = [allocation(key, gpus=draw(st.integers(1, 3)), node_key=draw(st.integers(1, 2)), key=key) for key in keys]
    asked = workload(1, gpus=draw(st.integers(1, 4)), queue=draw(st.sampled_from(names)), priority=9)
    snapshot = world(
        nodes=[node(gpus=8), node(gpus=8)],
        queues=tree,
        workloads=[asked, *runs],
        allocations=held,
        owners={key: ("acme", "vision", f"run-{key}") for key in keys},
    )
    before = explain(snapshot, 1)
    if before.holding is None:
        assert before.reason.code is not Code.WAITS_FOR_CAPACITY or snapshot.nodes.used_gpus.sum() == 0
        return
    queues = {one.queue for one in before.holding.holders}
    assert len(queues) <= 3
    assert all(one.amount >= one.borrowed >= 0 for one in before.holding.holders)
    rows = [names_of(snapshot, key) in queues for key in snapshot.allocations.workload_key.tolist()]
    after = without(snapshot, np.array(rows))
    said = explain(after, 1).reason
    if before.reason.code is Code.WAITS_FOR_QUOTA:
        assert said.code is not Code.WAITS_FOR_QUOTA or quota_is_too_small(after), said.sentence
    else:
        assert said.code is not Code.WAITS_FOR_CAPACITY, said.sentence


def names_of(snapshot, key: int) -> str:
    row = int(np.searchsorted(snapshot.workloads.key, key))
    return snapshot.queues.names[int(snapshot.workloads.queue[row])]


def without(snapshot, gone):
    """These allocations have ended."""
    held, nodes = snapshot.allocations, snapshot.nodes
    seen = np.where(gone, int(Seen.ENDED), held.seen)
    used = nodes.used_gpus.copy()
    np.subtract.at(used, np.searchsorted(nodes.key, held.node_key[gone]), held.gpus[gone])
    return replace(snapshot, nodes=replace(nodes, used_gpus=used), allocations=replace(held, seen=seen))


def quota_is_too_small(snapshot) -> bool:
    """Even with nothing in use: then no use of anybody is what is short."""
    idle = without(snapshot, np.ones(snapshot.allocations.key.size, dtype=np.bool_))
    return explain(idle, 1).reason.code in {Code.WAITS_FOR_QUOTA, Code.EXCEEDS_QUOTA}
