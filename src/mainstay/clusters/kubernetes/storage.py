"""Which volumes there are and which nodes reach them, by informers of its own: a cluster where we may not see them goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.guests import Landlord
from mainstay.clusters.kubernetes.informer import Informer, Key
from mainstay.clusters.kubernetes.kinds import CLAIMS, VOLUMES
from mainstay.clusters.kubernetes.objects import Node, PersistentVolume, VolumeClaim
from mainstay.clusters.kubernetes.quantities import whole
from mainstay.clusters.kubernetes.restrictions import Terms, meets, terms_name, terms_of
from mainstay.domain.allocation import Owner
from mainstay.domain.volume import REACH_PREFIX, VolumeState
from mainstay.ports import Clock

SILENT_SECONDS_MAX = 150.0
"""As of all informers: who heard nothing for longer sees the past."""
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
WORDS_MAX = 200


class Storage:
    """Kept current by informers, once somebody asks. Nothing here waits on the network."""

    def __init__(self, api: KubeApi, clock: Clock, *, system: str, on_change: Callable[[], None]) -> None:
        """`on_change`: which nodes reach what may be another matter now."""
        self._clock, self._system = clock, system
        self._on_change = on_change
        self._claims: Informer[VolumeClaim, VolumeClaim] = Informer(
            api, CLAIMS, clock=clock, project=lambda claim: claim, on_change=self._changed
        )
        self._volumes: Informer[PersistentVolume, PersistentVolume] = Informer(
            api, VOLUMES, clock=clock, project=lambda volume: volume, on_change=self._changed
        )
        self._tasks: list[asyncio.Task[object]] = []

    def start(self) -> None:
        """Begin to watch; nothing happens if it has begun."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(one.run()) for one in (self._claims, self._volumes)]

    async def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def states(self, namespaces: Mapping[Key, Landlord]) -> tuple[VolumeState, ...] | None:
        """The claims of our projects, by their owners and names; None while they cannot be seen."""
        now = self._clock.monotonic()
        for one in (self._claims, self._volumes):
            if not one.synced.is_set() or now - one.last_contact > SILENT_SECONDS_MAX:
                return None
        found = []
        for (namespace, _), claim in self._claims.objects.items():
            owner = self._owner(namespaces.get(("", namespace)), namespace)
            if owner is not None:
                found.append(self._state(claim, owner))
        return tuple(sorted(found, key=lambda state: (state.owner.tenant, state.owner.project, state.name)))

    def uid(self, namespace: str, name: str) -> str:
        """Of a claim; empty if it is not there."""
        claim = self._claims.objects.get((namespace, name))
        return "" if claim is None else claim.metadata.uid

    def asked(self) -> Mapping[str, Terms]:
        """By `VolumeState.reach`: what the volumes of claims ask of nodes."""
        found = {}
        for claim in self._claims.objects.values():
            terms = self._terms(claim)
            if terms is not None:
                found[_reach(terms)] = terms
        return found

    def _owner(self, written: Landlord | None, namespace: str) -> Owner | None:
        """Whose project lives in a namespace: what is written on it counts where it names that very namespace."""
        if written is None:
            return None
        owner = Owner(tenant=written.tenant, project=written.project)
        return owner if names.namespace(owner, system=self._system) == namespace else None

    def _state(self, claim: VolumeClaim, owner: Owner) -> VolumeState:
        terms, spec = self._terms(claim), claim.spec
        size = claim.status.capacity.get("storage") or spec.resources.requests.get("storage")
        return VolumeState(
            owner=owner,
            name=claim.metadata.name,
            size_bytes=max(0, whole(size)),
            access=claim.status.access_modes or spec.access_modes,
            storage_class=spec.storage_class_name or "",
            bound=claim.status.phase == "Bound",
            leaving=claim.metadata.deletion_timestamp is not None,
            reach=_reach(terms) if terms is not None else "",
            place=_words(terms) if terms is not None else "",
        )

    def _terms(self, claim: VolumeClaim) -> Terms | None:
        """None where its volume asks nothing of nodes, or what we do not understand: then its cluster's scheduler finds out."""
        volume = self._volumes.objects.get(("", claim.spec.volume_name)) if claim.spec.volume_name else None
        return terms_of(volume.spec.node_affinity.get("required")) if volume is not None else None

    def _changed(self, _key: Key, _old: object, _new: object) -> None:
        self._on_change()


def reached(node: Node, asked: Mapping[str, Terms]) -> tuple[str, ...]:
    """Which of these the node meets."""
    return tuple(name for name, terms in asked.items() if meets(node, terms))


def _reach(terms: Terms) -> str:
    return REACH_PREFIX + terms_name(terms)


def _words(terms: Terms) -> str:
    """For people. Where there is more than one way to reach it, the first stands for all."""
    lines = (
        [
            f"{must.key} {must.operator.lower()} {', '.join(must.values)}".strip()
            for must in (line.must for line in terms[0])
        ]
        if terms
        else []
    )
    if terms and len(terms) == len(terms[0]) == 1 and terms[0][0].must.operator == "In":
        line = terms[0][0].must
        kind = {HOSTNAME: "node", ZONE: "zone"}.get(line.key)
        if kind is not None:
            return f"{'on' if kind == 'node' else 'in'} {kind} {' or '.join(line.values)}"[:WORDS_MAX]
    return f"on nodes with {' and '.join(lines) or 'no label'}"[:WORDS_MAX]
