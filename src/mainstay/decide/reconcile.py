"""Wanted against seen: what to put on record, and what to do in the cluster.

A report may be lost, come twice, late or out of order. Hence: an end is only ever concluded from a report of that end
(R5), never from absence; what is on record never moves back, except to UNKNOWN, and from starting to pulling, since a pod
may have several images; and what destroys on the ground that something is *missing* waits and is rationed.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from mainstay.decide.kinds import pod_spec
from mainstay.decide.kinds.environment import dead_man_seconds
from mainstay.domain.allocation import (
    Allocation,
    ClusterAction,
    CreatePod,
    DeletePod,
    End,
    ForgetPod,
    PodAction,
    PodState,
    RevokePod,
    Seen,
    Wanted,
)
from mainstay.domain.capacity import ClusterState
from mainstay.domain.plan import Action, ClosePod, ObserveNodes, ObservePod, RowVersion
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import OnPartition

ORPHAN_GRACE_SECONDS = 60
"""A pod that no row names is left alone for so long: its row may only be late."""
MISSING_GRACE_SECONDS = 10
"""A pod on record that is not reported is looked for so long before its name is closed by a deletion."""
WORDS_SECONDS = 10
"""What keeps a pod from starting is put on record at once, and what it changes to only so much later: it may flicker."""
BLAST_RADIUS_PERCENT = 5
"""Of all pods reported, so many at most are removed as orphans in one round, and the next round is a grace later.

A database restored from an old backup must not kill the fleet: at this rate it takes twenty minutes, not one round.
"""


CLOCK_RATE_ERROR_PERCENT = 5
"""The clock of a pod may run slower than ours by so much: far more than any clock that is set by NTP."""
DEAD_MAN_SLACK_SECONDS = 60
"""So long after its time is over, and beside its grace, may a pod need to notice that: three looks of its kubelet, each of which
may take as long as the pause between two.
"""

_WAITING = frozenset({Seen.PULLING, Seen.STARTING})
_NOBODY: Mapping[str, int] = MappingProxyType({})
_UNHEARD: Mapping[tuple[str, bool], int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """Rows and reports of which nothing follows, whenever they are compared: of 50,000 pods few change between two rounds."""

    pairs: Mapping[str, tuple[Wanted, PodState | None]] = field(default_factory=dict)
    """By pod. None: it is not reported."""
    rows: Mapping[str, Wanted] | None = field(default=None, compare=False)
    pods: tuple[PodState, ...] = field(default=(), compare=False)
    """All that was compared, if all of it was calm; None and empty if not."""

    def has(self, pod: str, row: Wanted, state: PodState | None) -> bool:
        """Whether this very row and report are known to be calm."""
        pair = self.pairs.get(pod)
        return pair is not None and pair[0] is row and pair[1] is state

    def is_all(self, rows: Mapping[str, Wanted], pods: tuple[PodState, ...]) -> bool:
        """Whether these very rows and reports are known to be calm."""
        if rows is not self.rows or len(pods) != len(self.pods):
            return False
        return pods is self.pods or all(map(operator.is_, pods, self.pods))


_NOTHING_CALM = Calm()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What to commit, what to carry out after that, since when each name has had no counterpart, when words of each
    pod that waits were put on record last, and the pods that no row names.
    """

    observations: tuple[Action, ...]
    effects: tuple[ClusterAction, ...]
    unmatched: Mapping[str, int]
    told: Mapping[str, int]
    unheard: Mapping[tuple[str, bool], int]
    """Since when each pod is UNKNOWN in the words of its cluster, and (True) since when it is so and revoked."""
    strangers: frozenset[str] = frozenset()
    calm: Calm = _NOTHING_CALM


