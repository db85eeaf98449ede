"""Which nodes a queue tells apart: by the flavors of nodes of which it has quotas (docs/decisions/0025).

With M models of GPUs, what runs on a node of flavor f with GPUs of model m has the number f * M + m; it counts against the quota
that a queue has of the flavor, else of the model, else of what is of no flavor.

A queue with quotas of some flavors tries the nodes of each, in the order of the flavors, and all other nodes last. One without
takes all nodes for the same. So there are as many groups of nodes to ask about as some queue tells apart, and one of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mainstay.decide.rows import rows_by_key
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.queue import QueueTree
from mainstay.domain.snapshot import Snapshot

Flavors = tuple[int, ...]
"""Numbers of flavors of nodes, ascending, 0 for nodes of none. Empty: all nodes. The first says against which quota it counts."""
ALL: Flavors = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Nodes that some queue tells from others."""

    each: tuple[Flavors, ...]
    """[groups] The first is ALL; then those of one flavor, in the order of flavors; then those of all others, of some queue."""
    tried: Bools
    """[queues, groups] Those that each queue tries, in their order. Of a queue that tells none apart: ALL."""

    def of(self, queue: int) -> tuple[Flavors, ...]:
        """Those that a queue tries, in order."""
        return tuple(self.each[group] for group in np.flatnonzero(self.tried[queue]).tolist())


def groups_of(tree: QueueTree, flavors: Sequence[str]) -> Groups:
    """`flavors` as `Snapshot.flavors`. O(queues x flavors)."""
    cells = [
        [column for column, (flavor, _) in enumerate(tree.cells) if number and flavor == name]
        for number, name in enumerate(flavors)
    ]
    own = np.stack([tree.defined[:, columns].any(axis=1) for columns in cells], axis=1)
    kinds, kind = np.unique(own, axis=0, return_inverse=True)
    by_kind = [_groups(np.flatnonzero(row).tolist(), len(flavors)) for row in kinds]
    found = {group for groups in by_kind for group in groups if group != ALL}
    each = (ALL, *sorted(found, key=lambda group: (0 in group, group)))
    tried = np.array([[group in groups for group in each] for groups in by_kind], dtype=np.bool_)
    return Groups(each=each, tried=tried[kind.reshape(-1)])


def _groups(own: Sequence[int], flavors: int) -> list[Flavors]:
    """Of a queue that has quotas of these, of so many with that of none."""
    rest = tuple(number for number in range(flavors) if number not in own)
    return [*((number,) for number in own), rest] if own else [ALL]


def flavors_at(snapshot: Snapshot, node_key: Ints) -> Ints:
    """[pods] The flavor of the node on which each lies; 0 where that is not there any more."""
    nodes = snapshot.nodes
    if nodes.flavor is None or not nodes.key.size:
        return np.zeros_like(node_key)
    row = rows_by_key(nodes.key, node_key)
    found = np.where(row >= 0, nodes.flavor[row], 0)
    for key, flavor in snapshot.left_out.items():
        found[node_key == key] = flavor
    return found
