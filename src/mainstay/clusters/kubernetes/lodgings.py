"""The guests of a cluster: pods of others that ask us for a place, those that have one, and those that went lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.guests import Landlord, Wish, owner
from mainstay.clusters.kubernetes.informer import Key
from mainstay.clusters.kubernetes.restrictions import Restriction
from mainstay.clusters.kubernetes.views import GuestView, View
from mainstay.domain.allocation import End, PodState, Seen
from mainstay.domain.guest import Group, Guest
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import PodRef
from mainstay.ports import Clock

GONE_SECONDS = 600.0
"""So long is the end of a pod told whose object is gone: longer than any commit waits."""
CLOSED = f"we may not act in its namespace; whoever administers it labels it {names.TENANT} to let us in"
UNWITNESSED = 1
"""The end of a pod that nobody saw: before all starts, so that it is charged up to its last record and no further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A guest whose object is no longer there, and since when (monotonic)."""

    guest: Guest
    since: float


class Lodgings:
    """Kept by the changes of the informer of pods."""

    def __init__(self, clock: Clock, *, now: Callable[[], int]) -> None:
        """`now` is the server's time."""
        self._clock, self._now = clock, now
        self._landlords: Mapping[Key, Landlord] = {}
        """As of the last look."""
        self._views: dict[str, tuple[str, GuestView]] = {}
        """UID -> (name, view)"""
        self._gone: dict[str, Gone] = {}
        self._used: Counter[str] = Counter()
        self._restrictions_changed = False
        self.restrictions: dict[str, Restriction] = {}
        """Those of all guests that are there, by name."""
        self.protected: dict[str, str] = {}
        """UID -> why it was not evicted when that was asked for last, in words."""
        self._closed: set[tuple[str, Landlord | None]] = set()
        """Namespaces, as they were labelled, in which we may not act."""
        self.group_sizes: dict[tuple[str, str], int] = {}
        """(namespace, group) -> how many pods it has, as far as somebody has looked it up; 0: its PodGroup is not there."""

    def changed(self, key: Key, old: View | None, new: View | None) -> None:
        """A pod came, changed or went; also another one under its name."""
        if isinstance(old, GuestView):
            self._count(old.wish, -1)
            if new is None or new.uid != old.uid or new.deleting:
                self.protected.pop(old.uid, None)
            if new is None or new.uid != old.uid:
                self._views.pop(old.uid, None)
                self._remember(key[1], old)
        if isinstance(new, GuestView):
            self._count(new.wish, 1)
            self._gone.pop(new.uid, None)
            self._views[new.uid] = (key[1], new)

    def restrictions_changed(self) -> bool:
        """Since the last call."""
        changed, self._restrictions_changed = self._restrictions_changed, False
        return changed

    def known(self, uid: str) -> GuestView | None:
        """A guest that is there."""
        found = self._views.get(uid)
        return found[1] if found else None

    def is_gone(self, uid: str) -> bool:
        """Whether we know that it went."""
        return uid in self._gone

    def close_to_us(self, namespace: str) -> None:
        """Our account may not act there, until whoever administers it labels it otherwise."""
        self._closed.add((namespace, self._landlords.get(("", namespace))))

    def lost(self, pod: PodRef, node: str) -> None:
        """Somebody has looked, and it is not there: nobody saw its end."""
        if pod.uid in self._gone or pod.uid in self._views:
            return
        state = PodState(
            name=pod.uid,
            node=node,
            seen=Seen.ENDED,
            ended_at=UNWITNESSED,
            end=End.LOST,
            detail="it is no longer in its cluster, and nobody saw its end",
        )
        self._gone[pod.uid] = Gone(guest=_nobody(pod, state), since=self._clock.monotonic())

    def guests(self, landlords: Mapping[Key, Landlord]) -> Iterator[Guest]:
        """As they are reported, by UID."""
        self._landlords = landlords
        self._forget_old()
        found = {uid: self._guest(name, view, landlords) for uid, (name, view) in self._views.items()}
        found |= {uid: gone.guest for uid, gone in self._gone.items()}
        yield from (found[uid] for uid in sorted(found))

    def unsized_groups(self) -> Iterator[tuple[str, Wish]]:
        """Of the groups that wait: (namespace, wish of one of its pods), for those that do not say their size themselves."""
        told: set[tuple[str, str]] = set()
        for _, view in tuple(self._views.values()):
            ask = view.wish
            if not ask.group or ask.group_size or view.state is not None:
                continue
            if (view.namespace, ask.group) not in told:
                told.add((view.namespace, ask.group))
                yield view.namespace, ask

    def _guest(self, name: str, view: GuestView, landlords: Mapping[Key, Landlord]) -> Guest:
        ask = view.wish
        written = landlords.get(("", view.namespace))
        tenant, project, wrong = owner(view.namespace, written)
        closed = CLOSED if (view.namespace, written) in self._closed else ""
        return Guest(
            pod=PodRef(namespace=view.namespace, name=name, uid=view.uid),
            tenant=tenant,
            project=project,
            queue=ask.queue,
            priority=ask.priority,
            resources=ask.resources,
            restriction=ask.restriction.name if ask.restriction else "",
            grace_seconds=ask.grace_seconds,
            max_duration_seconds=ask.max_duration_seconds,
            group=self._group(view.namespace, ask),
            problem=ask.problem or wrong or closed,
            topology=ask.topology,
            state=self._state(view),
        )

    def _state(self, view: GuestView) -> PodState | None:
        """With what keeps it from ending, if that was asked for."""
        state = view.state
        protection = self.protected.get(view.uid)
        return replace(state, detail=protection) if state is not None and protection else state

    def _group(self, namespace: str, ask: Wish) -> Group | None:
        if not ask.group:
            return None
        return Group(name=ask.group, size=ask.group_size or self.group_sizes.get((namespace, ask.group)))

    def _remember(self, name: str, view: GuestView) -> None:
        """Its object goes only once its node has confirmed that nothing of it runs, or somebody has vouched for that."""
        state = view.state
        pod = PodRef(namespace=view.namespace, name=name, uid=view.uid)
        if state is None or (state.seen is not Seen.ENDED and not state.started_at):
            words = "deleted before it was placed" if state is None else "deleted before it started"
            state = PodState(name=view.uid, node=view.node, seen=Seen.ENDED, end=End.NEVER_STARTED, detail=words)
        elif state.seen is not Seen.ENDED:
            end = End.STOPPED if view.deleting else End.LOST
            state = replace(state, seen=Seen.ENDED, ended_at=self._now(), end=end, ready=False, detail="it was deleted")
        self._gone[view.uid] = Gone(guest=_nobody(pod, state), since=self._clock.monotonic())

    def _forget_old(self) -> None:
        now = self._clock.monotonic()
        for uid in [uid for uid, gone in self._gone.items() if now - gone.since > GONE_SECONDS]:
            del self._gone[uid]

    def _count(self, ask: Wish, sign: int) -> None:
        wanted = ask.restriction
        if wanted is None:
            return
        self._used[wanted.name] += sign
        if self._used[wanted.name] and wanted.name not in self.restrictions:
            self.restrictions[wanted.name] = wanted
            self._restrictions_changed = True
        elif not self._used[wanted.name]:
            del self._used[wanted.name]
            self.restrictions.pop(wanted.name, None)
            self._restrictions_changed = True


def _nobody(pod: PodRef, state: PodState) -> Guest:
    """One that only its end is told of."""
    return Guest(
        pod=pod,
        tenant="",
        project="",
        queue="",
        priority=0,
        resources=Resources(),
        restriction="",
        grace_seconds=0,
        state=state,
    )
