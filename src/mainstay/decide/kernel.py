"""Whose turn it is takes the best place that its predecessors left, turn after turn: the inner loop of a cycle, over arrays.

Compiled where there is much to do (compiled.py); Python runs the same lines where there is little. It stands in one file, since
what is kept compiled is known by its file, and names its module. What it works on is in columns.py.

Three things keep a turn short. Only the queue whose turn it was has another share, and the cohorts above it. Nodes are looked
at in blocks: of each it is known how much the roomiest of its nodes has of each resource. And what is free only shrinks: what was
found for a request in a block holds until something is taken in that block, and where nothing was found, nothing ever will (but
for work without GPUs where a GPU has been taken for which something was left).
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.columns import Found, Ledger, Nodes, Quota, Requests, Usual, Waiting
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.queue import NO_LIMIT

NONE = -1
"""Nobody is next, no node has room, any cluster will do."""
UNNAMED = -2
"""In place of the number of a model of GPUs: those of which nobody says the model, where quotas tell models apart."""
BLOCK = 32
"""Nodes."""
ROOM_MAX = 1 << 20
"""More pods of one request than any gang has ranks; stands for "no limit" where a request asks for nothing."""

CPU, MEMORY, GPUS = 0, 1, 2
"""The first resources of `Nodes.free`."""
SIGN, APART, HEEDS, STACKS = range(4)
"""Of a ranking: 1 if the fullest node has the lowest score, -1 if the emptiest; how much of `Nodes.apart` counts; whether those
who usually ask for whole GPUs are heeded; whether of a gang the best node takes all that it can before the next takes any.
"""
GPU_MILLI = 1_000
IDLE_GPU = 0.0025
"""What an idle GPU of the node weighs for a pod with GPUs, in GPUs that are wasted: it decides where little else does."""
SCARCITY = 0.1
FULLNESS = 1e-5
"""Of nodes that are as good as each other, the fullest."""
ROUNDING = 1e-9
IMAGE, IMAGE_OF_GPUS = 0.05, 0.002
"""What a large image that a node has takes off its score: as much as the twentieth part of the largest node's cores left on it;
and where a score counts GPUs that are wasted, less than one that lies idle.
"""

DONE, FULL, UNKNOWN, ASKS, CROWDED = range(5)
"""Why `go_on` returned: nobody waits; what was found must be read; the requests of a shape are not known yet; a shape
must be placed by the caller; one that has waited long finds no place.
"""
NO_ROOM, NO_QUOTA, PLACED = range(3)


def go_on(
    ledger: Ledger, waiting: Waiting, quota: Quota, nodes: Nodes, requests: Requests, found: Found, limit: int
) -> int:
    """Take turns until `limit` workloads are found, or the caller must do something: which."""
    while True:
        at = waiting.head[ledger.parent.size]
        if at == NONE:
            return DONE
        shape = waiting.shape[at]
        if requests.asks[shape]:
            return ASKS
        if requests.begin[shape] == NONE:
            return UNKNOWN
        if found.size[0] == limit or found.size[1] + requests.ranks[shape] > found.node.size:
            return FULL
        outcome = _place(quota, nodes, requests, found, waiting.queue[at], shape)
        if outcome == PLACED:
            count = found.size[0]
            found.at[count] = at
            found.size[0] += 1
            begin = found.end[count - 1] if count > 0 else 0
            leave(ledger, waiting, at, found.end[count] - begin, requests.ranks[shape])
        elif waiting.long[at]:
            return CROWDED
        else:
            give_up(ledger, waiting, at, outcome == NO_ROOM)


def _place(quota: Quota, nodes: Nodes, requests: Requests, found: Found, queue: int, shape: int) -> int:
    """A place for one workload, by the first of its requests that has one; of what it lacks, quota counts first. NO_QUOTA is also
    the answer where a gang finds no place on nodes that the queue tells apart.

    An elastic one gets as many ranks as its quota and the roomiest cluster allow.
    """
    least, outcome = requests.least[shape], NO_ROOM
    for request in range(requests.begin[shape], requests.end[shape]):
        group = (request - requests.begin[shape]) % quota.tries.shape[1]
        if not quota.tries[queue, group]:
            continue
        model, flavor = requests.model[request], requests.flavor[request]
        nodes_of = flavor // quota.models.shape[2]
        by_model = requests.any_model[request] and quota.models[queue, nodes_of, 0] > 0
        for index in range(quota.models.shape[2] if by_model else 1):
            if by_model:
                model = quota.models[queue, nodes_of, index]
                flavor = requests.flavor[request] + max(0, model)
            ranks = requests.ranks[shape]
            if not may_use(quota, queue, requests.quota[request], flavor, ranks):
                ranks = most_pods(quota, queue, requests.quota[request], flavor, ranks - 1) if least < ranks else 0
            if ranks < least:
                outcome = NO_QUOTA
                continue
            taken = _take_all(nodes, requests, found, request, model, ranks, least)
            if taken > 0:
                use(quota, queue, requests.quota[request], flavor, taken)
                return PLACED
            if least > 1 and (by_model or group > 0):
                outcome = NO_QUOTA  # Others, who tell no nodes apart, may have room for it.
    return outcome


def _take_all(nodes: Nodes, requests: Requests, found: Found, request: int, model: int, ranks: int, least: int) -> int:
    """Nodes for so many ranks, or as many as one cluster holds, within that; for none if those are less than the `least`."""
    amounts, mask = requests.amounts[request], requests.masks[requests.mask[request]]
    slot, cluster = requests.slot[request], NONE
    gang = ranks > 1
    if gang:
        cluster = _cluster(nodes, amounts, mask, model, ranks, least, found.room_of)
        if cluster == NONE:
            return 0
        ranks = min(ranks, found.room_of[cluster])
        if ranks == 1:
            cluster = NONE  # What is alone goes to the best node of all.
        slot = requests.after.shape[0] - 1
        requests.score[slot], requests.after[slot] = 0.0, NONE
    elif model != requests.model[request]:
        slot = NONE  # What is remembered is of any model that will do.
    ranking, image = requests.ranking[request], requests.image[request]
    left, last = ranks, found.size[1]
    if ranks > 1 and nodes.rankings[ranking, STACKS] == 0:
        _take_in_turn(nodes, requests, found, request, model, ranks, cluster)
        left = 0
    while left:
        node = _best(nodes, requests, slot, amounts, mask, ranking, model, cluster, image)
        if node == NONE:
            return 0  # Only of a single rank: a cluster has been found for many.
        pods = min(left, _room(nodes, amounts, node))
        take(nodes, node, pods, amounts)
        found.node[last : last + pods] = node
        last += pods
        left -= pods
    count = found.size[0]
    found.size[1] += ranks
    found.request[count], found.model[count], found.end[count] = request, model, found.size[1]
    return ranks


def _take_in_turn(
    nodes: Nodes, requests: Requests, found: Found, request: int, model: int, ranks: int, cluster: int
) -> None:
    """The best nodes take one rank each before any takes a second, in a cluster that has room for all. As `fill.evenly`."""
    amounts, mask = requests.amounts[request], requests.masks[requests.mask[request]]
    ranking, image, slot = requests.ranking[request], requests.image[request], requests.after.shape[0] - 1
    first, count = found.size[1], 0
    while count < ranks:
        node = _best(nodes, requests, slot, amounts, mask, ranking, model, cluster, image)
        if node == NONE:
            break
        mask[node], requests.after[slot, node // BLOCK] = False, NONE  # It is not found again, for this gang.
        found.node[first + count] = node
        count += 1
    for index in range(first, first + count):
        mask[found.node[index]] = True
    low, level = 1, ranks
    while low < level:
        middle = (low + level) // 2
        if _room_in_turns(nodes, amounts, found, count, middle) >= ranks:
            level = middle
        else:
            low = middle + 1
    over, end = _room_in_turns(nodes, amounts, found, count, level) - ranks, first + ranks
    # From the last one on: nodes are followed by their ranks, for which there is always room behind them.
    for index in range(first + count - 1, first - 1, -1):
        node = found.node[index]
        pods = min(level, _room(nodes, amounts, node))
        if over > 0 and pods == level:  # Of the last round only the first have a turn.
            pods -= 1
            over -= 1
        take(nodes, node, pods, amounts)
        found.node[end - pods : end] = node
        end -= pods


def _room_in_turns(nodes: Nodes, amounts: Ints, found: Found, count: int, level: int) -> int:
    """How many pods the nodes that were found last take, if none takes more than `level`."""
    room = 0
    for index in range(found.size[1], found.size[1] + count):
        room += min(level, _room(nodes, amounts, found.node[index]))
    return room


def _cluster(nodes: Nodes, amounts: Ints, mask: Bools, model: int, ranks: int, least: int, room_of: Ints) -> int:
    """The cluster with the least room that holds so many pods, or as many of them as any does; NONE if those are less than the
    `least`. How much room there is in each is in `room_of` [clusters] then.
    """
    room_of[:] = 0
    for block in range(nodes.changes.size):
        if _is_roomy(nodes, amounts, block):
            for node in range(block * BLOCK, min(block * BLOCK + BLOCK, mask.size)):
                if mask[node] and _fits(nodes, amounts, node, model):
                    room_of[nodes.cluster[node]] += _room(nodes, amounts, node)
    if least < ranks:
        most, ranks = ranks, least
        for cluster in range(room_of.size):
            ranks = max(ranks, min(most, room_of[cluster]))
    found = NONE
    for cluster in range(room_of.size):
        if room_of[cluster] >= ranks and (found == NONE or room_of[cluster] < room_of[found]):
            found = cluster
    return found


def _best(
    nodes: Nodes,
    requests: Requests,
    slot: int,
    amounts: Ints,
    mask: Bools,
    ranking: int,
    model: int,
    cluster: int,
    image: int,
) -> int:
    """The node with the lowest score, of equals the first, among those that have so much left; NONE if none has."""
    lowest, found, least = nodes.lowest[ranking], NONE, np.inf
    # A score may be lower than what bounds it by what an image is worth, and what is lost when that is rounded.
    most = _most_of_image(nodes, amounts, ranking, image)
    margin = most + ROUNDING if most > 0 else 0.0
    reach = least
    if slot == NONE:
        for block in range(lowest.size):
            if lowest[block] < reach:
                node = _best_in(nodes, block, amounts, mask, ranking, model, cluster, image)
                score = np.inf if node == NONE else _score(nodes, node, amounts, ranking, image)
                if score < least:
                    found, least, reach = node, score, score + margin
        return found
    best, known, after = requests.node[slot], requests.score[slot], requests.after[slot]
    # Once a GPU is taken, nothing needs to be left for it: then what was not found may be there.
    never = -np.inf if nodes.rankings[ranking, APART] > 0 and nodes.headroom.source.size > 0 else np.inf
    for block in range(lowest.size):
        if known[block] == never or lowest[block] >= reach:
            continue
        if after[block] != nodes.changes[block]:
            node = _best_in(nodes, block, amounts, mask, ranking, model, cluster, image)
            best[block], after[block] = node, nodes.changes[block]
            known[block] = np.inf if node == NONE else _score(nodes, node, amounts, ranking, image)
        if known[block] < least:
            found, least, reach = best[block], known[block], known[block] + margin
    return found


def _best_in(
    nodes: Nodes, block: int, amounts: Ints, mask: Bools, ranking: int, model: int, cluster: int, image: int
) -> int:
    """The same of one block."""
    found, lowest = NONE, np.inf
    if not _is_roomy(nodes, amounts, block):
        return found
    heeds, most = _heeds(nodes, amounts, ranking), _most_of_image(nodes, amounts, ranking, image)
    sign, apart = nodes.rankings[ranking, SIGN], nodes.rankings[ranking, APART]
    for node in range(block * BLOCK, min(block * BLOCK + BLOCK, mask.size)):
        score = -np.inf if heeds else _fullness(nodes, node, sign, apart) - most
        here = mask[node] and (cluster == NONE or nodes.cluster[node] == cluster)
        if score < lowest and here and _fits(nodes, amounts, node, model):
            if heeds or image != NONE:
                score = _score(nodes, node, amounts, ranking, image)
            if score < lowest:
                found, lowest = node, score
    return found


def _heeds(nodes: Nodes, amounts: Ints, ranking: int) -> bool:
    """Whether the score depends on what those who usually ask for whole GPUs could use."""
    return bool(amounts[GPUS] > 0 and nodes.rankings[ranking, HEEDS] > 0)


def _most_of_image(nodes: Nodes, amounts: Ints, ranking: int, image: int) -> float:
    """The most that it takes off a score that a node has the image."""
    if image == NONE:
        return 0.0
    return IMAGE_OF_GPUS if _heeds(nodes, amounts, ranking) else IMAGE


def _score(nodes: Nodes, node: int, amounts: Ints, ranking: int, image: int) -> float:
    """Of a node with room, for a pod that asks for such amounts [resources]."""
    sign, apart = nodes.rankings[ranking, SIGN], nodes.rankings[ranking, APART]
    heeds = _heeds(nodes, amounts, ranking)
    score = _usual_score(nodes, node, amounts) if heeds else _fullness(nodes, node, sign, apart)
    return (
        score - _most_of_image(nodes, amounts, ranking, image) * nodes.images[image, node] if image != NONE else score
    )


def _fullness(nodes: Nodes, node: int, sign: float, apart: float) -> float:
    return float(sign * nodes.left[node] + apart * nodes.apart[node])


def _usual_score(nodes: Nodes, node: int, amounts: Ints) -> float:
    """As `placement.usual.scores`, of one node."""
    usual, model, gpus, cpus = nodes.usual, nodes.gpu_model[node], nodes.free[GPUS, node], nodes.free[CPU, node]
    after = wasted(usual, model, gpus - amounts[GPUS], cpus - amounts[CPU])
    growth = (after - nodes.wasted[node]) / (GPU_MILLI * usual.pods[0])
    scarce = SCARCITY * amounts[GPUS] * usual.scarcity[model]
    return float(growth + IDLE_GPU * gpus + scarce + FULLNESS * nodes.left[node])


def wasted(usual: Usual, model: int, gpus: int, cpu_milli: int) -> float:
    """As `Nodes.wasted`, of a node with so much left."""
    low, high = 0, usual.cpus.size
    while low < high:
        middle = (low + high) // 2
        if usual.cpus[middle] <= cpu_milli:
            low = middle + 1
        else:
            high = middle
    idle, beyond = GPU_MILLI * gpus, 0
    if usual.rate[0] > 0:
        beyond = max(0, idle - cpu_milli * usual.rate[1] // usual.rate[0])
    fitting = usual.fitting[model, min(gpus, usual.fitting.shape[1] - 1), low]
    return float(fitting * beyond + (usual.pods[0] - fitting) * idle)


def _is_roomy(nodes: Nodes, amounts: Ints, block: int) -> bool:
    """Whether the block has enough of each resource, be it on different nodes."""
    for resource in range(amounts.size):
        if 0 < amounts[resource] > nodes.peak[resource, block]:
            return False
    return True


def _fits(nodes: Nodes, amounts: Ints, node: int, model: int) -> bool:
    """Whether a node of this model has so much left."""
    if model != 0 and nodes.gpu_model[node] != model and (model != UNNAMED or nodes.gpu_model[node] != 0):
        return False
    end = _until_headroom(nodes, amounts, node)
    for resource in range(end):
        if 0 < amounts[resource] > nodes.free[resource, node]:
            return False
    for resource in range(end + nodes.headroom.source.size, amounts.size):
        if 0 < amounts[resource] > nodes.free[resource, node]:
            return False
    return True


def _until_headroom(nodes: Nodes, amounts: Ints, node: int) -> int:
    """Where columns begin that need not be looked at, as nothing is kept on the node; as many as there are if all need to be."""
    if nodes.headroom.source.size > 0 and nodes.headroom.kind[node] == 0:
        return int(nodes.headroom.first[0])
    return int(amounts.size)


def _room(nodes: Nodes, amounts: Ints, node: int) -> int:
    """How many such pods a node can take, at most ROOM_MAX."""
    most, end = ROOM_MAX, _until_headroom(nodes, amounts, node)
    for resource in range(end):
        if amounts[resource] > 0:
            most = min(most, nodes.free[resource, node] // amounts[resource])
    for resource in range(end + nodes.headroom.source.size, amounts.size):
        if amounts[resource] > 0:
            most = min(most, nodes.free[resource, node] // amounts[resource])
    return most


def take(nodes: Nodes, node: int, pods: int, amounts: Ints) -> None:
    """Lower what is left on a node by so many pods of such amounts [resources]."""
    block, left = node // BLOCK, 0.0
    first, last = nodes.headroom.first[0], nodes.headroom.first[0] + nodes.headroom.source.size
    for resource in range(amounts.size):
        if first <= resource < last:
            continue
        before = nodes.free[resource, node]
        after = before - pods * amounts[resource]
        nodes.free[resource, node] = after
        left += after * nodes.weight[resource]
        if after != before:
            _raise_or_lower(nodes, resource, node, before)
    if last > first and nodes.headroom.kind[node] > 0:
        _set_beside_gpus(nodes, node)
    was = nodes.left[node]
    nodes.left[node] = left
    if nodes.usual.cpus.size:
        gpus, cpus = max(0, nodes.free[GPUS, node]), nodes.free[CPU, node]
        nodes.wasted[node] = wasted(nodes.usual, nodes.gpu_model[node], gpus, cpus)
    for ranking in range(nodes.lowest.shape[0]):
        if nodes.rankings[ranking, HEEDS] > 0:
            continue  # Some of these scores depend on what is asked for.
        sign, apart = nodes.rankings[ranking, SIGN], nodes.rankings[ranking, APART]
        score = _fullness(nodes, node, sign, apart)
        if score <= nodes.lowest[ranking, block]:
            nodes.lowest[ranking, block] = score
        elif sign * left > sign * was:
            nodes.lowest[ranking, block] = _least_fullness(nodes, block, sign, apart)
    nodes.changes[block] += 1


def _least_fullness(nodes: Nodes, block: int, sign: float, apart: float) -> float:
    """Of the nodes of a block."""
    lowest = np.inf
    for node in range(block * BLOCK, min(block * BLOCK + BLOCK, nodes.left.size)):
        lowest = min(lowest, _fullness(nodes, node, sign, apart))
    return lowest


def _raise_or_lower(nodes: Nodes, resource: int, node: int, before: int) -> None:
    """The peak of its block, once a node has another amount of a resource."""
    block, after = node // BLOCK, nodes.free[resource, node]
    if after > nodes.peak[resource, block]:
        nodes.peak[resource, block] = after
    elif after < before == nodes.peak[resource, block]:
        most = after
        for other in range(block * BLOCK, min(block * BLOCK + BLOCK, nodes.left.size)):
            most = max(most, nodes.free[resource, other])
        nodes.peak[resource, block] = most


def _set_beside_gpus(nodes: Nodes, node: int) -> None:
    """So much is left beside what is kept for the GPUs that are idle on the node now."""
    headroom, idle = nodes.headroom, 0
    for resource in range(GPUS, GPUS + headroom.first[1]):
        idle += max(0, nodes.free[resource, node])
    idle = min(idle, headroom.kept.shape[2] - 1)
    for index in range(headroom.source.size):
        column, kept = headroom.first[0] + index, headroom.kept[index, headroom.kind[node], idle]
        before = nodes.free[column, node]
        nodes.free[column, node] = nodes.free[headroom.source[index], node] - kept
        if nodes.free[column, node] != before:
            _raise_or_lower(nodes, column, node, before)


def may_use(quota: Quota, queue: int, amounts: Ints, flavor: int, pods: int) -> bool:
    """Whether a queue may start so many pods that ask for such amounts [resources] now."""
    if not quota.used.shape[1]:
        return True
    for resource in range(amounts.size):
        asked, column = amounts[resource], quota.cell[resource, queue, flavor]
        if column == NONE:
            if asked > 0 and quota.limited[resource, queue]:
                return False  # It has a quota of the resource, but none for such pods.
        elif pods * asked > max(0, available(quota, queue, column)):
            return False
    return True


def most_pods(quota: Quota, queue: int, amounts: Ints, flavor: int, most: int) -> int:
    """How many such pods a queue may start now, at most so many."""
    if not quota.used.shape[1]:
        return most
    for resource in range(amounts.size):
        asked, column = amounts[resource], quota.cell[resource, queue, flavor]
        if column == NONE:
            if asked > 0 and quota.limited[resource, queue]:
                return 0
        elif asked > 0:
            most = min(most, max(0, available(quota, queue, column)) // asked)
    return most


def use(quota: Quota, queue: int, amounts: Ints, flavor: int, pods: int) -> None:
    """Count so many pods against the queue, and what goes beyond what it keeps to itself against the cohorts above it."""
    if not quota.used.shape[1]:
        return
    for resource in range(amounts.size):
        column = quota.cell[resource, queue, flavor]
        if column != NONE:
            at, more = queue, pods * amounts[resource]
            while at != NONE and more > 0:
                before = max(0, quota.used[at, column] - quota.local[at, column])
                quota.used[at, column] += more
                more = max(0, quota.used[at, column] - quota.local[at, column]) - before
                at = quota.parent[at]


def available(quota: Quota, queue: int, column: int) -> int:
    """As `quota.available`, of one cell: what it has idle itself, and what each cohort above lets through."""
    at, idle, bound = queue, 0, NO_LIMIT
    while quota.parent[at] != NONE:
        used, local = quota.used[at, column], quota.local[at, column]
        idle_here = max(0, local - used)
        if quota.borrowing[at, column] < NO_LIMIT:
            stored = quota.subtree[at, column] - local
            bound = min(bound, idle + idle_here + stored - max(0, used - local) + quota.borrowing[at, column])
        idle += idle_here
        at = quota.parent[at]
    return int(min(bound, idle + quota.subtree[at, column] - quota.used[at, column]))


def leave(ledger: Ledger, waiting: Waiting, at: int, got: int, ranks: int) -> None:
    """This one, who is next of its queue, has its place, and holds it: `got` of the `ranks` that it asked for."""
    queue = waiting.line[at]
    waiting.begin[queue] = at + 1
    for resource in range(waiting.asked.shape[1]):
        asked = waiting.asked[at, resource]
        above, more = queue, asked if got == ranks else asked // ranks * got
        while above != NONE and more > 0:
            beyond = _beyond_kept(ledger, above, resource, more)
            ledger.held[above, resource] += more
            above, more = ledger.parent[above], beyond
    _look_up(ledger, waiting, queue)


def close(ledger: Ledger, waiting: Waiting, queue: int) -> None:
    """Nothing else of this queue is tried."""
    waiting.begin[queue] = waiting.end[queue]
    _look_up(ledger, waiting, queue)


def give_up(ledger: Ledger, waiting: Waiting, at: int, of_all: bool) -> None:
    """Those like this one, who is next of its queue, wait no longer: those `of_all` queues, or of its own."""
    shape = waiting.shape[at]
    if not of_all:
        waiting.kind_failed[waiting.kind[at]] = True
        queue = waiting.queue[at]
        for index in range(waiting.first_child[queue], waiting.first_child[queue + 1]):
            line = waiting.children[index]
            begin = waiting.begin[line]
            if begin < waiting.end[line] and waiting.kind[begin] == waiting.kind[at]:
                _look_up_one(ledger, waiting, line)
        _look_up(ledger, waiting, queue)
        return
    waiting.shape_failed[shape] = True
    for queue in range(ledger.parent.size - 1, -1, -1):  # Children come after their parents.
        begin, is_cohort = waiting.begin[queue], waiting.first_child[queue] < waiting.first_child[queue + 1]
        if is_cohort or (begin < waiting.end[queue] and waiting.shape[begin] == shape):
            _look_up_one(ledger, waiting, queue)
    _look_up_one(ledger, waiting, ledger.parent.size)


def look_up_all(ledger: Ledger, waiting: Waiting) -> None:
    """Find out who is next of each queue and cohort, and of all."""
    for queue in range(ledger.parent.size - 1, -1, -1):
        _look_up_one(ledger, waiting, queue)
    _look_up_one(ledger, waiting, ledger.parent.size)


def _look_up(ledger: Ledger, waiting: Waiting, queue: int) -> None:
    """The same of a queue of which that has changed, and of all above it."""
    while queue != NONE:
        _look_up_one(ledger, waiting, queue)
        queue = ledger.parent[queue]
    _look_up_one(ledger, waiting, ledger.parent.size)


def _look_up_one(ledger: Ledger, waiting: Waiting, queue: int) -> None:
    """The same of one; all together have the number that follows the last."""
    head, everybody = NONE, ledger.parent.size
    lines = waiting.winner.size // 2
    if waiting.first_child[queue] < waiting.first_child[queue + 1]:
        first, least = waiting.children[waiting.first_child[queue]], np.inf
        if first >= everybody - lines:
            waiting.head[queue] = waiting.head[waiting.winner[2 * (first - everybody + lines) + 1]]
            _share_of_head(ledger, waiting, queue)
            return
        for index in range(waiting.first_child[queue], waiting.first_child[queue + 1]):
            child = waiting.children[index]
            other, reached = waiting.head[child], waiting.share[child]
            if other != NONE and (
                head == NONE or reached < least or (reached == least and waiting.rank[other] < waiting.rank[head])
            ):
                head, least = other, reached
    elif queue != everybody:
        at = waiting.begin[queue]
        while at < waiting.end[queue] and (
            waiting.shape_failed[waiting.shape[at]] or waiting.kind_failed[waiting.kind[at]]
        ):
            at = waiting.end[queue] if waiting.strict[queue] else at + 1
        waiting.begin[queue] = at
        if at < waiting.end[queue]:
            head = at
    waiting.head[queue] = head
    if queue >= everybody - lines and queue != everybody:
        # Of a line counts what it holds already: what is large would else wait for as long as others ask for little.
        waiting.share[queue] = share(ledger, queue, ledger.own[queue], queue)
        _play_again(ledger, waiting, queue)
    elif queue != everybody:
        _share_of_head(ledger, waiting, queue)


def _share_of_head(ledger: Ledger, waiting: Waiting, queue: int) -> None:
    head = waiting.head[queue]
    if head != NONE:
        waiting.share[queue] = share(ledger, queue, waiting.asked[head], waiting.line[head])


def _play_again(ledger: Ledger, waiting: Waiting, line: int) -> None:
    """Find out which line of its queue is next, of which only this one has changed."""
    first = waiting.children[waiting.first_child[ledger.parent[line]]]
    lines = waiting.first_child[ledger.parent[line] + 1] - waiting.first_child[ledger.parent[line]]
    begin = 2 * (first - ledger.parent.size) + waiting.winner.size
    at = lines + line - first
    while at > 1:
        at //= 2
        one, other = waiting.winner[begin + 2 * at], waiting.winner[begin + 2 * at + 1]
        waiting.winner[begin + at] = one if _goes_before(waiting, one, other) else other


def _goes_before(waiting: Waiting, line: int, other: int) -> bool:
    """Whether the one line has its turn before the other: the more urgent, the one that has less, the older."""
    at, by = waiting.head[line], waiting.head[other]
    if by == NONE:
        return True
    if at == NONE:
        return False
    if waiting.priority[at] != waiting.priority[by]:
        return bool(waiting.priority[at] > waiting.priority[by])
    if waiting.share[line] != waiting.share[other]:
        return bool(waiting.share[line] < waiting.share[other])
    return bool(waiting.rank[at] < waiting.rank[by])


def _beyond_kept(ledger: Ledger, queue: int, resource: int, more: int) -> int:
    """How much more of so much more counts above the queue: what goes beyond the part of its own that it keeps to itself."""
    held = ledger.held[queue, resource] - ledger.kept[queue, resource]
    return int(max(0, held + more) - max(0, held))


def share(ledger: Ledger, queue: int, amounts: Ints, below: int) -> float:
    """The weighted dominant share of a queue or cohort, would so much more [resources] be held in the queue or line `below` it,
    or in itself.

    0 while it borrows nothing, whatever it has borrowed before: what is its own is not taken from it.
    """
    dominant, borrows = 0.0, False
    for resource in range(amounts.size):
        at, more = below, amounts[resource]
        while at != queue:
            at, more = ledger.parent[at], _beyond_kept(ledger, at, resource, more)
        borrowed = ledger.held[queue, resource] + more - ledger.own[queue, resource]
        past = ledger.past[queue, resource]
        if borrowed > 0:
            borrows = True
            dominant = max(dominant, (borrowed + past) / ledger.lendable[queue, resource])
        elif past > 0:
            dominant = max(dominant, past / ledger.lendable[queue, resource])
    if not borrows:
        return 0.0
    if ledger.weight[queue] > 0:
        return float(dominant / ledger.weight[queue])
    return np.inf if dominant > 0 else 0.0
