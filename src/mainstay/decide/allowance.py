"""What the queues may still use of their quotas, lowered as a cycle gives places away.

`quota.available` says it for all queues at once; here it is asked for one queue at a time, again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, product
from math import prod
from typing import TypeAlias

import numpy as np

from mainstay.decide import kernel, quota
from mainstay.decide.columns import Quota
from mainstay.decide.flavors import flavors_at, groups_of
from mainstay.decide.kernel import UNNAMED
from mainstay.decide.placement.fit import Request
from mainstay.decide.placement.sets import Part, Parts
from mainstay.decide.rows import rows_by_key
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.preemption import Slot
from mainstay.domain.queue import OTHER_FLAVOR, Resource
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


RESOURCES = tuple(Resource)
GPU = RESOURCES.index(Resource.GPU)
FLAVORS_MAX = 64
"""So many ways to choose nodes and a model for each of several pod sets are tried at most."""


class Allowance:
    """Quotas and what is used of them. A resource of which a queue has no quota at all is not limited in it."""

    def __init__(self, snapshot: Snapshot) -> None:
        tree, self._models, self._flavors = snapshot.queues, snapshot.gpu_models, snapshot.flavors
        self._snapshot, self._tree = snapshot, tree
        self.groups = groups_of(tree, snapshot.flavors)
        self.limits = bool(tree.cells)
        """Whether there are any quotas."""
        quotas = quota.quotas_of(tree)
        cell = np.stack([cell_of(snapshot, resource) for resource in RESOURCES])
        of_resource = np.array([[resource == one for _, one in tree.cells] for resource in RESOURCES], dtype=np.bool_)
        self.quota = Quota(
            used=quota.usage(quotas, held_by_queue(snapshot)),
            subtree=quotas.subtree,
            local=quotas.local,
            borrowing=tree.borrowing_limit.copy(),
            parent=tree.parent.copy(),
            cell=cell,
            limited=np.any(of_resource[:, np.newaxis, :] & tree.defined, axis=2),
            models=self._order_of_models(cell[GPU]),
            tries=self.groups.tried.copy(),
        )

    def _order_of_models(self, cell: Ints) -> Ints:
        """[queues, flavors of nodes, models]: those that have a quota of their own first, then by name, then UNNAMED."""
        cell = cell.reshape(cell.shape[0], -1, len(self._models))
        by_name = np.array(sorted(range(1, len(self._models)), key=self._models.__getitem__), dtype=np.int64)
        order = np.zeros_like(cell)
        for queue, flavor in np.argwhere((cell != cell[:, :, :1]).any(axis=2)).tolist():
            other = cell[queue, flavor, by_name] == cell[queue, flavor, 0]
            order[queue, flavor] = np.append(by_name[other.argsort(kind="stable")], UNNAMED)
        return order

    def flavors(self, queue: int, request: Request) -> tuple[Request, ...]:
        """The request itself; where the queue tells nodes apart by their flavors, once for each group of them, in order; and
        where any model will do and quotas tell models apart, once for each model of these, those that have a quota first, and
        for those of no known model.
        """
        found: list[Request] = []
        for flavors in self.groups.of(queue):
            here = replace(request, flavors=flavors) if flavors else request
            models = self.quota.models[queue, min(flavors, default=0)]
            if not request.gpus or request.shape or request.gpu_model or not models[0]:
                found.append(here)
            else:
                found += [replace(here, gpu_model=model) for model in models.tolist()]
        return tuple(found)

    def flavors_of(self, queue: int, parts: Parts) -> Iterator[Parts]:
        """The same of all parts together: every combination, the last part varied first; of more than FLAVORS_MAX so many, and
        those in which all parts lie on one group of nodes.
        """
        each = [[replace(part, request=request) for request in self.flavors(queue, part.request)] for part in parts]
        found: Iterator[Parts] = islice(product(*each), FLAVORS_MAX)
        if prod(map(len, each)) <= FLAVORS_MAX:
            return found
        return chain(found, self._together(queue, each))

    def _together(self, queue: int, each: Sequence[Sequence[Part]]) -> Iterator[Parts]:
        for flavors in self.groups.of(queue):
            here = [[part for part in parts if part.request.flavors == flavors] for parts in each]
            yield from islice(product(*here), FLAVORS_MAX)

    def words_of(self, request: Request) -> str:
        """The flavors of the nodes of one of its `flavors`, and the model, in words: `spot`, `other nodes`, `spot with H100`."""
        names = [name for name in (self._flavors[number] for number in request.flavors) if name]
        nodes = ("other nodes" if 0 in request.flavors else " and ".join(names)) if request.flavors else ""
        model = self._models[request.gpu_model] if request.gpu_model > 0 and not request.shape else request.shape
        model = "GPUs of no known model" if request.gpu_model == UNNAMED else model
        return " with ".join(filter(None, (nodes, model)))

    def cells_of(self, queue: int, parts: Parts) -> Cells | None:
        """As `cells`, of all ranks together."""
        found: dict[int, int] = {}
        for part in parts:
            cells = self.cells(queue, part.request)
            if cells is None:
                return None
            for column, amount in cells.items():
                found[column] = found.get(column, 0) + amount * part.ranks
        return found

    def may_use_parts(self, queue: int, parts: Parts) -> bool:
        """Whether the queue may start all of them together now."""
        if len(parts) == 1:
            return self.may_use(queue, parts[0].request, parts[0].ranks)
        cells = self.cells_of(queue, parts)
        return cells is not None and all(self._left(queue, column) >= amount for column, amount in cells.items())

    def use_parts(self, queue: int, parts: Parts) -> None:
        """Count all of them against the queue."""
        for part in parts:
            self.use(queue, part.request, part.ranks)

    def cells(self, queue: int, request: Request) -> Cells | None:
        """What one pod uses of the quotas of the queue; None if it has some of a resource, but none for such pods."""
        amounts, flavor = self.asked(request)
        if not kernel.may_use(self.quota, queue, amounts, flavor, 0):
            return None
        columns = self.quota.cell[:, queue, flavor].tolist()
        return {column: amount for column, amount in zip(columns, amounts.tolist(), strict=True) if column >= 0}

    def asked(self, request: Request) -> tuple[Ints, int]:
        """What one pod uses of quotas [resources], and the number of its node's flavor and its model or slice (flavors.py)."""
        amount = {Resource.CPU: request.cpu_milli, Resource.MEMORY: request.memory_bytes, Resource.GPU: request.gpus}
        flavor = max(0, request.gpu_model)
        if request.shape:
            flavor = self._models.index(request.shape) if request.shape in self._models else 0
        flavor += min(request.flavors, default=0) * len(self._models)
        return np.array([amount.get(resource, 1) for resource in RESOURCES], dtype=np.int64), flavor

    def may_use(self, queue: int, request: Request, pods: int) -> bool:
        """Whether the queue may start so many pods of this request now."""
        return kernel.may_use(self.quota, queue, *self.asked(request), pods)

    def most_pods(self, queue: int, request: Request, most: int) -> int:
        """How many pods of this request the queue may start now, at most so many."""
        return kernel.most_pods(self.quota, queue, *self.asked(request), most)

    def short(self, queue: int, parts: Parts) -> Shortage | None:
        """The first cell of which the queue may not use enough for all of them; None if it has no quota for such pods."""
        for column, amount in (self.cells_of(queue, parts) or {}).items():
            left = self._left(queue, column)
            if left < amount:
                flavor, resource = self._tree.cells[column]
                used, nominal = int(self.quota.used[queue, column]), int(self._tree.nominal[queue, column])
                return Shortage(flavor=flavor, resource=resource, left=left, used=used, nominal=nominal)
        return None

    def _left(self, queue: int, column: int) -> int:
        return max(0, kernel.available(self.quota, queue, column))

    def use(self, queue: int, request: Request, pods: int) -> None:
        """Count pods against the queue, and what goes beyond what it keeps to itself against the cohorts above it."""
        kernel.use(self.quota, queue, *self.asked(request), pods)

    def use_slots(self, queue: int, slots: Sequence[Slot]) -> bool:
        """Whether the queue may use these places now, all together; then it does."""
        models = {model: number for number, model in enumerate(self._models)}
        flavors = flavors_at(self._snapshot, np.array([slot.node_key for slot in slots], dtype=np.int64)).tolist()
        asked = [
            (
                np.array(
                    [slot.resources.cpu_milli, slot.resources.memory_bytes, slot.resources.gpus, 1], dtype=np.int64
                ),
                flavor * len(models) + (models.get(slot.resources.gpu_model, 0) if slot.resources.gpus else 0),
            )
            for slot, flavor in zip(slots, flavors, strict=True)
        ]
        cells = Counter[int]()
        for amounts, flavor in asked:
            cells.update(dict(zip(self.quota.cell[:, queue, flavor].tolist(), amounts.tolist(), strict=True)))
        if any(self._left(queue, column) < amount for column, amount in cells.items() if column >= 0 and amount):
            return False
        for amounts, flavor in asked:
            kernel.use(self.quota, queue, amounts, flavor, 1)
        return True


