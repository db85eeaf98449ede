"""Another turn: in which other queue, or from which priority on, a workload that waits would start now.

What is found is tried by a cycle of its own before it is named; of how many, is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mainstay.decide.affinity import Change
from mainstay.decide.cycle import ANY_QUEUE, Cycle
from mainstay.decide.shapes import Shape
from mainstay.domain.queue import takes

QUEUES_TRIED = 3
"""By a cycle each."""


def other_queue(
    cycle: Cycle, shape: Shape, queue: int, starts: Callable[[int], bool], *, tenant: str, project: str
) -> Iterator[Change]:
    """One that takes work of this project and in which what `cycle` has left is enough and within its quotas: those of the same
    cohort go first, then by name.

    `starts`: whether it would in the queue of this row. None at all where even without quotas there is no room.
    """
    tree, allowance = cycle.snapshot.queues, cycle.allowance
    if cycle.place(shape, ANY_QUEUE) is None:
        return

    def may_use(other: int) -> bool:
        ways = (one for way in shape.ways for one in allowance.flavors_of(other, way))
        return any(allowance.may_use_parts(other, one) for one in ways)

    others = [
        at
        for at, cohort in enumerate(tree.cohort.tolist())
        if not cohort and at != queue and takes(tree.users[at], tenant=tenant, project=project)
    ]
    others.sort(key=lambda at: (tree.parent[at] != tree.parent[queue] or tree.parent[at] < 0, tree.names[at]))
    tries = 0
    for other in filter(may_use, others):
        if cycle.place(shape, other) is None:
            continue
        tries += 1
        if starts(other):
            yield Change(field="queue", before=tree.names[queue], after=tree.names[other])
            return
        if tries == QUEUES_TRIED:
            return


def higher_priority(priority: int, classes: Mapping[str, int], starts: Callable[[int], bool]) -> Iterator[Change]:
    """The least urgent class with which it would start, by bisection: the more urgent, the sooner its turn. A cycle each."""
    by_number = {number: name for name, number in sorted(classes.items(), reverse=True)}
    higher = sorted(number for number in by_number if number > priority)
    if not higher or not starts(higher[-1]):
        return
    low, high = 0, len(higher) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if starts(higher[middle]) else (middle + 1, high)
    yield Change(field="priority", before=by_number.get(priority, str(priority)), after=by_number[higher[high]])
