"""When what waits is expected to start: half of all starts are before the one instant, nine of ten before the other."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide import condensing, expected, replay
from mainstay.decide.expected import (
    ROWS_MAX,
    ExpectedStart,
    unlearned,
    with_typical,
)
from mainstay.decide.explain import explain, preview
from mainstay.decide.placement import POLICIES
from mainstay.decide.reservation import OVERDUE_SECONDS_MAX
from mainstay.decide.run_times import UP_TO_THE_LIMIT, seconds_left
from mainstay.domain.allocation import Seen
from mainstay.domain.preemption import Nomination, Slot
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, WorkloadSpec
from tests.fleets import Fleet
from tests.worlds import NOON, SECOND, AWorkload, allocation, node, pods, workload, world

HOUR = 3_600


def job(key: int, **values) -> AWorkload:
    """Ends without last words."""
    return workload(key, **{"stop_grace_seconds": 0, **values})


def running(key: int, *, ran: int = 0, **values) -> AWorkload:
    return job(key, phase=Phase.RUNNING, started_at=NOON - ran * SECOND, **values)


def full(*waiting: AWorkload, ran: int = 0, pod: dict | None = None, now: int = NOON, queues=(), **values) -> Snapshot:
    """One node, all of which run 9 holds."""
    return world(
        nodes=[node(cpus=4)],
        workloads=[running(9, ran=ran, cpus=4, **values), *(waiting or (job(1, cpus=4),))],
        allocations=[allocation(9, cpus=4, started_at=NOON - ran * SECOND, **(pod or {}))],
        now=now,
        queues=queues,
    )


def start(snapshot: Snapshot, key: int = 1) -> ExpectedStart:
    found = explain(snapshot, key).expected
    assert found is not None
    return found


def seconds(found: ExpectedStart) -> tuple[float, float]:
    return (found.p50 - found.asked_at) / SECOND, (found.p90 - found.asked_at) / SECOND


def test_what_fits_now_starts_now():
    found = start(world(nodes=[node()], workloads=[job(1)]))
    assert found == ExpectedStart(asked_at=NOON, p50=NOON, p90=NOON)
    assert found.sentence == "expected to start now"


def test_of_a_limit_any_part_is_as_likely_and_a_tenth_use_it_up():
    half, most = seconds(start(full(max_duration_seconds=HOUR)))
    assert half == pytest.approx(0.5 / (1 - UP_TO_THE_LIMIT) * HOUR, rel=0.06)
    assert most == HOUR


def test_what_has_run_for_long_ends_by_its_limit_and_is_not_expected_before_now():
    half, most = seconds(start(full(max_duration_seconds=HOUR, ran=3_000)))
    # Of those that have come so far, survivors of 1 - 0.9 x 5/6 = 1/4, two fifths use it up.
    assert 0 < half < 600
    assert most == 600


def test_a_history_tells_more_than_a_limit_and_is_bounded_by_it():
    of_history = {"typical_seconds": 1_000, "spread_permille": 300}
    half, most = seconds(start(full(**of_history)))
    assert half == pytest.approx(1_000, rel=0.06)
    assert most == pytest.approx(1_000 * np.exp(1.282 * 0.3), rel=0.15)
    assert seconds(start(full(max_duration_seconds=10 * HOUR, **of_history))) == (half, most)
    assert seconds(start(full(max_duration_seconds=900, **of_history))) == (900, 900)


def test_who_has_outrun_the_history_is_expected_to_go_on_for_a_while():
    half, most = seconds(start(full(typical_seconds=1_000, spread_permille=300, ran=1_500)))
    assert 0 < half < most < 1_500


def test_whoever_asks_again_gets_the_same_answer_from_another_seed_about_the_same():
    snapshot = full(typical_seconds=1_000, spread_permille=300)
    assert start(snapshot) == start(snapshot)
    other = start(replace(snapshot, seed=7))
    assert other != start(snapshot)
    assert other.p50 - NOON == pytest.approx(start(snapshot).p50 - NOON, rel=0.1)


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"max_duration_seconds": 60, "ran": 61 + OVERDUE_SECONDS_MAX},
        {"max_duration_seconds": 60, "pod": {"seen": Seen.UNKNOWN}},
        {"kind": 1},
    ],
)
def test_behind_what_nobody_knows_the_end_of_nobody_knows_a_start(held):
    found = start(full(**held))
    assert (found.p50, found.p90, found.not_before) == (0, 0, 0)
    assert found.sentence == (
        "nobody knows when it starts: it has no place even when all has ended that has a time limit or a history;"
        " what would tell: a max_duration of the runs that hold its places or go before it, or a default-max-duration of their"
        " queues"
    )


def test_what_was_told_to_stop_has_ended_by_its_grace():
    held = full(stop_grace_seconds=40, stop_requested=True, pod={"stop": True})
    assert seconds(start(held)) == (40, 40)


def test_what_goes_before_it_runs_first_and_what_comes_after_does_not():
    first = job(1, cpus=4, max_duration_seconds=HOUR)
    alone = seconds(start(full(first, max_duration_seconds=60)))
    before = seconds(start(full(first, job(2, cpus=4), max_duration_seconds=60), 2))
    assert alone[1] <= 60 < before[0] < before[1]
    assert before[1] <= HOUR + 60
    later = job(3, cpus=4, max_duration_seconds=HOUR)
    assert seconds(start(full(first, later, max_duration_seconds=60))) == alone


def test_of_a_long_queue_only_the_front_is_learned_anew_and_of_what_runs_what_is_not_known():
    waits = [job(1_000 - at, cpus=4, priority=at // 10) for at in range(900)]
    runs = [running(2_000), running(2_001, typical_seconds=60), running(2_002, kind=1)]
    held = [allocation(work.key) for work in runs]
    keys = unlearned(world(nodes=[node(cpus=4)], workloads=[*waits, *runs], allocations=held)).tolist()
    assert len(keys) == ROWS_MAX + 1
    assert {101, 200, 2_000} <= set(keys)
    assert not {1_000, 2_001, 2_002} & set(keys)


def test_what_is_learned_anew_is_played_and_of_what_is_gone_meanwhile_nothing_is():
    learned = with_typical(full(), {7: (5, 5), 9: (1_000, 300)})
    assert start(learned) == start(full(typical_seconds=1_000, spread_permille=300))
    assert start(with_typical(full(), {})) == start(full())


def test_small_work_after_it_fills_the_gap_as_it_will():
    """The gang needs both nodes; until its start is reserved, the other takes what is free."""
    gang = job(1, cpus=4, nodes=2)
    small = job(2, cpus=4, max_duration_seconds=HOUR, submitted_at=NOON + SECOND)
    snapshot = world(
        nodes=[node(cpus=4), node(cpus=4)],
        workloads=[running(9, cpus=4, max_duration_seconds=60), gang, small],
        allocations=[allocation(9, cpus=4, started_at=NOON)],
    )
    assert seconds(start(snapshot))[0] > 60


def test_a_quota_that_is_used_up_is_waited_for():
    quotas = {("default", "cpu"): Quota(nominal=4_000)}
    snapshot = world(
        nodes=[node(cpus=16)],
        workloads=[running(9, cpus=4, queue="a", max_duration_seconds=60), job(1, cpus=4, queue="a")],
        allocations=[allocation(9, cpus=4, started_at=NOON)],
        queues=[QueueSpec(name="a", quotas=quotas)],
    )
    half, most = seconds(start(snapshot))
    assert 0 < half < most <= 60


def test_places_that_are_kept_for_another_are_free_when_that_one_has_ended():
    """Run 2 has displaced run 9 and takes an hour; what 9 holds is not for run 1."""
    kept = Slot(rank=0, node_key=1, resources=Resources(cpu_milli=4_000, memory_bytes=BYTES_PER_GIB))
    snapshot = world(
        nodes=[node(cpus=4)],
        workloads=[
            running(9, cpus=4, max_duration_seconds=60),
            job(2, cpus=4, priority=50, max_duration_seconds=HOUR),
            job(1, cpus=4),
        ],
        allocations=[allocation(9, cpus=4, started_at=NOON, stop=True, preempted=1)],
        nominations={2: Nomination(slots=(kept,), until=NOON + 600 * SECOND)},
        displaced_by={9: (2,)},
    )
    assert seconds(start(snapshot))[0] > 60


def test_what_time_alone_does_not_bring_has_no_expected_start():
    assert explain(full(job(1, cpus=5), max_duration_seconds=60), 1).expected is None
    assert explain(full(job(1, cpus=4, held=True), max_duration_seconds=60), 1).expected is None
    assert explain(full(max_duration_seconds=60), 9).expected is None
    assert explain(world(workloads=[job(1)]), 1).expected is None


def test_half_may_be_known_where_the_rest_is_not():
    """One of the plays in which run 8 takes longer than run 9 is never told about: it has no end that anybody knows."""
    snapshot = world(
        nodes=[node(cpus=4), node(cpus=4)],
        workloads=[
            running(9, cpus=4, typical_seconds=100, spread_permille=500),
            running(8, cpus=4),
            job(2, cpus=4, typical_seconds=1, spread_permille=50, priority=1),
            job(1, cpus=4),
        ],
        allocations=[allocation(9, cpus=4, started_at=NOON), allocation(8, node_key=2, cpus=4, started_at=NOON)],
    )
    found = start(snapshot)
    assert 0 < found.p50 < found.p90
    untold = ExpectedStart(asked_at=NOON, p50=NOON + 60 * SECOND, detail="nobody says")
    assert untold.sentence == (
        "expected to start within 1 min half of the time; how much later else, nobody knows: nobody says"
    )


def crowd(count: int) -> Snapshot:
    return full(
        *(job(10 + at, cpus=4, max_duration_seconds=HOUR, submitted_at=NOON + at) for at in range(count)),
        job(1, cpus=4, submitted_at=NOON + count),
        max_duration_seconds=60,
    )


def test_where_too_much_goes_before_it_the_answer_is_when_it_does_not_start():
    found = start(crowd(expected.ROWS_MAX + 40))
    assert (found.p50, found.p90) == (0, 0)
    assert found.not_before - NOON > expected.ROWS_MAX * 0.5 * HOUR * SECOND
    assert found.sentence.startswith("not expected to start before 3 d ")
    assert found.sentence.endswith(": too much goes before it to see farther")


def test_on_a_fleet_too_large_to_be_played_nothing_is(monkeypatch):
    monkeypatch.setattr(expected, "CYCLE_MAX", 1_000)
    monkeypatch.setattr(expected, "Replay", None)
    long = start(crowd(40))
    assert (long.p50, long.p90) == (0, 0)
    assert 18 * HOUR <= (long.not_before - NOON) / SECOND <= 22 * HOUR
    assert start(crowd(0)).sentence == "nobody knows when it starts: so much runs that it is not played to its end"


def large(seed: int, *, sets: bool = False) -> tuple[Snapshot, int]:
    """Nodes that are full of runs, and a line of others, the last of which is asked about; its row. Two queues have quotas.

    `sets`: what waits and has several nodes has them in two pod sets.
    """
    random, names = np.random.default_rng(seed), ("a", "b") if seed % 2 else ("a",)
    runs, held = [], []
    for number in range(40):
        left = 8
        while left:
            cpus = int(random.integers(1, min(left, 4) + 1))
            key, left = 100 + len(runs), left - cpus
            runs.append(
                running(
                    key,
                    cpus=cpus,
                    queue=str(random.choice(names)),
                    max_duration_seconds=int(random.integers(60, 9_000)),
                )
            )
            held.append(allocation(key, node_key=number + 1, cpus=cpus, started_at=NOON))
    waiting = [
        job(
            key,
            cpus=int(random.choice((2, 4, 7))),
            nodes=int(random.choice((1, 1, 3))),
            queue=str(random.choice(names)),
            max_duration_seconds=int(random.integers(60, 900)),
            submitted_at=NOON + key,
        )
        for key in range(1, int(random.integers(2, 8)))
    ]
    if sets:
        small = pods("small", 1)
        waiting = [
            replace(one, sets=(small, pods("large", 2, cpus=one.cpus))) if one.nodes > 1 else one for one in waiting
        ]
    own = {("default", "cpu"): Quota(nominal=int(random.integers(100, 200)) * 1_000)}
    queues = [QueueSpec(name=name, parent="all", quotas=own, reserved_after_seconds=10**6) for name in names]
    queues.append(QueueSpec(name="all", cohort=True))
    if len(names) == 1:
        queues = [QueueSpec(name="a", reserved_after_seconds=10**6)]
    snapshot = world(
        nodes=[node(cpus=8) for _ in range(40)], workloads=[*waiting, *runs], allocations=held, queues=queues
    )
    return snapshot, len(waiting) - 1


def test_a_part_of_a_fleet_goes_the_way_of_the_whole_as_long_as_it_says(monkeypatch):
    monkeypatch.setattr(replay, "TOGETHER", 1 << 40)  # one by one: a part counts other ends than the whole
    policy, seen = POLICIES["best-fit"], [0, 0]
    for seed in range(12):
        snapshot, row = large(seed, sets=seed >= 6)
        condenser = condensing.Condenser(snapshot, row, policy, nodes_max=20)
        assert condenser.possible
        for draw in itertools.islice(expected._parts(snapshot), 5):
            part = condenser.part(draw)
            assert part.snapshot.nodes.key.size == 20
            assert part.snapshot.allocations.cpu_milli.sum() == snapshot.allocations.cpu_milli.sum()
            found = replay.Replay(part.snapshot, part.row, policy, until=part.until).play(part.draw, cycles_max=1 << 20)
            whole = replay.Replay(snapshot, row, policy).play(draw, cycles_max=1 << 20)
            assert found.at == (whole.at if found.seen else part.until), seed
            assert found.at <= whole.at
            seen[seed % 2] += found.seen
    assert min(seen) > 5, "with quotas and without"


def test_a_start_is_told_too_late_by_no_more_than_it_may_be():
    snapshot, row = large(2)
    policy, cycles = POLICIES["best-fit"], [0, 0]
    for draw in itertools.islice(expected._parts(snapshot), 9):
        exact, coarse = (
            replay.Replay(snapshot, row, policy, within=within).play(draw, cycles_max=6) for within in (0.0, 0.5)
        )
        assert exact.at - NOON <= coarse.at - NOON <= 1.5 * (exact.at - NOON)
        cycles[0] += exact.cycles
        cycles[1] += coarse.cycles
    assert cycles[1] < cycles[0]


def test_a_fleet_that_is_too_large_is_played_in_parts(monkeypatch):
    snapshot, row = large(2)
    whole = expected.expected_start(snapshot, row, POLICIES["best-fit"])
    monkeypatch.setattr(expected, "CYCLE_MAX", expected._work(snapshot) - 1)
    monkeypatch.setattr(expected, "CYCLES_OF_PART", 1 << 10)
    monkeypatch.setattr(expected, "NODES_OF_PART", 36)
    parts = expected.expected_start(snapshot, row, POLICIES["best-fit"])
    assert NOON < parts.p50 <= parts.p90
    assert parts.p50 - NOON == pytest.approx(whole.p50 - NOON, rel=0.5)


@pytest.mark.parametrize(
    "why",
    [
        {"quotas": {("default", "pods"): Quota(nominal=400)}},
        {"submitted_at": NOON, "cpus": 0.001},
    ],
    ids=["pods are counted", "all nodes have room"],
)
def test_where_a_part_is_no_smaller_or_says_less_there_is_none(why):
    snapshot = world(
        nodes=[node(cpus=4) for _ in range(8)],
        workloads=[
            running(9, cpus=3, queue="a"),
            job(1, queue="a", **{"cpus": 5, **{k: v for k, v in why.items() if k != "quotas"}}),
        ],
        allocations=[allocation(9, cpus=3, started_at=NOON)],
        queues=[QueueSpec(name="a", quotas=why.get("quotas", {}))],
    )
    assert not condensing.Condenser(snapshot, 0, POLICIES["best-fit"], nodes_max=4).possible


def test_the_work_is_bounded_and_counted(monkeypatch):
    plays = []
    play = replay.Replay.play

    def counted(self, *args, **options):
        plays.append(play(self, *args, **options))
        return plays[-1]

    monkeypatch.setattr(replay.Replay, "play", counted)
    start(crowd(60))
    assert sum(one.cycles for one in plays) <= expected.WORK_MAX // 5_000 + 10 * len(plays)


def test_ends_that_are_taken_together_lead_to_the_same_start_of_the_next_in_line(monkeypatch):
    snapshot = world(
        nodes=[node(cpus=32)],
        workloads=[*(running(key, max_duration_seconds=100 * key) for key in range(2, 34)), job(1, cpus=30)],
        allocations=[allocation(key, started_at=NOON) for key in range(2, 34)],
    )
    monkeypatch.setattr(expected, "WORK_MAX", 1 << 40)
    one_by_one = start(snapshot)
    monkeypatch.setattr(replay, "TOGETHER", 1)
    assert start(snapshot) == one_by_one


def test_a_plan_says_what_explain_says_once_it_is_submitted():
    resources = Resources(cpu_milli=4_000, memory_bytes=BYTES_PER_GIB)
    spec = WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(resources,), stop_grace_seconds=0)
    other = job(3, cpus=4, max_duration_seconds=600)
    before = full(other, max_duration_seconds=HOUR)
    after = full(other, job(10, cpus=4, phase=Phase.QUEUED), max_duration_seconds=HOUR)
    assert preview(before, spec=spec, priority=0).expected == start(after, 10)
    choices = (Resources(cpu_milli=64_000, memory_bytes=BYTES_PER_GIB, gpus=1, gpu_model="H100"), resources)
    assert preview(before, spec=replace(spec, choices=choices), priority=0).expected == start(after, 10)


def test_a_plan_of_a_gang_is_of_all_its_nodes():
    """One node is there for it at some time, and two are not while one is kept out."""
    resources = Resources(cpu_milli=4_000, memory_bytes=BYTES_PER_GIB)
    spec = WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(resources,), stop_grace_seconds=0)

    def fleet(*waiting: AWorkload) -> Snapshot:
        return world(
            nodes=[node(cpus=4), node(cpus=4, closed_at=NOON, why="cordoned")],
            workloads=[running(9, cpus=4, max_duration_seconds=HOUR), *waiting],
            allocations=[allocation(9, cpus=4, started_at=NOON)],
        )

    alone = preview(fleet(), spec=spec, priority=0).expected
    assert alone is not None
    assert alone.p50 > 0
    gang = preview(fleet(), spec=replace(spec, nodes=2), priority=0).expected
    assert gang is not None
    assert gang.p50 == 0
    assert gang == start(fleet(job(10, cpus=4, nodes=2, phase=Phase.QUEUED)), 10)


sizes = st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(0, 900), st.integers(0, 900))


@settings(max_examples=8, deadline=None)
@given(
    holds=st.lists(sizes, min_size=1, max_size=4),
    wishes=st.lists(sizes, min_size=1, max_size=4),
    shuffle=st.randoms(use_true_random=False),
)
def test_never_before_now_and_half_before_most_whatever_the_order_of_the_rows(holds, wishes, shuffle):
    runs = [
        running(20 + at, cpus=4, max_duration_seconds=limit, typical_seconds=typical, spread_permille=300)
        for at, (_, _, limit, typical) in enumerate(holds)
    ]
    jobs = [
        job(1 + at, cpus=cpus, nodes=ranks, max_duration_seconds=limit, typical_seconds=typical, spread_permille=300)
        for at, (cpus, ranks, limit, typical) in enumerate(wishes)
    ]
    held = [allocation(run.key, key=at, node_key=at, cpus=4, started_at=NOON) for at, run in enumerate(runs, 1)]
    nodes = [node(cpus=4) for _ in range(4)]
    mixed = [copy.copy(one) for one in (runs + jobs, held)]
    for rows in mixed:
        shuffle.shuffle(rows)
    for one in jobs:
        found = explain(world(nodes=nodes, workloads=runs + jobs, allocations=held), one.key)
        again = explain(world(nodes=nodes, workloads=mixed[0], allocations=mixed[1]), one.key)
        assert found.expected == again.expected
        if found.expected and found.expected.p90:
            assert NOON <= found.expected.p50 <= found.expected.p90


WORLDS, TIMES = 12, 10


def test_half_of_what_really_happens_is_before_p50_and_nine_tenths_before_p90():
    """Worlds with run times that are as they are thought to be, each lived many times by the scheduler's own decisions."""
    before_half, before_most = 0, 0
    for seed in range(WORLDS):
        random = np.random.default_rng(seed)
        fleet, key = _a_fleet(random)
        found = start(fleet.snapshot(), key)
        assert found.p90
        for _ in range(TIMES):
            lived = _as_it_may_be(fleet, random)
            lived.play(until=NOON + 1_000 * HOUR * SECOND, key=key)
            before_half += lived.started[key] <= found.p50
            before_most += lived.started[key] <= found.p90
    # Three deviations of the binomial distribution, half as wide again as lives of one world hang together by its one answer.
    lives = WORLDS * TIMES
    assert abs(before_half / lives - 0.5) < 4.5 * (0.25 / lives) ** 0.5
    assert abs(before_most / lives - 0.9) < 4.5 * (0.09 / lives) ** 0.5


