"""Which nodes take the pods that they are given. One that refuses them makes a storm: each refused pod is tried again, and again.

A broken device plugin has let thousands of pods fail within minutes (nvidia k8s-device-plugin #1641). So a node that has
refused one gets few more at once, and one that has refused ten is reported as such and put into quarantine. All of it follows
from the pods that are there: refused ones stay as their own tombstones for longer than that. Whoever releases a node forgives it
what was before; that stands on the node itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mainstay.clusters.kubernetes.states import View

REFUSALS_MAX = 10
REFUSED_SECONDS = 300


@dataclass(slots=True)
class Standing:
    """Of one node: how many pods of ours its kubelet has neither taken nor refused yet, and those that it has refused."""

    waiting: int = 0
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """When (UTC microseconds) and why, by the UID of the pod."""

    def recent(self, now: int, *, forgiven: int) -> list[tuple[int, str]]:
        """What it has refused lately, and after the instant up to which it is forgiven."""
        since = max(now - REFUSED_SECONDS * 1_000_000, forgiven)
        return sorted((at, why) for at, why in self.refused.values() if at > since)

    def why_not(self, now: int, *, forgiven: int = 0) -> str:
        """Why this node gets nothing more at this moment, in words; empty if it does."""
        recent = self.recent(now, forgiven=forgiven)
        if len(recent) >= REFUSALS_MAX:
            return (
                f"its kubelet has refused {len(recent)} pods within {REFUSED_SECONDS} s, at last with: {recent[-1][1]}"
            )
        if recent and len(recent) + self.waiting >= REFUSALS_MAX:
            return f"its kubelet refuses pods and has not taken the last {self.waiting} yet: {recent[-1][1]}"
        return ""


class Trust:
    """The standing of every node on which pods of ours are or were."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._forgiven: dict[str, int] = {}

    def changed(self, old: View | None, new: View | None) -> None:
        """A pod of ours has come, changed or gone."""
        for known, sign in ((old, -1), (new, 1)):
            if known is not None and known.state is not None and known.node:
                self._count(self._standings.setdefault(known.node, Standing()), known, sign)

    def forgive(self, node: str, until: int) -> None:
        """Somebody has released a node: what it refused until then (server's time, UTC microseconds) counts no more."""
        if until:
            self._forgiven[node] = until
        else:
            self._forgiven.pop(node, None)

    def why_not(self, node: str, now: int) -> str:
        """Why a node gets nothing more at this moment; empty if it does. `now` is the server's time, UTC microseconds."""
        standing = self._standings.get(node)
        return standing.why_not(now, forgiven=self._forgiven.get(node, 0)) if standing else ""

    def last_refusal(self, node: str, now: int) -> int:
        """When it refused one last, if it did lately; else 0."""
        standing = self._standings.get(node)
        recent = standing.recent(now, forgiven=self._forgiven.get(node, 0)) if standing else []
        return recent[-1][0] if recent else 0

    def broken(self, now: int) -> tuple[str, ...]:
        """The nodes that are left alone."""
        suspects = (name for name, one in self._standings.items() if len(one.refused) >= REFUSALS_MAX)
        return tuple(name for name in suspects if self.why_not(name, now))

    def _count(self, standing: Standing, known: View, sign: int) -> None:
        if known.refusal and sign > 0:
            standing.refused[known.uid] = (known.refused_at, known.refusal)
        elif known.refusal:
            standing.refused.pop(known.uid, None)
        elif not known.taken and not known.tombstone:
            standing.waiting += sign
        if standing == Standing():
            del self._standings[known.node]
