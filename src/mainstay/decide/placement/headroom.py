"""What work without GPUs leaves on a node for the GPUs that are idle there: what GPU work that waits could need beside them.

Of all pods with GPUs that wait, with quota for them, those count that the node admits and could hold if it were empty. What each
asks for is shared out over its GPUs; of each column the largest shares are kept, one for every idle GPU. So whichever of these
pods are placed there, in any number: beside what is kept they find all that they ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide import quota
from mainstay.decide.allowance import Allowance
from mainstay.decide.columns import Headroom
from mainstay.decide.kernel import CPU, GPUS, MEMORY
from mainstay.decide.placement.fit import NO_HEADROOM, Free, Request, cluster_number
from mainstay.decide.shapes import make_shape
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import Resources, is_shape
from mainstay.domain.snapshot import PODS, Snapshot

WORD_BITS = 32
QUEUES_TRIED_MAX = 32
"""Where more queues ask for the same choices, one of them is taken to have quota: then too much is kept, and never too little."""
PAIRS_MAX = 1 << 22
"""32 MiB for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asks:
    """What pods with GPUs ask for that wait and have quota. Arrays are [asks] unless said otherwise."""

    amounts: Ints
    """[resources of `Free.own`, asks]"""
    gpus: Ints
    """Or slices of them."""
    pods: Ints
    model: Ints
    """Number of the only model of whole GPUs that will do; 0: any, or slices."""
    where: Ints
    """Index into `places`."""
    places: tuple[Request, ...]
    """Where they may run at all, whatever they ask for."""


def headroom_of(
    snapshot: Snapshot, free: Free, allowance: Allowance, *, rows: Ints, numbers: Ints, later: bool
) -> Headroom:
    """For the workloads in these rows, which wait; `numbers` are those of their shapes, from 0. O(nodes x places + asks).

    `later`: GPUs that are busy now may be idle by when it is asked.
    """
    devices = free.nodes.free[GPUS : GPUS + 1 + len(free.shapes)]
    if not (free.gpus_installed if later else devices > 0).any():
        return NO_HEADROOM
    asks = _asks(snapshot, free, allowance, rows, numbers)
    if asks is None:
        return NO_HEADROOM
    there = np.flatnonzero(free.gpus_installed > 0)
    admitted = np.stack([free.allowed(place)[there] for place in asks.places])
    number, first = _kinds(admitted, free.gpu_model[there])
    capacity = _largest(_capacity(snapshot, free)[:, there], number)
    source = [column for column in _beside(free) if asks.amounts[column].any()]
    most = int(free.gpus_installed.max())
    kept = np.zeros((len(source), first.size + 1, most + 1), dtype=np.int64)
    shares = [_Shares.of(asks, column) for column in source]
    for kind, row in enumerate(first.tolist()):
        model = int(free.gpu_model[there[row]])
        heeded = admitted[asks.where, row] & ((asks.model == 0) | (asks.model == model))
        heeded &= (asks.amounts <= capacity[:, kind, np.newaxis]).all(axis=0)
        for index, share in enumerate(shares):
            kept[index, kind + 1] = share.most(heeded, most)
    if not kept.any():
        return NO_HEADROOM
    kinds = np.zeros(free.key.size, dtype=np.int64)
    kinds[there] = number + 1
    return Headroom(
        source=np.array(source, dtype=np.int64),
        first=np.array([free.own, devices.shape[0]], dtype=np.int64),
        kept=kept,
        kind=kinds,
    )


