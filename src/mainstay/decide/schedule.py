"""One scheduling cycle: who may start, in order, and where; what does not fit learns why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide import admission
from mainstay.decide.placement import POLICIES
from mainstay.decide.placement.fit import ANY_CLUSTER, Free, Request, feasible, free_in, free_of, room, whole_of
from mainstay.decide.placement.gang import Policy, place, room_per_cluster
from mainstay.decide.shapes import Shape, shape_numbers, shape_of, words_of
from mainstay.domain.plan import Action, Advance, Allocate, CapacityLeft, Guard, RowVersion, Slot
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase


def schedule(snapshot: Snapshot, *, policy: str = "best-fit", changes_max: int = 500) -> tuple[Action, ...]:
    """Allocate what fits, in the order of admission, and tell what does not fit why it waits.

    At most `changes_max` actions, so that a commit stays short; the next cycle goes on where this one ended. A
    workload hears once that it is queued (PENDING -> QUEUED); after that a cycle in which nothing fits writes nothing,
    however many wait.

    Simple meaning: try each workload in order against what its predecessors left. The shortcut: capacity only shrinks
    within a cycle, so a shape that did not fit once is not tried again, and the cycle ends with its last shape.

    Known limit: smaller work behind a large gang may start before it for ever, because nothing is reserved for what
    must wait. Reservations and backfill are their own module, to come.
    """
    if not snapshot.workloads.key.size:
        return ()
    cycle = Cycle(snapshot, POLICIES[policy])
    actions: list[Action] = []
    for placed in cycle.placements():
        actions.append(_allocation(snapshot, placed))
        if len(actions) == changes_max:
            return tuple(actions)
    return (*actions, *cycle.queued(limit=changes_max - len(actions)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A workload that found a place: its row, the node row of each rank, and the choice that fitted."""

    workload_row: int
    node_rows: tuple[int, ...]
    request: Request


