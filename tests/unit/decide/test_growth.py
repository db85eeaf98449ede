"""Elastic runs grow into what lies idle: whom, where, in which order; and growing and shrinking come to rest."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.growth import PAUSE_SECONDS, RANKS_MAX, SHAPES_MAX, grow
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import End, Seen
from mainstay.domain.plan import Allocate, Grow, Preempt
from mainstay.domain.preemption import PreemptionPolicy, Reclaim, Slot, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AnAllocation, ANode, AWorkload, allocation, ended, node, workload, world

EARLIER = NOON - (PAUSE_SECONDS + 1) * SECOND
CPU = ("default", "cpu")


def runs(key: int = 1, least: int = 1, most: int = 8, **values: object) -> AWorkload:
    return workload(key, **{"phase": Phase.RUNNING, "nodes": most, "nodes_min": least, "nodes_max": most, **values})


def up(key: int = 1, rank: int = 0, **values: object) -> AnAllocation:
    return allocation(key, rank=rank, **{"created_at": EARLIER, "started_at": EARLIER, **values})


def grown(snapshot: Snapshot) -> dict[int, list[tuple[int, int]]]:
    """(rank, key of its node) of all that each is given, by key."""
    return {one.workload_key: [(slot.rank, slot.node_key) for slot in one.slots] for one in grow(snapshot)}


def counts(snapshot: Snapshot) -> dict[int, int]:
    return {key: len(slots) for key, slots in grown(snapshot).items()}


def test_it_grows_into_what_is_idle_up_to_its_max_and_is_numbered_on():
    fleet = [node(cpus=4), node(cpus=2)]  # best fit: the fuller node first
    assert grown(world(nodes=fleet, workloads=[runs(most=4)], allocations=[up()])) == {1: [(1, 2), (2, 2), (3, 1)]}
    assert counts(world(nodes=[node(cpus=3)], workloads=[runs()], allocations=[up()])) == {1: 2}


def test_it_goes_beyond_what_it_desires():
    assert counts(world(nodes=[node(cpus=9)], workloads=[runs(nodes=1, most=4)], allocations=[up()])) == {1: 3}


def test_why_is_told():
    (action,) = grow(world(nodes=[node("n", cpus=3)], workloads=[runs()], allocations=[up()]))
    assert action.reason.sentence == "goes on with 3 nodes of 1 to 8: 2 more on n"


def test_a_number_that_was_given_is_never_given_again():
    """The name of a pod is used once: ranks that have left keep theirs."""
    left = ended(1, rank=3, stop=True, surplus=True, created_at=EARLIER, stop_asked_at=EARLIER, ended_at=EARLIER)
    slots = grown(world(nodes=[node(cpus=3)], workloads=[runs()], allocations=[up(), left]))[1]
    assert [rank for rank, _ in slots] == [4, 5]


@pytest.mark.parametrize(
    "values",
    [
        {"phase": Phase.STARTING},
        {"phase": Phase.UNKNOWN},
        {"stop_requested": True},
        {"nodes": 1, "nodes_max": 1},
        {"attempt": 2},
    ],
)
def test_what_does_not_run_or_has_all_it_may_have_does_not_grow(values):
    assert grow(world(nodes=[node()], workloads=[runs(**values)], allocations=[up()])) == ()


@pytest.mark.parametrize(
    "pod",
    [
        up(rank=1, seen=Seen.STARTING),
        up(rank=1, seen=Seen.UNKNOWN),
        up(rank=1, stop=True),
        up(rank=1, stop=True, surplus=True),
        up(rank=1, created_at=NOON - (PAUSE_SECONDS - 1) * SECOND),
        ended(1, rank=1, created_at=EARLIER),
        ended(1, rank=1, created_at=EARLIER, ended_at=NOON - SECOND, surplus=True),
        ended(1, rank=1, created_at=EARLIER, ended_at=EARLIER, stop=True, stop_asked_at=NOON - SECOND, surplus=True),
    ],
)
def test_it_waits_until_all_its_ranks_run_and_nothing_has_changed_for_a_while(pod):
    assert grow(world(nodes=[node()], workloads=[runs()], allocations=[up(), pod])) == ()


def test_a_clock_that_was_set_back_does_not_keep_it_from_growing():
    ahead = NOON + 86_400 * SECOND
    assert counts(world(nodes=[node(cpus=2)], workloads=[runs()], allocations=[up(created_at=ahead)])) == {1: 1}


def test_it_does_not_grow_where_anybody_waits_who_could_use_it():
    """Be it not enough for that one now, and be it for the end of a back-off that it waits."""
    large = {"cpus": 8, "phase": Phase.QUEUED}
    for waits in (workload(2, **large), workload(2, not_before=NOON + 9 * SECOND, **large), workload(2, nodes=9)):
        assert grow(world(nodes=[node(cpus=8)], workloads=[runs(), waits], allocations=[up()])) == ()


@pytest.mark.parametrize(
    "values",
    [{"cpus": 32}, {"gpus": 1}, {"cluster": "other"}, {"held": True}, {"stop_requested": True}, {"queue": "poor"}],
)
def test_who_could_not_use_it_keeps_nobody_from_it(values):
    queues = [QueueSpec(name="poor", quotas={CPU: Quota(nominal=0)})]
    jobs = [runs(), workload(2, phase=Phase.QUEUED, **values)]
    assert counts(world(nodes=[node(cpus=3)], queues=queues, workloads=jobs, allocations=[up()])) == {1: 2}


def test_it_grows_on_the_nodes_that_others_do_not_wait_for():
    nodes = [node(cpus=2), node(cpus=4, gpus=1, gpu_model="L4")]
    jobs = [runs(), workload(2, gpus=1, cpus=4, phase=Phase.QUEUED)]
    assert grown(world(nodes=nodes, workloads=jobs, allocations=[up()])) == {1: [(1, 1)]}


def test_where_too_many_different_things_wait_nothing_is_idle():
    waits = [workload(key, cpus=100 + key, phase=Phase.QUEUED) for key in range(2, SHAPES_MAX + 4)]
    assert grow(world(nodes=[node()], workloads=[runs(), *waits], allocations=[up()])) == ()


def test_nothing_grows_on_a_node_that_is_kept_out_or_that_others_are_nominated_for():
    nodes = [node(cpus=1), node(cpus=8, closed_at=NOON)]
    assert grow(world(nodes=nodes, workloads=[runs()], allocations=[up()])) == ()


def test_it_stays_in_its_cluster_and_in_its_domain():
    nodes = [
        node("a", cpus=2, cluster="east", topology={"rack": "one"}),
        node("b", cpus=2, cluster="east", topology={"rack": "two"}),
        node("c", cpus=9, cluster="west", topology={"rack": "one"}),
    ]
    for topology, given_ in (("", 3), ("preferred rack", 3), ("required rack", 1), ("required host", 1)):
        snapshot = world(nodes=nodes, workloads=[runs(topology=topology)], allocations=[up()])
        assert counts(snapshot) == {1: given_}, topology


def test_it_asks_for_the_choice_that_it_was_placed_with():
    choices = tuple(Resources(cpu_milli=cores * 1_000, memory_bytes=BYTES_PER_GIB) for cores in (4, 2))
    (action,) = grow(world(nodes=[node(cpus=8)], workloads=[runs(choices=choices)], allocations=[up(cpus=2)]))
    assert [slot.resources.cpu_milli for slot in action.slots] == [2_000] * 3


def test_its_quota_bounds_it():
    queues = [QueueSpec(name="a", quotas={CPU: Quota(nominal=3_000)})]
    snapshot = world(nodes=[node()], queues=queues, workloads=[runs(queue="a")], allocations=[up()])
    assert counts(snapshot) == {1: 2}


def test_queues_grow_by_their_shares_and_in_a_queue_the_more_urgent_first():
    queues = [QueueSpec(name="a", weight=2), QueueSpec(name="b")]
    jobs = [runs(1, queue="a"), runs(2, queue="b"), runs(3, queue="a", priority=9)]
    pods = [up(1), up(2), up(3)]
    assert counts(world(nodes=[node(cpus=9)], queues=queues, workloads=jobs, allocations=pods)) == {2: 2, 3: 4}


@pytest.mark.parametrize(("order", "first"), [("fifo", 1), ("srtf", 2), ("srsf", 3)])
def test_in_a_queue_with_an_order_that_decides_who_grows_first(order, first):
    """The first has an hour left, the second two minutes on 20 nodes, the third 18 minutes on two."""
    queues = [QueueSpec(name="a", order=order)]
    hour = {"queue": "a", "max_duration_seconds": 3_600, "gpus": 1}
    jobs = [
        runs(1, most=4, started_at=NOON - SECOND, submitted_at=NOON - 9 * SECOND, **hour),
        runs(2, most=20, started_at=NOON - 3_480 * SECOND, submitted_at=NOON - 8 * SECOND, **hour),
        runs(3, most=2, started_at=NOON - 2_500 * SECOND, **hour),
    ]
    pods = [up(at, gpus=1, gpu_model="L4") for at in (1, 2, 3)]
    nodes = [node(gpus=4, gpu_model="L4")]
    snapshot = world(nodes=nodes, queues=queues, workloads=jobs, allocations=pods)
    assert counts(snapshot) == {first: 1}


def test_in_a_queue_those_who_submitted_grow_in_turns():
    jobs = [runs(1, submitter="ann"), runs(2, submitter="ann"), runs(3, submitter="bob")]
    snapshot = world(nodes=[node(cpus=9)], workloads=jobs, allocations=[up(1), up(2), up(3)])
    assert counts(snapshot) == {1: 3, 3: 3}


def test_so_many_at_most_in_one_turn():
    snapshot = world(
        nodes=[node(cpus=200, gib=200)], workloads=[runs(most=90), runs(2, most=90)], allocations=[up(), up(2)]
    )
    assert sum(counts(snapshot).values()) == RANKS_MAX


@dataclass
class Play:
    """A world in which nothing ends or fails by itself, and whoever is told to stop ends at once."""

    nodes: list[ANode]
    queues: list[QueueSpec]
    workloads: dict[int, AWorkload]
    pods: dict[int, list[AnAllocation]] = field(default_factory=dict)
    gone: dict[int, list[AnAllocation]] = field(default_factory=dict)
    """What its attempt was left without. It is on record until the attempt is over."""
    ranks: Counter[int] = field(default_factory=Counter)
    """By workload, the next number of its attempt."""
    displaced_by: dict[int, tuple[int, ...]] = field(default_factory=dict)
    now: int = NOON
    to_come: list[dict[int, AWorkload]] = field(default_factory=list)
    """What arrives, each time after all has come to rest."""
    happened: Counter[str] = field(default_factory=Counter)

    def snapshot(self) -> Snapshot:
        pods = [pod for held in (*self.pods.values(), *self.gone.values()) for pod in held]
        self.now += 2 * PAUSE_SECONDS * SECOND
        return world(
            nodes=self.nodes,
            workloads=list(self.workloads.values()),
            allocations=[replace(pod, key=1_000 + number) for number, pod in enumerate(pods)],
            queues=self.queues,
            displaced_by=self.displaced_by,
            now=self.now,
        )

    def turn(self) -> bool:
        """One of each decision. Whether anything changed."""
        before = (dict(self.workloads), {key: tuple(pods) for key, pods in self.pods.items()})
        for action in schedule(self.snapshot(), changes_max=1_000):
            if isinstance(action, Allocate):
                self.take(action.workload_key, action.slots)
            else:
                self.change(action.workload_key, phase=Phase.QUEUED)
        snapshot, numbered = self.snapshot(), [pod for held in self.pods.values() for pod in held]
        for found in preempt(snapshot):
            self.yield_(found, numbered)
        for more in grow(self.snapshot()):
            self.take(more.workload_key, more.slots, grows=True)
            self.happened["grown"] += 1
        return before != (self.workloads, {key: tuple(pods) for key, pods in self.pods.items()})

    def take(self, key: int, slots: tuple[Slot, ...], *, grows: bool = False) -> None:
        work = self.workloads[key]
        if not grows:
            self.change(key, phase=Phase.RUNNING)
            self.pods[key], self.gone[key], self.ranks[key] = [], [], 0
        for slot in slots:
            assert slot.rank == self.ranks[key]
            self.ranks[key] += 1
            self.pods[key].append(
                up(
                    key,
                    rank=slot.rank,
                    node_key=slot.node_key,
                    cpus=work.cpus,
                    created_at=self.now,
                    started_at=self.now,
                )
            )

    def yield_(self, action: Preempt, numbered: list[AnAllocation]) -> None:
        for victim in action.victims:
            gone = [numbered[key - 1_000] for key in victim.allocation_keys]
            self.pods[victim.workload_key] = [pod for pod in self.pods[victim.workload_key] if pod not in gone]
            self.happened["shrunk" if victim.surplus else "displaced"] += 1
            over = {"stop": True, "surplus": True, "seen": Seen.ENDED, "end": End.STOPPED, "exit_code": None}
            self.gone[victim.workload_key] += [replace(pod, **over, ended_at=self.now) for pod in gone]
            if not victim.surplus:
                del self.gone[victim.workload_key]
                assert not self.pods.pop(victim.workload_key)
                self.change(victim.workload_key, phase=Phase.QUEUED)
                by = self.displaced_by.get(victim.workload_key, ())
                self.displaced_by[victim.workload_key] = (*by, action.workload_key)
        self.take(action.workload_key, action.slots)

    def change(self, key: int, **values: object) -> None:
        self.workloads[key] = replace(self.workloads[key], **values)  # type: ignore[arg-type]

    def rests(self) -> bool:
        """Whether all that there is comes to rest, with no law broken on the way."""
        for _ in range(ROUNDS_MAX):
            if not self.turn():
                return not grow(self.snapshot())
            self.check()
        return False

    def check(self) -> None:
        """No node over its capacity, no queue over its quota, no run below its min or above its max, or without rank 0, or with
        more ranks on one host than it may have.
        """
        used, held = Counter[int](), Counter[str]()
        for key, pods in self.pods.items():
            work = self.workloads[key]
            assert work.nodes_min <= len(pods) <= work.nodes_max
            assert pods[0].rank == 0
            if work.topology:
                self.happened["apart"] += 1
                assert max(Counter(pod.node_key for pod in pods).values()) <= int(work.topology[-1])
            for pod in pods:
                used[pod.node_key] += int(pod.cpus)
                held[work.queue] += int(pod.cpus)
        assert all(used[key] <= one.cpus for key, one in enumerate(self.nodes, 1))
        total = sum(one.quotas[CPU].nominal for one in self.queues if one.quotas) // 1_000
        assert not any(one.quotas for one in self.queues) or sum(held.values()) <= total


def drawn(seed: int) -> Play:
    """More work than fits, some of it elastic, in queues that displace others."""
    rng = random.Random(seed)
    policy = PreemptionPolicy(
        within_queue=rng.choice(list(WithinQueue)), reclaim=rng.choice((Reclaim.NEVER, Reclaim.ANY))
    )
    limited = rng.random() < 0.6
    queues = [QueueSpec(name="all", cohort=True)]
    queues += [
        QueueSpec(
            name=name,
            parent="all",
            weight=rng.choice((1, 2)),
            preemption=policy,
            quotas={CPU: Quota(nominal=rng.randint(1, 8) * 1_000)} if limited else {},
        )
        for name in "ab"
    ]
    workloads, apart = {}, random.Random(seed + 1)
    for key in range(1, rng.randint(4, 10)):
        least = rng.randint(1, 3)
        most = least + rng.choice((0, 2, 5))
        workloads[key] = workload(
            key,
            nodes=rng.randint(least, most),
            nodes_min=least,
            nodes_max=most,
            cpus=rng.choice((1, 2)),
            queue=rng.choice("ab"),
            priority=rng.choice((10, 50, 90)),
            submitted_at=NOON + key,
            topology=apart.choice(("", "", "", "/host 1", "/host 2")),
        )
    keys = sorted(workloads)
    waves = [{key: workloads[key] for key in keys[at::3]} for at in range(3)]
    nodes = [node(cpus=rng.choice((2, 4, 8)), cluster=rng.choice(("x", "x", "y"))) for _ in range(rng.randint(1, 4))]
    return Play(nodes=nodes, queues=queues, workloads={}, to_come=waves)


ROUNDS_MAX = 60
"""More than any of these worlds needs; a loop of growing and shrinking never ends."""


def played(seed: int) -> Play:
    """One wave after the other."""
    play = drawn(seed)
    for wave in play.to_come:
        play.workloads |= wave
        assert play.rests(), f"it never comes to rest: {play.happened}"
    return play


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_growing_and_shrinking_come_to_rest_and_break_no_law(seed):
    played(seed)


def test_the_worlds_of_the_law_grow_and_shrink():
    """Or it would say nothing."""
    happened = sum((played(seed).happened for seed in range(60)), Counter[str]())
    assert happened["grown"] > 10
    assert happened["shrunk"] > 5
    assert happened["displaced"] > 5
    assert happened["apart"] > 20


@given(st.integers(0, 2**32))
@settings(max_examples=25)
def test_the_order_of_rows_does_not_matter(seed):
    """Other keys of nodes: the same runs grow by as much."""
    rng = random.Random(seed)
    jobs = [runs(key, queue=rng.choice("ab"), most=rng.randint(2, 5), submitted_at=NOON + key) for key in (1, 2, 3)]
    pods = [up(key, node_key=1) for key in (1, 2, 3)]
    sizes = [rng.randint(3, 6), *(rng.randint(1, 4) for _ in range(3))]
    queues = [QueueSpec(name=name) for name in "ab"]

    def with_nodes(order: list[int]) -> dict[int, int]:
        fleet = [node(key=1, cpus=sizes[0]), *(node(key=at + 2, cpus=sizes[one]) for at, one in enumerate(order))]
        return counts(world(nodes=fleet, queues=queues, workloads=jobs, allocations=pods))

    assert with_nodes([1, 2, 3]) == with_nodes([3, 1, 2])


def test_a_grow_states_all_that_it_read():
    (action,) = grow(world(nodes=[node(cpus=2)], workloads=[runs(version=7)], allocations=[up(version=5)]))
    assert isinstance(action, Grow)
    kinds = [(getattr(guard, "kind", "capacity"), getattr(guard, "version", 0)) for guard in action.guards]
    assert kinds == [("workload", 7), ("allocation", 5), ("capacity", 0)]
