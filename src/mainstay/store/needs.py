"""Which nodes meet what workloads need of them, as columns: worked out where it is new, and kept where nothing has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mainstay.domain.affinity import NodeTraits, Restriction
from mainstay.domain.arrays import Bools
from mainstay.domain.flavor import NodeFlavor, flavor_numbers
from mainstay.store import codec_fleet, queries
from mainstay.store.columns import Column

if TYPE_CHECKING:
    from mainstay.store.changed import Reader
    from mainstay.store.state import State

TRAITS_SPARE = 1_000
"""So many that no node has any more are kept, beside one for each node, before all are numbered anew."""


def with_traits(state: State, reader: Reader) -> State:
    """The traits read that no node had before. They change for years, so those of no node any more are let go of once they are
    many.
    """
    known, digests = len(state.traits), reader.traits.words
    new = digests[known:]
    found = queries.node_traits(reader.connection, new) if new else {}
    each = (*state.traits, *(found[digest] for digest in new))
    number = state.nodes["traits"]
    if len(digests) <= TRAITS_SPARE + 2 * number.size:
        return replace(state, trait_digests=digests, traits=each)
    used, number = _numbered_anew(number)
    return replace(
        state,
        nodes={**state.nodes, "traits": number},
        trait_digests=tuple(digests[one] for one in used),
        traits=tuple(each[one] for one in used),
    )


def with_images(state: State, reader: Reader) -> State:
    """The same of the images that nodes have, which change oftener: each pull makes another set of them."""
    known, texts = len(state.has_images), reader.node_images.words
    each = (*state.has_images, *map(codec_fleet.images_of, texts[known:]))
    number = state.nodes["images"]
    if len(texts) <= TRAITS_SPARE + 2 * number.size:
        return replace(state, node_images=texts, has_images=each)
    used, number = _numbered_anew(number)
    return replace(
        state,
        nodes={**state.nodes, "images": number},
        node_images=tuple(texts[one] for one in used),
        has_images=tuple(each[one] for one in used),
    )


def _numbered_anew(number: Column) -> tuple[list[int], Column]:
    """Which numbers are in use, 0 among them, and for each its place among these."""
    used, place = np.unique(np.append(0, number), return_inverse=True)
    number = place.reshape(-1)[1:].astype(np.int64)
    number.flags.writeable = False
    return used.tolist(), number


def with_flavors(state: State, flavors: tuple[NodeFlavor, ...]) -> State:
    """The flavor of each node. Worked out anew only if the flavors are others, or any node has other traits than it had."""
    number = state.nodes["traits"]
    if flavors == state.flavors and (not flavors or number is state.flavor_by):
        return state
    flavor = None
    if flavors:
        flavor = flavor_numbers(NodeTraits(number=number, each=state.traits, barred=state.barred), flavors)
        flavor.flags.writeable = False
    return replace(state, flavors=flavors, flavor=flavor, flavor_by=number)


def with_needs(state: State, restrictions: Sequence[Restriction]) -> State:
    """Which nodes each need admits that a workload has. Worked out anew only if any node has other traits than it had."""
    used = (restrictions[number] for number in np.flatnonzero(np.bincount(state.workloads["restriction"])).tolist())
    wanted = [one for one in used if not isinstance(one, str)]
    if not wanted and not state.needs:
        return state
    traits = NodeTraits(number=state.nodes["traits"], each=state.traits, barred=state.barred)
    known = state.needs if traits.number is state.needs_of else {}
    needs = {one: known[one] if one in known else traits.admitted(one) for one in wanted}
    sound = state.open_ | state.barred
    admits: dict[Restriction, Bools] = {name: mask for name, mask in state.admits.items() if isinstance(name, str)}
    meets: dict[Restriction, Bools] = {name: mask for name, mask in state.meets.items() if isinstance(name, str)}
    admits.update((one, mask & sound) for one, mask in needs.items())
    meets.update(needs.items())
    return replace(state, needs=needs, needs_of=traits.number, admits=admits, meets=meets)
