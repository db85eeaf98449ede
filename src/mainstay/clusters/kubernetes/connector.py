"""The way into Kubernetes clusters: which credentials, are they enough, and the cluster behind them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

from mainstay.clusters.kubernetes import local
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.kinds import EVENTS
from mainstay.clusters.kubernetes.permissions import PERMISSIONS, Permission
from mainstay.clusters.kubernetes.registered import registered
from mainstay.clusters.kubernetes.settings import DEFAULT_IMAGE, HELPER_IMAGE, Settings
from mainstay.clusters.kubernetes.sources import Fixed, Source
from mainstay.domain.errors import Denied
from mainstay.domain.fleet import ClusterFacts, ClusterKind, ClusterRecord, ClusterSettings, Credentials
from mainstay.ports import ArtifactStore, Clock, Secrets

OLDEST = (1, 29)
"""Older ones lack scheduling gates that may be relied on, and terminal phases of deleted pods."""
SKEW_SECONDS_MAX = 60
EVENTS_MANY = 50_000
"""A question about the events of one pod reads all of its namespace: of so many it takes the API server about a second."""
_MINOR = re.compile(r"\d+")


class KubernetesConnector:
    """Implements `ports.Connector`."""

    def __init__(
        self, artifacts: ArtifactStore, secrets: Secrets, clock: Clock, *, system: str, kubeconfig: Path | None = None
    ) -> None:
        """`system` is the identity of this platform: what it makes in a cluster carries its mark.

        `kubeconfig` is our own one, where it is not at its usual place.
        """
        self._kubeconfig = kubeconfig
        self._artifacts, self._secrets = artifacts, secrets
        self._clock = clock
        self._system = system

    async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:
        """Asks the API server who it is and what we may do; changes nothing."""
        source = self._source(settings, credentials)
        api = Connection(source, clock=self._clock)
        try:
            server = (await source.current()).server
            version, identity = await asyncio.gather(api.version(), api.cluster_uid())
            missing, events = await asyncio.gather(_missing(api), _events(api))
            skew = abs(api.server_time() - self._clock.now()) // 1_000_000
        finally:
            await api.close()
        number = (int(version.major or 0), int((_MINOR.match(version.minor) or ["0"])[0]))
        return ClusterFacts(
            identity=identity,
            version=version.git_version,
            server=server,
            missing=missing,
            warnings=tuple(_warnings(number, skew, events)),
        )

    def kept(self, settings: ClusterSettings, credentials: Credentials) -> Credentials:
        """The chosen context alone: others of the file are no business of ours."""
        if not credentials.kubeconfig:
            return credentials
        reduced = registered(credentials.kubeconfig, context=settings.context)
        return Credentials(kubeconfig=reduced.to_kubeconfig(context=settings.context))

    def open(self, cluster: ClusterRecord, credentials: Credentials) -> KubernetesCluster:
        """Nothing is asked of it yet."""
        settings = cluster.settings
        return KubernetesCluster(
            name=cluster.name,
            api=Connection(self._source(settings, credentials), clock=self._clock),
            artifacts=self._artifacts,
            secrets=self._secrets,
            clock=self._clock,
            settings=Settings(
                system=self._system,
                image=settings.image or DEFAULT_IMAGE,
                helper_image=settings.helper_image or HELPER_IMAGE,
                reached_directly=settings.in_cluster and cluster.kind is ClusterKind.KUBERNETES,
                namespaces_per_project=settings.namespaces_per_project,
                scheduler_name=settings.scheduler_name,
                topology=dict(settings.topology),
            ),
        )

    def _source(self, settings: ClusterSettings, credentials: Credentials) -> Source:
        """Registered ones are reduced to keys; the platform's own file and its pod are trusted as they are."""
        if credentials.kubeconfig:
            return Fixed(registered(credentials.kubeconfig, context=settings.context))
        if settings.in_cluster:
            return local.in_cluster(clock=self._clock)
        usual = Path(os.environ.get("KUBECONFIG", "").partition(os.pathsep)[0] or "~/.kube/config")
        return local.kubeconfig(self._kubeconfig or usual, clock=self._clock, context=settings.context)


async def _missing(api: KubeApi) -> tuple[str, ...]:
    """What we may not do, in words."""
    asked = [(permission, verb) for permission in PERMISSIONS for verb in permission.verbs]
    granted = await asyncio.gather(
        *(
            api.can(verb, permission.kind, namespace=permission.namespace, subresource=permission.subresource)
            for permission, verb in asked
        )
    )
    refused: dict[Permission, list[str]] = {}
    for (permission, verb), yes in zip(asked, granted, strict=True):
        if not yes:
            refused.setdefault(permission, []).append(verb)
    return tuple(
        f"{', '.join(verbs)} {permission.resource} (to {permission.why})" for permission, verbs in refused.items()
    )


async def _events(api: KubeApi) -> int:
    """How many there are; 0 if we may not know."""
    try:
        async with aclosing(api.list_pages(EVENTS, limit=1)) as pages:
            async for page in pages:
                return len(page.items) + len(page.unreadable) + page.remaining
    except Denied:  # what is missing is told by itself
        return 0
    return 0


def _warnings(version: tuple[int, int], skew_seconds: int, events: int) -> Iterator[str]:
    if version < OLDEST:
        yield f"Kubernetes {version[0]}.{version[1]} is older than {OLDEST[0]}.{OLDEST[1]}, the oldest that is tested"
    if skew_seconds > SKEW_SECONDS_MAX:
        yield f"its clock and ours are {skew_seconds} s apart: set both by NTP, or times of runs will look wrong"
    if events >= EVENTS_MANY:
        yield (
            f"it holds {events} events, so that its etcd and API server are slow and what keeps a pod from starting is told late:"
            " find who writes them (kubectl get events -A), let them expire sooner (--event-ttl of the API server), or give"
            " them an etcd of their own (--etcd-servers-overrides)"
        )
