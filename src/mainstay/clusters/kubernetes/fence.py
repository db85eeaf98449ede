"""The epoch of whoever acts on a cluster, kept in a Lease of the cluster itself.

It makes a leader that wakes up late notice before it acts, not after. What makes it harmless in the moment between are the names:
they are taken for as long as a tombstone stays, much longer than a look at the fence is trusted. Where the policy of
deploy/kubernetes/components/fenced is in force, the API server compares the epoch of every write with this Lease as well.
"""

from __future__ import annotations

import asyncio

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.errors import AlreadyExists, Conflict, NotFound
from mainstay.clusters.kubernetes.kinds import LEASES, NAMESPACES
from mainstay.clusters.kubernetes.objects import Lease
from mainstay.domain.errors import Fenced
from mainstay.ports import Clock

TRUSTED_SECONDS = 5.0
"""So long may somebody else have taken over without our noticing."""
PERMIT_SECONDS = 60.0
"""What was admitted has to be on its way so long after that; tombstones stay ten times as long."""
TRIES = 5


class Fence:
    """Admits the highest epoch that it has seen, and no lower one."""

    def __init__(self, api: KubeApi, clock: Clock, *, system: str) -> None:
        self._api = api
        self._clock = clock
        self._name = names.fence(system)
        self._highest = -1
        self._looked_at = float("-inf")
        self._turn = asyncio.Lock()

    async def admit(self, epoch: int) -> float:
        """Until when (monotonic seconds) this may be made use of.

        Raises Fenced if a higher epoch has acted, and ApiError if that cannot be found out.
        """
        if epoch != self._highest or not self._is_fresh():
            async with self._turn:
                if epoch != self._highest or not self._is_fresh():
                    await self._look(epoch)
        return self._looked_at + PERMIT_SECONDS

    def _is_fresh(self) -> bool:
        return self._clock.monotonic() - self._looked_at < TRUSTED_SECONDS

    async def _look(self, epoch: int) -> None:
        """Raise the mark to our epoch, if it is lower; two that do so at once are told apart by the version of the object."""
        for _ in range(TRIES):
            began = self._clock.monotonic()
            lease = await self._lease()
            held = lease.spec.lease_transitions
            if held < epoch:
                try:
                    await self._raise_to(epoch, lease)
                except Conflict:
                    continue
                held = epoch
            self._highest, self._looked_at = held, began
            if held > epoch:
                msg = f"epoch {epoch} has passed: the cluster has seen {held}"
                raise Fenced(msg)
            return
        msg = "the fence of the cluster changes faster than it can be read"
        raise Conflict(msg)

    async def _lease(self) -> Lease:
        try:
            return await self._api.get(LEASES, names.CONTROL_NAMESPACE, self._name)
        except NotFound:
            return await self._made()

    async def _made(self) -> Lease:
        document = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.name,
            "metadata": {"name": self._name, "labels": {names.MANAGED_BY: "mainstay"}},
            "spec": {"holderIdentity": "mainstay", "leaseTransitions": 0},
        }
        try:
            return await self._api.create(LEASES, names.CONTROL_NAMESPACE, document)
        except AlreadyExists:
            return await self._api.get(LEASES, names.CONTROL_NAMESPACE, self._name)
        except NotFound:
            await self._make_namespace()
            return await self._api.create(LEASES, names.CONTROL_NAMESPACE, document)

    async def _make_namespace(self) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": names.CONTROL_NAMESPACE, "labels": {names.MANAGED_BY: "mainstay"}},
        }
        try:
            await self._api.create(NAMESPACES, "", document)
        except AlreadyExists:
            return

    async def _raise_to(self, epoch: int, lease: Lease) -> None:
        change = {
            "metadata": {"resourceVersion": lease.metadata.resource_version},
            "spec": {"leaseTransitions": epoch},
        }
        await self._api.patch(LEASES, names.CONTROL_NAMESPACE, self._name, change)
