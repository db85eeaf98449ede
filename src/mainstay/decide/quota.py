"""How much each queue may still use, and who is due next: the numbers of the queue tree (scheduling.md rows 2 and 11).

The semantics are Kueue's, cell by cell. A queue keeps to itself what its lending limit withholds (`local`); the rest is
stored in its cohort, where its siblings find it. Use goes against what is local first and against the cohort for
the rest. All cells of all queues are done in one pass per level of the tree.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.queue import NO_LIMIT, QueueTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What the shape of a tree says by itself, whatever is used. Arrays are [queues, cells]."""

    tree: QueueTree
    levels: tuple[slice[int, int, None], ...]
    """Rows by depth, roots first."""
    subtree: Ints
    """Its own quota, and what its children lend it."""
    local: Ints
    """The part of it that nobody outside may use."""
    potential: Ints
    """The most it could ever use, were all else idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Dominant resource share per queue: of all resources, the largest ratio of what it borrows to what it could.

    Arrays are [queues]. Compare two queues by (`infinite`, `weighted`): the lower is due first, the higher yields first.
    """

    ratio: Floats
    """In thousandths, before its weight."""
    weighted: Floats
    """Divided by its weight; the bare ratio where the weight is 0 and it borrows."""
    borrowing: Bools
    infinite: Bools
    """It has the weight 0 and borrows: last of all, and first to yield."""


def quotas_of(tree: QueueTree) -> Quotas:
    """O(queues × cells); kept for as long as the tree stays the same."""
    bounds = np.searchsorted(tree.depth, np.arange(int(tree.depth.max(initial=-1)) + 2))
    levels = tuple(slice(int(begin), int(end)) for begin, end in itertools.pairwise(bounds))
    subtree = tree.nominal.copy()
    local = np.zeros_like(subtree)
    for level in reversed(levels):
        kept = np.maximum(0, subtree[level] - tree.lending_limit[level])
        local[level] = np.where(tree.lending_limit[level] < NO_LIMIT, kept, 0)
        if level.start:
            np.add.at(subtree, tree.parent[level], subtree[level] - local[level])
    potential = subtree.copy()
    for level in levels[1:]:
        reachable = local[level] + potential[tree.parent[level]]
        potential[level] = np.minimum(reachable, subtree[level] + tree.borrowing_limit[level])
    return Quotas(tree=tree, levels=levels, subtree=subtree, local=local, potential=potential)


def usage(quotas: Quotas, own: Ints) -> Ints:
    """What counts against each queue and cohort. `own` [queues, cells]: what the workloads of each queue hold."""
    used = own.copy()
    for level in reversed(quotas.levels[1:]):
        np.add.at(used, quotas.tree.parent[level], np.maximum(0, used[level] - quotas.local[level]))
    return used


def available(quotas: Quotas, used: Ints) -> Ints:
    """How much more each may use now: what is idle of its own, and what it may borrow.

    [queues, cells]. Negative where more is used than there is, as when a quota was lowered under running work.
    """
    tree, left = quotas.tree, quotas.subtree - used
    for level in quotas.levels[1:]:
        local, at_parent = quotas.local[level], left[tree.parent[level]]
        stored = quotas.subtree[level] - local
        taken = np.maximum(0, used[level] - local)
        borrowable = np.minimum(at_parent, stored - taken + tree.borrowing_limit[level])
        idle = np.maximum(0, local - used[level])
        left[level] = idle + np.where(tree.borrowing_limit[level] < NO_LIMIT, borrowable, at_parent)
    return left


def shares(quotas: Quotas, used: Ints) -> Share:
    """The fair-share value of every queue and cohort at this use; add a workload's request to ask what it would be.

    Flavors of one resource are summed, as what is borrowed of one is as good as of another; a root borrows nothing.
    """
    tree = quotas.tree
    inner = tree.parent >= 0
    over = np.where(inner[:, None], np.maximum(0, used - quotas.subtree), 0)
    names = [resource for _, resource in tree.cells]
    resources = sorted(set(names))
    of_resource = np.array([[name == resource for resource in resources] for name in names], dtype=np.float64)
    of_resource = of_resource.reshape(len(names), len(resources))
    borrowed = over @ of_resource
    lendable = (quotas.potential @ of_resource)[tree.parent]
    ratios = np.where(lendable > 0, borrowed * 1000 / np.maximum(lendable, 1), 0.0)
    ratio: Floats = ratios.max(axis=1, initial=0.0)
    borrowing: Bools = np.any(over > 0, axis=1)
    infinite: Bools = borrowing & (tree.weight == 0)
    weighted: Floats = ratio / np.where(tree.weight == 0, 1.0, tree.weight)
    return Share(ratio=ratio, weighted=weighted, borrowing=borrowing, infinite=infinite)
