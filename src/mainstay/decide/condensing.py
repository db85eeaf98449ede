"""Of a large fleet the part on which anything can change soon, so that what it does can be played (replay.py).

A node matters to those who wait only once it has room for one of them, or, where there are quotas, once anything has ended
there; until then it may be left out. So for each play those nodes are kept that have room now, those on which a start is
reserved, and of all others as many as the work allows, those first that matter first if nothing starts. Up to the instant at
which one matters that is left out, a play of the rest is one of the whole fleet; none goes on beyond that.

What is left out counts as one workload a queue that never ends, so that quotas and what queues hold are those of the fleet. What
goes by the part alone: the mix of requests that GPUs are placed by, shares where there are no quotas, and where starts are
reserved for those who have waited long only later in a play. That says which of several good places or queues is next, and hardly
when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide import admission
from mainstay.decide.cycle import Cycle
from mainstay.decide.flavors import flavors_at
from mainstay.decide.kernel import CPU, GPUS, MEMORY
from mainstay.decide.placement.fill import Policy
from mainstay.decide.placement.fit import Request, feasible, free_of
from mainstay.decide.placement.reach import users_of
from mainstay.decide.replay import NONE, Runs
from mainstay.decide.reservation import NEVER, waited_long
from mainstay.decide.rows import only_allocations, only_nodes, only_workloads, with_allocations, with_workloads
from mainstay.decide.shapes import shape_numbers, shape_of
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, is_shape
from mainstay.domain.queue import Resource
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase

ENDS_MAX = 1 << 16
"""So many are put in order for a play, and none is played beyond them."""
REQUESTS_MAX = 16
"""Of so many it is asked one by one where there is room for them; of more, where there is for the least of each resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldPart:
    """A part of a world, for one play."""

    snapshot: Snapshot
    row: int
    """There, of the workload that is asked about."""
    draw: Floats
    """[workloads] As of `seconds_left`, of those that are there; what stands for those that are not never ends."""
    until: int
    """It goes the way of the whole only so long, in UTC microseconds; NEVER: for good."""


class Condenser:
    """A world of which parts are made, one for each play."""

    def __init__(self, world: Snapshot, row: int, policy: Policy, *, nodes_max: int) -> None:
        """`world` as a play has it; `row` of the workload that is asked about. O(pods), and a cycle if several wait."""
        self._world, self._row, self._nodes_max = world, row, nodes_max
        self._runs, self._free = Runs.of(world), free_of(world)
        self._requests = _requests(world)
        self._needed = _with_reserved_start(world, policy)
        for request in self._requests:
            self._needed |= feasible(self._free, request)
        held, table = world.allocations, world.workloads
        self._owner = np.minimum(np.searchsorted(table.key, held.workload_key), table.key.size - 1)
        self._lives = np.flatnonzero((held.seen != Seen.ENDED) & (table.key[self._owner] == held.workload_key))
        at = np.minimum(np.searchsorted(world.nodes.key, held.node_key), world.nodes.key.size - 1)
        self._node = np.where(world.nodes.key[at] == held.node_key, at, NONE)
        flavor = flavors_at(world, held.node_key[self._lives])
        of = self._owner[self._lives]
        kinds = (table.queue[of], table.submitter[of], flavor, held.gpu_model[self._lives])
        self._kinds, number = np.unique(np.stack(kinds, axis=1), axis=0, return_inverse=True)
        self._kind = np.full(held.key.size, NONE, dtype=np.int64)
        self._kind[self._lives] = number.reshape(-1)
        self._held = self._sums(self._lives)

    @property
    def possible(self) -> bool:
        """Whether there are any. Not where too much has room already, nor where what is left out matters by more than what it
        holds: a quota counts pods, or somebody who waits has volumes.
        """
        world = self._world
        counted = any(resource == Resource.PODS for _, resource in world.queues.cells)
        attached = bool(world.workloads.volumes[admission.waiting(world)].any())
        return not (counted or attached) and int(np.count_nonzero(self._needed)) <= self._nodes_max

    def part(self, draw: Floats) -> WorldPart:
        """That for the play of this draw [workloads]. O(n log n) in the pods."""
        nodes = self._world.nodes
        matters, known_until = self._matters(draw)
        order = np.lexsort((nodes.key, matters, ~self._needed))
        keep = np.sort(order[: self._nodes_max])
        until = int(matters[order[self._nodes_max :]].min(initial=known_until))
        return self._of(keep, draw, until)

    def _matters(self, draw: Floats) -> tuple[Ints, int]:
        """[nodes] From when on each does, if nothing starts; NEVER: it does not. And until when that is known."""
        world, runs = self._world, self._runs
        first, known_until = np.full(world.nodes.key.size, NEVER), NEVER
        ends_at = runs.drawn(world.workloads, world.now, draw)
        pods = np.flatnonzero(runs.of_pod != NONE)
        end = ends_at[runs.of_pod[pods]]
        if end.size > ENDS_MAX:
            known_until = int(np.partition(end, ENDS_MAX)[ENDS_MAX])
        pods, end = pods[end < known_until], end[end < known_until]
        if world.queues.cells:
            np.minimum.at(first, self._node[pods], end)
            return first, known_until
        by_node = np.lexsort((end, self._node[pods]))
        pods, end = pods[by_node], end[by_node]
        node, left = self._node[pods], self._left_after(pods)
        for request in self._requests:
            fits = self._free.allowed(request)[node]
            for column, amount in (
                (CPU, request.cpu_milli),
                (MEMORY, request.memory_bytes),
                (GPUS, 0 if request.shape else request.gpus),
            ):
                fits = fits & (left[column] >= amount)
            np.minimum.at(first, node[fits], end[fits])
        return first, known_until

    def _left_after(self, pods: Ints) -> dict[int, Ints]:
        """Column -> [pods] what is left on its node once each of these rows of allocations, which are by node, has ended."""
        world, node = self._world, self._node[pods]
        held = world.allocations
        slices = np.array([is_shape(model) for model in world.gpu_models], dtype=np.bool_)
        gpus = np.where(slices[held.gpu_model[pods]], 0, held.gpus[pods])
        begins, found = np.flatnonzero(np.diff(node, prepend=NONE)), dict[int, Ints]()
        for column, amount in ((CPU, held.cpu_milli[pods]), (MEMORY, held.memory_bytes[pods]), (GPUS, gpus)):
            total = np.cumsum(amount)
            before = np.repeat(np.append(0, total)[begins], np.diff(begins, append=node.size))
            found[column] = self._free.nodes.free[column, node] + total - before
        return found

    def _of(self, keep: Ints, draw: Floats, until: int) -> WorldPart:
        """These nodes, whole workloads that have a pod on one of them or wait, and the rest of each queue as one."""
        world, table, held = self._world, self._world.workloads, self._world.allocations
        kept = np.zeros(world.nodes.key.size + 1, dtype=np.bool_)
        kept[keep] = True  # the last is for pods of no node
        stays = admission.waiting(world)
        stays[self._owner[self._lives[kept[self._node[self._lives]]]]] = True
        rows, here = np.flatnonzero(stays), stays[self._owner[self._lives]]
        alone = replace(
            world,
            nodes=only_nodes(world.nodes, keep),
            workloads=only_workloads(table, rows),
            allocations=only_allocations(held, self._lives[here]),
        )
        snapshot = _with_rest(alone, self._kinds, self._held - self._sums(self._lives[here]))
        drawn = np.append(draw[rows], np.zeros(snapshot.workloads.key.size - rows.size))
        return WorldPart(snapshot=snapshot, row=int(np.searchsorted(rows, self._row)), draw=drawn, until=until)

    def _sums(self, pods: Ints) -> Ints:
        """[kinds, (CPU, memory, GPUs, pods, seconds since they were placed)] Of these rows of allocations; of a kind are those of
        one queue, submitter, flavor of nodes and model of GPUs.
        """
        world, held = self._world, self._world.allocations
        found = np.zeros((len(self._kinds), 5), dtype=np.int64)
        since = (world.now - held.created_at[pods]) // MICROSECONDS_PER_SECOND
        amounts = held.cpu_milli[pods], held.memory_bytes[pods], held.gpus[pods], np.ones_like(pods), since
        for number, amount in enumerate(amounts):
            np.add.at(found[:, number], self._kind[pods], amount)
        return found


