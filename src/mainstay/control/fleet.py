"""Follows the table of clusters: every cluster that was added has its loop in this replica, and no other has one.

Each loop is a task of its own, so that a cluster that hangs, fails or lies holds up no other. What is remembered here
may be lost at any moment: the next turn of another process makes the same of the same table.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from mainstay.control.listener import Listener
from mainstay.control.loop import Due, Loop
from mainstay.control.lost import LostCluster
from mainstay.control.member import Member
from mainstay.control.remote import RemoteCluster
from mainstay.domain.errors import Denied
from mainstay.domain.fleet import ClusterKind, ClusterRecord, Stay
from mainstay.domain.plan import Plan, UseCredentials
from mainstay.domain.reason import Code, Reason
from mainstay.operations.services import Services
from mainstay.ports import Cluster

log = structlog.get_logger()

FOLLOW_SECONDS = 1.0
"""A cluster that another replica added is opened here after so long."""
CLOSE_SECONDS = 5.0
"""A loop that takes longer to end is looked at again in the next turn; nothing takes its place before."""

Start: TypeAlias = Callable[[Loop], asyncio.Task[None]]


class Fleet:
    """The loops of the clusters that this replica did not bring along itself."""

    def __init__(self, services: Services, *, holder: str, start: Start) -> None:
        """`start` runs a loop until it is cancelled."""
        self._services = services
        self._holder = holder
        self._start = start
        self._running: dict[str, _Running] = {}
        self._brought = tuple(services.clusters)
        self._elsewhere: tuple[str, ...] = ()

    def loop(self) -> Loop:
        """What the runner runs."""
        return Loop(name="fleet", turn=self.turn, close=self.close)

    async def turn(self) -> Due:
        """One look at the table. Raises what ended a loop: only a failed disk does."""
        for running in self._running.values():
            if running.task.done() and not running.task.cancelled():
                running.task.result()
        for name in self._brought:
            await self._services.agents.ways.keep(name)
        wanted, elsewhere = await self._services.offload(self._table)
        self._know_machines(elsewhere)
        for name, running in list(self._running.items()):
            if name not in wanted or not running.serves(wanted[name]):
                await self._end(name, running)
        for name, record in wanted.items():
            if name not in self._running:
                self._begin(record)
        return Due(wait=FOLLOW_SECONDS)

    def _know_machines(self, elsewhere: tuple[str, ...]) -> None:
        """Of other replicas, which run their loops; what users ask of their pods goes through those."""
        for name in set(self._elsewhere) - set(elsewhere):
            self._services.clusters.pop(name, None)
        self._elsewhere = elsewhere
        for name in elsewhere:
            self._services.clusters.setdefault(name, RemoteCluster(name, self._services.agents.ways))

    async def close(self) -> None:
        """End all loops."""
        await asyncio.gather(*(self._end(name, running) for name, running in list(self._running.items())))

    def _table(self) -> tuple[dict[str, ClusterRecord], tuple[str, ...]]:
        """Those that stay, and those removed as lost until the last of their allocations is closed; and the machines that other
        replicas brought along.
        """
        store = self._services.store
        rows = store.clusters()
        wanted = {
            row.name: row
            for row in rows
            if row.kind is not ClusterKind.LOCAL and (row.wanted is not Stay.REMOVED or store.wanted(row.name))
        }
        machines = (row.name for row in rows if row.kind is ClusterKind.LOCAL and row.wanted is not Stay.REMOVED)
        return wanted, tuple(name for name in machines if name not in self._brought)

    def _begin(self, record: ClusterRecord) -> None:
        log.info("cluster_begins", cluster=record.name, kind=record.kind.value)
        self._running[record.name] = _Running(record=record, task=self._start(self._loop(record)))

    def _loop(self, record: ClusterRecord) -> Loop:
        """That of a cluster which an agent carries runs beside it; here it is only listened for."""
        gone = record.wanted is Stay.REMOVED
        if record.kind is ClusterKind.AGENT and not gone:
            return Listener(self._services, record.name, holder=self._holder).loop()
        return Member(
            self._services,
            record.name,
            lambda: self._opened(record),
            holder=self._holder,
            identity="" if gone else record.identity,
        ).loop()

    async def _opened(self, record: ClusterRecord) -> Cluster:
        """Its credentials are opened once that is on record; whoever lacks the key opens nothing, however often it tries.

        Raises Invalid, Denied, Unavailable, Conflict.
        """
        if record.wanted is Stay.REMOVED:
            return LostCluster(record.name, self._services.clock)
        connector = self._services.connectors.get(record.kind)
        if connector is None:
            msg = f"this replica has no way into a cluster of the kind {record.kind.value}"
            raise Denied(msg, object_=record.name, hint="start it with the version that the others have")
        if self._services.sealing.has_key_of(record.sealed):
            await self._services.offload(self._put_on_record, record.name)
        return connector.open(record, self._services.sealing.opened(record.name, record.sealed))

    def _put_on_record(self, cluster: str) -> None:
        reason = Reason(code=Code.CREDENTIALS_USED, object=cluster, numbers={"by": self._holder})
        use = UseCredentials(cluster=cluster, reason=reason)
        now = self._services.clock.now()
        self._services.store.commit(Plan(actor=f"cluster/{cluster}", now=now, actions=(use,), atomic=True))

    async def _end(self, name: str, running: _Running) -> None:
        """Cancel its loop and let go of the cluster; if that takes too long, the next turn goes on with it."""
        running.task.cancel()
        done, _ = await asyncio.wait({running.task}, timeout=CLOSE_SECONDS)
        if not done:
            log.warning("cluster_does_not_end", cluster=name)
            return
        cluster = self._services.clusters.pop(name, None)
        if cluster is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await cluster.close()
        del self._running[name]
        log.info("cluster_ends", cluster=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    record: ClusterRecord
    task: asyncio.Task[None]

    def serves(self, record: ClusterRecord) -> bool:
        """Whether the cluster is still reached in the same way; what was seen of it may have changed."""
        return _way(self.record) == _way(record)


def _way(record: ClusterRecord) -> tuple[object, ...]:
    gone = record.wanted is Stay.REMOVED
    if record.kind is ClusterKind.AGENT:
        return (record.kind, record.settings.agent_token, gone)
    return (record.kind, record.settings, record.sealed, record.identity, gone)
