"""What a fleet has to offer for what is asked for: each way to have it, what that costs, and in which order they are tried.

Choices that are equals are tried in the order of their expected cost: the price per hour of what a pod would hold, times how long
such a run takes on such GPUs. Both differ by the model, so where any will do, each that there is is an offer of its own
(docs/decisions/0028). Nor is a choice of GPUs by their memory one of a model, but of the cheapest that has as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from types import MappingProxyType

import numpy as np

from mainstay.decide import billing
from mainstay.decide.devices import Unit, units_of
from mainstay.domain.arrays import Bools
from mainstay.domain.billing import Price
from mainstay.domain.quantity import Money, Resources, duration_words, is_shape
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
    nodes: Bools | None
    """[nodes] Those whose GPUs will do; None: all."""
    asked: Resources
    """The choice."""
    tier: int
    """Offers of one tier are equals; a lower tier goes first."""
    mixed: bool = False
    """The pods of a gang may have different models by it, each at its price. It comes behind its equals."""
    per_hour: Money
    """Of one pod."""
    seconds: int = 0
    """What half of such runs take longer than there; 0: nobody knows."""

    @property
    def words(self) -> str:
        """`1 x A100 (3.03 USD an hour, about 2 h)`."""
        what = self.resources.gpu_words or "no GPU"
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
    hourly = _hourly(snapshot.prices, snapshot.now)
    found = list[Offer]()
    for number, choice in enumerate(choices):
        compared = equals > 1 and number < equals
        for one in _ways(snapshot, choice, compared=compared):
            offer = Offer(
                resources=one.resources,
                nodes=one.nodes,
                mixed=one.mixed,
                asked=choice,
                tier=0 if compared else max(0, number - equals + 1),
                per_hour=hourly(one.resources),
            )
            found.append(offer)
    return timed(found, seconds_on)


def timed(offers: Sequence[Offer], seconds_on: Mapping[str, int]) -> tuple[Offer, ...]:
    """The same if such runs take so long, in the order in which they are tried then."""
    return tuple(
        replace(offers[at], seconds=seconds_on.get(kind_of_gpus(offers[at].resources), 0))
        for at in in_order(offers, seconds_on)
    )


def in_order(offers: Sequence[Offer], seconds_on: Mapping[str, int]) -> tuple[int, ...]:
    """Their numbers in that order: equals by price per hour x seconds, then by seconds; 1 where nobody knows of any of them."""
    usual = sum(seconds_on.values()) / len(seconds_on) if seconds_on else 1.0

    def cost(at: int) -> tuple[int, bool, float, float]:
        one = offers[at]
        seconds = seconds_on.get(kind_of_gpus(one.resources), 0) or usual
        return one.tier, one.mixed, one.per_hour.micros * seconds, seconds

    return tuple(sorted(range(len(offers)), key=cost))


def chosen_words(offers: Sequence[Offer], at: int) -> str:
    """Which of several was taken, and why none of those that are tried before it."""
    chosen, before = offers[at], list(dict.fromkeys(one.words for one in offers[:at]))
    equals = sum(one.tier == chosen.tier for one in offers)
    whys = []
    if before:
        more = f" and {len(before) - NAMED_MAX} more" if len(before) > NAMED_MAX else ""
        whys = [f"as there is no room or quota for {', '.join(before[:NAMED_MAX])}{more}"]
    elif len(offers) > 1:
        whys = [f"the least expected cost of {equals}" if equals > 1 else "the first choice"]
    if chosen.asked.gpu_part_permille and not is_shape(chosen.resources.gpu_model):
        whys.append("as no smaller part of a GPU would do")
    return ", ".join((chosen.words, *whys))


def models_of(nodes: NodeTable, *, inside: Bools | None) -> list[int]:
    """Numbers of the models of whole GPUs that any of these nodes has; None: any at all. 0 is that of those that have no name."""
    has = np.maximum(nodes.gpus, nodes.whole_gpus) > 0
    has = has if inside is None else has & inside
    models: list[int] = np.flatnonzero(np.bincount(nodes.gpu_model[has])).tolist()
    return models


@lru_cache(maxsize=2)
def _hourly(prices: tuple[Price, ...], at: int) -> Callable[[Resources], Money]:
    """Many shapes of one snapshot ask for the same amounts."""
    return cache(partial(billing.price_per_hour, at=at, prices=prices))


def _ways(snapshot: Snapshot, choice: Resources, *, compared: bool) -> Iterator[Unit]:
    """The units that will do; where they are compared by what they cost, and any model will do, those of each that there is. By
    memory or part they are always.
    """
    for unit in units_of(snapshot, choice):
        held = unit.resources
        if (choice.is_plain and not compared) or not held.gpus or held.gpu_model:
            yield unit
            continue
        models = models_of(snapshot.nodes, inside=unit.nodes)
        if not any(models):
            yield unit
            continue
        for number in models:
            if number:
                yield replace(unit, resources=replace(held, gpu_model=snapshot.gpu_models[number]))
            else:
                nameless = snapshot.nodes.gpu_model == 0
                yield replace(unit, nodes=nameless if unit.nodes is None else unit.nodes & nameless)
        if choice.gpu_memory_bytes and not compared and len(models) > 1:
            yield replace(unit, mixed=True)  # A gang for which no model has room may lie on several.
