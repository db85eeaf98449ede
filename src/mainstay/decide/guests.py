"""Guests: which of them become workloads and together with whom, and what is to be done about those that are.

A guest becomes a workload of the kind `pod` by itself, or with its group once enough of that is there. The id of the
workload derives from the UIDs of its pods (law 2 the other way round: their names are not ours to give), so that whoever
reports a pod twice submits it once. Whoever must not be told twice remembers it in `Memory`, for one tenure; forgetting
costs a refused submission or an event that is there already, and nothing else.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mainstay.decide.reconcile import MISSING_GRACE_SECONDS, observations
from mainstay.domain import ids
from mainstay.domain.allocation import (
    BindPod,
    End,
    EvictPod,
    Owner,
    PodAction,
    PodState,
    SeekPod,
    Seen,
    TellPod,
    Wanted,
)
from mainstay.domain.guest import Guest, plain_name
from mainstay.domain.plan import Action, Advance, NewWorkload, RowVersion, Submit
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import SETS_MAX, WAITING, Kind, Phase, PodSet, RetryPolicy, Workload, WorkloadSpec

ID_LETTERS = 12
"""60 bits: pods of one name (a StatefulSet makes many) must not meet, for nobody mints another id."""
SUBMISSIONS_MAX = 500
"""In one look, so that a commit stays short."""
GROUP_PODS_MAX = 1_000
"""Of one group, placed together: as many as a job of ours has ranks at most. No decision may grow with what strangers make."""
TELLS_MAX = 20
TELL_PAUSE_SECONDS = 30
"""A pod whose reason changes all the time is not told of it more often."""
TELL_AGAIN_SECONDS = 3_000
"""Events live for an hour."""
RETRY = RetryPolicy(infrastructure_max=0, user_max=0, backoff_seconds=2, backoff_seconds_max=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a pod was told, and at which tick."""

    words: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is kept from one look to the next, for one tenure. Ticks are monotonic microseconds."""

    missing: Mapping[str, int] = field(default_factory=dict)
    """UID that is on record and not reported -> since when."""
    told: Mapping[str, Told] = field(default_factory=dict)
    """By UID."""
    finished: frozenset[str] = frozenset()
    """Ids of workloads that are over, as the store said, although their pods still wait."""
    gone: Mapping[Owner, Reason] = field(default_factory=dict)
    """Projects that were removed, as the store said, although pods come for them. They never come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """What to commit, what to carry out after that, and what to remember."""

    actions: tuple[Action, ...]
    effects: tuple[PodAction, ...]
    memory: Memory


def host(
    cluster: str,
    guests: tuple[Guest, ...],
    rows: tuple[Wanted, ...],
    adopted: tuple[Workload, ...],
    *,
    now: int,
    tick: int,
    memory: Memory,
) -> Hosting:
    """Compare once. `rows` are those of guests, `adopted` their open workloads in this cluster; both must have been read after
    the guests were observed.
    """
    reported = {guest.pod.uid: guest for guest in guests}
    missing = {uid: memory.missing.get(uid, tick) for uid in _on_record(rows, adopted) if uid not in reported}
    overdue = frozenset(
        uid for uid, since in missing.items() if tick - since >= MISSING_GRACE_SECONDS * MICROSECONDS_PER_SECOND
    )
    actions: list[Action] = []
    effects: list[PodAction] = []
    for row in rows:
        guest = reported.get(_uid(row))
        actions.extend(observations(row, _state(row, guest), now=now))
        effects.extend(_effects(row, guest, overdue=overdue))
    actions.extend(_withdrawals(adopted, reported, overdue))
    arrivals = _Arrivals(guests, taken=_taken(rows, adopted), gone=memory.gone)
    actions.extend(arrivals.submissions(cluster, memory.finished))
    effects.extend(arrivals.evictions(memory.finished))
    tells = _tells({**_words(adopted, reported), **arrivals.words}, reported, memory.told, tick=tick)
    told = {uid: known for uid, known in memory.told.items() if uid in reported}
    told |= {tell.pod.uid: Told(words=tell.words, at=tick) for tell in tells}
    finished = memory.finished & arrivals.units.keys()
    return Hosting(
        actions=tuple(actions),
        effects=(*effects, *tells),
        memory=Memory(missing=missing, told=told, finished=finished, gone=memory.gone),
    )


def workload_id(name: str, uids: Iterable[str]) -> str:
    """A function of the UIDs: the same pods are the same workload, whoever reports them."""
    return ids.derived(name, *sorted(uids), letters=ID_LETTERS)


def new_workload(cluster: str, name: str, unit: tuple[Guest, ...]) -> NewWorkload:
    """Of guests that are placed together, by rank. `name` is its id, as `workload_id` makes it."""
    first = unit[0]
    return NewWorkload(
        id=name,
        tenant=first.tenant,
        project=first.project,
        queue=first.queue,
        submitted_by=f"cluster/{cluster}",
        priority=min(guest.priority for guest in unit),
        spec=WorkloadSpec(
            kind=Kind.POD,
            name=name[: -ID_LETTERS - 1],
            run=(),
            nodes=len(unit),
            choices=(first.resources,),
            retry=RETRY,
            max_duration_seconds=first.max_duration_seconds,
            stop_grace_seconds=first.grace_seconds,
            cluster=cluster,
            guests=tuple(guest.pod for guest in unit),
            restriction=first.restriction,
            sets=_sets(unit),
            topology=first.topology,
        ),
    )


