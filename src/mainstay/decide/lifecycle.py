"""What the states of its pods make of a workload: the next phase, pods to stop, another attempt or the end.

Per workload and cycle either pods are stopped or the workload advances, never both, so that no action invalidates the
guards of another one in its plan. What a workload waits for without an action: a place (admission), a report of its
pods (reconcile), or the end of pods that were told to stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mainstay.decide import admission
from mainstay.decide.attempt import POD, Pod, Run, pod_of, run_of
from mainstay.decide.retry import Verdict, verdict
from mainstay.decide.rows import rows_by_key
from mainstay.decide.shrinking import members, without_lost
from mainstay.domain.allocation import ENDS, End, Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.plan import Action, Advance, StopPod
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import WAITING, Phase


def lifecycle(snapshot: Snapshot, *, changes_max: int = 1_000) -> tuple[Action, ...]:
    """Every workload one step on, by key; about `changes_max` actions at most, the rest in the next cycle.

    Simple meaning: look at each workload with its pods. The shortcut: columns tell which of them can have a next step,
    and only those become objects; the others are exactly where their pods say.
    """
    actions: list[Action] = []
    for run, pods in _restless(snapshot):
        actions.extend(_next_step(run, pods, snapshot))
        if len(actions) >= changes_max:
            break
    return tuple(actions)


def _next_step(run: Run, pods: Sequence[Pod], snapshot: Snapshot) -> Sequence[Action]:
    alive = [pod for pod in pods if pod.alive]
    if run.phase in WAITING and not run.stop_requested:
        return ()
    if (shrink := without_lost(run, pods)) is not None:
        return (shrink,)
    judged = members(pods)
    if not alive:
        return (_advance(run, pods, verdict(run, judged, now=snapshot.now, seed=snapshot.seed)),)
    why = _why_stop(run, judged)
    stops = tuple(_stop(run, pod, why) for pod in alive if not pod.stop) if why else ()
    if stops or run.phase in WAITING or not any(pod.alive for pod in judged):
        return stops
    phase, reason = _phase(run, judged)
    return () if phase is run.phase else (_advance(run, pods, _moved(run, phase, reason)),)


def _why_stop(run: Run, pods: Sequence[Pod]) -> Reason | None:
    """Why pods that live must end, if they must.

    Not for their duration: each cluster ends a pod at its deadline by its own monotonic clock, also while we are away.
    """
    if run.stop_requested:
        return Reason(code=Code.STOPPED)
    ended = [pod for pod in pods if not pod.alive and (run.always or not pod.ended_well)]
    # What becomes of a group of guests that has lost one of them is for their owner to say.
    if ended and not run.adopted:
        first = min(ended, key=lambda pod: (pod.ended_at, pod.rank))
        return Reason(code=Code.GANG_MEMBER_ENDED, numbers={"rank": first.rank})
    return None


def _phase(run: Run, pods: Sequence[Pod]) -> tuple[Phase, Reason]:
    """The phase of the least advanced rank that lives; one that is unknown makes the whole unknown.

    An elastic one runs as soon as, and for as long as, rank 0 and its min count of ranks have come so far.
    """
    there = [pod for pod in pods if pod.seen is Seen.RUNNING or pod.ended_well]
    if run.elastic and len(there) >= run.nodes_min and there[0].rank == 0:
        return Phase.RUNNING, Reason(code=Code.POD_RUNNING)
    alive = [pod for pod in pods if pod.alive]
    unknown = [pod for pod in alive if pod.seen is Seen.UNKNOWN]
    if unknown:
        rank = unknown[0].rank
        detail = f"rank {rank} is not reported any more"
        return Phase.UNKNOWN, Reason(code=Code.POD_LOST, numbers={"rank": rank, "detail": detail})
    least = min(pod.seen for pod in alive)
    if least is Seen.RUNNING:
        return Phase.RUNNING, Reason(code=Code.POD_RUNNING)
    phase = Phase.PULLING if least is Seen.PULLING else Phase.STARTING
    return phase, Reason(code=Code.POD_STARTING)


def _moved(run: Run, phase: Phase, reason: Reason) -> Verdict:
    return Verdict(
        phase=phase,
        reason=reason,
        attempt=run.attempt,
        infrastructure_failures=run.infrastructure_failures,
        user_failures=run.user_failures,
    )


def _advance(run: Run, pods: Sequence[Pod], step: Verdict) -> Advance:
    """Guarded by everything that was read: the workload and all pods of the attempt."""
    return Advance(
        guards=(run.guard, *(pod.guard for pod in pods)),
        reason=step.reason,
        workload_key=run.key,
        phase=step.phase,
        attempt=step.attempt,
        not_before=step.not_before,
        infrastructure_failures=step.infrastructure_failures,
        user_failures=step.user_failures,
    )


def _stop(run: Run, pod: Pod, reason: Reason) -> StopPod:
    """Guarded by the workload and this pod only: its siblings change version as they are stopped in the same plan."""
    return StopPod(guards=(run.guard, pod.guard), reason=reason, allocation_key=pod.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pods:
    """Allocations that matter, joined to their workloads: rows of both tables, same order."""

    rows: Ints
    workload: Ints
    alive: Bools


def _restless(snapshot: Snapshot) -> Iterator[tuple[Run, list[Pod]]]:
    """The workloads that may have a next step, by key, each with its pods by rank."""
    if not snapshot.workloads.key.size:
        return
    pods = _joined(snapshot)
    by_workload = np.lexsort((snapshot.allocations.rank[pods.rows], pods.workload))
    rows, workload = pods.rows[by_workload], pods.workload[by_workload]
    for row in np.flatnonzero(_may_step(snapshot, pods)).tolist():
        first, last = np.searchsorted(workload, (row, row + 1)).tolist()
        yield run_of(snapshot, row), [pod_of(snapshot, pod) for pod in rows[first:last].tolist()]


def _joined(snapshot: Snapshot) -> _Pods:
    """The allocations of current attempts, and any live one of a workload that waits."""
    table, workloads = snapshot.allocations, snapshot.workloads
    row = rows_by_key(workloads.key, table.workload_key)
    alive = table.seen != Seen.ENDED
    current = table.attempt == workloads.attempt[row]
    matters = current | (alive & admission.waiting(snapshot)[row])
    rows = np.flatnonzero((row >= 0) & matters)
    return _Pods(rows=rows, workload=row[rows], alive=alive[rows])


def _may_step(snapshot: Snapshot, pods: _Pods) -> Bools:
    """The workloads for which `_next_step` can answer something; the columns of that function. Of elastic ones that have lost or
    finished a rank, it is asked of all.
    """
    table, workloads = snapshot.allocations, snapshot.workloads
    waiting = admission.waiting(snapshot)
    always = workloads.retry_always[pods.workload]
    ended_well = (table.end[pods.rows] == ENDS.index(End.EXITED)) & (table.exit_code[pods.rows] == 0)
    adopted = workloads.kind[pods.workload] == POD
    surplus = table.surplus[pods.rows]
    ended_badly = ~pods.alive & (always | ~ended_well) & ~adopted & ~surplus
    stoppable = _any(snapshot, pods, pods.alive & ~table.stop[pods.rows])
    must_stop = workloads.stop_requested | _any(snapshot, pods, ended_badly)
    over = ~_any(snapshot, pods, pods.alive)
    moved = (_phase_column(snapshot, pods, ended_well) != workloads.phase) & _any(snapshot, pods, pods.alive & ~surplus)
    elastic = workloads.nodes_min < workloads.nodes_max
    if elastic.any():
        moved |= elastic & _any(snapshot, pods, ~pods.alive & ~surplus)
    step: Bools = np.where(waiting, workloads.stop_requested, over | moved | (stoppable & must_stop))
    return step


def _phase_column(snapshot: Snapshot, pods: _Pods, ended_well: Bools) -> Ints:
    """`_phase` for all workloads at once; without live pods it says RUNNING and does not matter."""
    table, workloads = snapshot.allocations, snapshot.workloads
    seen, member = table.seen[pods.rows], ~table.surplus[pods.rows]
    states = [Seen.UNKNOWN, Seen.NOTHING, Seen.PULLING, Seen.STARTING]
    phases = [Phase.UNKNOWN, Phase.STARTING, Phase.PULLING, Phase.STARTING]
    found = [_any(snapshot, pods, (seen == state) & member) for state in states]
    elastic = workloads.nodes_min < workloads.nodes_max
    if elastic.any():
        there = member & ((seen == Seen.RUNNING) | (~pods.alive & ended_well))
        count = np.bincount(pods.workload[there], minlength=workloads.key.size)
        first = _any(snapshot, pods, there & (table.rank[pods.rows] == 0))
        found, phases = [elastic & first & (count >= workloads.nodes_min), *found], [Phase.RUNNING, *phases]
    return np.select(found, [int(phase) for phase in phases], default=int(Phase.RUNNING)).astype(np.int64)


def _any(snapshot: Snapshot, pods: _Pods, mask: Bools) -> Bools:
    """Per workload, whether the mask holds for any of its pods."""
    return np.bincount(pods.workload[mask], minlength=snapshot.workloads.key.size) > 0
