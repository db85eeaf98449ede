"""Any part of a plan may be committed, since any action of it may be refused for itself: what is left out harms nobody.

Worlds are drawn and live on in a real store: the scheduler decides, some of its actions are committed; others displace, some of
that is committed; work that was told to stop ends. After every commit nobody is over capacity or quota, and gangs are whole.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mainstay.decide.allowance import held_by_queue
from mainstay.decide.growth import grow
from mainstay.decide.lifecycle import lifecycle
from mainstay.decide.nomination import reserved
from mainstay.decide.preemption import preempt
from mainstay.decide.quota import quotas_of, usage
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import End, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import Action, ObserveNodes, SetQueue, Submit
from mainstay.domain.preemption import Borrow, FairShare, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import AllocationTable, Snapshot
from mainstay.domain.workload import Elastic
from tests.databases import empty_sqlite
from tests.stores import SECOND, WHY, Scene

CPU, GPU = ("default", "cpu"), ("default", "gpu")
POLICY = PreemptionPolicy(
    within_queue=WithinQueue.LOWER_OR_NEWER_EQUAL_PRIORITY,
    reclaim=Reclaim.ANY,
    borrow=Borrow.LOWER_PRIORITY,
    fair_share=FairShare.FINAL_SHARE,
)
SUBMITTED = Reason(code=Code.SUBMITTED)


def drawn(scene: Scene, rng: random.Random) -> None:
    """Two clusters of unequal nodes, and three queues of which two share what they have."""
    for cluster in "xy":
        nodes = tuple(
            NodeState(
                name=f"{cluster}{number}",
                capacity=Resources(
                    cpu_milli=1_000 * rng.choice((4, 8)),
                    memory_bytes=64 * BYTES_PER_GIB,
                    gpus=(gpus := rng.choice((0, 0, 4))),
                    gpu_model="H100" if gpus else "",
                ),
                ready=True,
                pods_max=rng.choice((None, 3)),
            )
            for number in range(rng.randint(1, 4))
        )
        scene.applied(ObserveNodes(cluster=cluster, nodes=nodes, reason=WHY))
    for name, parent in (("a", "both"), ("b", "both"), ("c", "")):
        quotas = {
            CPU: Quota(
                nominal=1_000 * rng.randint(0, 12), borrowing_limit=rng.choice((None, 4_000)) if parent else None
            ),
            GPU: Quota(nominal=rng.randint(0, 6)),
        }
        queue = QueueSpec(name=name, parent=parent, quotas=quotas if rng.random() < 0.8 else {}, preemption=POLICY)
        scene.applied(SetQueue(queue=queue, reason=Reason(code=Code.QUEUE_SET, object=name)))


def submit(scene: Scene, rng: random.Random, count: int) -> None:
    for _ in range(count):
        ranks, gpus = rng.choice((1, 1, 1, 2, 3)), rng.choice((0, 0, 1, 2))
        asked = Resources(cpu_milli=1_000 * rng.choice((1, 2, 4)), memory_bytes=BYTES_PER_GIB, gpus=gpus)
        new = scene.new(
            nodes=ranks,
            elastic=Elastic(nodes_min=1, nodes_max=ranks + 2) if rng.random() < 0.3 else None,
            choices=(asked, Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB)) if rng.random() < 0.2 else (asked,),
            queue=rng.choice("abc"),
            priority=rng.choice((10, 50, 90)),
        )
        scene.applied(Submit(workload=new, reason=SUBMITTED))


def look(scene: Scene) -> Snapshot:
    return scene.store.snapshot(now=scene.now, seed=0)


def commit_some(scene: Scene, rng: random.Random, actions: tuple[Action, ...]) -> list[Action]:
    """Some of the actions, in their order: none of them is refused for what is left out."""
    share = rng.choice((0.3, 0.6, 0.9))
    some = [action for action in actions if rng.random() < share]
    if some:
        scene.applied(*some)
    return some


def keeps_the_laws(snapshot: Snapshot, *, after: str) -> None:
    nodes, table, held = snapshot.nodes, snapshot.workloads, snapshot.allocations
    assert (nodes.used_cpu_milli <= nodes.cpu_milli).all()
    assert (nodes.used_gpus <= nodes.gpus).all()
    assert all((used <= nodes.others[name]).all() for name, used in nodes.used_others.items())
    within_quotas(snapshot, after=after)
    for row, key in enumerate(table.key.tolist()):
        pods = np.flatnonzero((held.workload_key == key) & (held.seen != Seen.ENDED) & ~held.stop)
        if not pods.size:
            continue
        assert table.nodes_min[row] <= pods.size <= table.nodes_max[row], "a gang is whole"
        where = {nodes.clusters[nodes.key.tolist().index(node)] for node in held.node_key[pods].tolist()}
        assert len(where) == 1, "and in one cluster"


def within_quotas(snapshot: Snapshot, *, after: str) -> None:
    tree = snapshot.queues
    quotas = quotas_of(tree)
    over = usage(quotas, held_by_queue(snapshot)) - quotas.subtree
    assert (over <= tree.borrowing_limit).all(), after
    assert (over[tree.parent < 0] <= 0).all(), after


def nobody_yields_in_vain(snapshot: Snapshot) -> None:
    """What is kept has room, and is within quotas, once all have ended that were told to."""
    table, nodes = snapshot.allocations, snapshot.nodes
    stays = ~table.stop & (table.seen != Seen.ENDED)
    columns = {name: getattr(table, name)[stays] for name in AllocationTable.__dataclass_fields__}
    later = reserved(replace(snapshot, allocations=AllocationTable(**columns)))
    within_quotas(later, after="with all that is kept")
    held = later.allocations
    for row, key in enumerate(nodes.key.tolist()):
        here = held.node_key == key
        assert held.cpu_milli[here].sum() <= nodes.cpu_milli[row]
        assert held.gpus[here].sum() <= nodes.gpus[row]
        assert "pods" not in nodes.others or np.count_nonzero(here) <= nodes.others["pods"][row]


def live(scene: Scene, rng: random.Random) -> None:
    """What was placed runs, most of what was told to stop has ended, and some has ended by itself."""
    seen: list[Action] = []
    for work in scene.all():
        leaves, done = rng.random() < 0.8, rng.random() < 0.1
        for pod in scene.store.allocations(work.key):
            if pod.seen is Seen.ENDED:
                continue
            ends = leaves if pod.stop else done
            state = {"ended_at": scene.now, "end": End.STOPPED if pod.stop else End.EXITED} if ends else {}
            code = {"exit_code": 0} if ends and not pod.stop else {}
            seen.append(
                scene.see(pod, Seen.ENDED if ends else Seen.RUNNING, started_at=scene.now - SECOND, **state, **code)
            )
    scene.applied(*seen)


SEEDS = (*range(6), 20, 36, 38, 108)
"""In the last four an action of a plan once needed another one, or a place that was kept was taken before its quota was free."""


@pytest.mark.parametrize("seed", SEEDS)
def test_any_part_of_a_plan_keeps_the_laws(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    store = empty_sqlite(tmp_path / "mainstay.db")
    scene = Scene(store)
    drawn(scene, rng)
    for _ in range(4):
        submit(scene, rng, rng.randint(4, 10))
        scene.now += 60 * SECOND
        for decide in (lifecycle, schedule, grow, preempt):
            commit_some(scene, rng, decide(look(scene)))
            snapshot = look(scene)
            keeps_the_laws(snapshot, after=decide.__name__)
            nobody_yields_in_vain(snapshot)
        live(scene, rng)
    store.close()