class Cycle:
    """The working state of one cycle: what is left on the nodes and which shapes have failed."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.snapshot = snapshot
        self.free = free_of(snapshot)
        self.order = admission.order(snapshot)
        self._policy = policy
        self._numbers = shape_numbers(snapshot, self.order)
        self._shapes: dict[int, Shape] = {}
        self._failed: set[int] = set()

    def placements(self, *, ahead: int | None = None) -> Iterator[Placed]:
        """Each workload that fits, in order, of the first `ahead` or of all; `free` is lowered as they come."""
        kinds = int(self._numbers.max()) + 1 if self._numbers.size else 0
        for row, number in zip(self.order[:ahead].tolist(), self._numbers[:ahead].tolist(), strict=True):
            if number in self._failed:
                continue
            placed = self._place(row, self._shape(row, number))
            if placed:
                yield placed
                continue
            self._failed.add(number)
            if len(self._failed) == kinds:
                return

    def queued(self, *, limit: int) -> Iterator[Advance]:
        """The first `limit` of those still PENDING which did not fit, with the reason. After `placements`."""
        if limit <= 0 or not self._failed:
            return
        pending = self.snapshot.workloads.phase[self.order] == Phase.PENDING
        missed = pending & np.isin(self._numbers, np.fromiter(self._failed, dtype=np.int64))
        reasons: dict[int, Reason] = {}
        for position in np.flatnonzero(missed)[:limit].tolist():
            row, number = int(self.order[position]), int(self._numbers[position])
            if number not in reasons:
                reasons[number] = refusal(self.snapshot, self._shape(row, number), self.free)
            yield _advance_to_queued(self.snapshot, row, reasons[number])

    def place(self, shape: Shape) -> tuple[tuple[int, ...], Request] | None:
        """Node row of each rank for the first choice that fits what is left, or None. Changes nothing."""
        for request in shape.requests:
            rows = place(self.free, request, count=shape.nodes, policy=self._policy)
            if rows is not None:
                return tuple(rows.tolist()), request
        return None

    def _place(self, row: int, shape: Shape) -> Placed | None:
        found = self.place(shape)
        if found is None:
            return None
        node_rows, request = found
        self.free.take(node_rows, request)
        return Placed(workload_row=row, node_rows=node_rows, request=request)

    def _shape(self, row: int, number: int) -> Shape:
        if number not in self._shapes:
            self._shapes[number] = shape_of(self.snapshot, row)
        return self._shapes[number]


def refusal(snapshot: Snapshot, shape: Shape, free: Free) -> Reason:
    """Why a shape that does not fit `free` must wait, with the figures."""
    reach = shape.reach
    if reach is None or not reach.volume:
        return _refusal(snapshot, shape, free)
    detail = reach.words
    if reach.mask.any():
        detail = f"{detail}; {_refusal(snapshot, shape, free).sentence}"
    return Reason(code=Code.WAITS_FOR_VOLUME, object=reach.volume, numbers={"needs": shape.words, "detail": detail})


def _refusal(snapshot: Snapshot, shape: Shape, free: Free) -> Reason:
    needs: dict[str, int | float | str] = {"needs": shape.words}
    if shape.cluster in snapshot.closed_clusters:
        return _waits_for_cluster(snapshot, shape.cluster, needs)
    whole = whole_of(snapshot)
    if shape.restriction and not whole.usable(shape.requests[0]).any():
        return Reason(code=Code.NO_NODE_ADMITS, numbers=needs)
    if not any(_holds(whole, request, shape.nodes) for request in shape.requests):
        return Reason(code=Code.NEVER_FITS, numbers={**needs, "largest": _most(snapshot, whole, shape)})
    for cluster in snapshot.closed_clusters:
        alone = free_in(snapshot, cluster)
        if any(_holds(alone, request, shape.nodes) for request in shape.requests):
            return _waits_for_cluster(snapshot, cluster, needs)
    if reason := _waits_for_node(snapshot, shape, free, needs):
        return reason
    if not free.usable(shape.requests[0]).any():
        return Reason(code=Code.NO_NODES, numbers=needs)
    numbers = {**needs, "free": _most(snapshot, free, shape), "nodes_fitting": _nodes_fitting(free, shape)}
    return Reason(code=Code.WAITS_FOR_CAPACITY, numbers=numbers)


def _waits_for_cluster(snapshot: Snapshot, cluster: str, needs: Mapping[str, int | float | str]) -> Reason:
    """It would fit there, if only the cluster took work."""
    numbers = {**needs, "detail": snapshot.closed_clusters[cluster].sentence}
    return Reason(code=Code.WAITS_FOR_CLUSTER, object=cluster, numbers=numbers)


def _waits_for_node(
    snapshot: Snapshot, shape: Shape, free: Free, needs: Mapping[str, int | float | str]
) -> Reason | None:
    """It would fit, if only the nodes took work that have room for it and are kept out or not ready."""
    nodes = snapshot.nodes
    if not snapshot.closed_nodes or shape.restriction:
        return None
    shut = np.isin(nodes.key, np.fromiter(snapshot.closed_nodes, dtype=np.int64))
    shut &= np.fromiter((name not in snapshot.closed_clusters for name in nodes.clusters), np.bool_, nodes.key.size)
    opened = replace(free, open_=shut | nodes.ready)
    for request in shape.requests:
        rows = np.flatnonzero(feasible(opened, request) & shut)
        if not rows.size or not _holds(opened, request, shape.nodes):
            continue
        row = int(rows[0])
        why = snapshot.closed_nodes[int(nodes.key[row])]
        return Reason(code=Code.WAITS_FOR_NODE, object=nodes.names[row], numbers={**needs, "detail": why.sentence})
    return None


def slot_resources(snapshot: Snapshot, node_row: int, request: Request) -> Resources:
    """What one pod holds on this node. The GPU model is the node's own, also where any was asked for: it is billed."""
    model = int(snapshot.nodes.gpu_model[node_row]) if request.gpus and not request.shape else 0
    return Resources(
        cpu_milli=request.cpu_milli,
        memory_bytes=request.memory_bytes,
        gpus=request.gpus,
        gpu_model=request.shape or snapshot.gpu_models[model],
    )


