"""Turn after turn: whose turn it is takes the best place that its predecessors left. The inner loop of a cycle."""

from __future__ import annotations

from typing import NamedTuple

from mainstay.decide.allowance import Quota, most, use
from mainstay.decide.compiled import compiled
from mainstay.decide.placement.search import ANY_CLUSTER, BLOCK, NOWHERE, ROOM_MAX, Memory, Nodes, best, best_known, fits, is_roomy, room, take
from mainstay.decide.turns import NOBODY, Ledger, Line, give_up, leave
from mainstay.domain.arrays import Bools, Ints

DONE, FULL, UNKNOWN, ASKS = range(4)
"""Why `go_on` returned: nobody waits; what was found must be read; the requests of a shape are not known yet; a shape
must be placed by the caller.
"""
PLACED, NO_ROOM, NO_QUOTA = range(3)


class Requests(NamedTuple):
    """What shapes ask for. A request is one choice of a shape, for one pod."""

    begin: Ints
    """[shapes] First request of the shape; -1: not known."""
    end: Ints
    """[shapes]"""
    ranks: Ints
    """[shapes] Pods of one workload."""
    asks: Bools
    """[shapes] Such workloads are placed by the caller."""
    amounts: Ints
    """[requests, resources] As `Nodes.free`."""
    without_gpus: Ints
    """[requests] 1 for work without GPUs, else 0."""
    model: Ints
    """[requests] The only model of GPUs that will do; 0: any."""
    any_model: Bools
    """[requests] It asks for whole GPUs of any model."""
    quota: Ints
    """[requests, resources] As `Quota.cell`."""
    flavor: Ints
    """[requests]"""
    mask: Ints
    """[requests] Row of `masks`."""
    masks: Bools
    """[masks, nodes] Nodes that may be used."""


class Found(NamedTuple):
    """Places that have been found, in the order of turns."""

    at: Ints
    """[workloads] Position in the line."""
    request: Ints
    """[workloads]"""
    model: Ints
    """[workloads] Of GPUs, where any will do but quotas tell models apart."""
    end: Ints
    """[workloads] Of its ranks in `node`; they begin where those of the one before end."""
    node: Ints
    """[ranks of all]"""
    count: Ints
    """[2] Of workloads and of ranks."""


@compiled
def go_on(
    ledger: Ledger, line: Line, quota: Quota, nodes: Nodes, memory: Memory, requests: Requests, found: Found, room_of: Ints, limit: int
) -> int:
    """Take turns until `limit` workloads are found, or the caller must do something: which. `room_of` [clusters] is scratch."""
    while True:
        at = line.head[ledger.parent.size]
        if at == NOBODY:
            return DONE
        shape = line.shape[at]
        if requests.asks[shape]:
            return ASKS
        if requests.begin[shape] < 0:
            return UNKNOWN
        if found.count[0] == limit or found.count[1] + requests.ranks[shape] > found.node.size:
            return FULL
        outcome = _place(quota, nodes, memory, requests, found, room_of, line.queue[at], shape)
        if outcome == PLACED:
            found.at[found.count[0]] = at
            found.count[0] += 1
            leave(ledger, line, at)
        else:
            give_up(ledger, line, at, outcome == NO_ROOM)


@compiled
def _place(
    quota: Quota, nodes: Nodes, memory: Memory, requests: Requests, found: Found, room_of: Ints, queue: int, shape: int
) -> int:
    """A place for one workload, by the first of its requests that has one; of what it lacks, quota counts first."""
    ranks, outcome = requests.ranks[shape], NO_ROOM
    for request in range(requests.begin[shape], requests.end[shape]):
        model, flavor = requests.model[request], requests.flavor[request]
        by_model = requests.any_model[request] and quota.models[queue, 0] > 0
        for index in range(quota.models.shape[1] - 1 if by_model else 1):
            if by_model:
                model = flavor = quota.models[queue, index]
            if not most(quota, queue, requests.quota[request], flavor, ranks, 1):
                outcome = NO_QUOTA
            elif _take(nodes, memory, requests, found, room_of, request, model, ranks):
                use(quota, queue, requests.quota[request], flavor, ranks)
                return PLACED
    return outcome


@compiled
def _take(
    nodes: Nodes, memory: Memory, requests: Requests, found: Found, room_of: Ints, request: int, model: int, ranks: int
) -> bool:
    """Nodes for all ranks, within one cluster, or for none."""
    amounts, mask = requests.amounts[request], requests.masks[requests.mask[request]]
    without_gpus, cluster = requests.without_gpus[request], ANY_CLUSTER
    if ranks > 1:
        cluster = _cluster(nodes, amounts, mask, model, ranks, room_of)
        if cluster == ANY_CLUSTER:
            return False
    left, last = ranks, found.count[1]
    while left:
        if cluster == ANY_CLUSTER and model == requests.model[request]:
            node = best_known(nodes, memory, request, amounts, mask, without_gpus, model)
        else:
            node = best(nodes, amounts, mask, without_gpus, model, cluster)
        if node == NOWHERE:
            return False  # Only of a single rank: a cluster has been found for many.
        pods = room(nodes, amounts, node, left)
        take(nodes, node, pods, amounts)
        for _ in range(pods):
            found.node[last] = node
            last += 1
        left -= pods
    count = found.count[0]
    found.request[count], found.model[count], found.end[count] = request, model, last
    found.count[1] = last
    return True


@compiled
def _cluster(nodes: Nodes, amounts: Ints, mask: Bools, model: int, ranks: int, room_of: Ints) -> int:
    """The cluster with the least room that holds so many pods; ANY_CLUSTER if none does."""
    for cluster in range(room_of.size):
        room_of[cluster] = 0
    for block in range(nodes.lowest.shape[1]):
        if is_roomy(nodes, amounts, block):
            for node in range(block * BLOCK, min(block * BLOCK + BLOCK, mask.size)):
                if mask[node] and fits(nodes, amounts, node, model, ANY_CLUSTER):
                    room_of[nodes.cluster[node]] += room(nodes, amounts, node, ROOM_MAX)
    found = ANY_CLUSTER
    for cluster in range(room_of.size):
        if room_of[cluster] >= ranks and (found == ANY_CLUSTER or room_of[cluster] < room_of[found]):
            found = cluster
    return found