def unbound(headroom: Headroom) -> Bools:
    """[nodes] Where nothing would be kept, however many GPUs were idle. Of none at all: nothing is kept anywhere."""
    bound: Bools = np.any(headroom.kept, axis=(0, 2))
    return ~bound[headroom.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shares:
    """What falls to one GPU of a column, the largest first. Whole numbers: those of a pod add up to what it asks for."""

    amount: Ints
    count: Ints
    ask: Ints
    """Of which ask each is."""

    @classmethod
    def of(cls, asks: _Asks, column: int) -> _Shares:
        each, over = asks.amounts[column] // asks.gpus, asks.amounts[column] % asks.gpus
        amount = np.concatenate((each + 1, each))
        count = np.concatenate((asks.pods * over, asks.pods * (asks.gpus - over)))
        order = np.argsort(-amount, kind="stable")
        ask = np.tile(np.arange(asks.pods.size), 2)
        return cls(amount=amount[order], count=count[order], ask=ask[order])

    def most(self, heeded: Bools, gpus: int) -> Ints:
        """[gpus + 1] The sum of the largest shares of those that are heeded, for 0, 1, ... GPUs."""
        count = np.where(heeded[self.ask], np.minimum(self.count, gpus), 0)
        last = int(np.searchsorted(np.cumsum(count), gpus)) + 1
        each = np.repeat(self.amount[:last], count[:last])[:gpus]
        found = np.zeros(gpus + 1, dtype=np.int64)
        found[1 : each.size + 1] = np.cumsum(each)
        found[each.size + 1 :] = found[each.size]
        return found


def _beside(free: Free) -> list[int]:
    """The columns of what is no GPU."""
    return [CPU, MEMORY, *free.others.values()]


def _capacity(snapshot: Snapshot, free: Free) -> Ints:
    """[resources of `Free.own`, nodes] What each could give if it were empty."""
    nodes = snapshot.nodes
    shapes, others = (
        [of[name] for name in names] for of, names in ((nodes.shapes, free.shapes), (nodes.others, free.others))
    )
    return np.stack((nodes.cpu_milli, nodes.memory_bytes, nodes.gpus, *shapes, *others))


def _largest(columns: Ints, number: Ints) -> Ints:
    """[resources, kinds] The most that a node of each kind has of each."""
    order = np.argsort(number, kind="stable")
    begins = np.flatnonzero(np.diff(number[order], prepend=-1))
    found: Ints = np.maximum.reduceat(columns[:, order], begins, axis=1)
    return found


def _kinds(admitted: Bools, model: Ints) -> tuple[Ints, Ints]:
    """[nodes] The same number for nodes of one model that admit the same places, from 0; and the first node of each number."""
    number = model
    for begin in range(0, admitted.shape[0], WORD_BITS):
        places = admitted[begin : begin + WORD_BITS]
        word = (places << np.arange(len(places), dtype=np.int64)[:, np.newaxis]).sum(axis=0)
        _, number = np.unique((number << WORD_BITS) | word, return_inverse=True)
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    return number.reshape(-1).astype(np.int64), first


def _asks(snapshot: Snapshot, free: Free, allowance: Allowance, rows: Ints, numbers: Ints) -> _Asks | None:
    """Those of these rows; None if there are none."""
    table, shapes = snapshot.workloads, int(numbers.max(initial=-1)) + 1
    keys = np.array([*table.choices, *table.sets], dtype=np.int64)
    several: Bools = np.isin(table.key[rows], keys) if keys.size else np.zeros(rows.size, dtype=np.bool_)
    slices = np.array([is_shape(model) and model not in free.shapes for model in snapshot.gpu_models], dtype=np.bool_)
    at = np.flatnonzero((table.gpus[rows] > 0) & ~several & ~slices[table.gpu_model[rows]])
    first = np.zeros(shapes, dtype=np.int64)
    first[numbers[at][::-1]] = at[::-1]  # Of equals the first one is the last to be written.
    queue, number, count = _by_queue(table.queue[rows[at]], numbers[at], shapes)
    pods = np.zeros(shapes, dtype=np.int64)
    np.add.at(pods, number, _usable(snapshot, allowance, rows[first[number]], queue=queue, count=count))
    asking = np.flatnonzero(pods)
    found = [_alike(snapshot, free, rows[first[asking]], pods[asking])] if asking.size else []
    found += _of_several(snapshot, free, allowance, rows[several], numbers[several])
    if not found:
        return None
    places = list(dict.fromkeys(place for one in found for place in one.places))
    number_of = {place: at for at, place in enumerate(places)}
    where = [np.array([number_of[place] for place in one.places], dtype=np.int64)[one.where] for one in found]
    return _Asks(
        amounts=np.concatenate([one.amounts for one in found], axis=1),
        gpus=np.concatenate([one.gpus for one in found]),
        pods=np.concatenate([one.pods for one in found]),
        model=np.concatenate([one.model for one in found]),
        where=np.concatenate(where),
        places=tuple(places),
    )


def _by_queue(queue: Ints, number: Ints, shapes: int) -> tuple[Ints, Ints, Ints]:
    """Each pair of a queue and a shape that is there, and how often it is."""
    pair = queue * shapes + number
    if int(pair.max(initial=0)) < PAIRS_MAX:  # To count them is ten times faster than to put them in order.
        count = np.bincount(pair)
        pair = np.flatnonzero(count)
        count = count[pair]
    else:
        pair, count = np.unique(pair, return_counts=True)
    return pair // max(shapes, 1), pair % max(shapes, 1), count


def _alike(snapshot: Snapshot, free: Free, rows: Ints, pods: Ints) -> _Asks:
    """Of workloads whose pods ask for the same, one of each shape, with so many pods."""
    table, columns = snapshot.workloads, np.arange(rows.size)
    names = len(snapshot.cluster_names)
    where, place = np.unique(table.restriction[rows] * names + table.cluster[rows], return_inverse=True)
    model = table.gpu_model[rows]
    device = np.array([free.shapes.get(name, GPUS) for name in snapshot.gpu_models], dtype=np.int64)[model]
    amounts = np.zeros((free.own, rows.size), dtype=np.int64)
    amounts[CPU], amounts[MEMORY], amounts[device, columns] = (
        column[rows] for column in (table.cpu_milli, table.memory_bytes, table.gpus)
    )
    for name, column in free.others.items():
        if name == PODS or name in table.others:
            amounts[column] = 1 if name == PODS else table.others[name][rows]
    clusters = snapshot.nodes.clusters
    return _Asks(
        amounts=amounts,
        gpus=table.gpus[rows],
        pods=pods,
        model=np.where(device == GPUS, model, 0),
        where=place.reshape(-1),
        places=tuple(
            replace(
                _ANYTHING,
                restriction=snapshot.restrictions[restriction],
                cluster=cluster_number(snapshot.cluster_names[cluster], clusters),
            )
            for restriction, cluster in (divmod(one, names) for one in where.tolist())
        ),
    )


_ANYTHING = Request(cpu_milli=0, memory_bytes=0, gpus=0, gpu_model=0)


def _of_several(snapshot: Snapshot, free: Free, allowance: Allowance, rows: Ints, numbers: Ints) -> Iterator[_Asks]:
    """Of workloads with several choices or pod sets: of every choice for which there is quota, and of every set."""
    table, order = snapshot.workloads, np.argsort(numbers, kind="stable")
    splits = np.flatnonzero(np.diff(numbers[order])) + 1
    for alike in np.split(rows[order], splits) if rows.size else ():
        row, queues = int(alike[0]), np.unique(table.queue[alike]).tolist()
        shape = make_shape(
            snapshot,
            nodes=int(table.nodes[row]),
            least=int(table.nodes_min[row]),
            choices=table.choices.get(int(table.key[row]), ()) or (_NOTHING,),
            sets=table.sets.get(int(table.key[row]), ()),
            cluster=snapshot.cluster_names[int(table.cluster[row])],
            restriction=snapshot.restrictions[int(table.restriction[row])],
        )
        for way in shape.ways:
            if len(queues) <= QUEUES_TRIED_MAX and not any(
                allowance.may_use_parts(queue, one) for queue in queues for one in allowance.flavors_of(queue, way)
            ):
                continue
            for part in way:
                request = part.request
                if not request.gpus or (request.shape and request.shape not in free.shapes):
                    continue
                pods = alike.size * (part.ranks if shape.sets else shape.nodes)
                yield _Asks(
                    amounts=free.amounts(request)[: free.own, np.newaxis],
                    gpus=np.array([request.gpus]),
                    pods=np.array([pods]),
                    model=np.array([request.gpu_model]),
                    where=np.zeros(1, dtype=np.int64),
                    places=(replace(_ANYTHING, restriction=request.restriction, cluster=request.cluster),),
                )


_NOTHING = Resources(cpu_milli=0, memory_bytes=0)


def _usable(snapshot: Snapshot, allowance: Allowance, rows: Ints, *, queue: Ints, count: Ints) -> Ints:
    """[rows] So many pods of `count` workloads like these the queue may start now, whichever nodes and models they are of; 0
    where that is not enough for one of them.
    """
    table, bound = snapshot.workloads, allowance.quota
    wanted, least = count * table.nodes[rows], table.nodes_min[rows]
    if not allowance.limits:
        return wanted
    left = np.maximum(0, quota.available(quota.quotas_of(snapshot.queues), bound.used))
    model, models = table.gpu_model[rows], len(snapshot.gpu_models)
    found = np.zeros(rows.size, dtype=np.int64)
    each = [table.cpu_milli[rows], table.memory_bytes[rows], table.gpus[rows], np.ones_like(queue)]
    for group, flavors in enumerate(allowance.groups.each):
        nodes_of = min(flavors, default=0)
        by_model = (model == 0) & (bound.models[queue, nodes_of, 0] > 0)
        for index in range(models):
            tried = bound.tries[queue, group] & (by_model | (index == 0))
            if not tried.any():
                continue
            here = np.where(by_model, np.maximum(0, bound.models[queue, nodes_of, index]), model) + nodes_of * models
            most = np.where(tried, wanted, 0)
            for resource, amount in enumerate(each):
                cell = bound.cell[resource, queue, here]
                asks = amount > 0
                fits = np.where(cell >= 0, left[queue, cell] // np.maximum(amount, 1), 0)
                most = np.where(asks & ((cell >= 0) | bound.limited[resource, queue]), np.minimum(most, fits), most)
            found += np.where(most >= least, most, 0)
    usable: Ints = np.minimum(found, wanted)
    return usable
