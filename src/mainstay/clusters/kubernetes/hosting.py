"""What we do for guests: give them their place, ask for their end, look for them, tell them why they wait.

A guest is bound at most once: the binding names the UID and the version of the object that was seen without a place, and
the API server compares both with what it has. Who lets go of one writes on it first, so that every binding that is still on
its way finds another version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.errors import AlreadyExists, Conflict, NotFound, Rejected
from mainstay.clusters.kubernetes.kinds import EVENTS, POD_GROUPS, PODS, VOLCANO_POD_GROUPS
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.picture import Picture
from mainstay.domain.allocation import BindPod, EvictPod, ReleasePod, SeekPod, TellPod
from mainstay.domain.errors import Denied, Gone, Invalid, NotYet
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import PodRef
from mainstay.ports import Clock

log = structlog.get_logger()

EVICT_AGAIN_SECONDS = 5.0
"""A disruption budget that protects a pod is asked again after so long."""
UNSEEN_SECONDS = 10.0
"""A pod that we bound and that the watch has not shown as placed is not bound again for so long."""
GROUPS_MAX = 50
"""Looked up in one round."""
GROUP_AGAIN_SECONDS = 10.0
"""A group whose size is known is looked up again after so long: whoever made it may have changed it."""
MESSAGE_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A guest whose place the API server has taken note of and the watch has not shown yet. `at` is monotonic."""

    at: float
    node: str
    holds: Resources


