"""The epoch of whoever acts on a cluster, kept in a Lease of the cluster itself.

It makes a leader that wakes up late notice before it acts, not after. What makes it harmless in the moment between are the names:
they are taken for as long as a tombstone stays, much longer than a look at the fence is trusted. Where the policy of
deploy/kubernetes/components/fenced is in force, the API server compares the epoch of every write with this Lease as well.

What is written here passes the gate of the cluster (`Pace`) as every write does, before all that is not urgent. Whoever stands
in the gate already only reads here: it would wait for a place behind itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.errors import AlreadyExists, Conflict, NotFound
from mainstay.clusters.kubernetes.kinds import LEASES, NAMESPACES
from mainstay.clusters.kubernetes.objects import Lease
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.domain.errors import Fenced, NotYet
from mainstay.ports import Clock

TRUSTED_SECONDS = 5.0
"""So long may somebody else have taken over without our noticing."""
PERMIT_SECONDS = 60.0
"""What was admitted has to be on its way so long after that; tombstones stay ten times as long."""
TRIES = 5
T = TypeVar("T")


class Fence:
    """Admits the highest epoch that it has seen, and no lower one."""

    def __init__(self, api: KubeApi, clock: Clock, pace: Pace, *, system: str) -> None:
        self._api, self._clock, self._pace = api, clock, pace
        self._name = names.fence(system)
        self._lease: Lease | None = None
        """As of the last look; None: it is not there."""
        self._looked_at = float("-inf")
        self._looking, self._raising = asyncio.Lock(), asyncio.Lock()

    async def admit(self, epoch: int) -> None:
        """Before anything is asked for: raise the mark to this epoch, if it is lower. Not for those who stand in the gate.

        Raises Fenced if a higher epoch has acted, and ApiError if that cannot be found out.
        """
        if self._is_known(epoch):
            return
        async with self._raising:  # of many at once one writes; replicas are told apart by the version of the object
            for _ in range(TRIES):
                if await self._stands_at(epoch):
                    return
                with contextlib.suppress(Conflict):
                    await self._raise_to(epoch)
        msg = "the fence of the cluster changes faster than it can be read"
        raise Conflict(msg)

    async def still_admits(self, epoch: int) -> float:
        """Until when (monotonic seconds) a write may be sent, for those who were admitted and stand in the gate by now.

        It only reads. Raises as `admit`, and NotYet if the mark is lower, as of a cluster that was set back: whoever is
        admitted next raises it.
        """
        if not await self._stands_at(epoch):
            msg = f"the fence of the cluster was set back: epoch {epoch} is written there again first"
            raise NotYet(msg)
        return self._looked_at + PERMIT_SECONDS

    @property
    def _mark(self) -> int:
        """Below all epochs if there is none."""
        return self._lease.spec.lease_transitions if self._lease is not None else -1

    def _is_known(self, epoch: int) -> bool:
        return epoch == self._mark and self._clock.monotonic() - self._looked_at < TRUSTED_SECONDS

    async def _stands_at(self, epoch: int) -> bool:
        """Whether the mark is at an epoch, or else below it. Of many that ask at once one looks. Raises Fenced."""
        if not self._is_known(epoch):
            async with self._looking:
                if not self._is_known(epoch):
                    await self._look()
        if self._mark > epoch:
            msg = f"epoch {epoch} has passed: the cluster has seen {self._mark}"
            raise Fenced(msg)
        return self._mark == epoch

    async def _look(self) -> None:
        began = self._clock.monotonic()
        try:
            self._lease = await self._api.get(LEASES, names.CONTROL_NAMESPACE, self._name)
        except NotFound:
            self._lease = None
        self._looked_at = began

    async def _raise_to(self, epoch: int) -> None:
        """Raises Conflict if somebody has changed it since it was looked at."""
        lease = self._lease or await self._made()
        change = {
            "metadata": {"resourceVersion": lease.metadata.resource_version},
            "spec": {"leaseTransitions": epoch},
        }
        await self._write(partial(self._api.patch, LEASES, names.CONTROL_NAMESPACE, self._name, change))

    async def _made(self) -> Lease:
        """Raises Conflict if somebody else makes it."""
        document = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.name,
            "metadata": {"name": self._name, "labels": {names.MANAGED_BY: "mainstay"}},
            "spec": {"holderIdentity": "mainstay", "leaseTransitions": 0},
        }
        make = partial(self._api.create, LEASES, names.CONTROL_NAMESPACE, document)
        try:
            return await self._write(make)
        except NotFound:
            await self._make_namespace()
            return await self._write(make)

    async def _make_namespace(self) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": names.CONTROL_NAMESPACE, "labels": {names.MANAGED_BY: "mainstay"}},
        }
        with contextlib.suppress(AlreadyExists):
            await self._write(partial(self._api.create, NAMESPACES, "", document))

    async def _write(self, call: Callable[[], Awaitable[T]]) -> T:
        """A new leader can do nothing before this: it waits behind nothing that is not urgent too."""
        return await self._pace.write(call, urgent=True)
