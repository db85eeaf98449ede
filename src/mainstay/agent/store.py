"""The store as an effect loop needs it, far away: the wanted side is mirrored here and follows by its changes.

The mirror is as good as the store itself: it is never older than our last commit, never older than `STALE_SECONDS`, and
begun anew with every tenure. Orphans wait a minute, acts are fenced, and every observation says which version it read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import structlog

from mainstay.agent import convert_plan, convert_wanted
from mainstay.agent.connection import Connection
from mainstay.domain.allocation import Wanted
from mainstay.domain.capacity import Closure
from mainstay.domain.errors import MainstayError, Unavailable
from mainstay.domain.plan import CommitResult, Epoch, Plan
from mainstay.domain.volume import VolumeRef
from mainstay.domain.workload import Workload
from mainstay.ports import Clock, WantedChanges
from mainstay.wire import agent as wire

log = structlog.get_logger()

STALE_SECONDS = 5.0
"""Less than a lease: a view so old may be acted upon (docs/architecture.md)."""
POLL_SECONDS = 2.0
"""So long the control plane holds back the answer that nothing has changed."""
HEARD_SECONDS = 20.0
"""Some tries that fail are no reason to say that it is not heard."""
ASKED_MAX = 5
NOWHERE = -1
T = TypeVar("T")


class RemoteStore:
    """Implements `ports.LoopStore` for one cluster. Thread-safe."""

    def __init__(self, connection: Connection, clock: Clock, *, cluster: str) -> None:
        self._connection = connection
        self._clock = clock
        self._cluster = cluster
        self._turn = threading.Lock()
        self._mirror = Mirror()
        self._confirmed_at = float("-inf")
        self._needed = NOWHERE
        """The version that the mirror must have reached."""
        self._epoch = 0
        self._held_by = ""
        self._tenure = 0
        self._renewed_at = float("-inf")

    def acquire(self, lease: str, *, holder: str, now: int, seconds: float) -> Epoch | None:  # noqa: ARG002
        """Our clock decides nothing: the control plane takes its own. A new tenure begins with a new mirror.

        A tenure that lapsed is over, also if nobody took the lease meanwhile: we ask under another name and get a higher
        epoch, so that nothing which was begun before a long cut (such as a wait for its end) goes on as if there were none.
        """
        self._require_ours(lease)
        began = self._clock.monotonic()
        if began - self._renewed_at > seconds:
            self._tenure += 1
        asked = wire.LeaseAsked(holder=f"{holder}/{self._tenure}", seconds=seconds)
        said = self._connection.call("POST", "lease", wire.LeaseSaid, body=asked)
        if not said.epoch:
            if said.held_by != self._held_by:
                self._note_holder(said.held_by)
            self._held_by = said.held_by
            return None
        self._held_by, self._renewed_at = "", began
        with self._turn:
            if said.epoch != self._epoch:
                log.info("cluster_taken", cluster=self._cluster, epoch=said.epoch)
                self._epoch = said.epoch
                self._forget()
        return Epoch(name=lease, number=said.epoch)

    def _note_holder(self, holder: str) -> None:
        """A replica holds it for a moment when it puts on record that no agent was heard: that is no second agent."""
        if holder.startswith(wire.HOLDER):
            log.warning("another_agent_leads", cluster=self._cluster, holder=holder)
        else:
            log.info("waits_for_the_lease", cluster=self._cluster, holder=holder)

    def wanted(self, cluster: str) -> tuple[Wanted, ...]:
        """From the mirror if it is good, else asked for. Raises Unavailable rather than to answer with an old one."""
        self._require_ours(f"cluster/{cluster}")
        return self._good(lambda mirror: mirror.rows)

    def guests(self, cluster: str) -> tuple[Workload, ...]:
        """As `wanted`."""
        self._require_ours(f"cluster/{cluster}")
        return self._good(lambda mirror: mirror.guests)

    def closed_nodes(self, cluster: str) -> Mapping[str, Closure]:
        """As `wanted`."""
        self._require_ours(f"cluster/{cluster}")
        return self._good(lambda mirror: mirror.closed_nodes)

    def removals(self, cluster: str) -> tuple[VolumeRef, ...]:
        """As `wanted`."""
        self._require_ours(f"cluster/{cluster}")
        return self._good(lambda mirror: mirror.removals)

    def closed(self, cluster: str, pods: Collection[str]) -> tuple[Wanted, ...]:
        """Asked for: the mirror knows nothing of them."""
        self._require_ours(f"cluster/{cluster}")
        body = wire.ClosedAsked(pods=tuple(sorted(pods)))
        said = self._connection.call("POST", "closed", wire.WantedSaid, body=body)
        return convert_wanted.closed_rows(said, cluster=cluster)

    def _good(self, part: Callable[[Mirror], T]) -> T:
        for _ in range(ASKED_MAX):
            with self._turn:
                mirror = self._mirror
                if self._is_good():
                    return part(mirror)
                since = mirror.version
            began = self._clock.monotonic()
            said = self._connection.call("GET", "wanted", wire.WantedSaid, params={"since": since, "wait": 0})
            self._take_over(mirror, since, said, began)
        msg = f"what is wanted of {self._cluster} changes faster than it can be read"
        raise Unavailable(msg, object_=self._cluster)

    def commit(self, plan: Plan) -> CommitResult:
        """A lost connection leaves the outcome unknown: the mirror is asked for anew before anything is concluded."""
        assert plan.epoch is not None, "an effect loop commits under its epoch"
        self._require_ours(plan.epoch.name)
        body = convert_plan.plan_said(plan.epoch.number, plan.actions)
        try:
            result = convert_plan.commit_result(self._connection.call("POST", "plans", wire.CommitSaid, body=body))
        except MainstayError:
            with self._turn:
                self._confirmed_at = float("-inf")
            raise
        with self._turn:
            self._needed = max(self._needed, result.version)
        return result

    async def follow(self) -> bool:
        """Wait for changes, for some seconds at most; whether there were any. Raises Unavailable."""
        with self._turn:
            mirror = self._mirror
            since = mirror.version
        began = self._clock.monotonic()
        said = await self._connection.acall(
            "GET", "wanted", wire.WantedSaid, params={"since": since, "wait": f"{POLL_SECONDS:g}"}
        )
        return self._take_over(mirror, since, said, began)

    @property
    def follows(self) -> bool:
        """Whether the control plane has answered within the last seconds."""
        with self._turn:
            return self._clock.monotonic() - self._confirmed_at < HEARD_SECONDS

    def _take_over(self, mirror: Mirror, since: int, said: wire.WantedSaid, began: float) -> bool:
        """An answer to a question that we have gone beyond is dropped: it is a stale one, or came twice."""
        changes = convert_wanted.wanted_changes(said, cluster=self._cluster)
        with self._turn:
            if mirror is not self._mirror or since != mirror.version:
                return False
            news = mirror.take(changes)
            self._confirmed_at = began
            return news

    def _is_good(self) -> bool:
        fresh = self._clock.monotonic() - self._confirmed_at < STALE_SECONDS
        return fresh and self._mirror.version >= self._needed

    def _forget(self) -> None:
        self._mirror = Mirror()
        self._needed, self._confirmed_at = NOWHERE, float("-inf")

    def _require_ours(self, lease: str) -> None:
        assert lease == f"cluster/{self._cluster}", "an agent has one cluster"


class Mirror:
    """The wanted side as of one version."""

    def __init__(self) -> None:
        self.version = NOWHERE
        self.rows: tuple[Wanted, ...] = ()
        self.guests: tuple[Workload, ...] = ()
        self.closed_nodes: Mapping[str, Closure] = {}
        self.removals: tuple[VolumeRef, ...] = ()

    def take(self, changes: WantedChanges) -> bool:
        """Whether anything is another than it was."""
        before = self.rows, self.guests, self.closed_nodes, self.removals
        rows = {} if changes.whole else {row.allocation.key: row for row in self.rows}
        guests = {} if changes.whole else {workload.key: workload for workload in self.guests}
        rows |= {row.allocation.key: row for row in changes.rows}
        guests |= {workload.key: workload for workload in changes.guests}
        for known, over in ((rows, changes.closed), (guests, changes.finished)):
            for key in over:
                known.pop(key, None)
        self.version = changes.version
        self.rows = tuple(rows[key] for key in sorted(rows))
        self.guests = tuple(guests[key] for key in sorted(guests))
        if changes.closed_nodes is not None:
            self.closed_nodes = changes.closed_nodes
        if changes.removals is not None:
            self.removals = changes.removals
        return (self.rows, self.guests, self.closed_nodes, self.removals) != before