class Hosting:
    """Of one cluster."""

    def __init__(
        self,
        api: KubeApi,
        clock: Clock,
        picture: Picture,
        pace: Pace,
        *,
        system: str,
        require_room: Callable[[str, str, Resources], None],
    ) -> None:
        """`require_room(pod, node, amount)` raises NoCapacity."""
        self._api, self._clock, self._picture, self._system = api, clock, picture, names.short(system)
        self._pace, self._require_room = pace, require_room
        self._lodgings = picture.lodgings
        self._evicted: dict[str, float] = {}
        self._asked: dict[tuple[str, str], float] = {}
        """When the size of a group was asked for last, by (namespace, group); monotonic seconds."""
        self._under_way: dict[str, BindPod] = {}
        """By UID: those that the API server is just asked to place."""
        self._bound: dict[str, Bound] = {}
        """By UID."""

    async def bind(self, action: BindPod, *, by: str) -> None:
        """Raises Invalid if its node cannot take it or we may not act in its namespace, Gone if it has another place or is no
        more.
        """
        uid = action.pod.uid
        if uid in self._bound:
            return
        if uid in self._under_way:
            msg = f"pod {_words(action.pod)} is being given its place"
            raise NotYet(msg, object_=action.name)
        known = self._lodgings.known(uid)
        if known is None:
            raise Gone(f"pod {_words(action.pod)} is gone") if self._lodgings.is_gone(uid) else _not_seen(action.pod)
        if known.node:
            _require_here(action, known.node)
            return
        if known.released >= action.attempt:
            msg = f"pod {_words(action.pod)} was let go of by a later attempt"
            raise Gone(msg, object_=action.name)
        if why := self._picture.why_no_guest(action.node, action.restriction):
            msg = f"node {action.node} does not take {_words(action.pod)}: {why}"
            raise Invalid(msg, object_=action.node)
        self._require_room(action.name, action.node, action.holds)
        # Counted before it is asked for: others are placed beside it, and must not be given its room.
        self._under_way[uid] = action
        try:
            await self._place(action, known.version, by=by)
        finally:
            del self._under_way[uid]
        self._bound[uid] = Bound(at=self._clock.monotonic(), node=action.node, holds=action.holds)

    def coming(self, node: str) -> Iterator[Resources]:
        """What those hold that get their place on a node and that the watch does not show there yet."""
        yield from (action.holds for action in self._under_way.values() if action.node == node)
        yield from (bound.holds for bound in self._bound.values() if bound.node == node)

    async def release(self, action: ReleasePod, *, by: str) -> None:
        """Whatever binding is on its way finds another version from now on. Where we may not write, we may not bind either."""
        change = {"metadata": {"uid": action.pod.uid, "annotations": {names.RELEASED: str(action.attempt)}}}
        try:
            found = await self._pace.write(
                lambda: self._api.patch(PODS, action.pod.namespace, action.pod.name, change, by=by)
            )
        except (NotFound, Conflict):
            return  # it is no more: nothing can be bound
        except Rejected as error:
            if names.CONFINING_POLICY not in error.message:
                raise
            return
        if found.spec.node_name:
            msg = f"pod {_words(action.pod)} has its place already: {found.spec.node_name}"
            raise NotYet(msg, object_=action.name)

    async def evict(self, action: EvictPod, *, by: str) -> None:
        """Raises NotYet while a disruption budget protects it."""
        known = self._lodgings.known(action.pod.uid)
        if known is None:
            await self.seek(SeekPod(name=action.name, node=action.node, pod=action.pod))
            return
        if known.deleting:
            return
        now = self._clock.monotonic()
        if now - self._evicted.get(action.pod.uid, float("-inf")) < EVICT_AGAIN_SECONDS:
            msg = f"the eviction of {_words(action.pod)} was asked for a moment ago"
            raise NotYet(msg, object_=action.name)
        self._evicted[action.pod.uid] = now
        try:
            await self._pace.write(
                lambda: self._api.evict(action.pod.namespace, action.pod.name, uid=action.pod.uid, by=by)
            )
        except (NotFound, Conflict):
            return  # gone, or another one by now: the next look shows it
        except NotYet as error:
            self._lodgings.protected[action.pod.uid] = f"its eviction is refused: {error.message}"
            raise

    async def seek(self, action: SeekPod) -> None:
        """By asking the API server itself: what a view does not show may only be late."""
        try:
            found = await self._api.get(PODS, action.pod.namespace, action.pod.name)
        except NotFound:
            self._lodgings.lost(action.pod, action.node)
            return
        if found.metadata.uid != action.pod.uid:
            self._lodgings.lost(action.pod, action.node)

    async def tell(self, action: TellPod) -> None:
        """An event, as a scheduler writes it; the same words within an hour are one, whoever writes them."""
        now = self._api.server_time()
        said = f"{action.pod.uid}\0{action.words}\0{now // 3_600_000_000}"
        time = _rfc3339(now)
        document = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{action.pod.name[:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
                "labels": {names.MANAGED_BY: "mainstay"},
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": action.pod.namespace,
                "name": action.pod.name,
                "uid": action.pod.uid,
            },
            "reason": "Waiting",
            "message": f"mainstay: {action.words}"[:MESSAGE_CHARACTERS],
            "type": "Normal",
            "count": 1,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "source": {"component": "mainstay"},
            "reportingComponent": "mainstay",
        }
        try:
            await self._pace.write(lambda: self._api.create(EVENTS, action.pod.namespace, document))
        except (AlreadyExists, NotFound):
            return

    async def look_up_groups(self) -> None:
        """The sizes of groups that wait, as their PodGroup says. Who has none and no annotation goes on waiting.

        All have their turn: first those that nobody has asked for, then those that were asked for longest ago.
        """
        now, sizes = self._clock.monotonic(), self._lodgings.group_sizes
        waiting = {(namespace, ask.group): ask for namespace, ask in self._lodgings.unsized_groups()}
        for gone in sizes.keys() - waiting.keys():
            del sizes[gone]
        self._asked = {group: at for group, at in self._asked.items() if group in waiting}
        never = float("-inf")
        due = [group for group in waiting if not sizes.get(group) or now - self._asked[group] >= GROUP_AGAIN_SECONDS]
        for group in sorted(due, key=lambda group: self._asked.get(group, never))[:GROUPS_MAX]:
            self._asked[group] = now
            kind = VOLCANO_POD_GROUPS if waiting[group].of_volcano else POD_GROUPS
            try:
                found = await self._api.get(kind, *group)
            except (NotFound, Denied):
                sizes.setdefault(group, 0)
            else:
                sizes[group] = max(0, found.spec.min_member)

    def forget_seen(self) -> None:
        """Those that the watch shows as placed by now, and those that it never will."""
        now = self._clock.monotonic()
        for uid in list(self._bound):
            known = self._lodgings.known(uid)
            if (known is not None and known.node) or now - self._bound[uid].at > UNSEEN_SECONDS:
                del self._bound[uid]
        self._evicted = {uid: at for uid, at in self._evicted.items() if now - at < EVICT_AGAIN_SECONDS}

    async def _place(self, action: BindPod, version: str, *, by: str) -> None:
        """Raises Gone, NotYet."""
        try:
            await self._pace.write(
                lambda: self._api.bind(
                    action.pod.namespace,
                    action.pod.name,
                    node=action.node,
                    uid=action.pod.uid,
                    version=version,
                    annotations={names.SYSTEM: self._system, names.WORKLOAD: action.name},
                    by=by,
                )
            )
        except Rejected as error:
            if names.CONFINING_POLICY in error.message:
                self._lodgings.close_to_us(action.pod.namespace)
            raise
        except NotFound:
            msg = f"pod {_words(action.pod)} is gone"
            raise Gone(msg, object_=action.name) from None
        except Conflict:
            await self._look_before_again(action)

    async def _look_before_again(self, action: BindPod) -> None:
        """A conflict: it has its place, or it has changed. Raises Gone, NotYet."""
        try:
            found = await self._api.get(PODS, action.pod.namespace, action.pod.name)
        except NotFound:
            found = None
        if found is None or found.metadata.uid != action.pod.uid:
            msg = f"pod {_words(action.pod)} is gone"
            raise Gone(msg, object_=action.name)
        if not found.spec.node_name:
            msg = f"pod {_words(action.pod)} has changed: its place is given to it as it is now"
            raise NotYet(msg, object_=action.name)
        _require_here(action, found.spec.node_name)


def _require_here(action: BindPod, node: str) -> None:
    if node != action.node:
        msg = f"pod {_words(action.pod)} was placed on {node} by somebody else"
        raise Gone(msg, object_=action.name)


def _not_seen(pod: PodRef) -> NotYet:
    return NotYet(f"pod {_words(pod)} has not been seen yet", object_=pod.name)


def _words(pod: PodRef) -> str:
    return f"{pod.namespace}/{pod.name}"


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