def _sets(unit: tuple[Guest, ...]) -> tuple[PodSet, ...]:
    """Of pods that are not all alike; each is called after its first pod."""
    alike = [tuple(members) for _, members in itertools.groupby(unit, key=lambda guest: guest.resources)]
    if len(alike) == 1:
        return ()
    return tuple(
        PodSet(name=plain_name(members[0].pod.name), nodes=len(members), resources=members[0].resources)
        for members in alike
    )


def _uid(row: Wanted) -> str:
    assert row.guest is not None
    return row.guest.uid


def _on_record(rows: Iterable[Wanted], adopted: Iterable[Workload]) -> dict[str, None]:
    """UIDs that somebody must report: of live allocations, and of workloads that wait. In a fixed order."""
    placed = dict.fromkeys(_uid(row) for row in rows if row.allocation.seen is not Seen.ENDED)
    waiting = (pod.uid for workload in adopted if workload.phase in WAITING for pod in workload.spec.guests)
    return placed | dict.fromkeys(waiting)


def _state(row: Wanted, guest: Guest | None) -> PodState | None:
    """What is reported of the pod of an allocation; None if nothing is."""
    allocation = row.allocation
    if guest is None or allocation.seen is Seen.ENDED:
        return None
    state = guest.state
    if state is None:
        return PodState(name=allocation.pod, node=allocation.node, seen=Seen.NOTHING)
    if state.node == allocation.node:
        return replace(state, name=allocation.pod)
    # It has ended without a place, or somebody else has given it one: here it never starts.
    return PodState(
        name=allocation.pod,
        node=allocation.node,
        seen=Seen.ENDED,
        end=End.NEVER_STARTED,
        detail=state.detail or f"it was placed on {state.node} by somebody else",
    )


def _effects(row: Wanted, guest: Guest | None, *, overdue: frozenset[str]) -> Iterator[PodAction]:
    allocation, pod = row.allocation, row.guest
    assert pod is not None
    if allocation.seen is Seen.ENDED or (guest is not None and guest.over):
        return
    if allocation.stop:
        yield EvictPod(name=allocation.pod, node=allocation.node, pod=pod, grace_seconds=row.spec.stop_grace_seconds)
    elif guest is None:
        if pod.uid in overdue:
            yield SeekPod(name=allocation.pod, node=allocation.node, pod=pod)
    elif guest.waits and allocation.seen is Seen.NOTHING:
        yield BindPod(
            name=allocation.pod,
            node=allocation.node,
            pod=pod,
            attempt=allocation.attempt,
            holds=allocation.resources,
            restriction=row.spec.restriction,
        )


def _withdrawals(
    adopted: Iterable[Workload], reported: Mapping[str, Guest], overdue: frozenset[str]
) -> Iterator[Action]:
    """Workloads that wait for pods that do not: deleted, or placed by somebody else. The rest of a group waits anew."""
    for workload in adopted:
        uids = [pod.uid for pod in workload.spec.guests]
        gone = any(uid in overdue or (uid in reported and not reported[uid].waits) for uid in uids)
        if gone and workload.phase in WAITING:
            yield Advance(
                guards=(RowVersion(kind="workload", key=workload.key, version=workload.version),),
                reason=Reason(code=Code.WITHDRAWN, object=workload.id),
                workload_key=workload.key,
                phase=Phase.STOPPED,
                attempt=workload.attempt,
                infrastructure_failures=workload.infrastructure_failures,
                user_failures=workload.user_failures,
            )


def _taken(rows: Iterable[Wanted], adopted: Iterable[Workload]) -> frozenset[str]:
    """UIDs that belong to an open workload; without those that alone got no place while others of it ran."""
    started = {row.allocation.workload_key for row in rows if row.allocation.started_at}
    let_go = {
        _uid(row) for row in rows if row.allocation.end is End.NEVER_STARTED and row.allocation.workload_key in started
    }
    return frozenset({pod.uid for workload in adopted for pod in workload.spec.guests} - let_go)


