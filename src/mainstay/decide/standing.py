"""How each queue stands: what it uses of its quotas, has borrowed and lent, its share, and what would be fair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from mainstay.decide import admission, quota
from mainstay.decide.allowance import held_by_queue
from mainstay.decide.fair import fair_shares
from mainstay.decide.history import held_now, used_lately, with_all_below
from mainstay.decide.turns import asked_by, whole_fleet
from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.queue import Cell, QueueTree, Resource
from mainstay.domain.snapshot import AllocationTable, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class CellUse:
    """Of one quota, in the units of its resource."""

    used: int
    """By the queue, or by all below a cohort. Only that is of one tenant where one was asked for."""
    borrowed: int
    """Above what is its own."""
    lent: int
    """Of its own, what it could not have now because others use it."""
    available: int
    """What it may still use now, borrowing included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Parts of the whole fleet, 0 to 1, of the resource of which each is largest (CPU, memory, GPUs)."""

    fair: float
    """Its own, and of the rest its part by weight: what it had if everybody wanted all."""
    capped: float
    """The same if nobody has more than they hold and ask for, and others share what that leaves (Armada)."""
    held: float
    """What it holds now."""
    lately: float
    """What it has used lately; 0 where no history is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Of one queue or cohort."""

    cells: Mapping[Cell, CellUse]
    """Those that it has a quota of."""
    share: float
    """Its weighted dominant share in thousandths: of what it could borrow, the largest part that it does."""
    fairness: Fairness


def standings(snapshot: Snapshot, *, tenant: str | None = None) -> tuple[Standing, ...]:
    """By row of the tree. With a tenant, `used` counts its workloads alone. O(allocations + queues × cells)."""
    tree = snapshot.queues
    quotas = quota.quotas_of(tree)
    used = quota.usage(quotas, held_by_queue(snapshot))
    left = np.maximum(0, quota.available(quotas, used))
    shares = quota.shares(quotas, used)
    borrowed = np.where(tree.parent[:, np.newaxis] >= 0, np.maximum(0, used - quotas.subtree), 0)
    lent = np.maximum(0, quotas.subtree - np.maximum(used, 0) - left)
    fairness = fairness_of(snapshot)
    told = used if tenant is None else quota.usage(quotas, held_by_queue(_of_tenant(snapshot, tenant)))
    return tuple(
        Standing(
            cells={
                cell: CellUse(
                    used=int(told[row, column]),
                    borrowed=int(borrowed[row, column]),
                    lent=int(lent[row, column]),
                    available=int(left[row, column]),
                )
                for column, cell in enumerate(tree.cells)
                if tree.defined[row, column]
            },
            share=float(shares.weighted[row]),
            fairness=fairness[row],
        )
        for row in range(len(tree.names))
    )


def fairness_of(snapshot: Snapshot) -> tuple[Fairness, ...]:
    """By row of the tree.

    Nobody wants more than their quotas and what they may borrow let them have; what lending limits withhold from others is not
    looked at. O(allocations + waiting workloads + queues).
    """
    tree, whole = snapshot.queues, whole_fleet(snapshot)
    held, own = held_now(snapshot), _nominal(tree)
    wanted = np.minimum(held + _asked(snapshot), np.maximum(held, _most(tree)))
    parts, rows = wanted / whole, np.arange(len(tree.names))
    # Where nobody wants anything, that of which it has most.
    dominant = np.where(wanted.any(axis=1), parts.argmax(axis=1), (own / whole).argmax(axis=1))
    mine = (own / whole)[rows, dominant]
    capped = fair_shares(parent=tree.parent, weight=tree.weight, own=mine, demand=parts.max(axis=1))
    all_of_it = np.full(rows.size, np.inf)
    # If everybody wants all, it counts that of which each has most, whatever they want now.
    fair = fair_shares(parent=tree.parent, weight=tree.weight, own=(own / whole).max(axis=1), demand=all_of_it)
    columns: tuple[Floats, ...] = (
        fair,
        capped,
        (held / whole).max(axis=1),
        (used_lately(snapshot) / whole).max(axis=1),
    )
    return tuple(
        Fairness(fair=one, capped=other, held=holds, lately=used)
        for one, other, holds, used in zip(*(column.tolist() for column in columns), strict=True)
    )


def _asked(snapshot: Snapshot) -> Ints:
    """[queues, resources] By all that may start now."""
    rows = admission.order(snapshot)
    found = np.zeros((len(snapshot.queues.names), 3), dtype=np.int64)
    np.add.at(found, snapshot.workloads.queue[rows], asked_by(snapshot, rows))
    return with_all_below(snapshot.queues, found)


def _nominal(tree: QueueTree) -> Ints:
    """[queues, resources] Its own quota, all flavors together."""
    return np.stack([tree.nominal[:, cells].sum(axis=1) for cells in _cells(tree)], axis=1)


def _most(tree: QueueTree) -> Ints:
    """[queues, resources] What quotas let it have at most; everything where it has none of a resource."""
    potential = quota.quotas_of(tree).potential
    limited = np.stack([tree.defined[:, cells].any(axis=1) for cells in _cells(tree)], axis=1)
    most = np.stack([np.where(tree.defined, potential, 0)[:, cells].sum(axis=1) for cells in _cells(tree)], axis=1)
    return np.where(limited, most, np.iinfo(np.int64).max)


def _cells(tree: QueueTree) -> list[list[int]]:
    """Of each resource of a ledger the columns of its quotas."""
    return [
        [column for column, (_, one) in enumerate(tree.cells) if one == resource]
        for resource in (Resource.CPU, Resource.MEMORY, Resource.GPU)
    ]


def _of_tenant(snapshot: Snapshot, tenant: str) -> Snapshot:
    theirs = [key for key, (owner, _, _) in snapshot.owners.items() if owner == tenant]
    mine = np.isin(snapshot.allocations.workload_key, np.array(theirs, dtype=np.int64))
    columns = {field.name: getattr(snapshot.allocations, field.name)[mine] for field in fields(AllocationTable)}
    return replace(snapshot, allocations=AllocationTable(**columns))
