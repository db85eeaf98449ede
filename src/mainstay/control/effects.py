"""The effect loop of one cluster: look at it, compare with what is wanted, record what was seen, act.

The order of the steps is what makes it safe:
1. `observe` before `wanted`: an allocation is committed before its pod is created, so a pod that was seen has its row
   by the time the rows are read; a pod without one is truly an orphan.
2. Observations are committed before effects are carried out: nothing is forgotten on the cluster whose end is not on
   record (law 3).
3. Up to when the cluster has been witnessed is committed last, and only if every observation of that look went on
   record: nothing is charged beyond an end that we have been told of (docs/decisions/0004).
4. All carry the epoch: the commit is refused, and so is the act, once a newer holder has taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import structlog

from mainstay.control.outputs import Output, Outputs
from mainstay.decide.guests import Memory, host
from mainstay.decide.keeping import marks, suspicions
from mainstay.decide.reconcile import Calm, Reconciliation, not_copied, output_awaited, reconcile, without_output
from mainstay.decide.removals import drops
from mainstay.domain.allocation import (
    BindPod,
    ClusterAction,
    CreatePod,
    DeletePod,
    DropVolume,
    End,
    MarkNode,
    Owner,
    PodState,
    ReleasePod,
    Rows,
    Seen,
    Wanted,
)
from mainstay.domain.capacity import Closure, ClusterState, NodeState
from mainstay.domain.errors import Denied, Fenced, Gone, Invalid, MainstayError, NoCapacity, NotYet
from mainstay.domain.plan import Action, Epoch, ObserveNodes, ObservePod, ObserveVolumes, Plan, Refused, Submit
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.volume import VolumeRef, VolumeState
from mainstay.domain.workload import Workload
from mainstay.operations.offload import Offload
from mainstay.ports import ArtifactStore, Clock, Cluster, LoopStore

log = structlog.get_logger()

BUSY_SECONDS = 0.04
"""How often a cluster with live pods is looked at: half of what a person notices as a delay."""
IDLE_SECONDS = 1.0
WITNESS_SECONDS = 20.0
"""While pods run, up to when they have been seen to is put on record so often: a commit that says nothing else."""
DROP_AGAIN_SECONDS = 30.0
"""A volume that is still there is asked to go again after so long."""
ROOM_SECONDS_MAX = 60.0
"""So long a pod waits for the room that it was given on its node; a kubelet that restarts is back sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one look found: every step after it works on this alone."""

    rows: Rows
    reconciliation: Reconciliation
    at: int = 0
    """The cluster's own time of the look; 0 if it does not say."""
    volumes: tuple[VolumeState, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """What one turn found and did."""

    busy: bool
    """There are pods to watch closely."""
    committed: bool
    acted_seconds: float
    """How long the cluster took to act."""


class EffectLoop:
    """One cluster's loop. A turn is `look`, `record`, `carry_out`; any of them may be repeated or cut off.

    What it remembers holds for one tenure: between two of ours another leader may have changed what is on record.
    """

    def __init__(
        self,
        store: LoopStore,
        cluster: Cluster,
        artifacts: ArtifactStore,
        clock: Clock,
        offload: Offload,
        *,
        identity: str = "",
    ) -> None:
        """`identity`: which cluster it must be that answers, where the cluster says; empty: any."""
        self.fault: Exception | None = None
        """What the last look at the cluster ended in, if it failed."""
        self._identity = identity
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._offload = offload
        self._outputs = Outputs(cluster, artifacts, clock)
        self._unmatched: Mapping[str, int] = {}
        self._told: Mapping[str, int] = {}
        self._unheard: Mapping[tuple[str, bool], int] = {}
        self._calm = Calm()
        self._wanted: tuple[Wanted, ...] = ()
        self._rows = Rows.of(())
        """What was wanted at the last look, and the same by pod."""
        self._memory = Memory()
        self._suspected: dict[str, int] = {}
        """Node -> up to which refusal (its cluster's time) it was suspected by us."""
        self._nodes: tuple[NodeState, ...] = ()
        """As last put on record by us: a report of the same nodes is no news and costs no transaction."""
        self._volumes: tuple[VolumeState, ...] | None = None
        """Likewise."""
        self._dropped: dict[VolumeRef, float] = {}
        """When (monotonic seconds) volumes were asked to go last."""
        self._looked_at = 0
        self._made: set[str] = set()
        """Pods that the cluster has made for us, until they are on record as seen."""
        self._strangers: frozenset[str] = frozenset()
        """Pods that no open row names, and of which we have asked whether a closed one does."""
        self._returned: dict[str, Wanted] = {}
        """Those of them that are back from the dead, by name."""
        self._without_room: dict[str, float] = {}
        """Since when (monotonic seconds) pods find no room on their nodes."""
        self._witness_due = clock.monotonic()

    async def turn(self, epoch: Epoch) -> Turned:
        """One round. Raises Fenced, Unavailable, Denied, and whatever a cluster that lies leads to."""
        view = await self.look()
        recorded = await self.record(view, epoch)
        began = self._clock.monotonic()
        refused = await self.carry_out(view, epoch)
        acted = self._clock.monotonic() - began
        return Turned(busy=bool(view.rows.all), committed=recorded or refused, acted_seconds=acted)

    async def look(self) -> View:
        """Observe the cluster, then read what is wanted, and compare.

        A look that is not newer than the one before it is an old report once more and tells nothing. After a cluster's
        clock was set back, that is one look.
        """
        seen = await self._observed()
        wanted, adopted, closed, removals = await self._offload(self._on_record)
        before, self._looked_at = self._looked_at, seen.at
        if 0 < seen.at <= before:
            nothing = Reconciliation(
                observations=(), effects=(), unmatched=self._unmatched, told=self._told, unheard=self._unheard
            )
            return View(rows=Rows.of(wanted), reconciliation=nothing)
        rows = self._by_pod(wanted, self._still_back(seen))
        now, tick = self._clock.now(), round(self._clock.monotonic() * MICROSECONDS_PER_SECOND)
        name = self._cluster.name
        if self._made:
            open_ = [row for pod in self._made if (row := rows.all.get(pod))]
            self._made = {row.allocation.pod for row in open_ if row.allocation.seen is Seen.NOTHING}
        found = reconcile(
            name,
            rows.ours,
            seen,
            now=now,
            tick=tick,
            unmatched_since=self._unmatched,
            told_at=self._told,
            unheard_since=self._unheard,
            made=self._made,
            calm=self._calm,
        )
        self._calm = found.calm
        self._unmatched, self._told, self._unheard = found.unmatched, found.told, found.unheard
        hosted = host(name, seen.guests, rows.guests, adopted, now=now, tick=tick, memory=self._memory)
        self._memory = hosted.memory
        suspected = tuple(suspicions(name, seen.nodes, closed, self._suspected, now=now))
        self._suspected |= {action.node: action.refused_at for action in suspected}
        both = replace(
            found,
            observations=(*found.observations, *hosted.actions, *suspected),
            effects=(
                *found.effects,
                *hosted.effects,
                *marks(seen.nodes, closed, now=seen.at or now),
                *self._due(drops(seen, removals)),
            ),
        )
        await self._look_up(found.strangers)
        return View(rows=rows, reconciliation=both, at=seen.at, volumes=seen.volumes)

    def _by_pod(self, wanted: tuple[Wanted, ...], returned: tuple[Wanted, ...]) -> Rows:
        """The same rows as at the last look are the same object."""
        if wanted is not self._wanted or returned or len(wanted) != len(self._rows.all):
            self._wanted, self._rows = wanted, Rows.of((*wanted, *returned))
        return self._rows

    def _on_record(
        self,
    ) -> tuple[tuple[Wanted, ...], tuple[Workload, ...], Mapping[str, Closure], tuple[VolumeRef, ...]]:
        name, store = self._cluster.name, self._store
        return store.wanted(name), store.guests(name), store.closed_nodes(name), store.removals(name)

    def _due(self, found: Iterable[DropVolume]) -> Iterator[DropVolume]:
        """What was asked a moment ago needs its time, and what is refused is not asked in every look."""
        now = self._clock.monotonic()
        self._dropped = {volume: at for volume, at in self._dropped.items() if now - at < DROP_AGAIN_SECONDS}
        for action in found:
            volume = VolumeRef(owner=action.owner, name=action.name)
            if volume not in self._dropped:
                self._dropped[volume] = now
                yield action

    def _still_back(self, seen: ClusterState) -> tuple[Wanted, ...]:
        """The closed rows of pods that have come back, until those are let go of again."""
        if self._returned:
            shown = {pod.name for pod in seen.pods if not pod.forgotten}
            self._returned = {name: row for name, row in self._returned.items() if name in shown}
        return tuple(self._returned.values())

    async def _look_up(self, strangers: frozenset[str]) -> None:
        """Whether pods that no open row names have a closed one: where a cluster was set back to an older state, pods come
        back whose end is on record. Then nobody need wait until they count as orphans, and nothing is rationed: as with
        every pod whose end is on record, its deletion follows from what we know, not from what is missing.
        """
        new = strangers - self._strangers
        self._strangers &= strangers
        if not new:
            return
        rows = await self._offload(self._store.closed, self._cluster.name, new)
        self._strangers |= new
        self._returned |= {row.allocation.pod: row for row in rows}
        if rows:
            names = sorted(row.allocation.pod for row in rows)
            log.warning("pods_are_back", cluster=self._cluster.name, count=len(names), first=names[0])

    async def _observed(self) -> ClusterState:
        """Raises Denied if another cluster answers: that it knows none of our pods says nothing about them."""
        try:
            seen = await self._cluster.observe()
            self._require_identity(seen)
        except Exception as error:
            self.fault = error
            raise
        self.fault = None
        return seen

    def _require_identity(self, seen: ClusterState) -> None:
        if self._identity and seen.identity and seen.identity != self._identity:
            msg = "another cluster answers at its address: it was built anew, or the address was given away"
            hint = f"drain {self._cluster.name}, remove it as lost and add it again; or mend its address"
            raise Denied(msg, object_=self._cluster.name, hint=hint)

    async def record(self, view: View, epoch: Epoch) -> bool:
        """Commit what was seen; whether that was anything. An end waits until the output files of its pod are stored."""
        rows = view.rows.ours
        observations: list[Action] = []
        nodes: ObserveNodes | None = None
        withheld = False
        for action in view.reconciliation.observations:
            if isinstance(action, ObserveNodes):
                nodes = replace(action, at=0)
                if nodes.nodes != self._nodes:
                    observations.append(nodes)
            elif isinstance(action, ObservePod) and has_output(action, rows):
                allocation = rows[action.state.name].allocation
                output = self._outputs.collected(allocation)
                if output is None:
                    withheld = True
                    if why := self._outputs.news(allocation.pod):
                        observations.append(output_awaited(action, allocation, why))
                else:
                    observations.append(_with_output(action, output))
            else:
                observations.append(action)
        if view.volumes is not None and view.volumes != self._volumes:
            reason = Reason(code=Code.VOLUME_FOUND, object=self._cluster.name)
            observations.append(ObserveVolumes(cluster=self._cluster.name, volumes=view.volumes, reason=reason))
        refused = await self._commit(observations, epoch)
        self._volumes = view.volumes if view.volumes is not None else self._volumes
        if nodes is not None:
            self._nodes = nodes.nodes
            if not withheld and not refused and self._witness_is_due(view):
                await self._commit([replace(nodes, at=view.at)], epoch)
                self._witness_due = self._clock.monotonic() + WITNESS_SECONDS
        return bool(observations)

    async def carry_out(self, view: View, epoch: Epoch) -> bool:
        """Carry out the effects, as many at once as the cluster takes; whether the refusal of one went on record.

        One that fails holds up no other; the first failure is raised after the last effect, so that the turn counts as
        failed. The next look finds what is left.
        """
        rows = view.rows.all
        self._without_room = {name: since for name, since in self._without_room.items() if name in rows}
        effects = iter(view.reconciliation.effects)
        failures: list[MainstayError] = []
        postponed: list[tuple[ClusterAction, MainstayError]] = []
        refused: list[str] = []

        async def work() -> None:
            for effect in effects:
                try:
                    if await self._carry_out(effect, rows.get(effect.name), epoch):
                        refused.append(effect.name)
                except (NoCapacity, NotYet, Gone) as error:
                    postponed.append((effect, error))
                except Fenced:
                    raise
                except MainstayError as error:
                    log.warning("effect_failed", pod=effect.name, effect=type(effect).__name__, reason=error.message)
                    failures.append(error)

        await _side_by_side(work, min(self._cluster.acts_at_once, len(view.reconciliation.effects)))
        if postponed:
            effect, why = postponed[0]
            kind = type(effect).__name__
            tell = log.debug if isinstance(why, NotYet) else log.info
            tell("effects_postponed", count=len(postponed), pod=effect.name, effect=kind, reason=why.message)
        if failures:
            raise failures[0]
        return bool(refused)

    async def _carry_out(self, effect: ClusterAction, row: Wanted | None, epoch: Epoch) -> bool:
        """Carry out one effect; whether its refusal went on record."""
        try:
            await self._cluster.act(effect, epoch=epoch.number)
            if isinstance(effect, CreatePod):
                self._made.add(effect.name)
        except NoCapacity as error:
            creates = isinstance(effect, CreatePod | BindPod)
            if row is None or not creates or not self._waited_too_long(effect.name):
                raise
            if isinstance(effect, BindPod):
                await self._refuse(effect, row, error, epoch)
                return True
            await self._bury(row, epoch)
        except Denied as error:
            if isinstance(effect, MarkNode):
                # Nothing of ours is placed there in any case: only others are not told.
                log.warning("node_not_marked", node=effect.name, reason=error.message)
            elif isinstance(effect, DropVolume):
                # It stays as it is: nothing that names it is placed, and that it is to go stays on record.
                log.warning("volume_not_dropped", volume=effect.name, reason=error.message)
            else:
                raise
        except Invalid as error:
            if row is None or not isinstance(effect, CreatePod | BindPod):
                raise
            await self._refuse(effect, row, error, epoch)
            return True
        return False

    async def close(self) -> None:
        """Drop the copies of output files under way; they start again with the next loop."""
        await self._outputs.close()

    def _waited_too_long(self, pod: str) -> bool:
        """Its node went, or others took its room: the workload is better placed anew than kept waiting for that node."""
        now = self._clock.monotonic()
        return now - self._without_room.setdefault(pod, now) >= ROOM_SECONDS_MAX

    async def _bury(self, row: Wanted, epoch: Epoch) -> None:
        """Take the name of a pod that was not made, so that it never will be."""
        allocation = row.allocation
        owner = Owner(tenant=allocation.tenant, project=allocation.project)
        await self._cluster.act(DeletePod(name=allocation.pod, grace_seconds=0, owner=owner), epoch=epoch.number)

    async def _refuse(self, effect: CreatePod | BindPod, row: Wanted, error: MainstayError, epoch: Epoch) -> None:
        """The pod can never run here: make sure that no late copy of this effect happens still, then put its end on record."""
        log.warning("pod_refused", pod=effect.name, reason=error.message)
        if isinstance(effect, CreatePod):
            end = End.START_FAILED
            with contextlib.suppress(Invalid):  # what refuses the tombstone refuses the pod as well
                await self._bury(row, epoch)
        else:
            end = End.NEVER_STARTED
            release = ReleasePod(name=effect.name, pod=effect.pod, attempt=effect.attempt)
            await self._cluster.act(release, epoch=epoch.number)
        now = self._clock.now()
        state = PodState(
            name=effect.name, node=effect.node, seen=Seen.ENDED, ended_at=now, end=end, detail=error.message
        )
        numbers = {"end": end.value, "exit_code": "none", "detail": error.message}
        reason = Reason(code=Code.POD_ENDED, object=effect.name, numbers=numbers)
        await self._commit([ObservePod(allocation_key=row.allocation.key, state=state, reason=reason)], epoch)

    def _witness_is_due(self, view: View) -> bool:
        """Only what runs is charged by what was witnessed: an idle cluster needs no record of it."""
        runs = any(row.allocation.seen is Seen.RUNNING for row in view.rows.all.values())
        return view.at > 0 and runs and self._clock.monotonic() >= self._witness_due

    async def _commit(self, actions: list[Action], epoch: Epoch) -> bool:
        """Whether anything was refused, but for guests whose workload is over or whose project is gone: that is remembered."""
        if not actions:
            return False
        plan = Plan(actor=f"cluster/{self._cluster.name}", now=self._clock.now(), actions=tuple(actions), epoch=epoch)
        result = await self._offload(self._store.commit, plan)
        over = {name for refused in result.refused if (name := _finished(refused, actions))}
        gone = [(owner, one.reason) for one in result.refused if (owner := _gone(one, actions))]
        if over or gone:
            finished, known = self._memory.finished | over, {**self._memory.gone, **dict(gone)}
            self._memory = replace(self._memory, finished=finished, gone=known)
        return len(result.refused) > len(over) + len(gone)


def _with_output(action: ObservePod, output: Output) -> ObservePod:
    if output.fault:
        return without_output(action, output.fault)
    if output.copy_fault:
        return not_copied(action, output.copy_fault, output=output.tree)
    return replace(action, output=output.tree)


def _finished(refused: Refused, actions: list[Action]) -> str:
    """The id of a workload that could not be submitted because it has been, and is over; empty if it is something else."""
    action = actions[refused.index]
    if isinstance(action, Submit) and refused.reason.code is Code.DUPLICATE:
        return action.workload.id
    return ""


def _gone(refused: Refused, actions: list[Action]) -> Owner | None:
    """The project that was removed, for which something came; None if it is something else."""
    action = actions[refused.index]
    if isinstance(action, Submit) and refused.reason.code in {Code.TENANT_GONE, Code.PROJECT_GONE}:
        return Owner(tenant=action.workload.tenant, project=action.workload.project)
    return None


def has_output(action: ObservePod, rows: Mapping[str, Wanted]) -> bool:
    """Whether files are to be fetched before this end is recorded: rank 0 of a pod that ended well speaks for its gang."""
    row = rows.get(action.state.name)
    ended_well = action.state.seen is Seen.ENDED and action.state.end is End.EXITED and action.state.exit_code == 0
    return row is not None and ended_well and row.allocation.rank == 0


async def _side_by_side(work: Callable[[], Coroutine[None, None, None]], workers: int) -> None:
    """Several workers on what they share; the first error of one ends all and is raised as it is."""
    if workers <= 1:
        await work()
        return
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
    except* MainstayError as errors:
        raise errors.exceptions[0] from None
