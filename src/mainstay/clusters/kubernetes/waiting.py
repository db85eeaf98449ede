"""What keeps pods from starting, in the words of their events: which image is being pulled, what a node complains of.

Events are never watched: a cluster may have 100,000 of them, and none matters of a pod that runs. They are asked for pod by
pod, one question at a time, of those that have waited for a few seconds; the API server has no index of them, so after each
answer it is left alone for a multiple of the time that this took.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog

from mainstay.clusters.kubernetes import kubelet_words
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.errors import ApiError
from mainstay.clusters.kubernetes.kinds import EVENTS
from mainstay.clusters.kubernetes.objects import Event
from mainstay.clusters.kubernetes.quantities import instant
from mainstay.clusters.kubernetes.troubles import shown
from mainstay.clusters.kubernetes.views import OwnView
from mainstay.domain.allocation import PodState, Seen
from mainstay.ports import Clock

log = structlog.get_logger()

WAIT_SECONDS = 3.0
"""Most pods run sooner, and nobody asks why they do not."""
AGAIN_SECONDS, AGAIN_SECONDS_MAX = 3.0, 60.0
"""Between two questions about one pod, doubled as long as nothing changes."""
REST_FACTOR = 4.0
"""Questions take a fifth of the time of one thread of the API server at most."""
EVENTS_MAX = 200
"""Of one pod; those that repeat are one."""
BEFORE_RUNNING = frozenset({Seen.NOTHING, Seen.PULLING, Seen.STARTING})

_QUOTED = re.compile(r'"([^"]+)"')
_TOOK = re.compile(r"\bin ([0-9.]+[a-z0-9.]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the events of a pod say."""

    seen: Seen
    detail: str


@dataclass(slots=True)
class Inquiry:
    """About one pod. Times are monotonic seconds."""

    known: OwnView
    next_at: float
    pause: float = AGAIN_SECONDS
    words: Words | None = None


class Waiting:
    """The pods of one cluster that have not started."""

    def __init__(self, api: KubeApi, clock: Clock) -> None:
        self._api, self._clock = api, clock
        self._asked: dict[str, Inquiry] = {}
        self._rest_until = 0.0

    @property
    def explains(self) -> AbstractSet[str]:
        """The pods of which events say something."""
        return {name for name, asked in self._asked.items() if asked.words is not None}

    def explained(self, known: OwnView, state: PodState) -> PodState:
        """What is reported of a pod, with what its events say where the pod itself says nothing."""
        asked = self._asked.get(state.name)
        if asked is None or asked.words is None or asked.known.uid != known.uid:
            return state
        if state.detail or state.seen not in {Seen.PULLING, Seen.STARTING}:
            return state
        return replace(state, seen=asked.words.seen, detail=asked.words.detail)

    def due(self, pods: Iterable[tuple[str, OwnView]]) -> tuple[str, OwnView] | None:
        """The pod to ask about now, if any: who has waited longest for a question. Whoever has started is let go of."""
        now, server_now = self._clock.monotonic(), self._api.server_time()
        waiting = {
            name: known for name, known in pods if _waits(known) and server_now - known.created_at >= WAIT_SECONDS * 1e6
        }
        self._asked = {name: asked for name, asked in self._asked.items() if name in waiting}
        for name, known in waiting.items():
            asked = self._asked.setdefault(name, Inquiry(known=known, next_at=now))
            if asked.known is not known:  # something happened to it: its words may be others by now
                asked.known, asked.pause = known, AGAIN_SECONDS
                asked.next_at = min(asked.next_at, now + AGAIN_SECONDS)
        due = [(asked.next_at, name) for name, asked in self._asked.items() if asked.next_at <= now]
        if not due or now < self._rest_until:
            return None
        _, name = min(due)
        return name, waiting[name]

    async def ask(self, pod: str, known: OwnView) -> None:
        """One question. Whoever may not see events goes without their words."""
        began = self._clock.monotonic()
        fields = f"involvedObject.name={pod},involvedObject.uid={known.uid}"
        events: Sequence[Event] = ()
        pages = self._api.list_pages(EVENTS, namespace=known.namespace, fields=fields, limit=EVENTS_MAX)
        try:
            async with aclosing(pages):
                events = (await anext(pages)).items
        except ApiError as error:
            log.debug("events_not_seen", pod=pod, reason=error.message)
        now = self._clock.monotonic()
        self._rest_until = now + REST_FACTOR * (now - began)
        asked = self._asked.get(pod)
        if asked is None:
            return
        asked.words = words(events)
        asked.next_at = now + asked.pause
        asked.pause = min(2 * asked.pause, AGAIN_SECONDS_MAX)


def words(events: Iterable[Event]) -> Words | None:
    """What the newest event means for a pod that has not started; None if it means nothing to a user."""
    ordered = sorted(events, key=_at)
    if not ordered:
        return None
    newest = ordered[-1]
    if newest.reason == "Pulling":
        took = [f"{_image(event)} took {time}" for event in ordered if (time := _took(event))]
        return Words(seen=Seen.PULLING, detail=shown("; ".join([f"pulling image {_image(newest)}", *took])))
    if newest.type == "Warning" and newest.message.startswith("Failed to pull image "):
        return Words(seen=Seen.PULLING, detail=shown(kubelet_words.of_image(newest.message)))
    if newest.type == "Warning" and "Multi-Attach" in newest.message:
        return Words(seen=Seen.STARTING, detail=shown(f"its volume is held on another node: {newest.message}"))
    if newest.type == "Warning":
        return Words(seen=Seen.STARTING, detail=shown(f"{newest.reason}: {newest.message}"))
    return None


def _waits(known: OwnView) -> bool:
    return (
        bool(known.node)
        and known.state.seen in BEFORE_RUNNING
        and not (known.deleting or known.tombstone or known.waits_for_files)
    )


def _at(event: Event) -> int:
    """To a second, as most writers tell it: of equal ones the order of the list counts, which is that of their first time."""
    last = event.last_timestamp or event.event_time or event.first_timestamp or event.metadata.creation_timestamp
    return instant(last)


def _image(event: Event) -> str:
    found = _QUOTED.search(event.message)
    return found[1] if found else "of an unknown name"


def _took(event: Event) -> str:
    """How long a pull took that has ended; empty for all else, and for an image that was there already."""
    found = _TOOK.search(event.message) if event.reason == "Pulled" else None
    return found[1] if found else ""
