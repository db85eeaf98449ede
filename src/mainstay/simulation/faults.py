"""What goes wrong, between the real loops and the real store and cluster: crashes, lost replies, stale and missing reports."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar, cast

from mainstay.clusters.simulated import SimulatedCluster
from mainstay.domain.allocation import BindPod, ClusterAction
from mainstay.domain.capacity import ClusterState, LogChunk
from mainstay.domain.errors import MainstayError, NotYet
from mainstay.domain.plan import CommitResult, Epoch, Plan
from mainstay.domain.registry import Endpoint, ModelVersion
from mainstay.domain.workload import Workload
from mainstay.ports import Process, Stream
from mainstay.simulation.pace import pause
from mainstay.store.store import SqlStore

T = TypeVar("T")


class CrashError(BaseException):
    """The process dies here. Not an Exception: no handler of ours may survive it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Probabilities of each fault where it can occur. All 0: a world where nothing goes wrong."""

    crash_before_commit: float = 0.004
    crash_after_commit: float = 0.006
    crash_before_act: float = 0.01
    crash_after_act: float = 0.015
    act_lost: float = 0.02
    act_reply_lost: float = 0.03
    pod_unreported: float = 0.01
    report_stale: float = 0.05
    long_pause: float = 0.04
    clock_jump: float = 0.03
    pod_lost: float = 0.02
    node_lost: float = 0.01
    read_stale: float = 0.25
    user_impatient: float = 0.02

    def scaled(self, rng: random.Random) -> Profile:
        """Another world: each fault as likely as here, several times as likely, or left out.

        Faults hide each other: a world that crashes all the time shows little of a slow one. Source: swarm testing
        (Groce et al., ISSTA 2012).
        """
        return Profile(**{name: value * rng.choice(SCALES) for name, value in asdict(self).items()})


STEADY = Profile(
    crash_before_commit=0.0005,
    crash_after_commit=0.0005,
    crash_before_act=0.001,
    crash_after_act=0.001,
    long_pause=0.005,
    node_lost=0.002,
    pod_lost=0.005,
)
"""Processes live long enough to wait for something."""
SCALES = (0, 1, 1, 4)
LATE, COMES = 0.2, 0.05
"""How often a binding is slow, and how likely one that is on its way comes with the next act."""
CALM = Profile(**dict.fromkeys(asdict(Profile()), 0))


class Dice:
    """Decides by seed whether a fault happens, and counts those that did."""

    def __init__(self, rng: random.Random, profile: Profile, counts: Counter[str]) -> None:
        self.rng = rng
        self.profile = profile
        self.counts = counts

    def throw(self, fault: str) -> bool:
        """Whether this fault happens now."""
        happens: bool = self.rng.random() < getattr(self.profile, fault)
        if happens:
            self.counts[fault] += 1
        return happens


class Leaders:
    """Who led when, written down outside the database: the highest epoch ever given out, by lease."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.holders: dict[Epoch, str] = {}
        self.acted_under: dict[str, int] = {}
        self.violations: list[str] = []

    def took(self, epoch: Epoch | None, holder: str) -> None:
        """An epoch was given out: always to the same holder, and never one that has passed."""
        if epoch is None:
            return
        if epoch.number < self.epochs.get(epoch.name, 0):
            self.violations.append(f"I11: lease {epoch.name} went back to epoch {epoch.number}")
        if self.holders.setdefault(epoch, holder) != holder:
            self.violations.append(
                f"I11: epoch {epoch.number} of {epoch.name} is held by {self.holders[epoch]} and {holder}"
            )
        self.epochs[epoch.name] = max(epoch.number, self.epochs.get(epoch.name, 0))

    def committed(self, epoch: Epoch | None) -> None:
        """A plan under this epoch was committed."""
        if epoch is not None and epoch.number != self.epochs.get(epoch.name):
            self.violations.append(f"I11: commit under epoch {epoch.number} of {epoch.name}, now {self.epochs}")

    def acted(self, lease: str, number: int) -> None:
        """An effect under this epoch was carried out."""
        highest = self.acted_under.get(lease, 0)
        if number < highest:
            self.violations.append(f"I11: act under epoch {number} of {lease} after one under {highest}")
        self.acted_under[lease] = max(number, highest)


