"""The namespaces of projects, with all that keeps projects from each other: made where they are missing, and mended once by each
process, so that an upgrade of the platform closes what an older one had left open.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from mainstay.clusters.kubernetes import surroundings
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.errors import AlreadyExists, Forbidden
from mainstay.clusters.kubernetes.kinds import NAMESPACES, NETWORK_POLICIES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, Kind
from mainstay.clusters.kubernetes.objects import Object
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.pods import Document
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.allocation import Owner

ROLES = "apply the roles of this version: kubectl apply -k deploy/kubernetes/access"
log = structlog.get_logger()


class Homes:
    """Of all projects in a cluster."""

    def __init__(self, api: KubeApi, pace: Pace, settings: Settings) -> None:
        self._api, self._pace, self._settings = api, pace, settings
        self._furnished: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def ensure(self, name: str, owner: Owner) -> None:
        """Before a pod is created there. It costs requests only at the first pod of a namespace in the life of this process."""
        if name in self._furnished:
            return
        async with self._one_at_a_time:
            if name not in self._furnished:
                await self.make(name, owner)

    async def make(self, name: str, owner: Owner) -> None:
        """Also where it was there a moment ago: somebody may have deleted it. Twice is once, and a crash in between leaves what
        the next try completes.

        An account whose role is older than this platform may neither limit nor mend, and makes namespaces as it always did.
        """
        for kind, where, document in (
            (NAMESPACES, "", surroundings.namespace(name, owner, self._settings)),
            (SERVICE_ACCOUNTS, name, surroundings.account(owner, self._settings)),
        ):
            try:
                await self._pace.write(partial(self._api.create, kind, where, document))
            except AlreadyExists:
                continue
        for kind, document, needed in (
            (NETWORK_POLICIES, surroundings.default_deny(owner, self._settings), True),
            (RESOURCE_QUOTAS, surroundings.quota(owner, self._settings), False),
        ):
            try:
                await self._pace.write(partial(self._api.create, kind, name, document))
            except AlreadyExists:
                await self._mend(name, kind, document)
            except Forbidden as error:
                if needed:
                    raise
                self._tell(name, kind, error)
        self._furnished.add(name)

    async def _mend(self, namespace: str, kind: Kind[Object], document: Document) -> None:
        """What is there becomes what it should be. Of a policy, a list is replaced whole: a way that was open is closed."""
        try:
            await self._pace.write(partial(self._api.patch, kind, namespace, surroundings.NAME, document))
        except Forbidden as error:
            self._tell(namespace, kind, error)

    def _tell(self, namespace: str, kind: Kind[Object], error: Forbidden) -> None:
        log.warning("not_isolated", namespace=namespace, kind=kind.plural, why=error.message, hint=ROLES)
