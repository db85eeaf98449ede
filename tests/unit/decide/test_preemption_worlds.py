"""Whatever is on record, the decisions go on and give no place away twice: volumes, gangs of one node, slices of shapes that are
gone, nodes that shrank or are gone, pods that leave or do not, and places that are kept."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import pytest

from mainstay.decide.explain import explain
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Allocate, Preempt
from mainstay.domain.preemption import (
    Borrow,
    FairShare,
    Nomination,
    PreemptionPolicy,
    Reclaim,
    Rule,
    Slot,
    WithinQueue,
)
from mainstay.domain.quantity import BYTES_PER_GIB, Resources, is_shape
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AnAllocation, ANode, AWorkload, allocation, lies, node, workload, world

HOUR = 3_600 * SECOND
SLICE, GONE = "1g.10gb", "2g.20gb"
"""A shape that some nodes list, and one that none does any more."""
SHARED = ("ReadWriteOnce",)
Amounts = Mapping[tuple[int, str], int]
"""(key of a node, what) -> how much."""


def drawn(seed: int) -> Snapshot:
    rng = random.Random(seed)
    fleet = [_node(rng) for _ in range(rng.randint(1, 4))]
    queues = [
        QueueSpec(name="x", cohort=True),
        *(QueueSpec(name=name, parent="x", quotas=_quotas(rng), preemption=_policy(rng)) for name in "ab"),
    ]
    work: list[AWorkload] = []
    pods: list[AnAllocation] = []
    for key in range(1, rng.randint(4, 7)):
        running = _workload(rng, key, phase=Phase.RUNNING)
        work.append(running)
        told = rng.random() < 0.2
        nodes = [rng.randint(1, len(fleet) + (rng.random() < 0.1)) for _ in range(running.nodes)]
        pods += [
            allocation(
                key,
                rank=rank,
                node_key=nodes[0] if running.volumes else at,
                cpus=running.cpus,
                gpus=running.gpus,
                gpu_model=running.gpu_model,
                stop=told,
                moves=told,
                preempted=int(Rule.WITHIN_QUEUE) if told else 0,
                stop_asked_at=NOON - rng.choice((0, 100, 1_000)) * SECOND,
                created_at=NOON - HOUR,
                started_at=NOON - HOUR // 2,
            )
            for rank, at in enumerate(nodes)
        ]
    first = len(work) + 1
    work += [
        _workload(rng, key, phase=rng.choice((Phase.QUEUED, Phase.QUEUED, Phase.PENDING)))
        for key in range(first, first + rng.randint(2, 6))
    ]
    kept = {one.key: _kept(rng, one, nodes=len(fleet)) for one in work[first - 1 :] if rng.random() < 0.15}
    gone = {pod.workload_key for pod in pods if pod.stop}
    return world(
        nodes=fleet,
        workloads=work,
        allocations=pods,
        queues=queues,
        volumes=[lies("data", "x", access=SHARED), lies("more", "x", access=("ReadWriteOncePod",))],
        nominations=kept,
        displaced_by={key: (rng.choice(sorted(kept) or [99]),) for key in sorted(gone)},
    )


def _node(rng: random.Random) -> ANode:
    gpus = rng.choice((0, 0, 4))
    return node(
        cluster=rng.choice("xxy"),
        cpus=rng.choice((8, 8, 16)),
        gpus=gpus,
        gpu_model="A100" if gpus else "",
        shapes={SLICE: 4} if rng.random() < 0.3 else {},
        ready=rng.random() < 0.9,
        used_cpus=rng.choice((0, 0, 0, 3)),
    )


def _policy(rng: random.Random) -> PreemptionPolicy:
    reclaim = rng.choice(list(Reclaim))
    return PreemptionPolicy(
        within_queue=rng.choice((*WithinQueue, WithinQueue.LOWER_PRIORITY)),
        reclaim=reclaim,
        borrow=Borrow.NEVER if reclaim is Reclaim.NEVER else rng.choice(list(Borrow)),
        fair_share=rng.choice(list(FairShare)),
    )


def _quotas(rng: random.Random) -> dict[tuple[str, str], Quota]:
    return {("default", "cpu"): Quota(nominal=rng.randint(0, 20) * 1_000)} if rng.random() < 0.5 else {}


def _workload(rng: random.Random, key: int, *, phase: Phase) -> AWorkload:
    gpus = rng.choice((0, 0, 1, 2))
    return workload(
        key,
        phase=phase,
        queue=rng.choice("ab"),
        priority=rng.choice((0, 10, 50) if phase is Phase.RUNNING else (10, 50, 90)),
        nodes=rng.choice((1, 1, 2, 3)),
        cpus=rng.choice((0, 1, 2, 4, 8)),
        gpus=gpus,
        gpu_model=rng.choice(("A100", "A100", SLICE, GONE)) if gpus else "",
        volumes=rng.choice(((), (), (), (), ("data",), ("more",), ("data", "more"))),
        submitted_at=NOON - rng.randint(0, 99) * SECOND,
    )


def _kept(rng: random.Random, work: AWorkload, *, nodes: int) -> Nomination:
    """Wherever: places were kept in a world that has changed since."""
    held = Resources(
        cpu_milli=int(work.cpus * 1_000), memory_bytes=BYTES_PER_GIB, gpus=work.gpus, gpu_model=work.gpu_model
    )
    at = rng.randint(1, nodes + 1)
    slots = tuple(Slot(rank=rank, node_key=at, resources=held) for rank in range(work.nodes))
    return Nomination(slots=slots, until=NOON + rng.choice((-1, 1, 1)) * HOUR)


def capacity(snapshot: Snapshot) -> Amounts:
    nodes = snapshot.nodes
    columns = {"cpu": nodes.cpu_milli, "memory": nodes.memory_bytes, "gpu": nodes.gpus, **nodes.shapes}
    return Counter(
        {
            (key, name): int(column[row])
            for name, column in columns.items()
            for row, key in enumerate(nodes.key.tolist())
        }
    )


def used(snapshot: Snapshot) -> Counter[tuple[int, str]]:
    nodes = snapshot.nodes
    columns = {
        "cpu": nodes.used_cpu_milli,
        "memory": nodes.used_memory_bytes,
        "gpu": nodes.used_gpus,
        **nodes.used_shapes,
    }
    return Counter(
        {
            (key, name): int(column[row])
            for name, column in columns.items()
            for row, key in enumerate(nodes.key.tolist())
        }
    )


def amounts(slots: Iterable[Slot]) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    for slot in slots:
        held, at = slot.resources, slot.node_key
        found[at, "cpu"] += held.cpu_milli
        found[at, "memory"] += held.memory_bytes
        found[at, held.gpu_model if is_shape(held.gpu_model) else "gpu"] += held.gpus
    return found


def held_by(snapshot: Snapshot, pods: Iterable[int]) -> Counter[tuple[int, str]]:
    """By these rows of the allocations."""
    held = snapshot.allocations
    return amounts(
        Slot(
            rank=0,
            node_key=int(held.node_key[row]),
            resources=Resources(
                cpu_milli=int(held.cpu_milli[row]),
                memory_bytes=int(held.memory_bytes[row]),
                gpus=int(held.gpus[row]),
                gpu_model=snapshot.gpu_models[int(held.gpu_model[row])],
            ),
        )
        for row in pods
    )


def over(snapshot: Snapshot, load: Amounts, slots: Iterable[Slot]) -> list[tuple[int, str]]:
    """Where these places are on what is not there."""
    there = capacity(snapshot)
    return [at for at, amount in amounts(slots).items() if amount and load[at] > there.get(at, 0)]


def on_one_node(snapshot: Snapshot, action: Allocate | Preempt) -> bool:
    row = snapshot.workloads.key.tolist().index(action.workload_key)
    return not snapshot.workloads.volumes[row] or len({slot.node_key for slot in action.slots}) == 1


@pytest.mark.parametrize("seed", range(300))
def test_nobody_yields_for_a_place_that_is_not_there_then(seed: int) -> None:
    snapshot = drawn(seed)
    actions = preempt(snapshot)
    keys = [victim.workload_key for action in actions for victim in action.victims]
    assert len(keys) == len(set(keys)), "nobody yields twice"
    assert not {action.workload_key for action in actions} & snapshot.nominations.keys()
    held, load = snapshot.allocations, used(snapshot)
    gone = {key for action in actions for victim in action.victims for key in victim.allocation_keys}
    leaving = [row for row in range(held.key.size) if held.stop[row] or int(held.key[row]) in gone]
    load.subtract(held_by(snapshot, leaving))
    load.update(amounts(slot for action in actions for slot in action.slots))
    for action in actions:
        assert on_one_node(snapshot, action)
        assert not over(snapshot, load, action.slots)


@pytest.mark.parametrize("seed", [*range(150), 2072])
def test_nobody_is_placed_where_there_is_no_room_or_where_it_is_kept_for_another(seed: int) -> None:
    snapshot = drawn(seed)
    held = snapshot.allocations
    load = used(snapshot)
    waiting = {key: amounts(one.slots) for key, one in snapshot.nominations.items()}
    yielding: dict[int, list[int]] = defaultdict(list)
    for row in range(held.key.size):
        if held.stop[row] and held.preempted[row]:
            yielding[snapshot.displaced_by[int(held.workload_key[row])][-1]].append(row)
    for action in schedule(snapshot):
        key: int = action.workload_key  # type: ignore[attr-defined]
        own = waiting.pop(key, None)
        if isinstance(action, Allocate):
            assert own is not None or on_one_node(snapshot, action)
            load.update(amounts(action.slots))
            kept: Counter[tuple[int, str]] = Counter()
            for other, places in waiting.items():
                kept += places - held_by(snapshot, yielding[other])
            assert not over(snapshot, load + kept, action.slots)


@pytest.mark.parametrize("seed", range(40))
def test_everybody_is_told_why(seed: int) -> None:
    snapshot = drawn(seed)
    for key in snapshot.workloads.key.tolist():
        told = explain(snapshot, key)
        assert told.reason.sentence
        assert told.preemption.removeprefix("nobody yields for it: ") or not told.preemption