def reconcile(
    cluster: str,
    rows: Mapping[str, Wanted],
    seen: ClusterState,
    *,
    now: int,
    tick: int,
    unmatched_since: Mapping[str, int],
    told_at: Mapping[str, int] = _NOBODY,
    unheard_since: Mapping[tuple[str, bool], int] = _UNHEARD,
    made: AbstractSet[str] = frozenset(),
    calm: Calm = _NOTHING_CALM,
) -> Reconciliation:
    """Compare once. `rows` by pod must have been read after `seen` was observed, so that a new pod is never an orphan. They may
    hold closed ones of pods that are back since their cluster was set back: what is on record of their end holds.

    `unmatched_since` is the `unmatched` of the last round, or empty at the start: it holds pods that no row names and
    pods on record that are not reported, each with the tick when that was first noticed. A tick counts monotonic
    microseconds: no jump of a wall clock may shorten the wait before something is destroyed. `told_at` is likewise the
    `told` of the last round, and `unheard_since` its `unheard`. `made` are pods that the cluster has said to have made: one that
    is gone before it was ever reported is missing (its cluster was set back, and its node may run it), and never made again.
    Repeating a round is harmless: effects are idempotent by name, and observations repeat only what is not on record.
    Guests are looked after by `decide.guests`.

    `calm` is the `calm` of the last round, or empty: what is the very same row and report as then is not compared once more.
    """
    if calm.is_all(rows, seen.pods):
        return Reconciliation(
            observations=(_nodes(cluster, seen),), effects=(), unmatched={}, told=told_at, unheard={}, calm=calm
        )
    pods = {pod.name: pod for pod in seen.pods}
    unmatched = _unmatched(pods, rows, tick=tick, since=unmatched_since, made=made)
    actions: list[Action] = [_nodes(cluster, seen)]
    effects: list[PodAction] = []
    told = {name: at for name, at in told_at.items() if name in rows}
    restless = [name for name, row in rows.items() if not calm.has(name, row, pods.get(name))]
    unheard = {
        key: unheard_since.get(key, tick)
        for name in restless
        if (pod := pods.get(name)) and pod.seen is Seen.UNKNOWN
        for key in ((name, False), *(((name, True),) if pod.revoked else ()))
    }
    still = dict(calm.pairs)
    for name in (*restless, *(still.keys() - rows.keys())):
        still.pop(name, None)
    for name in restless:
        row, pod = rows[name], pods.get(name)
        missing_us = tick - unmatched.get(name, tick)
        quiet = name in told and tick - told[name] < WORDS_SECONDS * MICROSECONDS_PER_SECOND
        given_up = _given_up(row, pod, unheard, tick=tick, now=now)
        found = (given_up,) if given_up else tuple(observations(row, pod, now=now, quiet=quiet))
        if name in made and pod is None and row.allocation.seen is Seen.NOTHING:
            if missing_us >= MISSING_GRACE_SECONDS * MICROSECONDS_PER_SECOND:
                actions.append(_observation(row.allocation, _lost_sight_of(row.allocation)))
            continue
        if any(isinstance(action, ObservePod) and _tells_why_it_waits(action.state) for action in found):
            told[name] = tick
        todo: list[PodAction] = list(_effects(row, pod, missing_us=missing_us))
        if _is_to_be_revoked(row, pod, unheard, tick=tick):
            todo.append(RevokePod(name=name))
        if not found and not todo and not quiet and not _waits_for_time(row, pod):
            still[name] = (row, pod)
        actions.extend(found)
        effects.extend(todo)
    orphans = _overdue_orphans(pods, unmatched, tick=tick)
    effects.extend(orphans)
    if orphans:
        unmatched = {name: tick if name in pods else since for name, since in unmatched.items()}
    whole = len(still) == len(rows) and not unmatched
    return Reconciliation(
        observations=tuple(actions),
        effects=tuple(effects),
        unmatched=unmatched,
        told=told,
        unheard=unheard,
        strangers=frozenset(name for name in unmatched if name in pods and name not in rows),
        calm=Calm(pairs=still, rows=rows, pods=seen.pods) if whole else Calm(pairs=still),
    )


