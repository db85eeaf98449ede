"""The places that a workload is given: what must hold for a commit of them, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.domain.affinity import Restriction
from mainstay.domain.plan import CapacityLeft
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import Resources, total
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot


def capacity_guards(slots: Sequence[Slot], restriction: Restriction) -> list[CapacityLeft]:
    """Of each node the sum of what is taken there: one, or one for each kind of devices."""
    here: dict[int, list[Resources]] = {}
    for slot in slots:
        here.setdefault(slot.node_key, []).append(slot.resources)
    return [
        CapacityLeft(node_key=key, resources=amount, restriction=restriction, pods=len(held))
        for key, held in here.items()
        for amount in total(held)
    ]


def placed(snapshot: Snapshot, node_rows: Sequence[int], *, least: int, most: int, why: str = "") -> Reason:
    """That a workload has its places: one for each rank, or, of `least` to `most` that it could have, one for each it got.

    `why`: which of several choices it has and why, in words; empty where there was none.
    """
    numbers: dict[str, int | float | str] = {"nodes": node_names(snapshot, node_rows)}
    if why:
        numbers["detail"] = why
    if least == most:
        return Reason(code=Code.PLACED, numbers=numbers)
    numbers |= {"ranks": len(node_rows), "range": f"{least} to {most}"}
    return Reason(code=Code.PLACED_ELASTIC, numbers=numbers)


def node_names(snapshot: Snapshot, node_rows: Sequence[int]) -> str:
    """The nodes in words, at most three by name. Row -1: one that is gone."""
    names = [snapshot.nodes.names[row] if row >= 0 else "one that is gone" for row in dict.fromkeys(node_rows)]
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