class _Arrivals:
    """Guests that wait and belong to no workload: as units that can be placed, by the id that each would have."""

    def __init__(self, guests: Iterable[Guest], *, taken: frozenset[str], gone: Mapping[Owner, Reason]) -> None:
        self.units: dict[str, tuple[Guest, ...]] = {}
        self.words: dict[str, str] = {}
        """UID -> why it is in no unit."""
        groups: dict[tuple[str, str], list[Guest]] = {}
        for guest in guests:
            free = guest.waits and guest.pod.uid not in taken
            if why := gone.get(Owner(tenant=guest.tenant, project=guest.project)):
                self._say((guest,), why)
            elif guest.problem:
                self._say((guest,), Reason(code=Code.CANNOT_BE_PLACED, numbers={"detail": guest.problem}))
            elif guest.group is not None and not guest.over:
                groups.setdefault((guest.pod.namespace, guest.group.name), []).append(guest)
            elif free:
                self._add(guest.pod.name, (guest,))
        for (_, name), members in groups.items():
            self._gather(name, members, taken)

    def submissions(self, cluster: str, finished: frozenset[str]) -> Iterator[Submit]:
        """As if their owners had submitted them, to be placed where they are."""
        new = [name for name in self.units if name not in finished]
        pods = 0
        for name in new[:SUBMISSIONS_MAX]:
            pods += len(self.units[name])
            if pods > GROUP_PODS_MAX:
                return
            yield Submit(reason=Reason(code=Code.SUBMITTED), workload=new_workload(cluster, name, self.units[name]))

    def evictions(self, finished: frozenset[str]) -> Iterator[EvictPod]:
        """Pods that still wait although their workload was stopped."""
        for name, unit in self.units.items():
            if name in finished:
                yield from (
                    EvictPod(name=name, node="", pod=guest.pod, grace_seconds=guest.grace_seconds) for guest in unit
                )

    def _gather(self, name: str, members: list[Guest], taken: frozenset[str]) -> None:
        """Those of a group that wait, once enough of it is there: together or not at all. Of a very large one that does with
        fewer the first; once those are on record, the next.
        """
        waiting = [guest for guest in members if guest.waits and guest.pod.uid not in taken]
        sizes = [guest.group.size for guest in members if guest.group and guest.group.size is not None]
        if not waiting or not sizes:  # what nobody has read yet is nothing to tell
            return
        size = max(sizes)
        if not size:
            detail = f"its group {name} is not there, and no annotation says how many pods it has"
            self._say(waiting, Reason(code=Code.CANNOT_BE_PLACED, numbers={"detail": detail}))
        elif size > GROUP_PODS_MAX:
            detail = f"its group {name} is to be placed whole and has {size} pods; at most {GROUP_PODS_MAX} are placed together"
            self._say(waiting, Reason(code=Code.CANNOT_BE_PLACED, numbers={"detail": detail}))
        elif len(members) < size:
            numbers = {"present": len(members), "size": size}
            self._say(waiting, Reason(code=Code.WAITS_FOR_GROUP, object=name, numbers=numbers))
        else:
            self._add_together(name, waiting)

    def _add_together(self, name: str, waiting: list[Guest]) -> None:
        first = tuple(heapq.nsmallest(GROUP_PODS_MAX, waiting, key=_rank))
        kinds = list(dict.fromkeys(guest.resources for guest in first))
        if len({guest.restriction for guest in first}) > 1 or len(kinds) > SETS_MAX:
            detail = (
                f"the pods of its group {name} ask for different nodes, or for more than {SETS_MAX} different amounts"
            )
            self._say(waiting, Reason(code=Code.CANNOT_BE_PLACED, numbers={"detail": detail}))
            return
        self._add(name, tuple(sorted(first, key=lambda guest: kinds.index(guest.resources))))
        if len(first) < len(waiting):
            ahead = {guest.pod.uid for guest in first}
            rest = (guest for guest in waiting if guest.pod.uid not in ahead)
            self._say(rest, Reason(code=Code.WAITS_BEHIND_GROUP, object=name, numbers={"ahead": len(first)}))

    def _add(self, name: str, unit: tuple[Guest, ...]) -> None:
        self.units[workload_id(plain_name(name), (guest.pod.uid for guest in unit))] = unit

    def _say(self, guests: Iterable[Guest], reason: Reason) -> None:
        sentence = reason.sentence
        self.words.update((guest.pod.uid, sentence) for guest in guests if guest.waits)


def _rank(guest: Guest) -> tuple[int, str, str]:
    """By name, `worker-2` before `worker-10`."""
    return len(guest.pod.name), guest.pod.name, guest.pod.uid


def _words(adopted: Iterable[Workload], reported: Mapping[str, Guest]) -> dict[str, str]:
    """UID -> why its workload waits, once somebody has found that out."""
    words: dict[str, str] = {}
    for workload in adopted:
        if workload.phase in WAITING and workload.reason.code is not Code.SUBMITTED:
            sentence = workload.reason.sentence
            uids = (pod.uid for pod in workload.spec.guests)
            words.update((uid, sentence) for uid in uids if uid in reported and reported[uid].waits)
    return words


def _tells(
    words: Mapping[str, str], reported: Mapping[str, Guest], told: Mapping[str, Told], *, tick: int
) -> list[TellPod]:
    """News for pods that wait; the rest in the next look."""
    tells: list[TellPod] = []
    for uid, sentence in words.items():
        before = told.get(uid)
        pause = TELL_PAUSE_SECONDS if before and before.words != sentence else TELL_AGAIN_SECONDS
        if before is None or tick - before.at >= pause * MICROSECONDS_PER_SECOND:
            pod = reported[uid].pod
            tells.append(TellPod(name=f"{pod.namespace}/{pod.name}", pod=pod, words=sentence))
        if len(tells) == TELLS_MAX:
            break
    return tells