class FaultyStore:
    """A store whose process may die around every commit, and be slow between a read and what follows from it.

    Everything else is passed on.
    """

    def __init__(self, store: SqlStore, dice: Dice, leaders: Leaders) -> None:
        self._store = store
        self._dice = dice
        self._leaders = leaders
        self._read_before: dict[object, object] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def acquire(self, lease: str, *, holder: str, now: int, seconds: float) -> Epoch | None:
        """Noted by the witness of leaders."""
        epoch = self._store.acquire(lease, holder=holder, now=now, seconds=seconds)
        self._leaders.took(epoch, holder)
        return epoch

    def workload(self, reference: str, *, tenant: str, projects: tuple[str, ...] | None = None) -> Workload:
        """May be how it stood when this process looked at it last."""
        return self._read(
            ("workload", reference, tenant, projects),
            lambda: self._store.workload(reference, tenant=tenant, projects=projects),
        )

    def endpoint(self, name: str, *, tenant: str) -> Endpoint:
        """May be how it stood when this process looked at it last."""
        return self._read(("endpoint", name, tenant), lambda: self._store.endpoint(name, tenant=tenant))

    def model_versions(self, *, tenant: str, model: str) -> tuple[ModelVersion, ...]:
        """May be those that this process saw last."""
        return self._read(
            ("model_versions", model, tenant), lambda: self._store.model_versions(tenant=tenant, model=model)
        )

    def commit(self, plan: Plan) -> CommitResult:
        """May crash before, or after with the reply lost."""
        if self._dice.throw("crash_before_commit"):
            raise CrashError
        result = self._store.commit(plan)
        if result.applied:
            self._leaders.committed(plan.epoch)
        if self._dice.throw("crash_after_commit"):
            raise CrashError
        return result

    def close(self) -> None:
        """The process lets go; the database goes on."""

    def _read(self, what: object, read: Callable[[], T]) -> T:
        """An operation reads and commits without a pause in between; one that was slow had read long ago."""
        if what in self._read_before and self._dice.throw("read_stale"):
            return cast("T", self._read_before[what])
        self._read_before[what] = found = read()
        return found


class FaultyCluster:
    """A cluster behind a bad network, used by a process that may die around every act."""

    def __init__(self, cluster: SimulatedCluster, dice: Dice, leaders: Leaders) -> None:
        self.name = cluster.name
        self.acts_at_once = cluster.acts_at_once
        self._cluster = cluster
        self._dice = dice
        self._leaders = leaders
        self._before: ClusterState | None = None
        self._late: list[BindPod] = []
        """Bindings that were taken for lost, and may come after all that was done since."""

    async def observe(self) -> ClusterState:
        """The truth, an earlier truth once more, or a report that misses pods. On its way in any case."""
        await pause()
        if self._before is not None and self._dice.throw("report_stale"):
            return self._before
        seen = await self._cluster.observe()
        self._before = seen
        pods = tuple(pod for pod in seen.pods if not self._dice.throw("pod_unreported"))
        guests = tuple(guest for guest in seen.guests if not self._dice.throw("pod_unreported"))
        return replace(seen, pods=pods, guests=guests)

    async def act(self, action: ClusterAction, *, epoch: int) -> None:
        """Applied or not, with or without an answer, some time after it was sent."""
        await pause()
        if self._dice.throw("crash_before_act"):
            raise CrashError
        if isinstance(action, BindPod) and self._dice.rng.random() < LATE:
            self._late.append(action)
            msg = "no reply came"
            raise NotYet(msg)
        if self._dice.throw("act_lost"):
            msg = "the request was lost"
            raise NotYet(msg)
        await self._cluster.act(action, epoch=epoch)
        self._leaders.acted(self.name, epoch)
        self._deliver_late()
        if self._dice.throw("crash_after_act"):
            raise CrashError
        if self._dice.throw("act_reply_lost"):
            msg = "the reply was lost"
            raise NotYet(msg)

    def _deliver_late(self) -> None:
        """An API server knows no epoch: it takes whatever comes."""
        if self._late and self._dice.rng.random() < COMES:
            with contextlib.suppress(MainstayError):
                self._cluster.bind_late(self._late.pop(0))

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """Passed on."""
        return await self._cluster.read_log(pod, offset=offset, limit=limit)

    async def copy_out(self, pod: str) -> None:
        """Passed on."""
        await self._cluster.copy_out(pod)

    def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """Passed on."""
        return self._cluster.outputs(pod)

    def connect(self, pod: str, port: int) -> AbstractAsyncContextManager[Stream]:
        """Passed on."""
        return self._cluster.connect(pod, port)

    def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AbstractAsyncContextManager[Process]:
        """Passed on."""
        return self._cluster.exec(pod, argv, stdin=stdin, tty=tty)

    async def close(self) -> None:
        """Nothing to let go of."""
