"""The GPUs of a fleet by what they are: how much memory each has, and which slices and shares are such a part of a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mainstay.domain import gpu
from mainstay.domain.affinity import NO_TRAITS, Traits
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import Resources, is_shape
from mainstay.domain.snapshot import NodeTable, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One kind of GPUs, slices or shares that will do for what is asked for."""

    resources: Resources
    """What a pod would hold; without a model: whole GPUs of any."""
    nodes: Bools | None = None
    """[nodes] Those whose GPUs will do; None: all."""
    mixed: bool = False
    """Of several models, of each of which there is a unit besides."""


def units_of(snapshot: Snapshot, asked: Resources) -> tuple[Unit, ...]:
    """What will do, the smallest part of a card first; at least one. Where a part is asked for, whole GPUs only if the fleet has
    no smaller one that would do.
    """
    if asked.is_plain or not asked.gpus:
        return (Unit(resources=asked),)
    held = replace(asked, gpu_memory_bytes=0, gpu_part_permille=0)
    parts = sorted(_parts(snapshot, asked), key=lambda found: (found[0], found[1])) if asked.gpu_part_permille else []
    if parts:
        return tuple(Unit(resources=replace(held, gpu_model=shape), nodes=mask) for _, shape, mask in parts)
    if not asked.gpu_memory_bytes:
        return (Unit(resources=held),)
    slices = is_shape(asked.gpu_model)
    memory = memory_of(snapshot.nodes, asked.gpu_model) if slices else memory_of_gpus(snapshot)
    return (Unit(resources=held, nodes=_enough(memory, asked.gpu_memory_bytes)),)


def memory_of_gpus(snapshot: Snapshot) -> Ints:
    """[nodes] Bytes of each whole GPU; 0: nobody knows. O(models x kinds of nodes + nodes)."""
    nodes = snapshot.nodes
    found = np.zeros_like(nodes.gpus)
    for number in np.flatnonzero(np.bincount(nodes.gpu_model)).tolist():
        of = nodes.gpu_model == number
        found[of] = memory_of(nodes, snapshot.gpu_models[number])[of]
    return found


def memory_of(nodes: NodeTable, kind: str) -> Ints:
    """[nodes] The same of this model or shape, whether or not the node has any."""
    return _by_node(nodes, partial(gpu.memory_of, kind))


def parts_there(snapshot: Snapshot, model: str) -> Sequence[int]:
    """Which parts of cards of this model the fleet has, in thousandths, the largest first; empty: of any."""
    smallest = Resources(gpus=1, gpu_model=model, gpu_part_permille=1)
    return sorted({part for part, _, _ in _parts(snapshot, smallest, by_node=True)}, reverse=True)


def _parts(snapshot: Snapshot, asked: Resources, *, by_node: bool = False) -> Iterator[tuple[int, str, Bools]]:
    """(the smallest part, shape, nodes) of each shape that will do; `by_node`: of each part on its own."""
    nodes = snapshot.nodes
    for shape in sorted(nodes.shapes.keys() | nodes.whole_shapes.keys()):
        part = _by_node(nodes, partial(gpu.part_of_card, shape))
        mask = (part >= asked.gpu_part_permille) & _has(nodes, shape)
        if asked.gpu_model:
            mask &= _by_node(nodes, partial(gpu.is_of_card, shape, asked.gpu_model)) > 0
        if asked.gpu_memory_bytes:
            mask &= _enough(memory_of(nodes, shape), asked.gpu_memory_bytes)
        if mask.any():
            for one in np.unique(part[mask]).tolist() if by_node else [int(part[mask].min())]:
                yield one, shape, mask


def _has(nodes: NodeTable, shape: str) -> Bools:
    found = np.zeros(nodes.key.size, dtype=np.bool_)
    for of in (nodes.shapes, nodes.whole_shapes):
        if shape in of:
            found |= of[shape] > 0
    return found


def _enough(memory: Ints, asked: int) -> Bools:
    """[nodes] As `gpu.is_enough`."""
    found: Bools = (memory > 0) & (memory >= gpu.least_enough(asked))
    return found


def _by_node(nodes: NodeTable, of: Callable[[Traits], int]) -> Ints:
    """[nodes] Of each by its traits."""
    if nodes.traits is None:
        return np.full(nodes.key.size, int(of(NO_TRAITS)), dtype=np.int64)
    return np.array([int(of(one)) for one in nodes.traits.each], dtype=np.int64)[nodes.traits.number]
