"""The best node for one pod, found in the time it takes to look at a few of them.

Nodes are looked at in blocks. Of each block it is known how much the roomiest of its nodes has of each resource, and the
lowest score in it: most blocks are passed over by that alone. Scores are what is left on a node, which changes only where
something is taken; so the answer is the one that a look at all nodes would give.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mainstay.decide.compiled import compiled
from mainstay.domain.arrays import Bools, Floats, Ints

BLOCK = 32
NOWHERE = -1
ANY_CLUSTER = -1
ANY_MODEL = 0
ROOM_MAX = 1 << 20
"""More pods of one request than any gang has ranks; stands for "no limit" where a request asks for nothing."""


class Nodes(NamedTuple):
    """What is left on each node, and what blocks of nodes have in common. Written by `take` alone."""

    free: Ints
    """[resources, nodes]"""
    weight: Floats
    """[resources] What a unit of it weighs in `left`."""
    left: Floats
    """[nodes] All that is left, weighed and summed: the less, the fuller the node."""
    apart: Floats
    """[nodes] What is added to the score of a node for work without GPUs."""
    sign: Floats
    """[1] 1: the fullest node has the lowest score; -1: the emptiest."""
    gpu_model: Ints
    cluster: Ints
    peak: Ints
    """[resources, blocks] The most that a node of the block has free."""
    lowest: Floats
    """[(with GPUs, without), blocks] The lowest score in the block."""
    changes: Ints
    """[blocks] How often something was taken in the block."""


class Memory(NamedTuple):
    """What was found for a request in each block, for requests that are asked again and again. What is free only shrinks."""

    slot: Ints
    """[requests] Row of `score`; -1: it is not remembered."""
    score: Floats
    """[slots, blocks] The lowest of a node of the block with room; infinite if there is none any more."""
    after: Ints
    """[slots, blocks] After how many changes of the block it was so; -1: it was not looked at."""


def nodes_of(free: Ints, weight: Floats, apart: Floats, *, gpu_model: Ints, cluster: Ints, sign: int) -> Nodes:
    """The nodes with such columns, which are lowered in place from now on. O(resources × nodes)."""
    left = np.zeros(apart.size)
    for column, each in zip(free, weight, strict=True):
        left += column * each
    begins = np.arange(0, apart.size, BLOCK)
    score = np.stack((sign * left, sign * left + apart))
    return Nodes(
        free=free,
        weight=weight,
        left=left,
        apart=apart,
        sign=np.array([float(sign)]),
        gpu_model=gpu_model,
        cluster=cluster,
        peak=np.maximum.reduceat(free, begins, axis=1) if begins.size else free.copy(),
        lowest=np.minimum.reduceat(score, begins, axis=1) if begins.size else score,
        changes=np.zeros(begins.size, dtype=np.int64),
    )


@compiled
def take(nodes: Nodes, row: int, pods: int, amounts: Ints) -> None:
    """Lower what is left on a node by so many pods of such amounts [resources]; fewer than none give back."""
    left = 0.0
    for resource in range(amounts.size):
        nodes.free[resource, row] -= pods * amounts[resource]
        left += nodes.free[resource, row] * nodes.weight[resource]
    nodes.left[row] = left
    block = row // BLOCK
    begin, end = block * BLOCK, min(block * BLOCK + BLOCK, nodes.left.size)
    for resource in range(amounts.size):
        most = nodes.free[resource, begin]
        for node in range(begin + 1, end):
            most = max(most, nodes.free[resource, node])
        nodes.peak[resource, block] = most
    lowest, lowest_apart = np.inf, np.inf
    for node in range(begin, end):
        lowest, lowest_apart = min(lowest, _score(nodes, node, 0)), min(lowest_apart, _score(nodes, node, 1))
    nodes.lowest[0, block], nodes.lowest[1, block] = lowest, lowest_apart
    nodes.changes[block] += 1


@compiled
def best(nodes: Nodes, amounts: Ints, mask: Bools, without_gpus: int, model: int, cluster: int) -> int:
    """The node with the lowest score, of equals the first, among those that have so much left; NOWHERE if none has.

    `mask` [nodes]: those that may be used. `without_gpus`: 1 for work without GPUs, else 0.
    """
    found, lowest = NOWHERE, np.inf
    for block in range(nodes.changes.size):
        if nodes.lowest[without_gpus, block] < lowest:
            node = _best_in(nodes, block, amounts, mask, without_gpus, model, cluster, lowest)
            if node != NOWHERE:
                found, lowest = node, _score(nodes, node, without_gpus)
    return found


@compiled
def best_known(
    nodes: Nodes, memory: Memory, request: int, amounts: Ints, mask: Bools, without_gpus: int, model: int
) -> int:
    """The same in any cluster, for a request that may be remembered: only what has changed is looked at again."""
    slot = memory.slot[request]
    if slot < 0:
        return best(nodes, amounts, mask, without_gpus, model, ANY_CLUSTER)
    found, lowest = NOWHERE, np.inf
    for block in range(nodes.changes.size):
        score = memory.score[slot, block]
        if score == np.inf:
            continue
        if memory.after[slot, block] != nodes.changes[block]:
            if nodes.lowest[without_gpus, block] >= lowest:
                continue
            node = _best_in(nodes, block, amounts, mask, without_gpus, model, ANY_CLUSTER, np.inf)
            score = np.inf if node == NOWHERE else _score(nodes, node, without_gpus)
            memory.score[slot, block], memory.after[slot, block] = score, nodes.changes[block]
        if score < lowest:
            found, lowest = block, score
    if found == NOWHERE:
        return NOWHERE
    return _best_in(nodes, found, amounts, mask, without_gpus, model, ANY_CLUSTER, np.inf)


@compiled
def _best_in(
    nodes: Nodes, block: int, amounts: Ints, mask: Bools, without_gpus: int, model: int, cluster: int, lowest: float
) -> int:
    """The same of one block, if its score is lower than this."""
    found = NOWHERE
    if is_roomy(nodes, amounts, block):
        for node in range(block * BLOCK, min(block * BLOCK + BLOCK, mask.size)):
            score = _score(nodes, node, without_gpus)
            if score < lowest and mask[node] and fits(nodes, amounts, node, model, cluster):
                found, lowest = node, score
    return found


@compiled
def _score(nodes: Nodes, node: int, without_gpus: int) -> float:
    score = nodes.sign[0] * nodes.left[node]
    return score + nodes.apart[node] if without_gpus else score


@compiled
def is_roomy(nodes: Nodes, amounts: Ints, block: int) -> bool:
    """Whether the block has enough of each resource, be it on different nodes."""
    for resource in range(amounts.size):
        if 0 < amounts[resource] > nodes.peak[resource, block]:
            return False
    return True


@compiled
def fits(nodes: Nodes, amounts: Ints, node: int, model: int, cluster: int) -> bool:
    """Whether a node of this model and cluster has so much left."""
    if model != ANY_MODEL and nodes.gpu_model[node] != model:
        return False
    if cluster != ANY_CLUSTER and nodes.cluster[node] != cluster:
        return False
    for resource in range(amounts.size):
        if 0 < amounts[resource] > nodes.free[resource, node]:
            return False
    return True


@compiled
def room(nodes: Nodes, amounts: Ints, node: int, most: int) -> int:
    """How many such pods a node can take, at most `most`."""
    for resource in range(amounts.size):
        if amounts[resource] > 0:
            most = min(most, nodes.free[resource, node] // amounts[resource])
    return most
