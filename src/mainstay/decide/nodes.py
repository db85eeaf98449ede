"""Nodes that somebody keeps out: what runs on one that is drained moves away, and a quarantine ends when its time is over.

What moves is stopped with its grace and goes back to its queue with its age; nothing counts as a failure of it. In this order:
1. What ends by itself before the wait of the drain is over is left to its end.
2. What serves an endpoint comes up elsewhere first, where there is room; then the old one is stopped as after any deployment.
3. An elastic attempt goes on without its ranks there, if enough are left elsewhere (`shrinking`).
4. Of all else every pod of the attempt is stopped, wherever it runs: gangs move whole.
Guests are evicted one by one, as far as their disruption budgets allow it: making them anew is their owner's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mainstay.decide.attempt import Pod, Run, pod_of, run_of
from mainstay.decide.cycle import Cycle
from mainstay.decide.nomination import reserved
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.shapes import shape_of
from mainstay.decide.shrinking import without
from mainstay.domain import ids
from mainstay.domain.allocation import Seen, Wanted
from mainstay.domain.capacity import Closure
from mainstay.domain.plan import Action, RedeployEndpoint, ReleaseNode, RowVersion, StopPod
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.registry import Endpoint
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase

ID_LETTERS = 8


def tend(snapshot: Snapshot, *, changes_max: int = 1_000) -> tuple[Action, ...]:
    """Every node one step on; about `changes_max` actions at most, the rest in the next cycle."""
    actions: list[Action] = list(_releases(snapshot))
    drained = {int(snapshot.nodes.key[row]): row for row in np.flatnonzero(snapshot.nodes.drains).tolist()}
    for row in _leaving(snapshot):
        actions.extend(_step(snapshot, row, drained))
        if len(actions) >= changes_max:
            break
    return tuple(actions)


def _releases(snapshot: Snapshot) -> Iterator[ReleaseNode]:
    """By the wall clock: one that is set forward ends a quarantine early, and whoever began it has to begin it anew."""
    nodes = snapshot.nodes
    over = (nodes.closed_at > 0) & (nodes.closed_until > 0) & (nodes.closed_until <= snapshot.now)
    for row in np.flatnonzero(over).tolist():
        yield ReleaseNode(
            reason=Reason(code=Code.QUARANTINE_OVER, object=nodes.names[row]),
            cluster=nodes.clusters[row],
            node=nodes.names[row],
            since=int(nodes.closed_at[row]),
        )


def _leaving(snapshot: Snapshot) -> list[int]:
    """Rows of the workloads that have a pod on a node that is drained, and that nobody has stopped there yet."""
    nodes, table, workloads = snapshot.nodes, snapshot.allocations, snapshot.workloads
    if not nodes.drains.any() or not workloads.key.size:
        return []
    on_drained = np.isin(table.node_key, nodes.key[nodes.drains])
    keys = np.unique(table.workload_key[on_drained & (table.seen != Seen.ENDED) & ~table.stop])
    rows = np.searchsorted(workloads.key, keys)
    inside = rows < workloads.key.size
    rows, keys = rows[inside], keys[inside]
    found: list[int] = rows[(workloads.key[rows] == keys) & ~workloads.stop_requested[rows]].tolist()
    return found


def _step(snapshot: Snapshot, row: int, drained: Mapping[int, int]) -> Sequence[Action]:
    """`drained`: key -> row of the nodes."""
    run = run_of(snapshot, row)
    pods = _pods(snapshot, run)
    leaving = [pod for pod in pods if pod.node_key in drained]
    if not leaving:
        return ()
    node = drained[leaving[0].node_key]
    if run.adopted:
        # One that has not been bound yet is let go of by itself: its node is kept out.
        return _stops(run, [pod for pod in leaving if pod.seen is not Seen.NOTHING], snapshot.nodes.names[node])
    if _ends_in_time(snapshot, run, pods, node):
        return ()
    endpoint = _served(snapshot, run)
    if endpoint is not None and (steps := _replacement(snapshot, row, endpoint, node)) is not None:
        return steps
    everyone = _pods(snapshot, run, ended=True)
    there = [pod for pod in leaving if not pod.surplus]
    shrink = without(run, everyone, there, f"node {snapshot.nodes.names[node]} is being drained")
    return (shrink,) if shrink is not None else _stops(run, pods, snapshot.nodes.names[node])


def _pods(snapshot: Snapshot, run: Run, *, ended: bool = False) -> list[Pod]:
    """Of the attempt, those that live, or also those that have ended, by rank."""
    table = snapshot.allocations
    mine = (table.workload_key == run.key) & (table.attempt == run.attempt)
    mine &= ended | (table.seen != Seen.ENDED)
    return sorted((pod_of(snapshot, row) for row in np.flatnonzero(mine).tolist()), key=lambda pod: pod.rank)


def _stops(run: Run, pods: Sequence[Pod], node: str) -> tuple[StopPod, ...]:
    reason = Reason(code=Code.MOVED, object=node)
    return tuple(
        StopPod(guards=(run.guard, pod.guard), reason=reason, allocation_key=pod.key, moves=True)
        for pod in pods
        if not pod.stop
    )


def _ends_in_time(snapshot: Snapshot, run: Run, pods: Sequence[Pod], node: int) -> bool:
    """Whether all of it reaches its own limit within the wait of the drain; never longer than that, whatever the clocks say."""
    nodes = snapshot.nodes
    until = int(nodes.closed_at[node]) + int(nodes.wait_seconds[node]) * MICROSECONDS_PER_SECOND
    if not run.max_duration_seconds or snapshot.now >= until or any(not pod.started_at for pod in pods):
        return False
    limit = run.max_duration_seconds * MICROSECONDS_PER_SECOND
    return max(pod.started_at for pod in pods) + limit <= until


def _served(snapshot: Snapshot, run: Run) -> Endpoint | None:
    return next((one for one in snapshot.endpoints if one.serving_key == run.key and not one.removed), None)


def _replacement(snapshot: Snapshot, row: int, endpoint: Endpoint, node: int) -> Sequence[Action] | None:
    """What brings the endpoint up elsewhere first; None where that is of no use and the old one just moves.

    It is tried once in a drain: an endpoint that has changed since the drain began and has no candidate has tried.
    """
    if endpoint.candidate_key:
        return () if not _waits_in_vain(snapshot, endpoint.candidate_key) else None
    tried = endpoint.updated_at > int(snapshot.nodes.closed_at[node])
    if tried or Cycle(reserved(snapshot), POLICIES[DEFAULT_POLICY]).place(shape_of(snapshot, row)) is None:
        return None
    owner = snapshot.owners.get(endpoint.serving_key)
    if owner is None:
        return None
    numbers: dict[str, int | float | str] = {"endpoint": endpoint.name, "version": endpoint.serving_version}
    return (
        RedeployEndpoint(
            guards=(RowVersion(kind="endpoint", key=endpoint.name, tenant=endpoint.tenant, version=endpoint.version),),
            reason=Reason(code=Code.ENDPOINT_MOVES, object=snapshot.nodes.names[node], numbers=numbers),
            tenant=endpoint.tenant,
            endpoint=endpoint.name,
            workload=_copy_of(owner[2], endpoint.version),
        ),
    )


def _waits_in_vain(snapshot: Snapshot, workload_key: int) -> bool:
    """It has been looked for a place, and there is none."""
    table = snapshot.workloads
    row = int(np.searchsorted(table.key, workload_key))
    return row < table.key.size and table.key[row] == workload_key and table.phase[row] == Phase.QUEUED


def _copy_of(workload: str, version: int) -> str:
    """An id that nobody else derives: whoever plans the same copy again plans the same id."""
    return ids.derived(workload.rpartition("-")[0], workload, str(version), letters=ID_LETTERS)


def words_of(row: Wanted, closure: Closure | None, *, serves: bool) -> str:
    """What becomes of a pod on a node that is drained, in words; empty where nothing does. `serves`: it answers an endpoint."""
    pod, spec = row.allocation, row.spec
    if closure is None or not closure.drains:
        return ""
    if pod.stop:
        asked = "is being evicted" if row.guest is not None else f"has up to {spec.stop_grace_seconds} s to end"
        return f"{asked}: {pod.detail}" if pod.detail else asked
    if pod.seen is Seen.UNKNOWN:
        return f"is not known to have ended: {pod.detail}" if pod.detail else "is not known to have ended"
    limit = spec.max_duration_seconds
    until = closure.since + closure.wait_seconds * MICROSECONDS_PER_SECOND
    if limit and pod.started_at and pod.started_at + limit * MICROSECONDS_PER_SECOND <= until:
        return f"is left to its end, which comes {limit} s after its start at the latest"
    return "stays until its endpoint has come up elsewhere" if serves else "is about to be stopped"
