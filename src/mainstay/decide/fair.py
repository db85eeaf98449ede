"""What each queue should have of the fleet: its own first, the rest by weight, and nobody more than they ask for.

Water-filling, level by level of the tree: what a queue leaves goes to its siblings, by their weights, until all is given or
nobody wants more. Source: Armada, `UpdateFairShares` (demand-capped adjusted fair share; scheduling.md row 15), which does up
to ten rounds of it; here the level at which the water stands is worked out at once. The quota that comes first is KAI's
(fairness: deserved quota, then over quota by weight). The turns of a cycle end there, if everybody has work of every size:
whoever is lowest above their own, for their weight, is next.
"""

from __future__ import annotations

import numpy as np

from mainstay.domain.arrays import Floats, Ints


def fair_shares(*, parent: Ints, weight: Floats, own: Floats, demand: Floats) -> Floats:
    """[queues] Of each queue and cohort its part of the fleet, 0 to 1. Rows as in a tree: parents before their children.

    All arrays are [queues]. `own`: its quota as a part of the fleet, of a cohort beside those of its children. `demand`: what
    it holds and asks for, of queues alone (a cohort wants what its children do); infinite: what a queue would have if
    everybody wanted all. Quotas of more than there is shrink alike. O(queues log queues).
    """
    own, demand = own.copy(), demand.copy()
    children: list[list[int]] = [[] for _ in range(parent.size + 1)]
    for row in range(parent.size - 1, -1, -1):  # Children come after their parents.
        below = children[row]
        if below:
            own[row] += own[below].sum()
            demand[row] = demand[below].sum()
        children[parent[row]].append(row)  # -1, of roots, is the last.
    found = np.zeros(parent.size)
    for row in range(-1, parent.size):
        rows = np.array(children[row][::-1], dtype=np.int64)
        if rows.size:
            capacity = 1.0 if row < 0 else float(found[row])
            found[rows] = _split(capacity, weight=weight[rows], own=own[rows], demand=demand[rows])
    return found


def _split(capacity: float, *, weight: Floats, own: Floats, demand: Floats) -> Floats:
    """[siblings] Of so much, each its own as far as it wants it, and of the rest by weight what it still wants."""
    first: Floats = np.minimum(own, demand)
    taken = float(first.sum())
    if taken >= capacity:
        return first * (capacity / taken) if taken else first
    more = _filled(capacity - taken, weight=weight, room=demand - first)
    left = capacity - taken - float(more.sum())
    unweighted = weight == 0  # They have what nobody else wants.
    if left > 0 and unweighted.any():
        more += _filled(left, weight=unweighted.astype(np.float64), room=demand - first)
    found: Floats = np.minimum(first + more, demand)
    return found


def _filled(capacity: float, *, weight: Floats, room: Floats) -> Floats:
    """[siblings] As high as the water stands for each, min(room, weight * level), once so much is poured in."""
    found = np.zeros(room.size)
    rows = np.flatnonzero((weight > 0) & (room > 0))
    rows = rows[np.argsort(room[rows] / weight[rows], kind="stable")]
    weights = np.cumsum(weight[rows][::-1])[::-1]  # Of those that are not full yet: itself and all behind it.
    for at, row in enumerate(rows.tolist()):
        level = capacity / weights[at]
        if room[row] > weight[row] * level:
            found[rows[at:]] = weight[rows[at:]] * level
            break
        found[row] = room[row]
        capacity -= room[row]
    return found