def _a_fleet(random: np.random.Generator) -> tuple[Fleet, int]:
    """Two full nodes and three that wait, the last of which is asked about."""

    def one(key: int, **values) -> AWorkload:
        known = random.random() < 0.5
        return job(
            key,
            cpus=int(random.choice((2, 4))),
            typical_seconds=int(random.integers(300, 3_000)) if known else 0,
            spread_permille=int(random.integers(100, 700)) if known else 0,
            max_duration_seconds=0 if known else int(random.integers(600, 6_000)),
            **values,
        )

    jobs = {key: one(key, submitted_at=NOON - (1_000 - key) * SECOND) for key in (1, 2, 3)}
    for key, ran in ((4, 100), (5, 500)):
        jobs[key] = replace(one(key, started_at=NOON - ran * SECOND), cpus=4, max_duration_seconds=4_000)
    fleet = Fleet(nodes=[node(cpus=4), node(cpus=4)], jobs=jobs)
    fleet.run(4, [1], since=NOON - 100 * SECOND)
    fleet.run(5, [2], since=NOON - 500 * SECOND)
    return fleet, 3


def _as_it_may_be(fleet: Fleet, random: np.random.Generator) -> Fleet:
    """The same fleet, with run times of its own."""
    table = fleet.snapshot().workloads
    ran = np.array([(NOON - fleet.started.get(key, NOON)) / SECOND for key in table.key.tolist()])
    left = seconds_left(table, np.arange(table.key.size), ran_seconds=ran, part=random.random(table.key.size))
    lived = Fleet(nodes=fleet.nodes, jobs=dict(fleet.jobs))
    lived.takes = dict(zip(table.key.tolist(), (ran + left).tolist(), strict=True))
    for key, places in fleet.places.items():
        lived.run(key, places, since=fleet.started[key])
    return lived
