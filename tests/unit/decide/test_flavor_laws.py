"""Laws of quotas by flavors of nodes, in worlds that are drawn, with what counts against which quota worked out by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.cycle import Cycle
from mainstay.decide.placement import POLICIES
from mainstay.decide.placement.fit import Request, feasible
from mainstay.decide.quota import available, quotas_of, usage
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.history import NO_HISTORY, NOTHING_USED
from mainstay.domain.queue import QueueSpec, QueueTree, Quota
from mainstay.domain.snapshot import Snapshot
from tests.unit.decide.test_kernel import a_world

NOWHERE = -1


def cell_of(snapshot: Snapshot, *, queue: int, row: int, model: str, resource: str) -> int | None:
    """The column of the quota that counts on this node; None: it is not limited; NOWHERE: it is, and there is none."""
    tree = snapshot.queues
    flavor = "" if snapshot.nodes.flavor is None else snapshot.flavors[int(snapshot.nodes.flavor[row])]
    for name in (flavor, model, "default"):
        if name and (name, resource) in tree.cells and tree.defined[queue, (at := tree.cells.index((name, resource)))]:
            return at
    limited = any(one == resource and tree.defined[queue, at] for at, (_, one) in enumerate(tree.cells))
    return NOWHERE if limited else None


def held(snapshot: Snapshot) -> Ints:
    """[queues, cells] What runs already counts."""
    pods, table = snapshot.allocations, snapshot.workloads
    own = np.zeros((len(snapshot.queues.names), len(snapshot.queues.cells)), dtype=np.int64)
    for at in np.flatnonzero((pods.seen != Seen.ENDED) & np.isin(pods.workload_key, table.key)).tolist():
        queue = int(table.queue[np.searchsorted(table.key, pods.workload_key[at])])
        row = int(np.searchsorted(snapshot.nodes.key, pods.node_key[at]))
        amounts = {
            "cpu": int(pods.cpu_milli[at]),
            "memory": int(pods.memory_bytes[at]),
            "gpu": int(pods.gpus[at]),
            "pods": 1,
        }
        model = snapshot.gpu_models[int(pods.gpu_model[at])] if pods.gpus[at] else ""
        for resource, amount in amounts.items():
            column = cell_of(snapshot, queue=queue, row=row, model=model, resource=resource)
            if column not in {None, NOWHERE}:
                own[queue, column] += amount
    return own


def cells_of(snapshot: Snapshot, request: Request, *, queue: int, row: int) -> dict[int, int] | None:
    """What one pod counts on this node; None: it may not lie there."""
    gpu = snapshot.gpu_models[int(snapshot.nodes.gpu_model[row])]
    model = request.shape or (gpu if request.gpus else "")
    amounts = {"cpu": request.cpu_milli, "memory": request.memory_bytes, "gpu": request.gpus, "pods": 1}
    found: dict[int, int] = {}
    for resource, amount in amounts.items():
        cell = cell_of(snapshot, queue=queue, row=row, model=model, resource=resource)
        if cell == NOWHERE and amount:
            return None
        if cell is not None and cell != NOWHERE:
            found[cell] = found.get(cell, 0) + amount
    return found


def with_limits(snapshot: Snapshot, seed: int) -> Snapshot:
    """Two of its queues below a cohort of a cohort, with quotas of all resources, and limits of both kinds at both levels."""
    rng = random.Random(seed)

    def quotas(*, top: bool = False) -> dict[tuple[str, str], Quota]:
        found = {}
        for cell in (("default", "cpu"), ("default", "gpu"), ("L4", "gpu"), ("spot", "cpu"), ("default", "pods")):
            nominal = rng.choice((0, 3, 9)) * (1_000 if cell[1] == "cpu" else 1)
            if rng.random() < 0.7:
                found[cell] = Quota(
                    nominal=nominal,
                    borrowing_limit=None if top else rng.choice((None, 0, nominal)),
                    lending_limit=None if top else rng.choice((None, 0, nominal // 2)),
                )
        return found

    tree = QueueTree.of(
        [
            QueueSpec(name="root", cohort=True, quotas=quotas(top=True)),
            QueueSpec(name="all", cohort=True, parent="root", quotas=quotas()),
            *(QueueSpec(name=name, parent="all", quotas=quotas()) for name in "ab"),
            QueueSpec(name="c", parent="root", quotas=quotas()),
            QueueSpec(name="default"),
        ]
    )
    number = np.array([tree.names.index(name) for name in snapshot.queues.names if name in tree.names], dtype=np.int64)
    assert len(number) == len(snapshot.queues.names)
    table = replace(snapshot.workloads, queue=number[snapshot.workloads.queue])
    return replace(snapshot, queues=tree, workloads=table, history_policy=NO_HISTORY, history=NOTHING_USED)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from(sorted(POLICIES)), st.booleans())
def test_no_quota_is_exceeded_and_nothing_waits_that_may_have_what_is_free(seed, by_numpy, name, limits):
    snapshot = a_world(seed, nodes=60)
    if limits:
        snapshot = with_limits(snapshot, seed)
    tree, table = snapshot.queues, snapshot.workloads
    quotas, own = quotas_of(tree), held(snapshot)
    policy = replace(POLICIES[name], sign=0) if by_numpy else POLICIES[name]
    cycle = Cycle(snapshot, policy, tries_max=0)
    for placed in cycle.placements():
        requests = [part.request for part in placed.parts for _ in range(part.ranks)]
        for row, nodes in zip(placed.rows.tolist(), placed.nodes.tolist(), strict=True):
            queue = int(table.queue[row])
            for node, request in zip(nodes, requests, strict=True):
                cells = cells_of(snapshot, request, queue=queue, row=node)
                assert cells is not None, "it lies where its queue has no quota"
                for column, amount in cells.items():
                    own[queue, column] += amount
    used = usage(quotas, own)
    assert (used == cycle.allowance.quota.used).all()
    # What ran before may hold more than it may now; nothing was added to that.
    as_before = used <= usage(quotas, held(snapshot))
    assert ((used - quotas.subtree <= tree.borrowing_limit) | as_before).all()
    assert ((used <= quotas.subtree) | as_before)[tree.parent < 0].all()
    left = available(quotas, used)
    for row, number in zip(cycle.order.tolist(), cycle.numbers.tolist(), strict=True):
        if cycle.started[row] or table.nodes[row] > 1:
            continue
        queue = int(table.queue[row])
        # What was kept at its turn for GPU work is free in hindsight, once that has started.
        bound = bool(cycle.free.headroom)
        for request in (one for one in cycle.shape(row, number).requests if one.gpus or not bound):
            for node in np.flatnonzero(feasible(cycle.free, request)).tolist():
                cells = cells_of(snapshot, request, queue=queue, row=node)
                may = cells is not None and all(left[queue, column] >= much for column, much in cells.items())
                assert not may, f"workload {table.key[row]} could lie on node {node}"
