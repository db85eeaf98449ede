"""What we know of a cluster at this moment: its nodes and pods by informers, and what each node has left."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

import structlog

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.devices import GPU_RESOURCE, Devices
from mainstay.clusters.kubernetes.errors import Unreachable
from mainstay.clusters.kubernetes.guests import Landlord, landlord
from mainstay.clusters.kubernetes.images import Images
from mainstay.clusters.kubernetes.informer import Informer, Key
from mainstay.clusters.kubernetes.kinds import NAMESPACES, NODES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from mainstay.clusters.kubernetes.lodgings import Lodgings
from mainstay.clusters.kubernetes.nodes import (
    NO_LABELS,
    has_kubelet,
    is_off,
    is_silent,
    is_well,
    let_in_at,
    node_state,
    ready_condition,
    takes_guests,
    usable_devices,
    why_not,
    why_not_any,
)
from mainstay.clusters.kubernetes.objects import Namespace, Node, Pod, ResourceClaim, ResourceSlice
from mainstay.clusters.kubernetes.offered import DeviceKey, Offered, taken_by_others
from mainstay.clusters.kubernetes.pods import REVOKED
from mainstay.clusters.kubernetes.quantities import instant
from mainstay.clusters.kubernetes.reports import Reports
from mainstay.clusters.kubernetes.restrictions import Terms
from mainstay.clusters.kubernetes.storage import Storage, reached
from mainstay.clusters.kubernetes.trust import Trust
from mainstay.clusters.kubernetes.views import NOTHING, GuestView, OwnView, View, view_of
from mainstay.clusters.kubernetes.waiting import Waiting
from mainstay.domain.affinity import NodeNeed, Traits
from mainstay.domain.allocation import PodState, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import Denied, MainstayError, Unavailable
from mainstay.domain.guest import Guest
from mainstay.domain.quantity import Resources, is_shape
from mainstay.domain.volume import VolumeState
from mainstay.ports import Clock

log = structlog.get_logger()

AnyInformer: TypeAlias = Informer[Node, Node] | Informer[Pod, View] | Informer[Namespace, Landlord]

SYNC_SECONDS_MAX = 15.0
"""A look waits so long for the first list; then the turn fails and the next one goes on waiting."""
SILENT_SECONDS_MAX = 150.0
"""Bookmarks come once a minute: who heard nothing for longer sees the past."""
REPORT_SECONDS = 60
"""A kubelet may tell of an end so much later than it came: so long it may be out of touch before its node is called silent."""
STRANGERS_MAX = 50
KINDS_SPARE = 1_000
"""So many are remembered that no node is of any more."""
SETTLED_SECONDS = 15
"""So long after it is back may a node owe us what became of its pods: kubelets compare what they told with what they know every
ten seconds (statusManager.syncPeriod). What they told before may be long over.
"""
ORPHAN_SECONDS = 90
"""A kubelet ends what the API server does not know any more: it notices within seconds, or its node is called silent in
less than that; and it grants the pod its grace."""


@dataclass(slots=True)
class Used:
    """What is held on a node: by others, and by ours."""

    others: Resources = NOTHING
    ours: Resources = NOTHING
    slices_of_others: Counter[str] = field(default_factory=Counter)
    """Of GPUs, by resource."""
    slices_of_ours: Counter[str] = field(default_factory=Counter)
    pods_of_others: int = 0
    pods_of_ours: int = 0


_NOTHING_USED = Used()


class Picture:
    """Kept current by informers. Nothing here waits on the network but `ready`."""

    def __init__(
        self,
        api: KubeApi,
        clock: Clock,
        *,
        system: str,
        scheduler_name: str = "",
        tunnel: str = "",
        topology: Mapping[str, str] = NO_LABELS,
    ) -> None:
        """`tunnel`: as for `views.view`; `topology`: labels by level, as of the settings."""
        self._topology = topology
        self._images = Images(clock)
        self._api, self._clock, self._mark, self._system = api, clock, names.short(system), system
        self._nodes: Informer[Node, Node] = Informer(
            api,
            NODES,
            clock=clock,
            project=self._images.slim,
            on_change=self._node_changed,
            confirm=self._confirm,
        )
        self._pods: Informer[Pod, View] = Informer(
            api,
            PODS,
            clock=clock,
            project=lambda pod: view_of(
                pod,
                system=system,
                scheduler_name=scheduler_name,
                tunnel=tunnel,
                before=self._pods.objects.get(pod.metadata.key),
            ),
            on_change=self._pod_changed,
            confirm=self._confirm,
        )
        self.identity = ""
        """Of the cluster that is shown: another one at the same address never takes its place."""
        self._seen_until = 0
        self._trust = Trust()
        self._broken: frozenset[str] = frozenset()
        self._namespaces: Informer[Namespace, Landlord] = Informer(
            api, NAMESPACES, clock=clock, project=landlord, confirm=self._confirm
        )
        self.storage = Storage(api, clock, system=system, on_change=self._storage_changed)
        self._reaches: Mapping[str, Terms] = {}
        """What volumes ask of nodes, as the states of the nodes have it."""
        self._storage_moved = False
        self._offered = Offered()
        self._slices: Informer[ResourceSlice, ResourceSlice] = Informer(
            api,
            RESOURCE_SLICES,
            clock=clock,
            project=lambda one: one,
            on_change=self._slice_changed,
            confirm=self._confirm,
        )
        self._claims: Informer[ResourceClaim, tuple[DeviceKey, ...]] = Informer(
            api,
            RESOURCE_CLAIMS,
            clock=clock,
            project=self._devices_of,
            on_change=self._claim_changed,
            confirm=self._confirm,
        )
        self.lodgings = Lodgings(clock, now=api.server_time)
        """Pods of others that ask us for a place."""
        self._used: dict[str, Used] = {}
        self._states: dict[str, NodeState] = {}
        self._kinds: dict[Traits, Traits] = {}
        """Of the nodes: those that are alike share one."""
        self._told: tuple[NodeState, ...] = ()
        """As of the last look, if no node refuses what it is given."""
        self._silent: set[str] = set()
        self._back: dict[str, int] = {}
        """Nodes that were silent, and when they reported again (server's time, UTC microseconds)."""
        self._ours: dict[str, OwnView] = {}
        self.ours: Mapping[str, OwnView] = MappingProxyType(self._ours)
        """Every pod of ours by its name, forgotten ones and tombstones included."""
        self.restless: dict[str, OwnView] = {}
        """Those that may have to be looked after."""
        self.logged: dict[str, OwnView] = {}
        """Those of which there is a log."""
        self._reports = Reports()
        self._tombstones: set[str] = set()
        """Those of pods that had a node."""
        self._by_uid: dict[str, Key] = {}
        """Pods that concern us: ours, and guests."""
        self._twins: dict[str, set[Key]] = {}
        """Those of which several have one UID; none in a sane cluster."""
        self.waiting = Waiting(api, clock)
        self._tasks: list[asyncio.Task[object]] = []

    async def ready(self) -> None:
        """Until both kinds have been listed. Raises Unavailable if that takes too long, or the view has become old."""
        if not self._tasks:
            everything = (*self._informers, self._slices, self._claims)
            self._tasks = [asyncio.create_task(informer.run()) for informer in everything]
            self.storage.start()
        for informer in self._informers:
            if not informer.synced.is_set():
                await self._first_list(informer)
            if self._clock.monotonic() - informer.last_contact > SILENT_SECONDS_MAX:
                raise self._unheard(informer)
        # Older API servers have neither, and older roles do not let us see them: then nothing is offered to claims.
        for one in [one for one in (self._slices, self._claims) if not one.tried.is_set()]:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS_MAX):
                    await one.tried.wait()

    async def _first_list(self, informer: AnyInformer) -> None:
        try:
            # `asyncio.wait_for` would swallow a cancellation that meets the news (CPython issue 86296, until 3.12).
            async with asyncio.timeout(SYNC_SECONDS_MAX):
                await informer.synced.wait()
        except TimeoutError:
            raise self._unheard(informer) from None

    async def close(self) -> None:
        """Stop watching."""
        await self.storage.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    @property
    def seen_until(self) -> int:
        """Up to this instant of the cluster's own time every end has been reported, unless its node is silent.

        After an outage of the API server its kubelets get time to tell what they could not tell before.
        """
        informers = (self._nodes, self._pods)
        if self._clock.monotonic() - max(one.unbroken_since for one in informers) >= REPORT_SECONDS:
            self._seen_until = max(0, min(one.server_time_seen for one in informers) - REPORT_SECONDS * 1_000_000)
        return self._seen_until

    def require_sane(self) -> None:
        """Raises Denied if pods that concern us cannot be told apart: what is said of one would be believed of the other."""
        if not self._twins:
            return
        uid = min(self._twins)
        names_ = ", ".join("/".join(key) for key in sorted(self._twins[uid]))
        more = f" (and {len(self._twins) - 1} UIDs more)" if len(self._twins) > 1 else ""
        msg = f"several of its pods have the UID {uid}: {names_}{more}"
        hint = "no API server gives a UID twice, so its etcd was changed or put together by hand: delete all of them but one"
        raise Denied(msg, hint=hint)

    def nodes(self) -> tuple[NodeState, ...]:
        """Every node as we may use it, by name."""
        changed = self.lodgings.restrictions_changed(), self._reaches_changed(), self._offered.has_news()
        if any(changed):
            self._states.clear()
        if len(self._states) == len(self._nodes.objects) == len(self._told) and not self._broken:
            return self._told  # Whatever changes a node takes its state away.
        for name in self._nodes_by_name() - self._states.keys():
            self._states[name] = self._state_of(name)
        if len(self._kinds) > KINDS_SPARE + 2 * len(self._states):
            self._kinds = {state.traits: state.traits for state in self._states.values()}
        found = tuple(self._state(name) for name in sorted(self._states))
        self._told = () if self._broken else found
        return found

    def volumes(self) -> tuple[VolumeState, ...] | None:
        """Every volume of our projects; None while we cannot see them."""
        return self.storage.states(self._namespaces.objects)

    def _storage_changed(self) -> None:
        self._storage_moved = True

    def _reaches_changed(self) -> bool:
        """Whether volumes ask something else of nodes than they did. O(claims), where anything of them has changed."""
        if not self._storage_moved:
            return False
        self._storage_moved, before = False, self._reaches
        self._reaches = self.storage.asked()
        return self._reaches != before

    def learn(self, pod: Pod) -> View:
        """Take in a pod that a request has shown; what is kept of it."""
        known = self._pods.learn(pod)
        assert known is not None, "of every pod something is kept"
        return known

    def judge(self) -> None:
        """Find out which nodes refuse what they are given."""
        now = self._api.server_time()
        broken = frozenset(self._trust.broken(now))
        for node in sorted(broken - self._broken):
            log.warning("node_refuses_pods", node=node, reason=self._trust.why_not(node, now))
        self._broken = broken

    def _state(self, name: str) -> NodeState:
        state = self._states[name]
        if name not in self._broken:
            return state
        now = self._api.server_time()
        why, at = self._trust.why_not(name, now), self._trust.last_refusal(name, now)
        return replace(state, ready=False, barred=False, problem=state.problem or why, refusal=why, refused_at=at)

    def has_node(self, name: str) -> bool:
        """Whether it is there, ready or not."""
        return ("", name) in self._nodes.objects

    def why_not(self, node: str, *, coming: int = 0, wanted: NodeNeed | None = None) -> str:
        """Why nothing is placed on a node that needs what is `wanted`; empty if it is ready. `coming`: pods that are being made
        there.
        """
        if not self.has_node(node):
            return "it is not there"
        found, now = self._node(node), self._api.server_time()
        why = why_not(found, self._mark, wanted=wanted)
        return why or self._trust.why_not(node, now, coming=coming, reports=has_kubelet(found))

    def why_no_guest(self, node: str, restriction: str) -> str:
        """Why guests with this restriction are not placed on a node; empty if they are."""
        if not self.has_node(node):
            return "it is not there"
        found, wanted = self._node(node), self.lodgings.restrictions.get(restriction)
        if wanted is None or takes_guests(found, wanted, self._mark):
            return ""
        return (
            why_not_any(found, self._mark)
            or "it no longer meets what the pod requires: its selector, affinity, tolerations and kind of devices"
        )

    def free(self, node: str) -> Resources:
        """What is left of a node beside all that still runs there, ended pods whose helpers linger included."""
        state = self._states.get(node) or self._state_of(node)
        return _less(state.capacity, self._used_on(node).ours)

    def pods_free(self, node: str) -> int | None:
        """So many more pods it takes; None where no limit is known. Pods of ours that linger count, as its kubelet has it."""
        state = self._states.get(node) or self._state_of(node)
        return None if state.pods_max is None else state.pods_max - self._used_on(node).pods_of_ours

    def slices_free(self, node: str, shape: str) -> int:
        """Likewise of slices of GPUs."""
        used, found = self._used_on(node), self._devices(node, shape)
        if found is None:
            return 0
        if found.resource == GPU_RESOURCE:
            return found.gives - used.others.gpus - used.ours.gpus
        others = used.slices_of_others[found.resource] + self._offered.taken(node)[found.resource]
        return found.gives - others - used.slices_of_ours[found.resource]

    def device(self, node: str, gpu_model: str) -> Devices | None:
        """How a node offers slices of a shape, or GPUs of a model (any, if that is empty). None: it does not say, or has none."""
        if is_shape(gpu_model):
            return self._devices(node, gpu_model)
        kinds = usable_devices(self._node(node), self._offered.devices(node))
        return next((one for one in kinds if not is_shape(one.model) and gpu_model in {"", one.model}), None)

    def _devices(self, node: str, model: str) -> Devices | None:
        kinds = usable_devices(self._node(node), self._offered.devices(node))
        return next((one for one in kinds if one.model == model), None)

    def node(self, name: str) -> Node | None:
        """As its cluster shows it; None if it is not there."""
        return self._nodes.objects.get(("", name))

    def guests(self) -> tuple[Guest, ...]:
        """Every pod of others that asks us for a place, by UID; placed ones as their kubelets say, unless those are silent."""
        silent = self.silent()
        return tuple(
            replace(guest, state=_unknown(guest.state, why))
            if guest.state is not None and (why := self._why_unknown(guest.state, silent))
            else guest
            for guest in self.lodgings.guests(self._namespaces.objects)
        )

    def pods(self) -> tuple[PodState, ...]:
        """What we report of our pods: as their kubelets say, unless those are silent."""
        silent = self.silent()
        unsettled = self._tombstones | self.waiting.explains
        if silent:
            unsettled |= {name for name, known in self._ours.items() if known.state.node in silent}
        return self._reports.all(self._ours, lambda known: self._reported(known, silent), unsettled=unsettled)

    def _reported(self, known: OwnView, silent: Mapping[str, int]) -> PodState:
        state = known.state
        if state.name in self._tombstones:
            return self._of_tombstone(known, state)
        if why := self._why_unknown(state, silent):
            return replace(_unknown(state, why), revoked=known.renewed == REVOKED)
        return self.waiting.explained(known, state)

    def _why_unknown(self, state: PodState, silent: Mapping[str, int]) -> str:
        """Why what its node said of a pod may not be true any more; empty if it is. `silent`: as `silent` has it."""
        since = silent.get(state.node)
        if since is None or state.seen is Seen.ENDED:
            return ""
        if since:
            words = f"node {state.node} is back and has not said yet what became of it"
            return words if 0 < state.started_at < since else ""
        return f"node {state.node} does not report any more"

    def _of_tombstone(self, known: OwnView, state: PodState) -> PodState:
        """A pod that vanished from the API server: its node must have had the time to end what it ran (R5)."""
        node = known.last_node
        if not self.has_node(node) or is_off(self._node(node)):
            return state
        waited = self._nodes.server_time_seen - REPORT_SECONDS * 1_000_000 - known.created_at
        if waited >= (ORPHAN_SECONDS + known.grace) * 1_000_000 and is_well(self._node(node)):
            return state
        return _unknown(replace(state, node=node), f"it vanished from the cluster; node {node} is given time to end it")

    def silent(self) -> Mapping[str, int]:
        """The nodes that do not report: 0; and those that have begun to again a moment ago: when."""
        now = self._api.server_time()
        self._back = {name: at for name, at in self._back.items() if now - at < SETTLED_SECONDS * 1_000_000}
        return {**dict.fromkeys(self._silent, 0), **self._back}

    def _state_of(self, node: str) -> NodeState:
        used = self._used_on(node)
        state = node_state(
            self._node(node),
            used.others,
            self.lodgings.restrictions,
            taken_devices=used.slices_of_others + self._offered.taken(node),
            taken_pods=used.pods_of_others,
            offered=self._offered.devices(node),
            system=self._mark,
            topology=self._topology,
        )
        kind = self._kinds.setdefault(state.traits, state.traits)
        if kind is not state.traits:
            state = replace(state, traits=kind)
        if images := self._images.on(self._node(node)):
            state = replace(state, images=images)
        if met := reached(self._node(node), self._reaches):
            state = replace(state, admits=tuple(sorted((*state.admits, *met))))
        return replace(state, strangers=self._strangers(node)) if state.marked else state

    def _strangers(self, node: str) -> tuple[str, ...]:
        """Pods of others that live there, by name. Looked for only where somebody wants the node empty."""
        pods = self._pods.objects.items()
        names_ = sorted(
            "/".join(key) for key, view in pods if view.node == node and not view.is_ours and not view.is_over
        )
        return tuple(names_[:STRANGERS_MAX])

    @property
    def _informers(self) -> tuple[AnyInformer, ...]:
        return self._nodes, self._pods, self._namespaces

    def _used_on(self, node: str) -> Used:
        return self._used.get(node, _NOTHING_USED)

    def _node(self, name: str) -> Node:
        return self._nodes.objects["", name]

    def _nodes_by_name(self) -> set[str]:
        return {name for _, name in self._nodes.objects}

    def _node_changed(self, key: Key, old: Node | None, new: Node | None) -> None:
        self._states.pop(key[1], None)
        if new is None:
            self._images.forget(key[1])
        if new is not None and is_silent(new):
            self._silent.add(key[1])
        else:
            self._silent.discard(key[1])
        self._trust.forgive(key[1], let_in_at(new) if new is not None else 0)
        ready = ready_condition(new) if new is not None and not is_silent(new) else None
        if ready is None:
            self._back.pop(key[1], None)
        elif old is None or is_silent(old):
            self._back[key[1]] = instant(ready.last_transition_time)

    def _slice_changed(self, key: Key, old: ResourceSlice | None, new: ResourceSlice | None) -> None:
        self._offered.slice_changed(key[1], new)
        for one in (old, new):
            self._states.pop(one.spec.node_name if one is not None else "", None)

    def _devices_of(self, claim: ResourceClaim) -> tuple[DeviceKey, ...]:
        meta = claim.metadata
        ours = meta.labels.get(names.SYSTEM) == names.mark(meta.labels, meta.namespace, system=self._system)
        return taken_by_others(claim, ours=ours)

    def _claim_changed(self, _: Key, old: tuple[DeviceKey, ...] | None, new: tuple[DeviceKey, ...] | None) -> None:
        self._offered.claim_changed(old, new)
        for device in (*(old or ()), *(new or ())):
            self._states.pop(self._offered.node_of(device), None)

    def _pod_changed(self, key: Key, old: View | None, new: View | None) -> None:
        self._trust.changed(old, new)
        self._count_uids(key, old, new)
        for known, sign in ((old, -1), (new, 1)):
            if known is None or not known.node:
                continue
            if not known.is_over:
                self._hold(known, sign)
            state = self._states.get(known.node)
            if state is not None and state.marked and not known.is_ours:
                del self._states[known.node]
        self.lodgings.changed(key, old, new)
        name = key[1]
        if isinstance(new, OwnView):
            self._ours[name] = new
            if new.image and self._images.ask(new.image):
                self._states.clear()
        elif isinstance(old, OwnView) and self._ours.get(name) == old:
            del self._ours[name]
        self._reports.moved(name)
        self._sort(name)

    def _sort(self, name: str) -> None:
        """Among those that are to be looked at again and again, if it is one."""
        self._tombstones.discard(name)
        known = self._ours.get(name)
        for kept, belongs in (
            (self.restless, known is not None and known.is_restless),
            (self.logged, known is not None and known.is_logged),
        ):
            kept.pop(name, None)
            if known is not None and belongs:
                kept[name] = known
        if known is not None and known.tombstone and known.last_node:
            self._tombstones.add(name)

    def _count_uids(self, key: Key, old: View | None, new: View | None) -> None:
        before, after = (view.uid if isinstance(view, OwnView | GuestView) else "" for view in (old, new))
        if before == after:
            return
        if before in self._twins:
            self._twins[before].discard(key)
            if len(self._twins[before]) == 1:
                (self._by_uid[before],) = self._twins.pop(before)
        else:
            self._by_uid.pop(before, None)
        if after in self._twins:
            self._twins[after].add(key)
        elif after and (first := self._by_uid.setdefault(after, key)) != key:
            self._twins[after] = {first, key}

    def _hold(self, known: View, sign: int) -> None:
        used = self._used.setdefault(known.node, Used())
        if not known.is_ours:
            used.others = _sum(used.others, known.holds, sign)
            used.pods_of_others += sign
            self._states.pop(known.node, None)
        else:
            used.ours = _sum(used.ours, known.holds, sign)
            used.pods_of_ours += sign
        slices = used.slices_of_ours if known.is_ours else used.slices_of_others
        for resource, count in known.slices:
            slices[resource] += sign * count
        if used == Used():
            del self._used[known.node]

    async def _confirm(self) -> None:
        identity = await self._api.cluster_uid()
        self.identity = self.identity or identity
        if identity != self.identity:
            msg = "another cluster answers at its address"
            raise Unreachable(msg)

    def _unheard(self, informer: AnyInformer) -> MainstayError:
        error = informer.last_error
        kind = Denied if isinstance(error, Denied) else Unavailable
        said = error.message if error else "it does not answer"
        return kind(f"cluster cannot be seen: {said}", hint=error.hint if error else "")

    def views(self) -> Iterator[tuple[str, OwnView]]:
        """Our pods by name, for chores: a copy, so that whoever waits in between may go on."""
        yield from tuple(self._ours.items())


def _unknown(state: PodState, detail: str) -> PodState:
    return PodState(
        name=state.name,
        node=state.node,
        seen=Seen.UNKNOWN,
        started_at=state.started_at,
        detail=detail,
        address=state.address,
    )


def _sum(held: Resources, one: Resources, sign: int) -> Resources:
    return Resources(
        cpu_milli=max(0, held.cpu_milli + sign * one.cpu_milli),
        memory_bytes=max(0, held.memory_bytes + sign * one.memory_bytes),
        gpus=max(0, held.gpus + sign * one.gpus),
    )


def _less(capacity: Resources, used: Resources) -> Resources:
    return Resources(
        cpu_milli=max(0, capacity.cpu_milli - used.cpu_milli),
        memory_bytes=max(0, capacity.memory_bytes - used.memory_bytes),
        gpus=max(0, capacity.gpus - used.gpus),
        gpu_model=capacity.gpu_model,
    )
