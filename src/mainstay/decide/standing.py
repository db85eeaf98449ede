"""How each queue stands: what it uses of its quotas, what it has borrowed and lent, and its share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from mainstay.decide import quota
from mainstay.decide.allowance import held_by_queue
from mainstay.domain.queue import Cell
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
class Standing:
    """Of one queue or cohort."""

    cells: Mapping[Cell, CellUse]
    """Those that it has a quota of."""
    share: float
    """Its weighted dominant share in thousandths: of what it could borrow, the largest part that it does."""


def standings(snapshot: Snapshot, *, tenant: str | None = None) -> tuple[Standing, ...]:
    """By row of the tree. With a tenant, `used` counts its workloads alone. O(allocations + queues × cells)."""
    tree = snapshot.queues
    quotas = quota.quotas_of(tree)
    used = quota.usage(quotas, held_by_queue(snapshot))
    left = np.maximum(0, quota.available(quotas, used))
    shares = quota.shares(quotas, used)
    borrowed = np.where(tree.parent[:, np.newaxis] >= 0, np.maximum(0, used - quotas.subtree), 0)
    lent = np.maximum(0, quotas.subtree - np.maximum(used, 0) - left)
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
        )
        for row in range(len(tree.names))
    )


def _of_tenant(snapshot: Snapshot, tenant: str) -> Snapshot:
    theirs = [key for key, (owner, _, _) in snapshot.owners.items() if owner == tenant]
    mine = np.isin(snapshot.allocations.workload_key, np.array(theirs, dtype=np.int64))
    columns = {field.name: getattr(snapshot.allocations, field.name)[mine] for field in fields(AllocationTable)}
    return replace(snapshot, allocations=AllocationTable(**columns))