def held_by_queue(snapshot: Snapshot) -> Ints:
    """What the pods that have not ended hold, against each queue itself: [queues, cells]. Of which flavor that is, their node
    says as it is now.
    """
    tree, workloads = snapshot.queues, snapshot.workloads
    own = np.zeros((len(tree.names), len(tree.cells)), dtype=np.int64)
    if not workloads.key.size or not tree.cells:
        return own
    lives, queue, number = _living(snapshot)
    for resource in RESOURCES:
        amount = _held_of(snapshot, resource)[lives]
        cell = cell_of(snapshot, resource)[queue, number]
        counted = cell >= 0
        np.add.at(own, (queue[counted], cell[counted]), amount[counted])
    return own


def uses_of(snapshot: Snapshot, column: int) -> tuple[Ints, Ints]:
    """Pods that count against the cell in this column, as rows of the allocations, and what each holds of it."""
    lives, queue, number = _living(snapshot)
    resource = Resource(snapshot.queues.cells[column][1])
    pods = lives[cell_of(snapshot, resource)[queue, number] == column]
    return pods, _held_of(snapshot, resource)[pods]


def _living(snapshot: Snapshot) -> tuple[Ints, Ints, Ints]:
    """Pods that have not ended, as rows of the allocations; their queues; their flavors and models as one number (flavors.py)."""
    held, workloads = snapshot.allocations, snapshot.workloads
    row = rows_by_key(workloads.key, held.workload_key)
    lives = np.flatnonzero((held.seen != Seen.ENDED) & (row >= 0))
    model = np.where(held.gpus[lives] > 0, held.gpu_model[lives], 0)
    number = flavors_at(snapshot, held.node_key[lives]) * len(snapshot.gpu_models) + model
    return lives, workloads.queue[row[lives]], number


