"""Whose turn it is: the order in which queues take what is free, by weighted dominant-resource fairness.

Every queue has an order of its own: higher priority first, then the older. Between queues, whoever holds the least for
its weight is next, counting what it would hold *with* its next workload (Ghodsi et al., Dominant Resource Fairness, NSDI
2011; hierarchical as in scheduling.md rows 11 and 14). What a queue has as its own does not count, only what it borrows.

A turn changes the share of one queue and of the cohorts above it, so that is all that is worked out again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mainstay.decide.compiled import compiled
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.queue import QueueTree

NOBODY = -1


class Ledger(NamedTuple):
    """What counts towards the share of each queue and cohort. Arrays are [queues, resources] unless said otherwise.

    All of it in whole numbers: sums do not depend on their order, so equal shares are equal.
    """

    parent: Ints
    """[queues] -1 for a root."""
    weight: Floats
    """[queues]"""
    own: Ints
    """What it has as its own: no share is counted below that."""
    lendable: Ints
    """What it could have at most; all shares are parts of it."""
    held: Ints
    """What its workloads hold now. Grows as a cycle places more."""


@compiled
def hold(ledger: Ledger, queue: int, amounts: Ints) -> None:
    """So much more [resources] for a queue, and for all cohorts above it."""
    while queue >= 0:
        for resource in range(amounts.size):
            ledger.held[queue, resource] += amounts[resource]
        queue = ledger.parent[queue]


@compiled
def share(ledger: Ledger, queue: int, amounts: Ints) -> float:
    """The weighted dominant share of a queue or cohort, would it hold so much more [resources]."""
    dominant = 0.0
    for resource in range(amounts.size):
        borrowed = ledger.held[queue, resource] + amounts[resource] - ledger.own[queue, resource]
        if borrowed > 0:
            dominant = max(dominant, borrowed / ledger.lendable[queue, resource])
    if ledger.weight[queue] > 0:
        return dominant / ledger.weight[queue]
    return np.inf if dominant > 0 else 0.0


class Line(NamedTuple):
    """Those who wait, by queue and in the order of each. A position is an index into arrays of [waiting]."""

    row: Ints
    """[waiting] Of the workload table."""
    queue: Ints
    """[waiting]"""
    rank: Ints
    """[waiting] Place in the order of all; decides between equal shares, the lower first."""
    asked: Ints
    """[waiting, resources]"""
    shape: Ints
    """[waiting] Number of its shape."""
    kind: Ints
    """[waiting] Number of its queue and shape together."""
    begin: Ints
    """[queues] Position of the next of each queue; its end if there is none."""
    end: Ints
    """[queues]"""
    shape_failed: Bools
    """[shapes] One found no place, so none of them is tried again: what is free only shrinks in a cycle."""
    kind_failed: Bools
    """[kinds] One is over the quota of its queue; those of other queues are still tried."""
    children: Ints
    """[queues] By parent, roots last."""
    first_child: Ints
    """[queues + 2] Index into `children` of the first child; those of number `queues` are the roots."""
    head: Ints
    """[queues + 1] Position of who is next of each queue or cohort, and of all; NOBODY."""
    share: Floats
    """[queues] What it would be with its head."""


def line_up(tree: QueueTree, ledger: Ledger, rows: Ints, *, queue: Ints, asked: Ints, shape: Ints) -> Line:
    """All `rows` of workloads, which are in the order of all; of each its queue, what it asks for and its shape's number."""
    count = len(tree.names)
    by_queue = queue.argsort(kind="stable")
    queue, shape = queue[by_queue], shape[by_queue]
    shapes, kind = int(shape.max(initial=-1)) + 1, shape
    if tree.cells:
        _, kind = np.unique(queue * shapes + shape, return_inverse=True)
    above = np.where(tree.parent < 0, count, tree.parent)
    line = Line(
        row=rows[by_queue],
        queue=queue,
        rank=by_queue,
        asked=asked[by_queue],
        shape=shape,
        kind=kind.astype(np.int64),
        begin=np.searchsorted(queue, np.arange(count)),
        end=np.searchsorted(queue, np.arange(count), side="right"),
        shape_failed=np.zeros(shapes, dtype=np.bool_),
        kind_failed=np.zeros(int(kind.max(initial=-1)) + 1, dtype=np.bool_),
        children=above.argsort(kind="stable"),
        first_child=np.searchsorted(np.sort(above), np.arange(count + 2)),
        head=np.full(count + 1, NOBODY, dtype=np.int64),
        share=np.zeros(count),
    )
    _look_up_all(ledger, line)
    return line


@compiled
def _look_up_all(ledger: Ledger, line: Line) -> None:
    for queue in range(ledger.parent.size - 1, -1, -1):  # Children come after their parents.
        _look_up(ledger, line, queue)
    _look_up(ledger, line, ledger.parent.size)


@compiled
def look_up(ledger: Ledger, line: Line, queue: int) -> None:
    """Whoever is next of this queue has changed, or what it holds: find out who is next of it and of all above it."""
    while queue >= 0:
        _look_up(ledger, line, queue)
        queue = ledger.parent[queue]
    _look_up(ledger, line, ledger.parent.size)


@compiled
def _look_up(ledger: Ledger, line: Line, queue: int) -> None:
    """The same of one queue, of one cohort, or of everybody, whose number follows theirs."""
    if line.first_child[queue] < line.first_child[queue + 1]:
        head = _least(line, queue)
    else:
        head = NOBODY if queue == ledger.parent.size else _next(line, queue)
    line.head[queue] = head
    if head != NOBODY and queue < ledger.parent.size:
        line.share[queue] = share(ledger, queue, line.asked[head])


@compiled
def _next(line: Line, queue: int) -> int:
    """The first of a queue that still waits."""
    at = line.begin[queue]
    while at < line.end[queue] and (line.shape_failed[line.shape[at]] or line.kind_failed[line.kind[at]]):
        at += 1
    line.begin[queue] = at
    return at if at < line.end[queue] else NOBODY


@compiled
def _least(line: Line, cohort: int) -> int:
    """The head of the child with the least share."""
    head, least = NOBODY, np.inf
    for index in range(line.first_child[cohort], line.first_child[cohort + 1]):
        child = line.children[index]
        other = line.head[child]
        if other != NOBODY and (
            head == NOBODY
            or line.share[child] < least
            or (line.share[child] == least and line.rank[other] < line.rank[head])
        ):
            head, least = other, line.share[child]
    return head


@compiled
def leave(ledger: Ledger, line: Line, at: int) -> None:
    """This one, who is next of its queue, has its place, and holds it."""
    queue = line.queue[at]
    hold(ledger, queue, line.asked[at])
    line.begin[queue] = at + 1
    look_up(ledger, line, queue)


@compiled
def give_up(ledger: Ledger, line: Line, at: int, of_all: bool) -> None:
    """Those like this one, who is next of its queue, wait no longer: those `of_all` queues, or of its own."""
    if not of_all:
        line.kind_failed[line.kind[at]] = True
        look_up(ledger, line, line.queue[at])
        return
    shape = line.shape[at]
    line.shape_failed[shape] = True
    for queue in range(line.begin.size):
        if line.begin[queue] < line.end[queue] and line.shape[line.begin[queue]] == shape:
            look_up(ledger, line, queue)
