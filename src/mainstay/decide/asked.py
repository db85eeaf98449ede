"""What the shapes of a cycle ask for, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from mainstay.decide.allowance import Allowance
from mainstay.decide.columns import Requests
from mainstay.decide.flavors import Flavors
from mainstay.decide.kernel import CPU, GPUS, MEMORY, NONE
from mainstay.decide.placement.fit import LACKING, Free, Request, cluster_number, feasible
from mainstay.decide.rows import rows_of_sets
from mainstay.domain.affinity import Restriction
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import is_shape
from mainstay.domain.snapshot import PODS, Snapshot, WorkloadTable

Column = TypeVar("Column", Ints, Bools)
RANKS_MAX = 1 << 16
"""Larger gangs are placed one by one."""
REMEMBERED_MAX = 1 << 21
"""Requests times blocks of nodes: 48 MiB."""


class AskedColumns:
    """The requests of all shapes; those of shapes with choices or slices of GPUs once they are learned."""

    def __init__(
        self,
        snapshot: Snapshot,
        free: Free,
        allowance: Allowance,
        *,
        rows: Ints,
        numbers: Ints,
        policy: Ints,
    ) -> None:
        """`numbers` are those of the shapes of these rows of workloads, from 0. `policy` [queues]: by the rankings of
        which policy nodes are chosen for their work; NONE: the caller chooses them.
        """
        self._free, self._allowance = free, allowance
        table = snapshot.workloads
        _, first = np.unique(numbers, return_index=True)
        row = rows[first]
        slices = np.array([is_shape(model) for model in snapshot.gpu_models], dtype=np.bool_)
        known = ~np.isin(table.key[row], np.fromiter(table.choices, dtype=np.int64, count=len(table.choices)))
        known &= ~slices[table.gpu_model[row]]
        where, mask = np.unique(np.stack((table.restriction[row], table.cluster[row])), axis=1, return_inverse=True)
        names, clusters = snapshot.cluster_names, snapshot.nodes.clusters
        groups = allowance.groups.each
        self._groups = groups
        self._where = [
            (snapshot.restrictions[restriction], cluster_number(names[cluster], clusters), flavors)
            for restriction, cluster in where.T.tolist()
            for flavors in groups
        ]
        self._learned: dict[int, Request] = {}
        self._within: dict[tuple[int, bytes], int] = {}
        """Numbers of masks of nodes whose GPUs have what is asked for."""
        self._count = row.size * len(groups)
        self._policy = policy[table.queue[row]]
        """[shapes] As that of their queues."""
        shapes, gpus = np.arange(row.size), table.gpus[row]
        model = np.where(gpus > 0, table.gpu_model[row], 0)
        amounts = np.zeros((row.size, free.nodes.weight.size), dtype=np.int64)
        amounts[:, CPU], amounts[:, MEMORY], amounts[:, GPUS] = table.cpu_milli[row], table.memory_bytes[row], gpus
        blocks = free.nodes.changes.size
        self._often = np.bincount(numbers, minlength=row.size)
        """[shapes] So many workloads have it."""
        self._slots_max = REMEMBERED_MAX // max(1, blocks)
        slot = _slots(self._often, slots=self._slots_max // len(groups))
        lacking = np.zeros(row.size, dtype=np.bool_)
        for name, column in table.others.items():
            if name in free.others:
                amounts[:, free.others[name]] = column[row]
            else:
                lacking |= column[row] > 0
        if PODS in free.others:
            amounts[:, free.others[PODS]] = 1
        amounts[lacking, CPU] = LACKING
        for at, beside in free.headroom.items():
            amounts[:, beside] = np.where(gpus == 0, amounts[:, at], 0)
        masks = [feasible(free, _nothing(*where)) for where in self._where]
        group = np.tile(np.arange(len(groups)), row.size)
        nodes_of = np.array([min(flavors, default=0) for flavors in groups], dtype=np.int64)

        def each(column: Column) -> Column:
            """Of a shape, once for each group of nodes."""
            return np.repeat(column, len(groups), axis=0)

        slot = np.where(each(slot) == NONE, NONE, each(slot) * len(groups) + group)
        self._slots = int(slot.max(initial=NONE)) + 1
        """So many are given away. The last row behind them is that of gangs."""
        remembered = self._slots + 1, blocks
        self.requests = Requests(
            begin=np.where(known, shapes * len(groups), NONE),
            end=(shapes + 1) * len(groups),
            ranks=table.nodes[row],
            least=table.nodes_min[row],
            asks=(table.volumes[row] > 0)
            | _prefers(snapshot)[table.restriction[row]]
            | ((table.topology[row] > 0) & (table.nodes[row] > 1))
            | (table.nodes[row] > RANKS_MAX)
            | (self._policy == NONE)
            | _has_sets(table, row),
            amounts=each(amounts),
            ranking=each(2 * self._policy + (gpus == 0)),
            model=each(model),
            any_model=each((gpus > 0) & (model == 0)),
            quota=each(np.stack((table.cpu_milli[row], table.memory_bytes[row], gpus, np.ones_like(gpus)), axis=1)),
            flavor=each(model) + nodes_of[group] * len(snapshot.gpu_models),
            mask=each(mask.reshape(-1)) * len(groups) + group,
            masks=np.array(masks, dtype=np.bool_).reshape(len(masks), free.key.size),
            image=each(self._images(snapshot)[row]),
            slot=slot,
            node=np.full(remembered, NONE, dtype=np.int64),
            score=np.zeros(remembered),
            after=np.full(remembered, NONE, dtype=np.int64),
        )

    def _images(self, snapshot: Snapshot) -> Ints:
        """[workloads] Row of `Nodes.images`; NONE."""
        asked = snapshot.workloads.image
        if asked is None or not self._free.images:
            return np.full(snapshot.workloads.key.size, NONE, dtype=np.int64)
        rows = np.full(len(snapshot.images), NONE, dtype=np.int64)
        rows[list(self._free.images)] = list(self._free.images.values())
        return rows[asked]

    def request(self, number: int, *, model: int) -> Request:
        """The request with this number, of this model of GPUs."""
        if number in self._learned:
            return replace(self._learned[number], gpu_model=model)
        asked = self.requests
        restriction, cluster, flavors = self._where[int(asked.mask[number])]
        cpu_milli, memory_bytes, gpus = asked.amounts[number, : GPUS + 1].tolist()
        others = ((name, int(asked.amounts[number, column])) for name, column in self._free.others.items())
        return Request(
            cpu_milli=cpu_milli,
            memory_bytes=memory_bytes,
            gpus=gpus,
            gpu_model=model,
            others=tuple((name, amount) for name, amount in sorted(others) if amount and name != PODS),
            cluster=cluster,
            restriction=restriction,
            flavors=flavors,
        )

    def keep(self, free: Free, late: Bools) -> None:
        """Those of `late` [shapes] may use only what is left beside the start that was reserved last, as `free` has it."""
        self._free, before = free, self.requests
        amounts = np.zeros((before.amounts.shape[0], free.nodes.weight.size), dtype=np.int64)
        amounts[:, : before.amounts.shape[1]] = before.amounts
        rows, groups = np.flatnonzero(late), len(self._groups)
        learned = [
            np.arange(before.begin[row], before.end[row])
            for row in rows[before.begin[rows] >= late.size * groups].tolist()
        ]
        rows = np.concatenate(((rows[:, np.newaxis] * groups + np.arange(groups)).reshape(-1), *learned))
        for column, later in free.kept[-1].items():
            amounts[rows, later] = amounts[rows, column]
        self.requests = before._replace(amounts=amounts)

    def learn(self, number: int, requests: Sequence[Request]) -> None:
        """The choices of the shape with this number."""
        groups = self._groups
        begin, mask = self._count, self.requests.mask[number * len(groups)]
        self._count += len(requests) * len(groups)
        while self._count > self.requests.model.size:
            self._grow()
        asked = self.requests
        here = ((choice, group) for choice in requests for group in range(len(groups)))
        for at, (choice, group) in enumerate(here, begin):
            request = self._learned[at] = replace(choice, flavors=groups[group])
            asked.amounts[at] = self._free.amounts(request)
            asked.ranking[at] = 2 * self._policy[number] + (not request.gpus)
            asked.model[at] = request.gpu_model
            asked.any_model[at] = request.gpus and not request.gpu_model and not request.shape
            asked.quota[at], asked.flavor[at] = self._allowance.asked(request)
            asked.mask[at] = self._mask(mask + group, request.reach)
            asked.image[at] = self._free.images.get(choice.image, NONE)
        asked.begin[number], asked.end[number] = begin, self._count
        self._remember(number, begin)

    def _remember(self, number: int, begin: int) -> None:
        """Slots for what the shape with this number has learned, from `begin` on: its own, and more as long as there are some.

        None where only one workload has it, or where shapes that more have took them all; a gang uses none.
        """
        groups = len(self._groups)
        own = self.requests.slot[number * groups : (number + 1) * groups]
        if own[0] == NONE or self._often[number] < 2 or self.requests.ranks[number] > 1:
            return
        more = min(self._count - begin - groups, self._slots_max - self._slots)
        slots = np.concatenate((own, np.arange(self._slots, self._slots + more)))
        self._slots += more
        while self._slots >= self.requests.after.shape[0]:
            self._grow_remembered()
        self.requests.slot[begin : begin + slots.size] = slots

    def _grow_remembered(self) -> None:
        """Room for twice as many slots, of which nothing is known yet."""
        asked, gangs = self.requests, self.requests.after.shape[0] - 1
        more = min(gangs, self._slots_max - gangs) + 1, asked.after.shape[1]
        self.requests = asked._replace(
            node=np.concatenate((asked.node[:gangs], np.full(more, NONE, dtype=np.int64))),
            score=np.concatenate((asked.score[:gangs], np.zeros(more))),
            after=np.concatenate((asked.after[:gangs], np.full(more, NONE, dtype=np.int64))),
        )

    def _mask(self, mask: int, reach: Bools | None) -> int:
        """The number of a mask of nodes within `reach`."""
        if reach is None:
            return mask
        key = mask, reach.tobytes()
        if key not in self._within:
            masks = self.requests.masks
            self._within[key] = masks.shape[0]
            self.requests = self.requests._replace(masks=np.concatenate((masks, (masks[mask] & reach)[np.newaxis])))
        return self._within[key]

    def _grow(self) -> None:
        """Room for twice as many requests."""
        asked = self.requests
        self.requests = asked._replace(
            amounts=np.concatenate((asked.amounts, asked.amounts)),
            ranking=np.concatenate((asked.ranking, asked.ranking)),
            model=np.concatenate((asked.model, asked.model)),
            any_model=np.concatenate((asked.any_model, asked.any_model)),
            quota=np.concatenate((asked.quota, asked.quota)),
            flavor=np.concatenate((asked.flavor, asked.flavor)),
            mask=np.concatenate((asked.mask, asked.mask)),
            image=np.concatenate((asked.image, asked.image)),
            slot=np.concatenate((asked.slot, np.full_like(asked.slot, NONE))),
        )


def _prefers(snapshot: Snapshot) -> Bools:
    """[restrictions] Which prefer some nodes to others: of that the loop knows nothing."""
    found = (not isinstance(one, str) and bool(one.preferences) for one in snapshot.restrictions)
    return np.fromiter(found, dtype=np.bool_, count=len(snapshot.restrictions))


def _nothing(restriction: Restriction, cluster: int, flavors: Flavors) -> Request:
    return Request(
        cpu_milli=0,
        memory_bytes=0,
        gpus=0,
        gpu_model=0,
        restriction=restriction,
        cluster=cluster,
        flavors=flavors,
    )


def _has_sets(table: WorkloadTable, rows: Ints) -> Bools:
    """[rows] Of several shapes at once the loop knows nothing."""
    found = np.zeros(rows.size, dtype=np.bool_)
    found[rows_of_sets(table, rows)] = True
    return found


def _slots(often: Ints, *, slots: int) -> Ints:
    """A slot for each of the shapes that most workloads have, NONE for the others."""
    slot = np.full(often.size, NONE, dtype=np.int64)
    first = often.argsort(kind="stable")[::-1][:slots]
    slot[first] = np.arange(first.size)
    return slot
