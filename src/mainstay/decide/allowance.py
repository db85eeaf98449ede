"""What the queues may still use of their quotas, lowered as a cycle gives places away.

`quota.available` says it for all queues at once; here it is asked for one queue at a time, again and again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mainstay.decide import quota
from mainstay.decide.placement.fit import Request
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.queue import NO_LIMIT, OTHER_FLAVOR, QueueTree, Resource
from mainstay.domain.snapshot import Snapshot

Cells: TypeAlias = Mapping[int, int]
"""Column of a cell -> how much of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """A cell of which a queue may not use enough."""

    flavor: str
    resource: str
    left: int
    """What it may use now, borrowing included."""
    used: int
    nominal: int


class Allowance:
    """Quotas and what is used of them. A resource of which a queue has no quota at all is not limited in it."""

    def __init__(self, snapshot: Snapshot) -> None:
        tree, self._models = snapshot.queues, snapshot.gpu_models
        self._tree = tree
        self.limits = bool(tree.cells)
        """Whether there are any quotas."""
        quotas = quota.quotas_of(tree)
        self._cell = {resource: cell_of(tree, self._models, resource).tolist() for resource in Resource}
        self._limited = [
            frozenset(resource for (_, resource), defined in zip(tree.cells, row, strict=True) if defined)
            for row in tree.defined.tolist()
        ]
        """Of each queue, the resources of which it has any quota."""
        self._used: list[list[int]] = quota.usage(quotas, held_by_queue(snapshot)).tolist()
        self._subtree: list[list[int]] = quotas.subtree.tolist()
        self._local: list[list[int]] = quotas.local.tolist()
        self._borrowing: list[list[int]] = tree.borrowing_limit.tolist()
        self._parent: list[int] = tree.parent.tolist()

    def flavors(self, queue: int, request: Request) -> tuple[Request, ...]:
        """The request itself, or where any model will do and quotas tell models apart, once for each model, those first."""
        if not request.gpus or request.shape or request.gpu_model:
            return (request,)
        cells = self._cell[Resource.GPU][queue]
        if all(cell == cells[0] for cell in cells):
            return (request,)
        models = sorted(range(1, len(cells)), key=lambda model: (cells[model] == cells[0], self._models[model]))
        return tuple(replace(request, gpu_model=model) for model in models)

    def cells(self, queue: int, request: Request) -> Cells | None:
        """What one pod uses of the quotas of the queue; None if it has some of a resource, but none for such pods."""
        if not self.limits:
            return {}
        asked = {Resource.CPU: request.cpu_milli, Resource.MEMORY: request.memory_bytes, Resource.PODS: 1}
        if request.gpus:
            asked[Resource.GPU] = request.gpus
        flavor = self._flavor(request)
        found: dict[int, int] = {}
        for resource, amount in asked.items():
            cell = self._cell[resource][queue][flavor]
            if cell >= 0:
                found[cell] = amount
            elif amount and resource in self._limited[queue]:
                return None
        return found

    def _flavor(self, request: Request) -> int:
        if request.shape:
            return self._models.index(request.shape) if request.shape in self._models else 0
        return max(0, request.gpu_model)

    def most(self, queue: int, request: Request, pods: int, *, times: int) -> int:
        """How many times, at most `times`, the queue may start so many pods of this request now."""
        cells = self.cells(queue, request)
        if cells is None:
            return 0
        for column, amount in cells.items():
            if amount:
                times = min(times, max(0, self._available(queue, column)) // (amount * pods))
        return times

    def short(self, queue: int, request: Request, pods: int) -> Shortage | None:
        """The first cell of which the queue may not use enough for so many pods; None if it has no quota for such pods."""
        for column, amount in (self.cells(queue, request) or {}).items():
            left = max(0, self._available(queue, column))
            if left < amount * pods:
                flavor, resource = self._tree.cells[column]
                used, nominal = self._used[queue][column], int(self._tree.nominal[queue, column])
                return Shortage(flavor=flavor, resource=resource, left=left, used=used, nominal=nominal)
        return None

    def use(self, queue: int, request: Request, pods: int) -> None:
        """Count pods against the queue, and what goes beyond what it keeps to itself against the cohorts above it.

        Fewer than none take back what was counted last.
        """
        for column, amount in (self.cells(queue, request) or {}).items():
            at, more = queue, amount * pods
            while at >= 0 and more:
                before = max(0, self._used[at][column] - self._local[at][column])
                self._used[at][column] += more
                more = max(0, self._used[at][column] - self._local[at][column]) - before
                at = self._parent[at]

    def _available(self, queue: int, column: int) -> int:
        """As `quota.available`, of one cell."""
        left = self._subtree[queue][column] - self._used[queue][column]
        parent = self._parent[queue]
        if parent < 0:
            return left
        local = self._local[queue][column]
        above = self._available(parent, column)
        if (limit := self._borrowing[queue][column]) < NO_LIMIT:
            taken = max(0, self._used[queue][column] - local)
            above = min(above, self._subtree[queue][column] - local - taken + limit)
        return max(0, local - self._used[queue][column]) + above


def held_by_queue(snapshot: Snapshot) -> Ints:
    """What the pods that have not ended hold, against each queue itself: [queues, cells]."""
    tree, held, workloads = snapshot.queues, snapshot.allocations, snapshot.workloads
    own = np.zeros((len(tree.names), len(tree.cells)), dtype=np.int64)
    if not workloads.key.size or not tree.cells:
        return own
    row = np.minimum(np.searchsorted(workloads.key, held.workload_key), workloads.key.size - 1)
    lives = np.flatnonzero((held.seen != Seen.ENDED) & (workloads.key[row] == held.workload_key))
    queue, model = workloads.queue[row[lives]], held.gpu_model[lives]
    columns = {
        Resource.CPU: held.cpu_milli,
        Resource.MEMORY: held.memory_bytes,
        Resource.GPU: held.gpus,
        Resource.PODS: np.ones_like(held.gpus),
    }
    for resource, column in columns.items():
        amount = column[lives]
        cell = cell_of(tree, snapshot.gpu_models, resource)[queue, np.where(held.gpus[lives] > 0, model, 0)]
        counted = cell >= 0
        np.add.at(own, (queue[counted], cell[counted]), amount[counted])
    return own


def cell_of(tree: QueueTree, models: Sequence[str], resource: Resource) -> Ints:
    """The column of the quota that a resource with such GPUs counts against, -1 for none: [queues, models]."""
    column = {flavor: at for at, (flavor, one) in enumerate(tree.cells) if one == resource}
    found = np.full((len(tree.names), len(models)), -1, dtype=np.int64)
    if OTHER_FLAVOR in column:
        found[tree.defined[:, column[OTHER_FLAVOR]]] = column[OTHER_FLAVOR]
    for number, model in enumerate(models):
        if number and model in column:
            found[tree.defined[:, column[model]], number] = column[model]
    return found