def _requests(world: Snapshot) -> Sequence[Request]:
    """What those who wait ask for, or of many the least of each resource, wherever it may be."""
    rows, users = np.flatnonzero(admission.waiting(world)), users_of(world)
    _, first = np.unique(shape_numbers(world, rows), return_index=True)
    ways = [way for row in rows[first].tolist() for way in shape_of(world, row, users=users).ways]
    found = [part.request for way in ways for part in way]
    if len(found) <= REQUESTS_MAX:
        return found
    return (
        Request(
            cpu_milli=min(one.cpu_milli for one in found),
            memory_bytes=min(one.memory_bytes for one in found),
            gpus=min(0 if one.shape else one.gpus for one in found),
            gpu_model=0,
        ),
    )


def _with_reserved_start(world: Snapshot, policy: Policy) -> Bools:
    """[nodes] Those on which a start is reserved for the first in line."""
    found = np.zeros(world.nodes.key.size, dtype=np.bool_)
    waits = np.flatnonzero(admission.waiting(world))
    if waits.size > 1 and waited_long(world, waits).any():
        cycle = Cycle(world, policy, tries_max=1)
        for _ in cycle.placements():
            pass  # Only what it reserves is of interest.
        for start in cycle.reserved.values():
            found[start.nodes] = True
    return found


def _with_rest(world: Snapshot, kinds: Ints, rest: Ints) -> Snapshot:
    """That, as of `_sums`, as workloads that run on nodes which are not there, and never end: one a kind."""
    there = rest[:, 3] > 0
    queue, submitter, flavor, model = kinds[there].T
    cpu_milli, memory_bytes, gpus, pods, seconds = rest[there].T
    key = int(max(world.workloads.key.max(initial=0), world.allocations.workload_key.max(initial=0))) + 1
    keys = np.arange(key, key + queue.size)
    columns = {"key": keys, "queue": queue, "submitter": submitter, "phase": np.full_like(keys, int(Phase.RUNNING))}
    held = {
        "workload_key": keys,
        "node_key": NONE - flavor,
        "seen": np.full_like(keys, int(Seen.UNKNOWN)),
        "cpu_milli": cpu_milli,
        "memory_bytes": memory_bytes,
        "gpus": gpus,
        "gpu_model": model,
        # What was used lately counts from there on: of a sum, from the middle.
        "created_at": world.now - seconds // np.maximum(pods, 1) * MICROSECONDS_PER_SECOND,
    }
    return replace(
        world,
        workloads=with_workloads(world.workloads, columns, count=keys.size),
        allocations=with_allocations(world.allocations, held, count=keys.size),
        left_out={NONE - number: number for number in range(1, len(world.flavors))},
    )
