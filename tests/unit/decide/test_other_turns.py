"""What would start it beside asking for less: another queue, more urgency, a volume left out, one of its other choices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.alternatives import Alternative
from mainstay.decide.explain import explain, preview
from mainstay.decide.other_turns import QUEUES_TRIED, higher_priority
from mainstay.decide.schedule import schedule
from mainstay.domain.affinity import Preference, Requirement, need
from mainstay.domain.plan import Allocate
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import BUILT_IN_PRIORITIES, QueueSpec, Quota
from mainstay.domain.reason import Code
from tests.unit.decide.test_explain import spec
from tests.worlds import NOON, SECOND, lies, node, workload, world


def cpus(**quotas: int | None) -> list[QueueSpec]:
    """Queues with so many; None: without a limit."""
    return [
        QueueSpec(name=name, quotas={} if most is None else {("default", "cpu"): Quota(nominal=1_000 * most)})
        for name, most in quotas.items()
    ]


def of(found, change: str) -> list[tuple[str, str]]:
    return [(one.before, one.after) for one in found.alternatives if one.change == change]


def test_another_queue_is_named_that_may_use_so_much():
    queues = cpus(default=1, a=2, b=1, c=8)
    snapshot = world(nodes=[node(cpus=8)], queues=queues, workloads=[workload(1, cpus=4, queue="a")])
    assert of(explain(snapshot, 1), "queue") == [("a", "c")]
    assert of(preview(snapshot, spec=spec(cpus=4), priority=0, queue="b"), "queue") == [("b", "c")]


def test_one_of_the_same_cohort_is_named_before_others():
    queues = [
        QueueSpec(name="team", cohort=True),
        *(replace(one, parent="team") for one in cpus(z=8, y=0)),
        *cpus(default=8, a=8),
    ]
    queues[2] = replace(queues[2], quotas={("default", "cpu"): Quota(nominal=0, borrowing_limit=0)})
    snapshot = world(nodes=[node(cpus=8)], queues=queues, workloads=[workload(1, cpus=4, queue="y")])
    assert of(explain(snapshot, 1), "queue") == [("y", "z")]


def test_no_queue_is_named_where_there_is_no_room_or_no_quota():
    full = world(nodes=[node(cpus=2)], queues=cpus(a=2, c=8), workloads=[workload(1, cpus=4, queue="a")])
    short = world(nodes=[node(cpus=8)], queues=cpus(default=3, a=2), workloads=[workload(1, cpus=4, queue="a")])
    assert of(explain(full, 1), "queue") == of(explain(short, 1), "queue") == []


def test_the_least_urgent_class_is_named_with_which_it_would_go_first():
    jobs = [workload(1, cpus=4, priority=60, submitted_at=NOON - SECOND), workload(2, cpus=4, priority=10)]
    snapshot = world(nodes=[node(cpus=4)], workloads=jobs)
    assert explain(snapshot, 2).reason.code is Code.WAITS_BEHIND
    assert of(explain(snapshot, 2), "priority") == [("10", "high")]
    named = explain(snapshot, 2, priorities={**BUILT_IN_PRIORITIES, "sooner": 61}).alternatives
    assert Alternative(change="priority", before="10", after="sooner") in named
    assert of(preview(snapshot, spec=spec(cpus=4), priority=50), "priority") == [("normal", "high")]


def test_no_priority_is_named_where_none_is_enough_or_what_runs_has_the_room():
    top = world(nodes=[node(cpus=4)], workloads=[workload(1, cpus=4, priority=100), workload(2, cpus=4, priority=10)])
    busy = world(nodes=[node(cpus=4, used_cpus=2)], workloads=[workload(2, cpus=4, priority=10)])
    assert of(explain(top, 2), "priority") == of(explain(busy, 2), "priority") == []


def test_of_two_hundred_classes_few_are_tried():
    asked: list[int] = []

    def starts(priority: int) -> bool:
        asked.append(priority)
        return priority >= 71

    classes = {f"p{number}": number for number in range(101)}
    (found,) = higher_priority(0, classes, starts)
    assert (found.before, found.after) == ("p0", "p71")
    assert len(asked) <= 8


def test_of_many_queues_few_are_tried(monkeypatch: pytest.MonkeyPatch):
    """Each looks as if it would do, and in none it starts: another goes first there."""
    names = [f"q{number:02}" for number in range(20)]
    tried: list[int] = []
    snapshot = world(
        nodes=[node(cpus=8)], queues=cpus(a=2, **dict.fromkeys(names, 8)), workloads=[workload(1, cpus=4, queue="a")]
    )

    def nowhere(cycle: object, row: int) -> None:
        tried.append(row)

    monkeypatch.setattr("mainstay.decide.alternatives.place_of", nowhere)
    assert of(explain(snapshot, 1), "queue") == []
    # One for fewer CPUs; the others are queues.
    assert len(tried) == 1 + QUEUES_TRIED


def test_a_volume_is_named_without_which_it_would_start():
    nodes = [node(cluster="a", cpus=4, used_cpus=4), node(cluster="b", cpus=4)]
    snapshot = world(
        nodes=nodes,
        workloads=[workload(1, cpus=2, volumes=("data",)), workload(2, cpus=2, volumes=("data", "weights"))],
        volumes=[lies("data", "a"), lies("weights", "b")],
    )
    assert of(explain(snapshot, 1), "volumes") == [("data", "none")]
    assert of(explain(snapshot, 2), "volumes") == [("data, weights", "weights")]


def test_what_its_other_choices_could_ask_for_less_of_is_named_too():
    many = (
        Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB, gpus=4, gpu_model="H100"),
        Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB, gpus=4, gpu_model="A100"),
    )
    nodes = [
        node(gpus=4, gpu_model="H100", used_gpus=4),
        node(gpus=4, gpu_model="A100", used_gpus=1),
        node(gpus=4, gpu_model="A100", cluster="far"),
    ]
    snapshot = world(nodes=nodes, workloads=[workload(1, gpus=4, gpu_model="H100", choices=many, cluster="local")])
    found = explain(snapshot, 1)
    assert of(found, "choice2.gpus") == [("4", "3")]
    assert of(found, "gpus") == []
    # What is not said of one choice is relaxed with all of them.
    assert of(found, "infra") == [("local", "far")]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_would_start_it_does_when_it_is_done(data: st.DataObject):
    draw = data.draw
    nodes = [node(cpus=draw(st.integers(0, 6)), cluster=cluster) for cluster in ("a", "b")]
    queues = cpus(default=draw(st.integers(0, 4)), a=draw(st.integers(0, 8)), b=draw(st.integers(0, 8)))
    jobs = [
        workload(
            key,
            cpus=draw(st.integers(1, 5)),
            priority=draw(st.sampled_from([10, 25, 50, 80])),
            queue=draw(st.sampled_from("ab")),
            volumes=draw(st.sampled_from([(), ("data",), ("data", "weights")])),
        )
        for key in range(1, 1 + draw(st.integers(1, 4)))
    ]
    volumes = [lies("data", "a"), lies("weights", "b")]

    def starts(rows: list) -> set[int]:
        actions = schedule(world(nodes=nodes, queues=queues, workloads=rows, volumes=volumes))
        return {action.workload_key for action in actions if isinstance(action, Allocate)}

    for place, job in enumerate(jobs):
        for one in explain(world(nodes=nodes, queues=queues, workloads=jobs, volumes=volumes), job.key).alternatives:
            changed = replace(job, **done(one))
            assert job.key in starts([*jobs[:place], changed, *jobs[place + 1 :]]), one


def done(one: Alternative) -> dict[str, object]:
    match one.change:
        case "queue":
            return {"queue": one.after}
        case "priority":
            return {"priority": BUILT_IN_PRIORITIES[one.after]}
        case "volumes":
            return {"volumes": () if one.after == "none" else tuple(one.after.split(", "))}
        case "cpus":
            return {"cpus": int(one.after)}
    raise AssertionError(one)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=4),
)
def test_a_preference_never_keeps_anything_from_its_start(nodes, jobs):
    """That is why none is ever named as what to leave out."""
    wanted = need(
        preferences=(Preference(requirements=(Requirement(key="disk", operator="In", values=("ssd",)),), weight=5),)
    )
    there = [node(cpus=most, labels={"disk": "ssd"} if ssd else {}) for most, ssd in nodes]

    def starts(first: object) -> bool:
        rows = [
            workload(key, cpus=each, nodes=ranks, restriction=first if key == 1 else "")
            for key, (each, ranks) in enumerate(jobs, 1)
        ]
        actions = schedule(world(nodes=there, workloads=rows))
        return any(action.workload_key == 1 for action in actions if isinstance(action, Allocate))

    assert starts(wanted) == starts("")