def _held_of(snapshot: Snapshot, resource: Resource) -> Ints:
    """[allocations] What each pod holds of it."""
    held = snapshot.allocations
    columns = {Resource.CPU: held.cpu_milli, Resource.MEMORY: held.memory_bytes, Resource.GPU: held.gpus}
    return columns[resource] if resource in columns else np.ones_like(held.gpus)


def cell_of(snapshot: Snapshot, resource: Resource) -> Ints:
    """The column of the quota that a resource counts against on nodes of such a flavor, with such GPUs, -1 for none: [queues,
    flavors of nodes x models].
    """
    tree, models = snapshot.queues, snapshot.gpu_models
    column = {flavor: at for at, (flavor, one) in enumerate(tree.cells) if one == resource}
    found = np.full((len(tree.names), len(models)), -1, dtype=np.int64)
    if OTHER_FLAVOR in column:
        found[tree.defined[:, column[OTHER_FLAVOR]]] = column[OTHER_FLAVOR]
    for number, model in enumerate(models):
        if number and model in column:
            found[tree.defined[:, column[model]], number] = column[model]
    found = np.tile(found, (1, len(snapshot.flavors)))
    for number, flavor in enumerate(snapshot.flavors):
        if number and flavor in column:
            begin = number * len(models)
            found[tree.defined[:, column[flavor]], begin : begin + len(models)] = column[flavor]
    return found
