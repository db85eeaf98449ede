"""In which order those who wait would have their turns if everything found a place: what a place in line is counted by.

Within a queue that is the order of admission. Between queues, and between cohorts, whose share would be the least with their
next goes first (turns.py), which is a merge of sequences that need not ascend: large work is followed by small. Merging them by
their heads is sorting by the highest key that each has had so far, since what is below that follows its predecessor at once.
So it takes a sort for each level of the tree, and no turn.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide import admission
from mainstay.decide.turns import asked_by, ledger_of
from mainstay.domain.arrays import Ints
from mainstay.domain.snapshot import Snapshot


def turn_order(snapshot: Snapshot) -> Ints:
    """Rows of `snapshot.workloads` that may start now, who has the first turn first. O(n log n) for each level of the tree."""
    rows, tree = admission.order(snapshot), snapshot.queues
    if len(tree.names) == 1 or not rows.size:
        return rows
    ledger, asked = ledger_of(snapshot), asked_by(snapshot, rows).astype(np.float64)
    rank = np.arange(rows.size)
    node, place = snapshot.workloads.queue[rows], rank.copy()
    for depth in range(int(tree.depth.max()), -1, -1):
        here = np.flatnonzero(tree.depth[node] == depth)
        here = here[np.lexsort((place[here], node[here]))]
        begins = np.searchsorted(node[here], node[here])
        total = np.concatenate((np.zeros((1, asked.shape[1])), asked[here].cumsum(axis=0)))
        held = ledger.held[node[here]] + total[1:] - total[begins]
        share = ledger.shares(node[here], held)
        key = np.empty(here.size, dtype=np.int64)
        key[np.lexsort((rank[here], share))] = np.arange(here.size)
        # The highest of the same queue or cohort so far: those before are kept apart by what is above all their keys.
        key = np.maximum.accumulate(key + begins * here.size) - begins * here.size
        place[here[np.lexsort((np.arange(here.size), key))]] = np.arange(here.size)
        # What goes beyond what the node keeps to itself counts above it.
        beyond = held - ledger.kept[node[here]]
        asked[here] = np.maximum(0, beyond) - np.maximum(0, beyond - asked[here])
        node = np.where(tree.depth[node] == depth, tree.parent[node], node)
    return rows[place.argsort()]
