"""Flavors of nodes: names that administrators give to nodes with certain labels, of which queues have quotas.

A node is of the first flavor, in their order, whose requirements it meets, else of none. Source: Kueue, ResourceFlavor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mainstay.domain.affinity import NodeTraits, Requirement, Traits, holds
from mainstay.domain.arrays import Ints

NODE_FLAVORS_MAX = 64
"""So many there may be: what a fleet buys apart is a handful, and each is asked about where room is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFlavor:
    """A name for the nodes on which all of this holds."""

    name: str
    requirements: tuple[Requirement, ...]

    @property
    def words(self) -> str:
        """Its requirements, as `mainstay flavor set` takes them."""
        return ", ".join(one.words for one in self.requirements)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFlavorRecord:
    """A flavor on record. Times in UTC microseconds."""

    flavor: NodeFlavor
    set_at: int
    set_by: str


def flavor_of(traits: Traits, flavors: Sequence[NodeFlavor]) -> int:
    """The number of the first that the node meets, from 1; 0: none."""
    for number, flavor in enumerate(flavors, 1):
        if all(holds(line, traits.value(line.key)) for line in flavor.requirements):
            return number
    return 0


def flavor_numbers(traits: NodeTraits, flavors: Sequence[NodeFlavor]) -> Ints:
    """[nodes] As `flavor_of`. O(traits that differ x flavors + nodes)."""
    by_traits = np.array([flavor_of(one, flavors) for one in traits.each], dtype=np.int64)
    return by_traits[traits.number]


def placed_before(known: Iterable[NodeFlavor], flavor: NodeFlavor, before: str) -> list[NodeFlavor]:
    """All flavors in their order with this one among them: just before another; or, with an empty name, where it was, else last.

    Raises ValueError where there is no other of that name.
    """
    found = list(known)
    names = [one.name for one in found]
    if flavor.name in names and not before:
        found[names.index(flavor.name)] = flavor
        return found
    others = [one for one in found if one.name != flavor.name]
    at = [one.name for one in others].index(before) if before else len(others)
    return [*others[:at], flavor, *others[at:]]
