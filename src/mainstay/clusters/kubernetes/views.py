"""What is kept of a pod as the API server shows it: of our own, of guests, and of those that only take room. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.guests import Wish, wish
from mainstay.clusters.kubernetes.nodes import requests, slices
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.quantities import instant
from mainstay.clusters.kubernetes.states import (
    asked_at,
    deadline_of,
    guest_state,
    is_over,
    node_of,
    refusal,
    state_of,
)
from mainstay.clusters.kubernetes.troubles import hopeless, is_hopeless_for_good, status_of, unplaced, waits
from mainstay.domain.allocation import Owner, PodState, Seen
from mainstay.domain.quantity import Counts, Resources, is_shape

NOTHING = Resources()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Of every pod: what it takes of its node."""

    namespace: str
    uid: str
    node: str
    holds: Resources
    """Of its node, until it has ended in every container."""
    slices: Counts = ()
    """Of GPUs, by resource: as `holds`."""
    is_over: bool = False
    """Nothing of it runs any more: it is none of the pods that its node takes, either."""
    deleting: int = 0
    """Its grace in seconds once somebody has asked for its end; 0 if nobody has."""
    asked_at: int = 0
    """When somebody has asked for its end, as far as is known: server's time, UTC microseconds; 0 if nobody has."""

    @property
    def is_ours(self) -> bool:
        """It holds its node by an allocation of ours."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a pod of ours waits to be handed before it starts."""

    mounts: str = ""
    """JSON, as in `names.MOUNTS`."""
    owner: Owner = Owner(tenant="", project="")  # noqa: RUF009 it is frozen
    """Whose pod it is, by its labels."""
    secrets: bool = False
    """It is handed secrets."""
    objects: str = ""
    """JSON, as in `names.OBJECTS`: also what it copies out at its end."""


NO_DELIVERY = Delivery()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnView(View):
    """Of a pod that we made, or of the tombstone in its place."""

    state: PodState
    """What we report of it."""
    identity: str = ""
    created_at: int = 0
    """Server's time, UTC microseconds."""
    image: str = ""
    """Of its main container; empty on a tombstone."""
    grace: int = 0
    """Seconds that it is given to end; on a tombstone, that the pod was given."""

    # Until it runs
    calls: str = ""
    """Of the first rank of a gang: the service by which its ranks find each other."""
    claim: str = ""
    """The devices that it waits for and that are claimed for it; empty once it has its node."""
    delivery: Delivery = NO_DELIVERY
    waits_for_files: bool = False
    hopeless: str = ""
    """Why it cannot start as things stand, in words; empty if nothing is wrong."""
    for_good: bool = False
    """Nothing but another image can help it."""
    taken: bool = False
    """Its kubelet, or what plays one, has said that it has it."""
    refusal: str = ""
    """Why its kubelet did not take it, in words."""
    refused_at: int = 0
    """Likewise when: server's time, UTC microseconds."""

    # While it runs
    logged: bool = False
    """Its main container has started: there is a log."""
    renewed: str = ""
    """When it was renewed last (Unix seconds as text), or that it never is again; empty if it does not end itself."""
    deadline_at: int = 0
    """When its kubelet is to end its run: server's time, UTC microseconds; 0 if never, or if it does not run."""

    # When it has ended
    serves: bool = False
    """It listens on a port and leaves no output."""
    keeps_output: bool = False
    helper_waits: str = ""
    """Why the helper that keeps its output has not started, in words; empty if it has, or there is none."""
    tombstone: bool = False
    last_node: str = ""
    """On a tombstone: where the pod was."""
    forgotten_at: int = 0
    """Unix seconds; 0 while its end is not on record."""

    @property
    def is_ours(self) -> bool:
        """Always."""
        return True

    @property
    def is_restless(self) -> bool:
        """Something may have to be done for it before it ends, or be found out, beside reading its log."""
        is_there = not (self.forgotten_at or self.tombstone)
        starts = self.calls or self.claim or self.waits_for_files or self.hopeless or self.state.seen < Seen.RUNNING
        return bool((is_there and starts) or self.renewed or self.deadline_at)

    @property
    def is_logged(self) -> bool:
        """There is a log of it that is to be kept."""
        return self.logged and not (self.forgotten_at or self.tombstone)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestView(View):
    """Of a pod that others made and that names us as its scheduler."""

    wish: Wish
    """What it asks of us."""
    state: PodState | None = None
    """What we report of it; None while it waits for a place."""
    placed_by_us: bool = False
    version: str = ""
    """Of the object, while it waits for a place."""
    released: int = 0
    """The last attempt that may not place it any more."""

    @property
    def is_ours(self) -> bool:
        """Once we have placed it."""
        return self.placed_by_us


def view_of(pod: Pod, *, system: str, scheduler_name: str = "", tunnel: str = "", before: View | None = None) -> View:
    """What is kept of a pod, for the platform `system`."""
    mark = names.mark(pod.metadata.labels, pod.metadata.namespace, system=system)
    return view(
        pod, system=mark, scheduler_name=scheduler_name, tunnel=tunnel, placer=names.short(system), before=before
    )


