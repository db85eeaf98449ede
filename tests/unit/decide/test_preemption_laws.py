"""What must hold of every displacement, in worlds that are drawn: YuniKorn's laws, gangs whole, no circle, and an end of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from mainstay.decide.allowance import held_by_queue
from mainstay.decide.cycle import Cycle
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.preemption import preempt
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.preemption.search import Search
from mainstay.decide.quota import quotas_of, usage
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_of
from mainstay.domain.allocation import Seen
from mainstay.domain.flavor import NodeFlavor
from mainstay.domain.history import NO_HISTORY, HistoryPolicy, with_ended
from mainstay.domain.plan import Allocate, Preempt
from mainstay.domain.preemption import Borrow, FairShare, PreemptionPolicy, Reclaim, Rule, Slot, WithinQueue
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AHistory, AnAllocation, ANode, AWorkload, flavor, node, pods, world

SEEDS = range(60)
ROUNDS_MAX = 400
"""More than any of these worlds needs until nobody displaces anybody; a circle never ends."""


@dataclass
class Play:
    """A world in which whoever is told to stop ends at once; nothing comes or goes by itself."""

    nodes: list[ANode]
    queues: list[QueueSpec]
    workloads: dict[int, AWorkload]
    pods: dict[int, list[AnAllocation]] = field(default_factory=dict)
    displaced_by: dict[int, tuple[int, ...]] = field(default_factory=dict)
    now: int = NOON
    policy: HistoryPolicy = NO_HISTORY
    flavors: tuple[NodeFlavor, ...] = ()
    used: dict[str, AHistory] = field(default_factory=dict)
    displacements: list[tuple[int, int]] = field(default_factory=list)
    """(who, whom), in the order in which it happened."""

    def snapshot(self) -> Snapshot:
        pods = [pod for held in self.pods.values() for pod in held]
        numbered = [replace(pod, key=1_000 + number) for number, pod in enumerate(pods)]
        return world(
            nodes=self.nodes,
            workloads=list(self.workloads.values()),
            allocations=numbered,
            queues=self.queues,
            flavors=self.flavors,
            displaced_by=self.displaced_by,
            now=self.now,
            history_policy=self.policy,
            history=list(self.used.values()),
        )

    def fill(self) -> bool:
        """One turn of the scheduler. Whether it did anything."""
        self.now += 60 * SECOND
        actions = schedule(self.snapshot(), changes_max=10_000)
        for action in actions:
            if isinstance(action, Allocate):
                self.place(action.workload_key, action.slots)
            else:
                self.change(action.workload_key, phase=Phase.QUEUED)  # type: ignore[attr-defined]
        return bool(actions)

    def place(self, key: int, slots: tuple[Slot, ...]) -> None:
        work = self.workloads[key]
        self.change(key, phase=Phase.RUNNING)
        self.pods[key] = [
            AnAllocation(
                workload_key=key,
                rank=slot.rank,
                node_key=slot.node_key,
                cpus=slot.resources.cpu_milli / 1_000,
                gib=work.gib,
                gpus=slot.resources.gpus,
                gpu_model=slot.resources.gpu_model,
                seen=Seen.RUNNING,
                created_at=self.now,
                started_at=self.now,
            )
            for slot in slots
        ]

    def yield_(self, action: Preempt) -> None:
        """All victims end, and the one they yield for has its places."""
        for victim in action.victims:
            self.remember(self.pods.pop(victim.workload_key))
            self.change(victim.workload_key, phase=Phase.QUEUED)
            by = self.displaced_by.get(victim.workload_key, ())
            self.displaced_by[victim.workload_key] = (*by, action.workload_key)
            self.displacements.append((action.workload_key, victim.workload_key))
        self.place(action.workload_key, action.slots)

    def remember(self, pods: list[AnAllocation]) -> None:
        """As the store does when a pod has ended."""
        for pod in pods if self.policy.on else ():
            queue = self.workloads[pod.workload_key].queue
            before = self.used.get(queue, AHistory(queue=queue, at=self.now))
            after = with_ended(
                self.policy,
                np.array([before.cpus, before.gib, before.gpus]),
                at=before.at,
                amounts=np.array([pod.cpus, pod.gib, pod.gpus]),
                begin=pod.created_at,
                end=self.now,
                now=self.now,
            )
            self.used[queue] = AHistory(queue=queue, cpus=after[0], gib=after[1], gpus=after[2], at=self.now)

    def change(self, key: int, **values: object) -> None:
        self.workloads[key] = replace(self.workloads[key], **values)  # type: ignore[arg-type]


def drawn(seed: int, *, share: FairShare | None = None, limits: bool = False) -> Play:
    """A small fleet of two kinds of nodes, a tree of queues with and without quotas, and more work than fits.

    `limits`: most of it ends some time.
    """
    rng = random.Random(seed)
    nodes = [
        node(
            f"n{number}",
            key=number + 1,
            cpus=8,
            gib=64,
            gpus=rng.choice((0, 4)),
            gpu_model="",
            cluster=rng.choice(("x", "y")),
        )
        for number in range(rng.randint(2, 5))
    ]
    nodes = [replace(one, gpu_model="H100" if one.gpus else "") for one in nodes]
    quotas = rng.random() < 0.7

    def policy() -> PreemptionPolicy:
        reclaim = rng.choice(list(Reclaim))
        return PreemptionPolicy(
            within_queue=rng.choice(list(WithinQueue)),
            reclaim=reclaim,
            borrow=Borrow.NEVER if reclaim is Reclaim.NEVER else rng.choice(list(Borrow)),
            fair_share=share or rng.choice(list(FairShare)),
            min_runtime_seconds=rng.choice((0, 0, 100)),
        )

    def own() -> dict[tuple[str, str], Quota]:
        if not quotas:
            return {}
        return {
            ("default", "cpu"): Quota(nominal=1_000 * rng.randint(0, 12)),
            ("default", "gpu"): Quota(nominal=rng.randint(0, 4), lending_limit=None),
        }

    queues = [QueueSpec(name="root", cohort=True), QueueSpec(name="inner", cohort=True, parent="root")]
    queues += [
        QueueSpec(
            name=name,
            parent=rng.choice(("root", "inner")),
            weight=rng.choice((0.5, 1.0, 1.0, 2.0)),
            quotas=own(),
            preemption=policy(),
        )
        for name in "abc"
    ]
    workloads = {
        key: AWorkload(
            key=key,
            queue=rng.choice("abc"),
            priority=rng.choice((10, 50, 50, 90)),
            nodes=rng.choice((1, 1, 1, 2, 3)),
            cpus=rng.choice((1, 2, 4, 8)),
            gpus=rng.choice((0, 0, 1, 2)),
            preemptible=rng.random() < 0.9,
            checkpoint_seconds=rng.choice((0, 60)),
            submitted_at=NOON - rng.randint(0, 1_000) * SECOND,
            max_duration_seconds=rng.choice((0, *[rng.randint(600, 9_000)] * 4)) if limits else 0,
        )
        for key in range(1, rng.randint(12, 26))
    }
    return Play(nodes=nodes, queues=queues, workloads=workloads)


def in_sets(play: Play, seed: int) -> Play:
    """With other work in place of two in three: of two pod sets."""
    rng = random.Random(seed)
    for key, work in play.workloads.items():
        if rng.random() < 2 / 3:
            head = pods("head", 1, cpus=rng.choice((1, 2, 4)))
            workers = pods("worker", rng.choice((1, 2)), cpus=rng.choice((1, 2, 4)), gpus=rng.choice((0, 1, 2)))
            play.workloads[key] = replace(work, sets=(head, workers), nodes=1 + workers.nodes)
    return play


def with_flavors(play: Play, seed: int) -> Play:
    """Some nodes are of flavors of which queues have quotas."""
    rng = random.Random(seed)
    play.flavors = (flavor("spot"), flavor("owned"))
    play.nodes = [replace(one, labels={"pool": rng.choice(("spot", "owned", ""))}) for one in play.nodes]

    def own(queue: QueueSpec) -> dict[tuple[str, str], Quota]:
        cells = [(name, "cpu") for name in ("spot", "owned") if rng.random() < 0.7] if not queue.cohort else []
        limits = {
            cell: Quota(
                nominal=1_000 * rng.randint(0, 8),
                borrowing_limit=rng.choice((None, None, 2_000)),
                lending_limit=rng.choice((None, None, 0)),
            )
            for cell in cells
        }
        return {**queue.quotas, **limits}

    play.queues = [replace(queue, quotas=own(queue)) for queue in play.queues]
    return play


def played(play: Play, *, late: int = 6) -> Iterator[tuple[Snapshot, Preempt]]:
    """Every displacement, with the world before it. Some of the work comes only once the fleet is full."""
    coming = sorted(play.workloads)[-late:]
    waiting = {key: play.workloads.pop(key) for key in coming}
    while play.fill():
        pass
    play.workloads |= waiting
    for _ in range(ROUNDS_MAX):
        while play.fill():
            pass
        play.now += 200 * SECOND  # every minimum run time is over
        snapshot = play.snapshot()
        actions = preempt(snapshot)
        if not actions:
            return
        yield snapshot, actions[0]
        play.yield_(actions[0])
    pytest.fail(f"it did not end within {ROUNDS_MAX} displacements: {play.displacements[-12:]}")


def over_capacity(snapshot: Snapshot) -> bool:
    nodes = snapshot.nodes
    return bool((nodes.used_cpu_milli > nodes.cpu_milli).any() or (nodes.used_gpus > nodes.gpus).any())


@pytest.mark.parametrize("seed", SEEDS)
def test_it_ends_and_never_goes_in_a_circle(seed: int) -> None:
    play = drawn(seed)
    for _ in played(play):
        assert not over_capacity(play.snapshot())
    assert not circle(play.displacements)


@pytest.mark.parametrize("seed", range(12))
def test_it_ends_too_where_what_was_used_lately_counts_and_fades_faster_than_anybody_runs(seed: int) -> None:
    play = drawn(seed, share=(FairShare.INITIAL_SHARE, FairShare.FINAL_SHARE)[seed % 2])
    play.policy = HistoryPolicy(half_life_seconds=(60, 600, 6_000)[seed % 3], weight=3, entry_seconds=120)
    for snapshot, action in played(play):
        assert not over_capacity(snapshot)
        keeps_the_laws(snapshot, action)
    assert not circle(play.displacements)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_displacement_keeps_the_laws(seed: int) -> None:
    play = drawn(seed + 1_000)
    for snapshot, action in played(play):
        keeps_the_laws(snapshot, action)


@pytest.mark.parametrize("seed", range(20))
def test_every_displacement_for_several_sets_keeps_the_laws(seed: int) -> None:
    for snapshot, action in played(in_sets(drawn(seed + 3_000), seed)):
        keeps_the_laws(snapshot, action)


@pytest.mark.parametrize("seed", range(30))
def test_every_displacement_keeps_the_laws_and_all_quotas_where_nodes_have_flavors(seed: int) -> None:
    play = with_flavors(drawn(seed), seed)
    for snapshot, action in played(play):
        keeps_the_laws(snapshot, action)
        within_limits(snapshot)
    within_limits(play.snapshot())


def within_limits(snapshot: Snapshot) -> None:
    """Nobody uses more than is their own and what they may borrow, and all together no more than there is."""
    tree = snapshot.queues
    quotas = quotas_of(tree)
    over = usage(quotas, held_by_queue(snapshot)) - quotas.subtree
    assert (over <= tree.borrowing_limit).all()
    assert (over[tree.parent < 0] <= 0).all()


def test_nobody_who_displaces_delays_a_start_that_is_reserved_before_its_turn() -> None:
    bound = [0, 0]
    for seed in range(2_000, 2_064):
        play = drawn(seed, limits=True)
        play = in_sets(play, seed) if seed % 4 else play
        for snapshot, action in played(play):
            search = Search(snapshot)
            row = snapshot.workloads.key.tolist().index(action.workload_key)
            if 0 not in search.staying.binding(wish_of(snapshot, row), shape_of(snapshot, row)):
                continue  # It goes first, or nothing is reserved.
            key, before = first_reserved(snapshot)
            after = replace(
                play, pods=dict(play.pods), workloads=dict(play.workloads), displaced_by={}, displacements=[]
            )
            after.yield_(action)
            for other, work in list(after.workloads.items()):
                if work.phase is not Phase.RUNNING and other != key:
                    del after.workloads[other]
            assert first_reserved(after.snapshot())[1] <= before
            bound[bool(play.workloads[action.workload_key].sets)] += 1
    assert min(bound) > 4, "worlds in which that is the question, for one shape and for several sets"


def first_reserved(snapshot: Snapshot) -> tuple[int, int]:
    """(key of the first for whom a start is reserved, when), or of one that starts now."""
    cycle = Cycle(snapshot, POLICIES[DEFAULT_POLICY])
    for found in cycle.placements():
        return int(snapshot.workloads.key[found.rows[0]]), snapshot.now
    row, start = next(iter(cycle.reserved.items()))
    return int(snapshot.workloads.key[row]), start.starts_at


def circle(displacements: list[tuple[int, int]]) -> bool:
    """Whether somebody was displaced by whom it had displaced, directly or in turn."""
    after: dict[int, set[int]] = {}
    for who, whom in displacements:
        if reaches(after, whom, who):
            return True
        after.setdefault(who, set()).add(whom)
    return False


def reaches(after: dict[int, set[int]], begin: int, end: int) -> bool:
    seen, left = {begin}, [begin]
    while left:
        for other in after.get(left.pop(), ()):
            if other == end:
                return True
            if other not in seen:
                seen.add(other)
                left.append(other)
    return False


def keeps_the_laws(snapshot: Snapshot, action: Preempt) -> None:
    table, held, tree = snapshot.workloads, snapshot.allocations, snapshot.queues
    row = table.key.tolist().index(action.workload_key)
    quotas = quotas_of(tree)
    used = usage(quotas, held_by_queue(snapshot))
    assert action.victims, "somebody yields, or nothing is done"
    assert len(action.slots) == table.nodes_min[row]
    assert (
        len({snapshot.nodes.clusters[snapshot.nodes.key.tolist().index(slot.node_key)] for slot in action.slots}) == 1
    )
    for victim in action.victims:
        yields = table.key.tolist().index(victim.workload_key)
        assert table.preemptible[yields]
        pods = held.key[held.workload_key == victim.workload_key].tolist()
        left = len(pods) - len(victim.allocation_keys)
        assert set(victim.allocation_keys) <= set(pods)
        assert left >= table.nodes_min[yields] if victim.surplus else left == 0, "a gang yields whole"
        age = snapshot.now - held.created_at[held.workload_key == victim.workload_key].min()
        assert age >= tree.policies[table.queue[yields]].min_runtime_seconds * SECOND
        same = table.queue[yields] == table.queue[row]
        assert same == (victim.rule is Rule.WITHIN_QUEUE)
        if victim.rule is Rule.WITHIN_QUEUE:
            newer = table.submitted_at[yields] > table.submitted_at[row]
            assert (-table.priority[yields], newer) > (-table.priority[row], False)
        if victim.rule in {Rule.RECLAIM, Rule.BORROW}:
            queue = table.queue[yields]
            unlimited = not tree.defined[queue].any()
            assert unlimited or (used[queue] > quotas.subtree[queue]).any(), "nobody within its own is reclaimed"
    search = Search(snapshot)
    units = units_by_victim(snapshot, search, action)
    nobody_within_its_own_yields_to_a_share(snapshot, search, action)
    for unit in (unit for own in units for unit in own):
        search.staying.move(unit, sign=-1)
    assert search.places_now(wish_of(snapshot, row), shape_of(snapshot, row)), "it fits then"
    stays_near_its_own(snapshot, search, action, units)
    if all(victim.rule is Rule.WITHIN_QUEUE for victim in action.victims):
        nobody_yields_in_vain(snapshot, search, action, units)


def nobody_within_its_own_yields_to_a_share(snapshot: Snapshot, search: Search, action: Preempt) -> None:
    """As things are before anybody has yielded."""
    table = snapshot.workloads
    sides = search.staying.balance.sides(int(table.queue[table.key.tolist().index(action.workload_key)]))
    for victim in action.victims:
        if victim.rule is Rule.FAIR_SHARE:
            theirs = int(sides.theirs[table.queue[table.key.tolist().index(victim.workload_key)]])
            assert search.staying.balance.share(theirs) > (0, 0)


def nobody_yields_in_vain(snapshot: Snapshot, search: Search, action: Preempt, units: list[list[int]]) -> None:
    """It does not fit without any one of them. All have yielded."""
    row = snapshot.workloads.key.tolist().index(action.workload_key)
    for victim, own in zip(action.victims, units, strict=True):
        for together in [[unit] for unit in own] if victim.surplus else [own]:
            for unit in together:
                search.staying.move(unit, sign=1)
            assert not search.places_now(wish_of(snapshot, row), shape_of(snapshot, row))
            for unit in together:
                search.staying.move(unit, sign=-1)


def units_by_victim(snapshot: Snapshot, search: Search, action: Preempt) -> list[list[int]]:
    """Of each victim, the units that yield."""
    holders = search.staying.holders
    unit_of = dict(zip(snapshot.allocations.key[holders.pod].tolist(), holders.unit.tolist(), strict=True))
    return [sorted({unit_of[key] for key in victim.allocation_keys}) for victim in action.victims]


def stays_near_its_own(snapshot: Snapshot, search: Search, action: Preempt, units: list[list[int]]) -> None:
    """YuniKorn's law, as far as it is kept: who yields what was borrowed leaves its queue below its own
    by less than one workload.

    With the least of them back, its queue has more than its own of something that is needed. All have yielded.
    """
    table, balance = snapshot.workloads, search.staying.balance
    row = table.key.tolist().index(action.workload_key)
    needed = {
        column
        for _, _, load in search.staying.ways(wish_of(snapshot, row), shape_of(snapshot, row))
        for column in load.cells
    }
    yielded: dict[int, list[list[int]]] = {}
    for victim, own in zip(action.victims, units, strict=True):
        if victim.rule in {Rule.RECLAIM, Rule.BORROW}:
            queue = int(table.queue[table.key.tolist().index(victim.workload_key)])
            yielded.setdefault(queue, []).append(own)
    for queue, each in yielded.items():
        back = []
        for own in each:
            for unit in own:
                search.staying.move(unit, sign=1)
            back.append(balance.over(queue, dict.fromkeys(needed, 1)))
            for unit in own:
                search.staying.move(unit, sign=-1)
        assert any(back), "no more yield than until the queue has no more than its own"


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_does_not_depend_on_the_order_of_rows(seed: int) -> None:
    """A world that lists its nodes, work and pods the other way round has the same columns, and so the same plan."""
    play = with_flavors(drawn(seed), seed) if seed % 2 else drawn(seed)
    for _ in range(2):
        play.fill()
    play.now += 200 * SECOND
    snapshot = play.snapshot()
    other = replace(play, nodes=play.nodes[::-1], workloads=dict(sorted(play.workloads.items(), reverse=True)))
    assert preempt(other.snapshot()) == preempt(snapshot)


def test_without_the_memory_of_who_displaced_whom_initial_shares_go_in_a_circle() -> None:
    """B holds 4 in one run, A holds 2; a run of 1 takes the place, the scheduler fills it up with A, and B takes it back."""

    def begun(displaced_by: dict[int, tuple[int, ...]]) -> Play:
        play = Play(
            nodes=[node("n1", key=1, cpus=4), node("n2", key=2, cpus=2)],
            queues=[
                QueueSpec(name=name, preemption=PreemptionPolicy(fair_share=FairShare.INITIAL_SHARE)) for name in "ab"
            ],
            workloads={1: AWorkload(key=1, queue="b", cpus=4)},
            displaced_by=displaced_by,
        )
        play.fill()
        play.workloads |= {2 + size: AWorkload(key=2 + size, queue="a", cpus=size) for size in (1, 2, 3)}
        play.workloads[3] = replace(play.workloads[3], submitted_at=NOON + 1)
        return play

    forgetful, play = begun(Forgetful()), begun({})
    for _ in range(20):
        while forgetful.fill():
            pass
        for action in preempt(forgetful.snapshot())[:1]:
            forgetful.yield_(action)
    assert circle(forgetful.displacements)
    for _ in played(play, late=0):
        pass
    assert play.displacements
    assert not circle(play.displacements)


class Forgetful(dict[int, tuple[int, ...]]):
    """Remembers nothing."""

    def __setitem__(self, key: int, value: tuple[int, ...]) -> None:
        pass


@pytest.mark.parametrize("seed", range(20))
def test_final_shares_alone_never_go_in_a_circle(seed: int) -> None:
    """Whatever the scheduler fills in between, and although nobody remembers who displaced whom: the proof of decision 0014."""
    rng = random.Random(seed)
    policy = PreemptionPolicy(fair_share=FairShare.FINAL_SHARE)
    play = Play(
        nodes=[node(f"n{number}", key=number + 1, cpus=rng.randint(4, 12)) for number in range(3)],
        queues=[QueueSpec(name=name, preemption=policy, weight=rng.choice((1.0, 2.0))) for name in "abc"],
        workloads={
            key: AWorkload(key=key, queue=rng.choice("abc"), cpus=rng.choice((1, 2, 4)), submitted_at=NOON + key)
            for key in range(1, 30)
        },
        displaced_by=Forgetful(),
    )
    for _ in played(play, late=10):
        pass
    assert len(play.displacements) < ROUNDS_MAX


@pytest.mark.parametrize("seed", range(10))
def test_what_is_held_is_conserved(seed: int) -> None:
    """After a displacement exactly what its victims held is free, but for what was placed."""
    play = drawn(seed)
    displacements = played(play)
    for snapshot, action in displacements:
        keys = [key for victim in action.victims for key in victim.allocation_keys]
        freed = int(snapshot.allocations.cpu_milli[np.isin(snapshot.allocations.key, keys)].sum())
        placed = sum(slot.resources.cpu_milli for slot in action.slots)
        before = int(snapshot.nodes.used_cpu_milli.sum())
        next_ = replace(play, pods=dict(play.pods), workloads=dict(play.workloads), displaced_by={}, displacements=[])
        next_.yield_(action)
        assert int(next_.snapshot().nodes.used_cpu_milli.sum()) == before - freed + placed


def test_the_drawn_worlds_try_every_rule() -> None:
    rules = [victim.rule for seed in range(25) for _, action in played(drawn(seed)) for victim in action.victims]
    assert set(rules) == set(Rule)
