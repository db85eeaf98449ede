"""What is reported of each of our pods, worked out anew only where that may be something else: of 50,000 pods few change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from mainstay.clusters.kubernetes.views import OwnView
from mainstay.domain.allocation import PodState


class Reports:
    """Of what is the same, the very same object is reported, look after look: whoever compares looks sees that at once."""

    def __init__(self) -> None:
        self._states: dict[str, PodState] = {}
        self._all: tuple[PodState, ...] = ()
        self._moved: set[str] = set()
        self._unsettled: AbstractSet[str] = frozenset()

    def moved(self, pod: str) -> None:
        """Another view is kept of it, or none any more."""
        self._moved.add(pod)

    def all(
        self, views: Mapping[str, OwnView], state: Callable[[OwnView], PodState], *, unsettled: AbstractSet[str]
    ) -> tuple[PodState, ...]:
        """Of all pods. `state` says what is reported of one; of the `unsettled` that depends on more than on its view."""
        looked_at = self._moved | self._unsettled | unsettled
        self._moved, self._unsettled = set(), unsettled
        changed = False
        for name in sorted(looked_at):
            now = state(views[name]) if name in views else None
            if now != self._states.get(name):
                changed = True
                if now is None:
                    del self._states[name]
                else:
                    self._states[name] = now
        if changed:
            self._all = tuple(self._states.values())
        return self._all
