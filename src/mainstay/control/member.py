"""One cluster of the fleet in this replica: opened, looked after while we lead it, and whether it answers on record."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import structlog

from mainstay.control.contact import Finding, Watch, answers, fails
from mainstay.control.effects import BUSY_SECONDS, IDLE_SECONDS, EffectLoop, Turned
from mainstay.control.loop import Due, Loop
from mainstay.control.tenure import LEASE_SECONDS, Tenure
from mainstay.domain.errors import Conflict, Denied, Fenced, MainstayError, Unavailable
from mainstay.domain.fleet import lease_of
from mainstay.domain.plan import Epoch, ObserveCluster, Plan
from mainstay.operations.services import LoopServices
from mainstay.ports import Cluster

log = structlog.get_logger()

REOPEN_SECONDS = (2 * LEASE_SECONDS, 4 * LEASE_SECONDS)
"""Who cannot open a cluster tries again after so long, by chance: longer than a lease, so that a replica that can
(it holds the right key) takes over in between."""


class Member:
    """Opens its cluster when it is first needed, in every replica: logs are read where they are asked for.

    What the effect loop remembers holds for one tenure.
    """

    def __init__(
        self,
        services: LoopServices,
        name: str,
        open_: Callable[[], Awaitable[Cluster]],
        *,
        holder: str,
        identity: str = "",
    ) -> None:
        """`open_` may be slow to fail and is asked again after a failure. `identity`: which cluster it must be."""
        self._services = services
        self._name = name
        self._open = open_
        self._identity = identity
        self._tenure = Tenure(services.store, services.clock, lease=lease_of(name), holder=holder)
        self._cluster: Cluster | None = None
        self._effects: EffectLoop | None = None
        self._number = 0
        self._watch = Watch()

    def loop(self) -> Loop:
        """What the runner runs."""
        return Loop(name=f"cluster/{self._name}", turn=self.turn, close=self.close)

    async def turn(self) -> Due:
        """One round. Raises Fenced, Unavailable, and whatever the cluster raised, once that is on record."""
        try:
            cluster = await self._opened()
        except (Conflict, Unavailable):
            # That it may be opened could not be put on record: this says nothing about the cluster.
            raise
        except MainstayError as error:
            log.warning("cluster_not_opened", cluster=self._name, code=error.code, reason=error.message)
            return await self._not_opened(error)
        epoch = await self._services.offload(self._tenure.epoch)
        if epoch is None:
            return Due(wait=IDLE_SECONDS)
        turned = await self._turn(await self._effects_of(cluster, epoch), epoch)
        return Due(wait=BUSY_SECONDS if turned.busy else IDLE_SECONDS, waited=turned.acted_seconds)

    async def close(self) -> None:
        """Drop what is under way. The cluster itself is let go of by who opened it."""
        if self._effects is not None:
            await self._effects.close()

    async def _opened(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._services.clusters[self._name] = await self._open()
        return self._cluster

    async def _not_opened(self, error: MainstayError) -> Due:
        epoch = await self._services.offload(self._tenure.epoch)
        if epoch is not None:
            await self._tell(fails(self._name, error), epoch)
        return Due(wait=random.uniform(*REOPEN_SECONDS))

    async def _effects_of(self, cluster: Cluster, epoch: Epoch) -> EffectLoop:
        if self._effects is None or epoch.number != self._number:
            await self.close()
            services = self._services
            self._effects = EffectLoop(
                services.store,
                cluster,
                services.artifacts,
                services.clock,
                services.offload,
                identity=self._identity,
            )
            self._number, self._watch = epoch.number, Watch()
        return self._effects

    async def _turn(self, effects: EffectLoop, epoch: Epoch) -> Turned:
        try:
            turned = await effects.turn(epoch)
        except Fenced:
            self._tenure.lost()
            raise
        except Exception as error:
            # What the store raised says nothing about the cluster; what lets us in and then refuses to act does.
            if effects.fault or isinstance(error, Denied):
                await self._tell(fails(self._name, effects.fault or error), epoch)
            raise
        if turned.committed:
            self._services.pulse.beat()
        await self._tell(answers(self._name), epoch)
        return turned

    async def _tell(self, finding: Finding, epoch: Epoch) -> None:
        clock = self._services.clock
        if not self._watch.is_news(finding, now=clock.monotonic()):
            return
        action = ObserveCluster(cluster=self._name, seen=finding.seen, reason=finding.reason)
        plan = Plan(actor=f"cluster/{self._name}", now=clock.now(), actions=(action,), epoch=epoch)
        try:
            await self._services.offload(self._services.store.commit, plan)
        except Fenced:
            self._tenure.lost()
            raise
        self._watch.told(finding)
        self._services.pulse.beat()