def _waits_for_time(row: Wanted, pod: PodState | None) -> bool:
    """Whether something may follow later of what is the same then."""
    if pod is None:
        return row.allocation.seen is not Seen.ENDED
    return pod.seen is Seen.UNKNOWN


def _is_to_be_revoked(row: Wanted, pod: PodState | None, unheard: Mapping[tuple[str, bool], int], *, tick: int) -> bool:
    """It has been unheard of for so long that its timer has run out, if it was not renewed: from now on it never is.

    Whatever its node is told late is then that its time is over, and not a renewal that was on its way.
    """
    name, after = row.allocation.pod, dead_man_seconds(row.spec)
    if not after or pod is None or pod.revoked or (name, False) not in unheard or row.allocation.seen is Seen.ENDED:
        return False
    return tick - unheard[name, False] >= after * (100 + CLOCK_RATE_ERROR_PERCENT) * MICROSECONDS_PER_SECOND // 100


def _given_up(
    row: Wanted, pod: PodState | None, unheard: Mapping[tuple[str, bool], int], *, tick: int, now: int
) -> ObservePod | None:
    """The end of a pod that nobody has reported, by the policy of its workload (reliability.md R5, R6); by monotonic time alone.

    Nobody has witnessed for how long it ran, so it is charged for no more than is on record.
    """
    allocation, spec = row.allocation, row.spec
    if pod is None or allocation.seen is Seen.ENDED or (allocation.pod, False) not in unheard:
        return None
    if spec.on_partition is OnPartition.ALLOW_DUPLICATES:
        since, wait = unheard[allocation.pod, False], spec.partition_seconds
        words = f"it was not heard of for {wait} s and may run on: its job allows that"
    elif spec.on_partition is OnPartition.REQUEUE_AFTER and (allocation.pod, True) in unheard:
        since, wait = unheard[allocation.pod, True], spec.stop_grace_seconds + DEAD_MAN_SLACK_SECONDS
        words = f"it was not heard of and has ended itself, as it does after {spec.partition_seconds} s without being renewed"
    else:
        return None
    if tick - since < wait * MICROSECONDS_PER_SECOND:
        return None
    started = allocation.started_at or pod.started_at
    ended_at = max(started, allocation.metered_until) or now
    state = PodState(
        name=pod.name,
        node=allocation.node,
        seen=Seen.ENDED,
        started_at=started,
        ended_at=ended_at,
        end=End.LOST,
        detail=words,
    )
    return _observation(allocation, state)


def output_awaited(action: ObservePod, allocation: Allocation, why: str) -> ObservePod:
    """That its end is not on record yet, since its output files could not be fetched so far."""
    detail = f"it has ended, and its output is not fetched yet: {why}"
    state = replace(
        action.state,
        seen=Seen.RUNNING,
        ended_at=0,
        end=None,
        exit_code=None,
        address=allocation.address,
        ready=allocation.ready,
        detail=detail,
    )
    return replace(action, state=state, reason=_reason(state))


def without_output(action: ObservePod, why: str) -> ObservePod:
    """The same end, as one whose output files could not be kept: whoever waits for them must not take it for success."""
    state = replace(action.state, end=End.OUTPUT_NOT_STORED, detail=why)
    return replace(action, state=state, reason=_reason(state))


def not_copied(action: ObservePod, why: str, *, output: str) -> ObservePod:
    """The same end, as one whose output is kept, and of which an object store did not take what was left for it."""
    state = replace(action.state, end=End.COPY_REFUSED, detail=why)
    return replace(action, state=state, reason=_reason(state), output=output)


def _tells_why_it_waits(state: PodState) -> bool:
    return state.seen is not Seen.ENDED and bool(state.detail)