def view(
    pod: Pod,
    *,
    system: str,
    scheduler_name: str = "",
    tunnel: str = "",
    placer: str = "",
    before: View | None = None,
) -> View:
    """What is kept of a pod. `system` is the mark of our own ones; guests name the scheduler; `tunnel` is the name of a
    cluster whose pods' own addresses are of no use to us. `placer` is our mark on guests; empty: the same. `before` is what
    was kept under its name so far: of the same pod, it knows better when somebody asked for its end.
    """
    meta = pod.metadata
    ours = meta.labels.get(names.SYSTEM) == system
    node = node_of(pod) if ours else pod.spec.node_name
    over = is_over(pod)
    holds, parts = _held(pod, ours=ours) if node and not over else (NOTHING, ())
    known = before.asked_at if before is not None and before.uid == meta.uid else 0
    asked = asked_at(pod, known=known)
    taken: _Taken = {
        "namespace": meta.namespace,
        "uid": meta.uid,
        "node": node,
        "holds": holds,
        "slices": parts,
        "is_over": over,
        "deleting": max(1, meta.deletion_grace_period_seconds or 0) if meta.deletion_timestamp else 0,
        "asked_at": asked,
    }
    if ours:
        return _own_view(pod, taken, tunnel=tunnel)
    is_gated = bool(pod.spec.scheduling_gates) and not meta.deletion_timestamp
    if scheduler_name and pod.spec.scheduler_name == scheduler_name and not is_gated:
        return _guest_view(pod, taken, placer=placer or system)
    return View(**taken)


class _Taken(TypedDict):
    """The fields of every `View`."""

    namespace: str
    uid: str
    node: str
    holds: Resources
    slices: Counts
    is_over: bool
    deleting: int
    asked_at: int


def _own_view(pod: Pod, taken: _Taken, *, tunnel: str) -> OwnView:
    meta, marks = pod.metadata, pod.metadata.annotations
    files, outputs, main = (status_of(pod, name) for name in (names.FILES, names.OUTPUTS, names.MAIN))
    running = main.state.running if main is not None else None
    return OwnView(
        **taken,
        state=state_of(pod, tunnel=tunnel, asked=taken["asked_at"]),
        identity=marks.get(names.IDENTITY, ""),
        created_at=instant(meta.creation_timestamp),
        image="" if names.TOMBSTONE in meta.labels else _image(pod),
        grace=pod.spec.termination_grace_period_seconds or 0,
        calls=pod.spec.subdomain if meta.labels.get(names.RANK) == "0" else "",
        claim="" if pod.spec.node_name else marks.get(names.CLAIM, ""),
        delivery=_delivery(pod),
        waits_for_files=files is not None and files.state.running is not None,
        hopeless=hopeless(pod) or unplaced(pod),
        for_good=is_hopeless_for_good(pod),
        taken=bool(pod.status.start_time or pod.status.container_statuses),
        refusal=refusal(pod),
        refused_at=instant(pod.status.start_time) or instant(meta.creation_timestamp),
        logged=main is not None and (running is not None or main.state.terminated is not None),
        renewed=marks.get(names.RENEWED, ""),
        deadline_at=deadline_of(pod, instant(running.started_at)) if running else 0,
        serves=names.PORT in marks,
        keeps_output=outputs is not None and outputs.state.running is not None,
        helper_waits=waits(pod, outputs) if outputs is not None else "",
        tombstone=names.TOMBSTONE in meta.labels,
        last_node=marks.get(names.LAST_NODE, ""),
        forgotten_at=_seconds(meta.labels[names.FORGOTTEN]) if names.FORGOTTEN in meta.labels else 0,
    )


def _image(pod: Pod) -> str:
    return next((one.image for one in pod.spec.containers if one.name == names.MAIN), "")


def _delivery(pod: Pod) -> Delivery:
    marks, labels = pod.metadata.annotations, pod.metadata.labels
    if names.MOUNTS not in marks and names.SECRETS not in marks and names.OBJECTS not in marks:
        return NO_DELIVERY
    owner = Owner(tenant=labels.get(names.TENANT, ""), project=labels.get(names.PROJECT, ""))
    return Delivery(
        mounts=marks.get(names.MOUNTS, ""),
        owner=owner,
        secrets=names.SECRETS in marks,
        objects=marks.get(names.OBJECTS, ""),
    )


def _guest_view(pod: Pod, taken: _Taken, *, placer: str) -> GuestView:
    meta, node = pod.metadata, taken["node"]
    return GuestView(
        **taken,
        wish=wish(pod),
        state=guest_state(pod, asked=taken["asked_at"]),
        placed_by_us=node != "" and meta.annotations.get(names.SYSTEM) == placer,
        version="" if node else meta.resource_version,
        released=_attempt(meta.annotations.get(names.RELEASED, "")),
    )


def _held(pod: Pod, *, ours: bool) -> tuple[Resources, Counts]:
    """Of its node, with the GPUs that a pod of ours claims: a claim of others tells of itself."""
    holds, parts = requests(pod), slices(pod)
    resource, _, count = pod.metadata.annotations.get(names.CLAIMED, "").partition(" ")
    if not ours or not count.isdecimal() or len(count) > 10:
        return holds, parts
    if is_shape(resource.rpartition("/")[2]):
        return holds, tuple(sorted((*parts, (resource, int(count)))))
    return replace(holds, gpus=holds.gpus + int(count)), parts


def _seconds(text: str) -> int:
    """Unix seconds. What is no moment that we would have written was long ago: so the object does not stay for ever."""
    return max(1, int(text)) if text.isdecimal() and len(text) <= 10 else 1


def _attempt(text: str) -> int:
    """0 for none, and for what is no number of ours."""
    return int(text) if text.isdecimal() and len(text) <= 10 else 0
