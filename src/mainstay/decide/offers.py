"""What a fleet has to offer for what is asked for: each way to have it, what that costs, and in which order they are tried.

Choices that are equals are tried in the order of their expected cost: the price per hour of what a pod would hold, times how long
such a run takes on such GPUs. Both differ by the model, so where any will do, each that there is is an offer of its own
(docs/decisions/0028).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType

import numpy as np

from mainstay.decide import billing
from mainstay.domain.quantity import Money, Resources, duration_words
from mainstay.domain.snapshot import NodeTable, Snapshot
from mainstay.domain.workload import kind_of_gpus

NOBODY_KNOWS: Mapping[str, int] = MappingProxyType({})
NAMED_MAX = 3
"""Of those that would have come before, where one was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to have one of the choices."""

    resources: Resources
    """What a pod would hold."""
    tier: int
    """Offers of one tier are equals; a lower tier goes first."""
    cost: float
    """What equals are compared by: price per hour x seconds, or the price alone where nobody knows how long any of them takes."""
    per_hour: Money
    """Of one pod."""
    seconds: int
    """What half of such runs take longer than there; 0: nobody knows."""

    @property
    def words(self) -> str:
        """`1 x A100 (3.03 USD an hour, about 2 h)`."""
        held = self.resources
        what = f"{held.gpus} x {held.gpu_model or 'GPU'}" if held.gpus else "no GPU"
        about = f", about {duration_words(self.seconds)}" if self.seconds else ""
        return f"{what} ({self.per_hour.micros / 1e6:.2f} {self.per_hour.currency} an hour{about})"


def offers_of(
    snapshot: Snapshot,
    choices: Sequence[Resources],
    *,
    equals: int,
    seconds_on: Mapping[str, int] = NOBODY_KNOWS,
) -> tuple[Offer, ...]:
    """In the order in which they are tried; at least one for each choice. `equals`: so many of the first choices are.

    `seconds_on`: what half of such runs take longer than, by `kind_of_gpus`. On a kind of which nobody knows they count as long
    as on the others on average.
    """
    usual = fmean(seconds_on.values()) if seconds_on else 1.0
    found = list[Offer]()
    for number, choice in enumerate(choices):
        compared = equals > 1 and number < equals
        for one in _ways(snapshot, choice, compared=compared):
            per_hour = billing.price_per_hour(one, snapshot.now, snapshot.prices)
            seconds = seconds_on.get(kind_of_gpus(one), 0)
            tier = 0 if compared else max(0, number - equals + 1)
            cost = per_hour.micros * (seconds or usual)
            found.append(Offer(resources=one, tier=tier, cost=cost, per_hour=per_hour, seconds=seconds))
    return tuple(sorted(found, key=lambda one: (one.tier, one.cost)))


def chosen_words(offers: Sequence[Offer], at: int) -> str:
    """Which of several was taken, and why none of those that are tried before it."""
    chosen, before = offers[at], list(dict.fromkeys(one.words for one in offers[:at]))
    if not before:
        equals = sum(one.tier == chosen.tier for one in offers)
        why = f"the least expected cost of {equals}" if equals > 1 else "the first choice"
        return f"{chosen.words}, {why}"
    more = f" and {len(before) - NAMED_MAX} more" if len(before) > NAMED_MAX else ""
    return f"{chosen.words}, as there is no room or quota for {', '.join(before[:NAMED_MAX])}{more}"


def models_of(nodes: NodeTable) -> list[int]:
    """Numbers of the models of whole GPUs that any node has."""
    has = np.maximum(nodes.gpus, nodes.whole_gpus) > 0
    return [number for number in np.unique(nodes.gpu_model[has]).tolist() if number]


def _ways(snapshot: Snapshot, choice: Resources, *, compared: bool) -> Sequence[Resources]:
    """The choice itself; or, where it is compared by what it costs and any model will do, each that there is."""
    if not compared or not choice.gpus or choice.gpu_model:
        return (choice,)
    models = (snapshot.gpu_models[number] for number in models_of(snapshot.nodes))
    return [replace(choice, gpu_model=model) for model in models] or (choice,)