def _unmatched(
    pods: Mapping[str, PodState],
    rows: Mapping[str, Wanted],
    *,
    tick: int,
    since: Mapping[str, int],
    made: AbstractSet[str],
) -> dict[str, int]:
    if pods.keys() == rows.keys():
        return {}
    orphans = [name for name in sorted(pods.keys() - rows.keys()) if not pods[name].forgotten]
    missing = [
        name
        for name in sorted(rows.keys() - pods.keys())
        if (on_record := rows[name].allocation.seen) is not Seen.ENDED
        and (on_record is not Seen.NOTHING or name in made)
    ]
    return {name: since.get(name, tick) for name in (*orphans, *missing)}


def _nodes(cluster: str, seen: ClusterState) -> ObserveNodes:
    """Always stated; the store writes only what differs."""
    numbers = {"node": f"of {cluster}", "state": "as reported"}
    reason = Reason(code=Code.NODE_CHANGED, object=cluster, numbers=numbers)
    return ObserveNodes(reason=reason, cluster=cluster, nodes=seen.nodes, at=seen.at)


def observations(row: Wanted, pod: PodState | None, *, now: int, quiet: bool = False) -> Iterator[Action]:
    """What to put on record of one allocation, by what its cluster reports.

    `quiet`: words of this pod were put on record a moment ago.
    """
    allocation = row.allocation
    if allocation.seen is Seen.ENDED:
        if row.settled and _metered(allocation) and (pod is None or pod.forgotten):
            yield ClosePod(
                guards=(_unchanged(allocation),),
                reason=Reason(code=Code.POD_ENDED, object=allocation.pod, numbers=_end_numbers(allocation)),
                allocation_key=allocation.key,
            )
        return
    if pod is None:
        if allocation.seen not in {Seen.NOTHING, Seen.UNKNOWN}:
            yield _observation(allocation, _lost_sight_of(allocation))
        return
    state = _on_top_of(allocation, pod, now=now, quiet=quiet)
    if state is not None:
        yield _observation(allocation, state)


def _effects(row: Wanted, pod: PodState | None, *, missing_us: int) -> Iterator[PodAction]:
    allocation = row.allocation
    ended = pod is not None and pod.seen is Seen.ENDED
    if allocation.seen is Seen.ENDED:
        if pod is not None and not ended:
            # Back from the dead: of a restored cluster, or of a node that was said to be off. Its next attempt may run.
            yield _deletion(row)
        elif pod is not None and not pod.forgotten:
            yield ForgetPod(name=allocation.pod)
    elif allocation.stop:
        # Also where there is no pod: the tombstone refuses a creation that is still on its way.
        if not ended:
            yield _deletion(row)
    elif pod is None and allocation.seen is Seen.NOTHING:
        yield CreatePod(name=allocation.pod, node=allocation.node, spec=pod_spec(allocation, row.spec))
    elif (
        pod is None
        and allocation.seen is Seen.UNKNOWN
        and missing_us >= MISSING_GRACE_SECONDS * MICROSECONDS_PER_SECOND
    ):
        # Its tombstone, once reported, is the proof of death that a new attempt needs.
        yield _deletion(row)


def _deletion(row: Wanted) -> DeletePod:
    allocation = row.allocation
    return DeletePod(
        name=allocation.pod,
        grace_seconds=row.spec.stop_grace_seconds,
        owner=allocation.owner,
        node="" if allocation.seen is Seen.NOTHING else allocation.node,
    )