def node_names(snapshot: Snapshot, node_rows: tuple[int, ...]) -> str:
    """The nodes in words, at most three by name."""
    names = [snapshot.nodes.names[row] for row in dict.fromkeys(node_rows)]
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _allocation(snapshot: Snapshot, placed: Placed) -> Allocate:
    table, row = snapshot.workloads, placed.workload_row
    node_keys = snapshot.nodes.key
    slots = tuple(
        Slot(rank=rank, node_key=int(node_keys[node]), resources=slot_resources(snapshot, node, placed.request))
        for rank, node in enumerate(placed.node_rows)
    )
    return Allocate(
        guards=(_unchanged(snapshot, row), *_capacity_guards(slots, placed.request.restriction)),
        reason=Reason(code=Code.PLACED, numbers={"nodes": node_names(snapshot, placed.node_rows)}),
        workload_key=int(table.key[row]),
        attempt=int(table.attempt[row]),
        slots=slots,
    )


def _capacity_guards(slots: tuple[Slot, ...], restriction: str) -> list[Guard]:
    """One guard per node, for the sum of what it is to take."""
    pods: dict[int, int] = {}
    each: dict[int, Resources] = {}
    for slot in slots:
        pods[slot.node_key] = pods.get(slot.node_key, 0) + 1
        each[slot.node_key] = slot.resources
    return [
        CapacityLeft(node_key=key, resources=each[key].times(count), restriction=restriction)
        for key, count in pods.items()
    ]


def _advance_to_queued(snapshot: Snapshot, row: int, reason: Reason) -> Advance:
    table = snapshot.workloads
    return Advance(
        guards=(_unchanged(snapshot, row),),
        reason=reason,
        workload_key=int(table.key[row]),
        phase=Phase.QUEUED,
        attempt=int(table.attempt[row]),
        not_before=int(table.not_before[row]),
        infrastructure_failures=int(table.infrastructure_failures[row]),
        user_failures=int(table.user_failures[row]),
    )


def _unchanged(snapshot: Snapshot, row: int) -> RowVersion:
    table = snapshot.workloads
    return RowVersion(kind="workload", key=int(table.key[row]), version=int(table.version[row]))


def _holds(free: Free, request: Request, count: int) -> bool:
    if count == 1:
        return bool(feasible(free, request).any())
    fits = room_per_cluster(free, room(free, request))
    return bool((fits >= count).any())


def _nodes_fitting(free: Free, shape: Shape) -> int:
    return max(int(feasible(free, request).sum()) for request in shape.requests)


def _most(snapshot: Snapshot, free: Free, shape: Shape) -> str:
    """The node that comes closest to the first choice, in words: by model, then by GPUs, CPU and memory."""
    request = shape.requests[0]
    here = np.ones(free.key.size, dtype=np.bool_) if request.cluster == ANY_CLUSTER else free.cluster == request.cluster
    here = here & free.usable(request)
    if not here.any():
        return "no node"
    model_fits = (free.gpu_model == request.gpu_model) if request.gpu_model else np.ones(free.key.size, dtype=np.bool_)
    gpus = np.minimum(free.devices(request), request.gpus)
    row = int(np.lexsort((-free.key, free.memory_bytes, free.cpu_milli, gpus, model_fits, here))[-1])
    return words_of(_left_on(snapshot, free, row, request))


def _left_on(snapshot: Snapshot, free: Free, row: int, request: Request) -> Resources:
    """Of GPUs the kind that was asked for."""
    gpus = max(0, int(free.devices(request)[row]))
    model = request.shape or snapshot.gpu_models[int(free.gpu_model[row])]
    return Resources(
        cpu_milli=max(0, int(free.cpu_milli[row])),
        memory_bytes=max(0, int(free.memory_bytes[row])),
        gpus=gpus,
        gpu_model=model if gpus else "",
    )
