"""Of a workload that needs nodes with certain labels: which of them no node has, and what it could ask for instead."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from mainstay.domain.affinity import (
    NodeNeed,
    Requirement,
    Spot,
    Taint,
    Toleration,
    Traits,
    borne,
    holds,
    meets,
    need,
)

VALUES_NAMED = 8
"""Of a label, where none is as it must be."""
CHANGES_TRIED = 8
"""Sets of taints, by name: trying one costs a cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Why no node is as it must be."""

    field: str
    """Of the job file, where it is said."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The need in other words: one part of it is something else."""

    field: str
    before: str
    after: str


def lack(there: Collection[Traits], wanted: NodeNeed) -> Lack | None:
    """The first thing that no node has, with the nearest there is; None if some node has all of it."""
    if any(borne(one.taints, wanted.tolerations) and meets(one, wanted) for one in there):
        return None
    for line in wanted.requirements:
        if not any(holds(line, one.value(line.key)) for one in there):
            return Lack(field="node_labels", words=f"no node has {line.words}{_nearest(there, line)}")
    if wanted.spot is not Spot.AUTO and not any(one.spot is (wanted.spot is Spot.ONLY) for one in there):
        return Lack(field="resources.spot", words=f"{'no' if wanted.spot is Spot.ONLY else 'every'} node is spot")
    alike = [one for one in there if meets(one, wanted)]
    if not alike:
        return Lack(field="node_labels", words="no node has all of it at once")
    taints = sorted({one for each in alike for one in _strange(each.taints, wanted)})
    names = ", ".join(one.words for one in taints[:VALUES_NAMED])
    return Lack(field="tolerations", words=f"the nodes that have it are tainted, and it does not tolerate {names}")


def changes(
    there: Collection[Traits], wanted: NodeNeed, starts: Callable[[NodeNeed | None], Traits | None]
) -> Iterator[Change]:
    """One label less, spot or not, or taints more that it puts up with: whatever of it is enough by itself. `starts`: with which
    node the first rank would start with another need.
    """
    for without in wanted.requirements:
        left = tuple(one for one in wanted.requirements if one != without)
        if (found := starts(_as_need(replace(wanted, requirements=left)))) is not None:
            value = found.value(without.key)
            yield Change(
                field="node_labels",
                before=without.words,
                after="none" if value is None else f"{without.key}={value}",
            )
    if wanted.spot is not Spot.AUTO and starts(_as_need(replace(wanted, spot=Spot.AUTO))) is not None:
        yield Change(field="spot", before=wanted.spot.value, after=Spot.AUTO.value)
    sets = {_strange(one.taints, wanted) for one in there if one.taints and meets(one, wanted)}
    for taints in sorted(sets - {()})[:CHANGES_TRIED]:
        more = tuple(Toleration(key=one.key, operator="Equal", value=one.value) for one in taints)
        if starts(_as_need(replace(wanted, tolerations=(*wanted.tolerations, *more)))) is not None:
            yield Change(field="tolerations", before=_words(wanted.tolerations), after=_words(more))
            return


def _strange(taints: Sequence[Taint], wanted: NodeNeed) -> tuple[Taint, ...]:
    return tuple(one for one in taints if not borne((one,), wanted.tolerations))


def _words(tolerations: Sequence[Toleration]) -> str:
    return ", ".join(one.words for one in tolerations) or "none"


def _nearest(there: Collection[Traits], line: Requirement) -> str:
    """Which values that label has, or which label is spelt like it."""
    values = sorted({value for one in there if (value := one.value(line.key)) is not None})
    if values:
        more = f" and {len(values) - VALUES_NAMED} more" if len(values) > VALUES_NAMED else ""
        return f": {line.key} is {', '.join(values[:VALUES_NAMED])}{more}"
    keys = sorted({key for one in there for key, _ in one.labels})
    close = difflib.get_close_matches(line.key, keys, n=1) or [key for key in keys if key.endswith(f"/{line.key}")]
    return f": did you mean {close[0]}?" if close else f": none has a label {line.key}"


def _as_need(changed: NodeNeed) -> NodeNeed | None:
    return need(
        requirements=changed.requirements,
        preferences=changed.preferences,
        tolerations=changed.tolerations,
        spot=changed.spot,
    )
