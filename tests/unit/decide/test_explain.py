"""Why it waits, what would help, what it would cost; and that the answer is the scheduler's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.alternatives import Alternative
from mainstay.decide.explain import explain, preview
from mainstay.decide.schedule import schedule
from mainstay.domain.billing import Price
from mainstay.domain.errors import NotFound
from mainstay.domain.plan import Allocate
from mainstay.domain.quantity import BYTES_PER_GIB, Money, Resources, memory_words
from mainstay.domain.queue import BUILT_IN_PRIORITIES, QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import PODS
from mainstay.domain.workload import Kind, Phase, WorkloadSpec
from tests.worlds import NOON, SECOND, allocation, node, workload, world

PRICES = (
    Price(sku="cpu", per_hour=Money(micros=10_000), effective_from=0),
    Price(sku="gpu", per_hour=Money(micros=1_000_000), effective_from=0),
)


def spec(*, cpus: int = 1, gpus: int = 0, gpu_model: str = "", nodes: int = 1, max_duration_seconds: int = 0):
    asked = Resources(cpu_milli=cpus * 1000, memory_bytes=BYTES_PER_GIB, gpus=gpus, gpu_model=gpu_model)
    return WorkloadSpec(
        kind=Kind.JOB,
        name="job",
        run=("true",),
        choices=(asked,),
        nodes=nodes,
        max_duration_seconds=max_duration_seconds,
    )


def test_what_waits_for_capacity_says_what_is_free_and_what_would_start_now():
    found = explain(world(nodes=[node(cpus=8, used_cpus=5)], workloads=[workload(1, cpus=6)]), 1)
    assert found.reason.code is Code.WAITS_FOR_CAPACITY
    assert found.reason.sentence == (
        "waits for capacity: needs 6 CPUs, 1 GiB, the most that is free on one node is 3 CPUs, 64 GiB"
    )
    assert found.alternatives == (Alternative(change="cpus", before="6", after="3"),)
    assert found.position == 1


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (10**9, "1 GB"),
        (16 << 30, "16 GiB"),
        (512 << 20, "512 MiB"),
        (250 * 10**6, "250 MB"),
        (3 << 29, "1536 MiB"),
        (0, "0 GiB"),
    ],
)
def test_memory_is_said_in_the_unit_it_was_written_in(size, words):
    assert memory_words(size) == words


def test_what_waits_behind_others_says_how_many():
    jobs = [workload(1, cpus=4, priority=1), workload(2, cpus=4)]
    found = explain(world(nodes=[node(cpus=4)], workloads=jobs), 2)
    assert (found.reason.code, found.reason.numbers["ahead"], found.position) == (Code.WAITS_BEHIND, 1, 2)


def test_each_relaxation_changes_one_thing():
    nodes = [node(gpus=2, gpu_model="H100"), node(gpus=4, gpu_model="A100")]
    found = explain(world(nodes=nodes, workloads=[workload(1, gpus=4, gpu_model="H100", nodes=1)]), 1)
    assert found.alternatives == (
        Alternative(change="gpu_model", before="H100", after="A100"),
        Alternative(change="gpus", before="4", after="2"),
    )


def test_a_gang_learns_how_many_ranks_would_fit():
    found = explain(world(nodes=[node(cpus=3)], workloads=[workload(1, nodes=5)]), 1)
    assert found.reason.code is Code.NEVER_FITS
    assert Alternative(change="nodes", before="5", after="3") in found.alternatives


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"phase": Phase.RUNNING}, Code.POD_RUNNING),
        ({"phase": Phase.PULLING}, Code.POD_STARTING),
        ({"phase": Phase.UNKNOWN}, Code.POD_LOST),
        ({"stop_requested": True}, Code.STOPPING),
        ({"not_before": NOON + 5 * SECOND, "attempt": 2}, Code.BACKING_OFF),
    ],
)
def test_what_is_not_in_the_order_says_so(values, code):
    found = explain(world(nodes=[node()], workloads=[workload(1, **values)]), 1)
    assert (found.reason.code, found.position) == (code, 0)


def test_what_waits_for_the_death_of_an_earlier_pod_says_so():
    snapshot = world(nodes=[node()], workloads=[workload(1, attempt=2)], allocations=[allocation(1)])
    assert "not proven dead" in explain(snapshot, 1).reason.sentence


def test_a_workload_that_is_final_or_unknown_is_not_found():
    with pytest.raises(NotFound):
        explain(world(), 1)


def test_a_preview_says_where_and_how_much():
    snapshot = world(nodes=[node("big", gpus=8, gpu_model="H100")], prices=PRICES)
    found = preview(snapshot, spec=spec(cpus=2, gpus=1, nodes=2, max_duration_seconds=1_800), priority=0)
    assert (found.starts_now, found.nodes, found.resources.gpu_model) == (True, ("big", "big"), "H100")
    assert (found.price_per_hour.micros, found.cost_max) == (2 * 1_020_000, Money(micros=1_020_000))


def test_a_preview_without_a_limit_of_time_has_no_greatest_cost():
    assert preview(world(nodes=[node()], prices=PRICES), spec=spec(), priority=0).cost_max is None


def test_a_preview_counts_those_who_come_first():
    snapshot = world(nodes=[node(cpus=4)], workloads=[workload(1, cpus=3)])
    behind = preview(snapshot, spec=spec(cpus=2), priority=0)
    assert (behind.starts_now, behind.reason.code, behind.position) == (False, Code.WAITS_BEHIND, 2)
    assert preview(snapshot, spec=spec(cpus=2), priority=1).starts_now


def test_a_preview_of_more_than_any_node_has_never_starts():
    snapshot = world(nodes=[node(1, cpus=4)])
    assert preview(snapshot, spec=spec(cpus=400), priority=50).starts_never
    busy = world(nodes=[node(1, cpus=4)], allocations=[allocation(1, cpus=4)])
    found = preview(busy, spec=spec(cpus=4), priority=50)
    assert (found.starts_now, found.starts_never) == (False, False)


def test_a_preview_on_an_empty_fleet_waits():
    found = preview(world(), spec=spec(), priority=0)
    assert (found.starts_now, found.starts_never, found.reason.code) == (False, False, Code.NO_NODES)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.builds(node, cpus=st.integers(0, 6)), max_size=3),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 1)), min_size=1, max_size=5),
)
def test_what_is_said_to_start_now_is_what_the_scheduler_starts(nodes, jobs):
    waiting = [workload(key, cpus=cpus, nodes=n, priority=p) for key, (cpus, n, p) in enumerate(jobs, 1)]
    snapshot = world(nodes=nodes, workloads=waiting)
    started = {action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate)}
    for job in waiting:
        assert (explain(snapshot, job.key).reason.code is Code.PLACED) == (job.key in started)


def test_what_is_bound_to_a_full_cluster_hears_where_it_would_start_now():
    nodes = [node(cluster="east", used_cpus=16), node(cluster="west")]
    found = explain(world(nodes=nodes, workloads=[workload(1, cluster="east")]), 1)
    assert found.reason.sentence == (
        "waits for capacity: needs 1 CPU, 1 GiB in cluster east, the most that is free on one node is 0 CPUs, 64 GiB"
    )
    assert found.alternatives == (Alternative(change="infra", before="east", after="west"),)


def test_a_preview_keeps_to_the_cluster_that_is_asked_for():
    snapshot = world(nodes=[node(name="e", cluster="east"), node(name="w", cluster="west")])
    assert preview(snapshot, spec=replace(spec(), cluster="west"), priority=50).nodes == ("w",)


def quota_of(**cpus: int) -> list[QueueSpec]:
    return [QueueSpec(name=name, quotas={("default", "cpu"): Quota(nominal=1000 * n)}) for name, n in cpus.items()]


def test_what_waits_for_its_quota_says_so_and_what_it_could_have():
    snapshot = world(nodes=[node(cpus=16)], queues=quota_of(a=3), workloads=[workload(1, queue="a", cpus=5)])
    found = explain(snapshot, 1)
    assert found.reason.code is Code.WAITS_FOR_QUOTA
    assert found.alternatives == (
        Alternative(change="cpus", before="5", after="3"),
        Alternative(change="queue", before="a", after="default"),
    )


def test_a_preview_minds_the_quota_of_the_queue():
    snapshot = world(nodes=[node(cpus=16)], queues=quota_of(a=3))
    assert preview(snapshot, spec=spec(cpus=3), priority=0, queue="a").starts_now
    assert preview(snapshot, spec=spec(cpus=4), priority=0, queue="a").reason.code is Code.WAITS_FOR_QUOTA
    assert preview(snapshot, spec=spec(cpus=4), priority=0).starts_now


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.builds(node, cpus=st.integers(0, 6), gib=st.integers(1, 4)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.sampled_from("ab")), min_size=1, max_size=5),
    st.integers(0, 8),
)
def test_what_is_said_to_start_now_does_when_it_is_done(nodes, jobs, quota):
    waiting = [workload(key, cpus=cpus, nodes=n, queue=queue) for key, (cpus, n, queue) in enumerate(jobs, 1)]

    def starts(rows: list) -> set[int]:
        actions = schedule(world(nodes=nodes, queues=quota_of(a=quota, b=4), workloads=rows))
        return {action.workload_key for action in actions if isinstance(action, Allocate)}

    snapshot = world(nodes=nodes, queues=quota_of(a=quota, b=4), workloads=waiting)
    for place, job in enumerate(waiting):
        for one in explain(snapshot, job.key).alternatives:
            if one.change == "queue":
                changed = replace(job, queue=one.after)
            elif one.change == "priority":
                changed = replace(job, priority=BUILT_IN_PRIORITIES[one.after])
            else:
                field = {"cpus": "cpus", "nodes": "nodes", "memory": "gib"}[one.change]
                changed = replace(job, **{field: int(one.after.removesuffix("GiB"))})
            assert job.key in starts([*waiting[:place], changed, *waiting[place + 1 :]])


def test_who_lacks_quota_hears_of_that_also_where_a_node_is_closed_or_full():
    """As the run has it on record: opening the node would not help."""
    nodes = [node(cpus=16, ready=False), node(cpus=16, used_cpus=14)]
    snapshot = world(nodes=nodes, queues=quota_of(a=3), workloads=[workload(1, queue="a", cpus=5)])
    (on_record,) = schedule(snapshot)
    assert on_record.reason.code is explain(snapshot, 1).reason.code is Code.WAITS_FOR_QUOTA
    never = world(nodes=nodes, queues=quota_of(a=3), workloads=[workload(1, queue="a", cpus=500)])
    assert explain(never, 1).reason.code is Code.NEVER_FITS


def test_where_only_places_for_pods_are_lacking_their_numbers_are_told():
    full = node(name="a", others={PODS: 110}, used_others={PODS: 110})
    found = explain(world(nodes=[full], workloads=[workload(1)]), 1)
    assert found.reason.code is Code.WAITS_FOR_CAPACITY
    assert found.reason.sentence == (
        "waits for capacity: needs 1 CPU, 1 GiB, the most that is free on one node is 16 CPUs, 64 GiB, "
        "but no node has room for one more pod (a has 110 of 110)"
    )


def test_a_gang_is_told_how_many_pods_there_is_room_for():
    nodes = [node(others={PODS: 4}, used_others={PODS: 2}), node(others={PODS: 3}, used_others={PODS: 2})]
    found = explain(world(nodes=nodes, workloads=[workload(1, nodes=5)]), 1)
    assert found.reason.code is Code.WAITS_FOR_CAPACITY
    assert found.reason.sentence.endswith("16 CPUs, 64 GiB, but its nodes take no more than 3 such pods")
    assert found.alternatives == (Alternative(change="nodes", before="5", after="3"),)
    never = explain(world(nodes=nodes, workloads=[workload(1, nodes=8)]), 1)
    assert never.reason.code is Code.NEVER_FITS
    assert never.reason.sentence.endswith("16 CPUs, 64 GiB, but its nodes take no more than 7 such pods")


def test_of_places_for_pods_nothing_is_said_where_something_else_is_lacking():
    found = explain(world(nodes=[node(cpus=8, used_cpus=5, others={PODS: 9})], workloads=[workload(1, cpus=6)]), 1)
    assert "pod" not in found.reason.sentence
