"""Nodes as their cluster sees them, against the word of who keeps them out: what to mark there, and whom to suspect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mainstay.domain.allocation import MarkNode
from mainstay.domain.capacity import Closure, NodeState
from mainstay.domain.plan import QuarantineNode
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason

QUARANTINE_SECONDS = 600
"""So long is a node left alone that refuses pods; whoever has mended it releases it sooner. Twice what its cluster remembers."""


def marks(nodes: Iterable[NodeState], closed: Mapping[str, Closure], *, now: int) -> Iterator[MarkNode]:
    """What other schedulers of the cluster are not told yet. A node that somebody else has cordoned needs no mark of ours."""
    for node in nodes:
        closure = closed.get(node.name)
        if node.marked is None:
            continue
        if closure is not None and not node.cordoned and (not node.marked or node.mark_undone):
            yield MarkNode(name=node.name, closed=True, words=f"{closure.word}: {closure.reason.sentence}", at=now)
        elif closure is None and node.marked:
            yield MarkNode(name=node.name, closed=False, words="", at=now)


def suspicions(
    cluster: str, nodes: Iterable[NodeState], closed: Mapping[str, Closure], told: Mapping[str, int], *, now: int
) -> Iterator[QuarantineNode]:
    """Nodes that refuse what they are given. `told`: node -> up to which refusal it was suspected already, in this tenure."""
    for node in nodes:
        if node.refused_at and node.name not in closed and node.refused_at > told.get(node.name, 0):
            numbers: dict[str, int | float | str] = {"seconds": QUARANTINE_SECONDS, "detail": node.refusal}
            yield QuarantineNode(
                reason=Reason(code=Code.NODE_REFUSES, object=node.name, numbers=numbers),
                cluster=cluster,
                node=node.name,
                until=now + QUARANTINE_SECONDS * MICROSECONDS_PER_SECOND,
                refused_at=node.refused_at,
            )
