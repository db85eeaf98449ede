"""What queues have used lately: the closed form against the integral, and what it does to turns, in worlds that are played."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide import turns
from mainstay.decide.history import used_lately
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.domain.history import NO_HISTORY, HistoryPolicy, counted, with_ended
from mainstay.domain.plan import Allocate
from mainstay.domain.preemption import FairShare, PreemptionPolicy
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AHistory, AnAllocation, AWorkload, allocation, node, workload, world

HOUR = 3_600 * SECOND
HALF_LIFE = HistoryPolicy(half_life_seconds=3_600)


def one(policy: HistoryPolicy, begin: int, end: int, now: int = NOON) -> float:
    return float(counted(policy, begin=np.array([begin]), end=np.array([end]), now=now)[0])


def test_half_a_life_is_half():
    assert one(HALF_LIFE, NOON - 1_000 * HOUR, NOON) == pytest.approx(1)
    assert one(HALF_LIFE, NOON - 1_000 * HOUR, NOON - HOUR) == pytest.approx(0.5)
    assert one(HALF_LIFE, NOON - HOUR, NOON) == pytest.approx(0.5)
    assert one(HALF_LIFE, NOON - 2 * HOUR, NOON - HOUR) == pytest.approx(0.25)


@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)), min_size=1, max_size=6), st.integers(1, 9_000)
)
def test_it_is_the_integral_of_what_was_held(intervals, half_life):
    """By the middle of each of 4,000 pieces of the last 40,000 s; all in one unit."""
    policy = HistoryPolicy(half_life_seconds=max(600, half_life))
    begin = np.array([NOON - (ago + lasts) * SECOND for ago, lasts in intervals])
    end = np.array([NOON - ago * SECOND for ago, _ in intervals])
    found = counted(policy, begin=begin, end=end, now=NOON).sum()
    ago = (np.arange(4_000) + 0.5) * 10
    at = NOON - ago * SECOND
    held = ((begin[:, None] <= at) & (at < end[:, None])).sum(axis=0)
    weight = np.log(2) / policy.half_life_seconds * np.exp2(-ago / policy.half_life_seconds)
    assert found == pytest.approx((held * weight * 10).sum(), abs=0.03 * len(intervals))


@given(st.randoms(use_true_random=False), st.integers(1, 20))
def test_adding_up_what_ends_is_the_same_as_reckoning_it_from_all_there_was_in_any_order(rng, count):
    policy = HistoryPolicy(half_life_seconds=1_800, entry_seconds=rng.choice((0, 300)))
    ends = sorted(rng.randint(0, 10_000) for _ in range(count))
    pods = [(NOON + (end - rng.randint(0, 4_000)) * SECOND, NOON + end * SECOND, rng.randint(1, 8)) for end in ends]
    used, at = np.zeros(1), NOON
    for begin, end, amount in pods:
        now = max(at, end + rng.randint(0, 60) * SECOND)  # it is heard of a little later
        used = with_ended(policy, used, at=at, amounts=np.array([amount]), begin=begin, end=end, now=now)
        at = now
    later = at + 1_000 * SECOND
    faded = with_ended(policy, used, at=at, amounts=np.array([0]), begin=later, end=later, now=later)
    rng.shuffle(pods)
    begin, end, amount = (np.array(column) for column in zip(*pods, strict=True))
    assert faded[0] == pytest.approx(float((amount * counted(policy, begin=begin, end=end, now=later)).sum()))


def test_whoever_is_let_in_counts_at_once_as_if_it_had_run_for_the_entry():
    policy = replace(HALF_LIFE, entry_seconds=1_800)
    at_once = 1 - 0.5**0.5
    assert one(policy, NOON, NOON) == pytest.approx(at_once)
    assert one(policy, NOON - 1_800 * SECOND, NOON) == pytest.approx(at_once), "no more until it has run for so long"
    assert one(policy, NOON - 3_600 * SECOND, NOON) == pytest.approx(0.5)
    assert one(policy, NOON - HOUR - SECOND, NOON - HOUR) == pytest.approx(at_once / 2), (
        "and it fades once it has ended"
    )


@given(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000), st.integers(0, 900))
def test_a_clock_that_jumps_makes_no_history_negative_or_larger_than_what_was_held(begin, end, entry):
    policy = replace(HALF_LIFE, entry_seconds=entry)
    part = one(policy, NOON + begin * SECOND, NOON + end * SECOND)
    assert 0 <= part <= 1
    back = with_ended(
        policy,
        np.array([5.0]),
        at=NOON + 10_000 * HOUR,
        amounts=np.array([1]),
        begin=NOON + begin * SECOND,
        end=NOON + end * SECOND,
        now=NOON,
    )
    assert back[0] == pytest.approx(5 + part), "what is as of an instant ahead counts as of now, and fades from here on"


def snapshot_of(policy: HistoryPolicy = HALF_LIFE, **more: object) -> Snapshot:
    return world(
        **{  # type: ignore[arg-type]
            "nodes": [node(cpus=100, gib=1_000, gpus=10, gpu_model="H100")],
            "queues": [
                QueueSpec(name="all", cohort=True),
                QueueSpec(name="a", parent="all"),
                QueueSpec(name="b", parent="all"),
            ],
            "history_policy": policy,
            **more,
        }
    )


def used(snapshot: Snapshot, name: str) -> list[float]:
    return used_lately(snapshot)[snapshot.queues.names.index(name)].tolist()


def test_what_ended_and_what_is_held_add_up_and_a_cohort_has_used_what_all_below_it_have():
    snapshot = snapshot_of(
        workloads=[workload(1, queue="a", phase=Phase.RUNNING), workload(2, queue="b", phase=Phase.RUNNING)],
        allocations=[
            allocation(1, cpus=8, gib=0, created_at=NOON - HOUR),
            allocation(2, cpus=4, gib=0, gpus=1, gpu_model="H100", created_at=NOON - HOUR),
        ],
        history=[AHistory(queue="a", cpus=2, at=NOON - HOUR), AHistory(queue="a", gpus=0.2, at=NOON)],
    )
    assert used(snapshot, "a") == [4_000 + 1_000, 0, 0.2]
    assert used(snapshot, "b") == [2_000, 0, 0.5]
    assert used(snapshot, "all") == [7_000, 0, 0.7]
    assert not used_lately(replace(snapshot, history_policy=NO_HISTORY)).any()


def test_a_tenth_of_a_gpu_counts():
    """Kueue counts in whole GPUs, so small use is none."""
    snapshot = snapshot_of(history=[AHistory(queue="a", gpus=0.1)])
    ledger = turns.ledger_of(snapshot)
    row = snapshot.queues.names.index("a")
    gpu = np.array([[0, 0, 1]])
    assert ledger.shares(np.array([row]), gpu)[0] == pytest.approx(0.11)


def test_history_counts_for_whoever_borrows_and_never_against_what_is_its_own():
    own = {("H100", "gpu"): Quota(nominal=4)}
    queues = [
        QueueSpec(name="all", cohort=True),
        QueueSpec(name="a", parent="all", quotas=own),
        QueueSpec(name="b", parent="all", quotas=own),
    ]
    snapshot = snapshot_of(
        queues=queues,
        history=[AHistory(queue="a", gpus=10), AHistory(queue="b", gpus=3)],
        history_policy=replace(HALF_LIFE, weight=2),
    )
    ledger = turns.ledger_of(snapshot)
    a, b = (snapshot.queues.names.index(name) for name in "ab")

    def share(row: int, gpus: int) -> float:
        return float(ledger.shares(np.array([row]), np.array([[0, 0, gpus]]))[0])

    assert (share(a, 4), share(b, 4)) == (0, 0)
    assert share(a, 5) == pytest.approx((1 + 2 * 6) / 8), "of what it used lately, what was above its own, twice"
    assert share(b, 5) == pytest.approx(1 / 8)


def test_weight_0_borrows_only_what_nobody_else_wants_whatever_anybody_used():
    snapshot = snapshot_of(
        queues=[QueueSpec(name="a", weight=0), QueueSpec(name="b")], history=[AHistory(queue="b", cpus=100)]
    )
    ledger = turns.ledger_of(snapshot)
    rows = np.array([snapshot.queues.names.index(name) for name in "ab"])
    assert ledger.shares(rows, np.array([[1, 0, 0], [1, 0, 0]])).tolist() == [np.inf, pytest.approx(1.00001)]
    assert ledger.shares(rows, np.array([[0, 0, 0], [0, 0, 0]])).tolist() == [0, 0]


def started(snapshot: Snapshot) -> list[int]:
    return [action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate)]


def test_a_queue_that_used_the_fleet_all_day_yields_to_one_that_comes_back():
    """Ten GPUs are free, and both ask for ten. Without a history both get half."""
    work = [workload(key, queue="ab"[key % 2], cpus=1, gib=1, gpus=1, gpu_model="H100") for key in range(1, 21)]
    snapshot = snapshot_of(workloads=work, history=[AHistory(queue="a", gpus=10)])
    queue_of = {row.key: row.queue for row in work}
    off = Counter(queue_of[key] for key in started(replace(snapshot, history_policy=NO_HISTORY)))
    on = Counter(queue_of[key] for key in started(snapshot))
    assert off == {"a": 5, "b": 5}
    assert on == {"b": 10}
    less = Counter(queue_of[key] for key in started(replace(snapshot, history_policy=replace(HALF_LIFE, weight=0.4))))
    assert less == {"a": 3, "b": 7}, "it may hold 4 less, times the weight"


def test_cohorts_are_compared_first_by_what_all_below_them_used():
    """Of the first cohort one queue used much; the other one of it waits behind the second cohort, and before its own sibling."""
    queues = [QueueSpec(name=name, cohort=True) for name in "xy"]
    queues += [QueueSpec(name=name, parent=name[0]) for name in ("x1", "x2", "y1")]
    work = [
        workload(key, queue=name, cpus=1, gib=1, submitted_at=NOON + key)
        for key, name in enumerate(("x1", "x2", "y1") * 10, 1)
    ]
    snapshot = world(
        nodes=[node(cpus=10, gib=99)],
        queues=queues,
        workloads=work,
        history_policy=HALF_LIFE,
        history=[AHistory(queue="x1", cpus=4)],
    )
    queue_of = {row.key: row.queue for row in work}
    assert Counter(queue_of[key] for key in started(snapshot)) == {"y1": 7, "x2": 3}


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_who_is_next_does_not_depend_on_the_order_of_queues_and_rows(seed):
    """The same world with other names of queues and other keys: whoever is placed is the same."""

    def placed(rename: dict[str, str], keys: Callable[[int], int]) -> set[int]:
        rng = random.Random(seed)
        running = range(1, 7)
        work = [
            workload(
                keys(key),
                queue=rename[rng.choice("abc")],
                cpus=rng.choice((1, 2, 4)),
                gib=1,
                submitted_at=NOON + key,
                phase=Phase.RUNNING if key in running else Phase.PENDING,
            )
            for key in range(1, 31)
        ]
        pods = [
            allocation(
                keys(key), key=1_000 + keys(key), cpus=3, gib=1, created_at=NOON - rng.randint(0, 9_999) * SECOND
            )
            for key in running
        ]
        names = [QueueSpec(name=rename[name], weight=rng.choice((0.5, 1, 2))) for name in "abc"]
        past = [AHistory(queue=rename[name], cpus=rng.choice((0, 3, 3, 20)), at=NOON - HOUR) for name in "abc"]
        snapshot = world(
            nodes=[node(cpus=40, gib=999)],
            workloads=work,
            allocations=pods,
            queues=names,
            history_policy=replace(HALF_LIFE, entry_seconds=600, weight=2),
            history=past,
        )
        back = {keys(key): key for key in range(1, 31)}
        return {back[key] for key in started(snapshot)}

    same = placed(dict(zip("abc", "abc", strict=True)), lambda key: key)
    assert placed(dict(zip("abc", "zky", strict=True)), lambda key: 100 - key) == same


class Day:
    """A fleet that one run fills; queues that always have another one waiting. Time goes from event to event."""

    def __init__(self, policy: HistoryPolicy, lasts: dict[str, int]) -> None:
        self.policy, self.lasts = policy, lasts
        self.held: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self.past: dict[str, AHistory] = {}

    def play(self, runs: int) -> None:
        """One after the other. Each queue submits the next one as soon as its last one has been placed."""
        now, waiting = NOON, {name: AWorkload(key=at, queue=name, cpus=8) for at, name in enumerate(self.lasts, 1)}
        for key in range(10, 10 + runs):
            snapshot = world(
                nodes=[node(cpus=8)],
                queues=[QueueSpec(name=name) for name in self.lasts],
                workloads=list(waiting.values()),
                history_policy=self.policy,
                history=list(self.past.values()),
                now=now,
            )
            (placed,) = started(snapshot)
            (name,) = (one.queue for one in waiting.values() if one.key == placed)
            self.starts[name] += 1
            self.held[name] += self.lasts[name]
            begin, now = now, now + self.lasts[name] * SECOND
            self.remember(name, begin=begin, now=now)
            waiting[name] = AWorkload(key=key, queue=name, cpus=8, submitted_at=now)

    def remember(self, name: str, *, begin: int, now: int) -> None:
        if self.policy.on:
            before = self.past.get(name, AHistory(queue=name, at=now))
            cpus = with_ended(
                self.policy,
                np.array([before.cpus]),
                at=before.at,
                amounts=np.array([8]),
                begin=begin,
                end=now,
                now=now,
            )
            self.past[name] = AHistory(queue=name, cpus=float(cpus[0]), at=now)


def test_queues_with_short_and_with_long_runs_have_used_the_same_in_the_long_run():
    lasts = {"short": 600, "long": 3_600}
    off, on = Day(NO_HISTORY, lasts), Day(HistoryPolicy(half_life_seconds=86_400), lasts)
    off.play(100)
    on.play(350)
    assert off.held["long"] / off.held["short"] == pytest.approx(6, rel=0.05), "turn by turn, whatever they take"
    assert on.held["long"] / on.held["short"] == pytest.approx(1, rel=0.05)
    assert on.starts["short"] / on.starts["long"] == pytest.approx(6, rel=0.05)


def test_a_swarm_of_short_runs_pays_for_its_entries():
    """Runs of 6 s cost the fleet a place each; with an entry of a minute they count like runs of a minute."""
    lasts = {"swarm": 6, "steady": 60}
    free = Day(HistoryPolicy(half_life_seconds=3_600), lasts)
    paid = Day(HistoryPolicy(half_life_seconds=3_600, entry_seconds=60), lasts)
    free.play(220)
    paid.play(100)
    assert free.starts["swarm"] / free.starts["steady"] == pytest.approx(10, rel=0.1)
    assert paid.starts["swarm"] == pytest.approx(paid.starts["steady"], abs=2)


def test_who_displaces_for_a_fair_share_counts_the_same_history_as_the_turns():
    """Both hold 4 of 8. Only who used less lately takes from the other, until both have the same with what they used."""
    policy = PreemptionPolicy(fair_share=FairShare.FINAL_SHARE)
    running = [workload(key, queue="ab"[key % 2], phase=Phase.RUNNING) for key in range(1, 9)]
    pods: list[AnAllocation] = [allocation(key, gib=1, created_at=NOON) for key in range(1, 9)]

    def yields(waits: str, weight: float) -> bool:
        snapshot = world(
            nodes=[node(cpus=8)],
            queues=[QueueSpec(name=name, preemption=policy) for name in "ab"],
            workloads=[*running, workload(20, queue=waits, phase=Phase.QUEUED)],
            allocations=pods,
            history_policy=replace(HALF_LIFE, weight=weight),
            history=[AHistory(queue="a", cpus=8)],
        )
        return bool(preempt(snapshot))

    assert not yields("b", 0)
    assert yields("b", 1)
    assert not yields("a", 1)
