"""What a cluster says of pods in words that may be their own: without what they were handed, before anybody keeps it.

A container may write the words in which its end is told (its termination message). What is said before it runs is said by others,
who know nothing of its secrets.
"""

from __future__ import annotations

from dataclasses import replace

from mainstay.clusters.kubernetes.logs import HandedTo
from mainstay.clusters.kubernetes.waiting import BEFORE_RUNNING
from mainstay.domain.allocation import PodState
from mainstay.domain.errors import Forbidden, NotFound
from mainstay.domain.masking import masked_words


class Spoken:
    """The words of the pods of one cluster. What is the same as at the last look is the same object again."""

    def __init__(self, handed: HandedTo) -> None:
        self._handed = handed
        self._seen: tuple[PodState, ...] = ()
        self._passed: tuple[PodState, ...] = ()
        self._known: dict[str, tuple[PodState, PodState]] = {}
        """Pods of which something is said: as they were seen last, and as that was passed on."""

    async def masked(self, pods: tuple[PodState, ...]) -> tuple[PodState, ...]:
        """The same states with words that anybody may read. Raises what `handed` does: then nothing is passed on."""
        if pods is self._seen:
            return self._passed
        known: dict[str, tuple[PodState, PodState]] = {}
        for pod in pods:
            if pod.detail and pod.seen not in BEFORE_RUNNING:
                before, passed = self._known.get(pod.name, (None, pod))
                known[pod.name] = pod, (passed if pod == before else await self._without_secrets(pod))
        self._known = known
        self._seen, self._passed = pods, tuple(known[pod.name][1] if pod.name in known else pod for pod in pods)
        return self._passed

    async def _without_secrets(self, pod: PodState) -> PodState:
        try:
            values = await self._handed(pod.name)
        except (NotFound, Forbidden):  # it is not on record here, nor will its words be
            return replace(pod, detail="")
        return replace(pod, detail=masked_words(pod.detail, values)) if values else pod
