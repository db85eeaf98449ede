"""Which nodes take the pods that they are given. One that refuses them makes a storm: each refused pod is tried again, and again.

A broken device plugin has let thousands of pods fail within minutes (nvidia k8s-device-plugin #1641). So a node gets ten pods
at once and more as its kubelet takes them, and one that has refused ten is reported as such and put into quarantine. All of it
follows from the pods that are there: refused ones stay as their own tombstones for longer than that. Whoever releases a node
forgives it what was before; that stands on the node itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mainstay.clusters.kubernetes.views import OwnView, View
from mainstay.domain.allocation import Seen

REFUSALS_MAX = 10
REFUSED_SECONDS = 300
SAID_SECONDS = 5
"""A kubelet that works has taken or refused a pod by then. One that says nothing for longer is slow, and gets ten more."""


@dataclass(slots=True)
class Standing:
    """Of one node: how many pods of ours its kubelet has neither taken nor refused yet, and those that it has refused."""

    waiting: dict[str, int] = field(default_factory=dict)
    """When (UTC microseconds) each was made, by the UID of the pod."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """When (UTC microseconds) and why, by the UID of the pod."""

    def why_not(self, now: int, *, coming: int, reports: bool, forgiven: int = 0) -> str:
        """Why this node gets nothing more at this moment, in words; empty if it does. `coming`: pods that are being made;
        `reports`: it has a kubelet, which has said so.
        """
        recent = self.recent(now, forgiven=forgiven)
        if len(recent) >= REFUSALS_MAX:
            return (
                f"its kubelet has refused {len(recent)} pods within {REFUSED_SECONDS} s, at last with: {recent[-1][1]}"
            )
        if recent:
            waiting = len(self.waiting) + coming
            refuses = f"its kubelet refuses pods and has not taken the last {waiting} yet: {recent[-1][1]}"
            return refuses if len(recent) + waiting >= REFUSALS_MAX else ""
        waiting = sum(now - at < SAID_SECONDS * 1_000_000 for at in self.waiting.values()) + coming
        full = reports and waiting >= REFUSALS_MAX
        return f"its kubelet has not taken the last {waiting} pods yet" if full else ""

    def recent(self, now: int, *, forgiven: int) -> list[tuple[int, str]]:
        """When and why it has refused pods that count still: lately, and after the instant up to which it is forgiven."""
        since = max(now - REFUSED_SECONDS * 1_000_000, forgiven)
        return sorted((at, why) for at, why in self.refused.values() if at > since)


_NEW = Standing()
"""Of a node that no pod of ours is or was on."""


class Trust:
    """The standing of every node on which pods of ours are or were."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._forgiven: dict[str, int] = {}

    def changed(self, old: View | None, new: View | None) -> None:
        """A pod of ours has come, changed or gone."""
        for known, sign in ((old, -1), (new, 1)):
            if isinstance(known, OwnView) and known.node:
                self._count(self._standings.setdefault(known.node, Standing()), known, sign)

    def forgive(self, node: str, until: int) -> None:
        """Somebody has released a node: what it refused until then (server's time, UTC microseconds) counts no more."""
        if until:
            self._forgiven[node] = until
        else:
            self._forgiven.pop(node, None)

    def why_not(self, node: str, now: int, *, coming: int = 0, reports: bool = True) -> str:
        """As of its standing. `now` is the server's time, UTC microseconds."""
        standing, forgiven = self._standings.get(node, _NEW), self._forgiven.get(node, 0)
        return standing.why_not(now, coming=coming, reports=reports, forgiven=forgiven)

    def last_refusal(self, node: str, now: int) -> int:
        """When it refused one last, if it did lately; else 0."""
        recent = self._recent(node, now)
        return recent[-1][0] if recent else 0

    def broken(self, now: int) -> tuple[str, ...]:
        """The nodes that are left alone."""
        suspects = (name for name, one in self._standings.items() if len(one.refused) >= REFUSALS_MAX)
        return tuple(name for name in suspects if len(self._recent(name, now)) >= REFUSALS_MAX)

    def _recent(self, node: str, now: int) -> list[tuple[int, str]]:
        return self._standings.get(node, _NEW).recent(now, forgiven=self._forgiven.get(node, 0))

    def _count(self, standing: Standing, known: OwnView, sign: int) -> None:
        standing.waiting.pop(known.uid, None)
        standing.refused.pop(known.uid, None)
        if sign > 0 and known.refusal:
            standing.refused[known.uid] = (known.refused_at, known.refusal)
        elif sign > 0 and not known.taken and known.state.seen is not Seen.ENDED:
            standing.waiting[known.uid] = known.created_at
        if standing == Standing():
            del self._standings[known.node]