def _overdue_orphans(pods: Mapping[str, PodState], unmatched: Mapping[str, int], *, tick: int) -> list[PodAction]:
    """The oldest first, then by name, within the ration. What has ended needs no deletion: it is let go of."""
    overdue = sorted(
        (since, name)
        for name, since in unmatched.items()
        if name in pods and tick - since >= ORPHAN_GRACE_SECONDS * MICROSECONDS_PER_SECOND
    )
    ration = max(1, len(pods) * BLAST_RADIUS_PERCENT // 100)
    return [
        ForgetPod(name=name) if pods[name].seen is Seen.ENDED else DeletePod(name=name, grace_seconds=30)
        for _, name in overdue[:ration]
    ]


def _on_top_of(allocation: Allocation, pod: PodState, *, now: int, quiet: bool) -> PodState | None:
    """The report merged into what is on record, or None if it is older or says nothing new."""
    if pod.seen is not Seen.ENDED and _is_older(allocation, pod):
        return None
    state = replace(pod, started_at=allocation.started_at or pod.started_at, forgotten=False)
    if pod.seen is Seen.ENDED:
        vanished = state.started_at > 0 and pod.end is End.NEVER_STARTED
        if vanished:
            # It ran, and its cluster knows nothing of it: it is charged as witnessed (docs/decisions/0004).
            state = replace(state, end=End.LOST)
        ended_at = allocation.witnessed_at if vanished else pod.ended_at or now
        return replace(state, ended_at=max(ended_at, state.started_at, allocation.metered_until), ready=False)
    if state.seen in _WAITING and allocation.seen in _WAITING:
        changed = state.seen is not allocation.seen or state.detail != allocation.detail
        return state if changed and not quiet else None
    words = allocation.stop or (state.seen is Seen.RUNNING and allocation.seen is Seen.RUNNING)
    if words and state.detail != allocation.detail and not quiet:
        return state  # what keeps it from ending, or what is wrong while it runs
    news = (
        state.seen is not allocation.seen
        or state.started_at != allocation.started_at
        or state.ready != allocation.ready
        or state.address != allocation.address
    )
    return state if news else None


def _is_older(allocation: Allocation, pod: PodState) -> bool:
    if pod.seen is Seen.NOTHING:
        return True
    if pod.seen is Seen.UNKNOWN:
        return False
    if pod.seen in _WAITING and allocation.seen in _WAITING:
        return False
    if allocation.seen is Seen.UNKNOWN:
        # Back in sight. It cannot be less far than it was: whoever has started does not start again (law 2).
        return allocation.started_at > 0 and pod.seen < Seen.RUNNING
    return pod.seen < allocation.seen


def _lost_sight_of(allocation: Allocation) -> PodState:
    return PodState(
        name=allocation.pod,
        node=allocation.node,
        seen=Seen.UNKNOWN,
        started_at=allocation.started_at,
        detail="missing in the report of its cluster",
        address=allocation.address,
    )


def _observation(allocation: Allocation, state: PodState) -> ObservePod:
    return ObservePod(
        guards=(_unchanged(allocation),),
        reason=_reason(state),
        allocation_key=allocation.key,
        state=state,
    )


def _reason(state: PodState) -> Reason:
    if state.seen is Seen.ENDED:
        numbers: dict[str, int | float | str] = {
            "end": state.end.value if state.end else "unknown",
            "exit_code": "none" if state.exit_code is None else state.exit_code,
            "detail": state.detail,
        }
        return Reason(code=Code.POD_ENDED, object=state.name, numbers=numbers)
    if state.seen is Seen.UNKNOWN:
        return Reason(code=Code.POD_LOST, object=state.name, numbers={"detail": state.detail or "its state is unknown"})
    code = Code.POD_RUNNING if state.seen is Seen.RUNNING else Code.POD_STARTING
    return Reason(code=code, object=state.name, numbers={"detail": state.detail} if state.detail else {})


def _end_numbers(allocation: Allocation) -> dict[str, int | float | str]:
    return {
        "end": allocation.end.value if allocation.end else "unknown",
        "exit_code": "none" if allocation.exit_code is None else allocation.exit_code,
    }


def _metered(allocation: Allocation) -> bool:
    """Nothing of it is left to be recorded; of one that ended in the instant of its start there never was anything."""
    return allocation.started_at == 0 or max(allocation.metered_until, allocation.started_at) >= allocation.ended_at


def _unchanged(allocation: Allocation) -> RowVersion:
    return RowVersion(kind="allocation", key=allocation.key, version=allocation.version)
