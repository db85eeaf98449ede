"""One scheduling cycle: who may start, in order, and where; what does not fit learns why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mainstay.decide import admission, affinity, nomination
from mainstay.decide.allowance import Allowance, Shortage
from mainstay.decide.cycle import ANY_QUEUE, Cycle
from mainstay.decide.devices import memory_of_gpus
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.domains import known, numbers, room_per_domain
from mainstay.decide.placement.fit import ANY_CLUSTER, Free, Request, feasible, free_in, model_number, room_on, whole_of
from mainstay.decide.placement.gang import room_together
from mainstay.decide.placement.sets import Part, Parts, place_parts, requests_of, short_of
from mainstay.decide.places import capacity_guards, node_names, placed
from mainstay.decide.shapes import Shape, instant_words, words_of
from mainstay.decide.strict import held_up_by
from mainstay.domain import gpu
from mainstay.domain.arrays import Bools
from mainstay.domain.plan import Action, Advance, Allocate, RowVersion
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import Resources, counted, figure, is_shape, memory_unit, memory_words
from mainstay.domain.queue import amount_words
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import PODS, Snapshot
from mainstay.domain.topology import HOST
from mainstay.domain.workload import Phase

KINDS_NAMED = 8
"""Of GPUs, where none is of the kind that is asked for; and of flavors that were tried."""


CHANGES_MAX = 500
"""Of one turn, so that a commit stays short."""


def schedule(snapshot: Snapshot, *, policy: str = DEFAULT_POLICY, changes_max: int = CHANGES_MAX) -> tuple[Action, ...]:
    """Allocate what fits, in the order of admission, and tell what does not fit why it waits.

    At most `changes_max` actions, so that a commit stays short; the next cycle goes on where this one ended. A
    workload hears once that it is queued (PENDING -> QUEUED); after that a cycle in which nothing fits writes nothing,
    however many wait.
    """
    if not admission.waiting(snapshot).any():
        return ()
    actions: list[Action] = list(nomination.settle(snapshot))
    settled = {action.workload_key for action in actions if isinstance(action, Allocate)}
    cycle = Cycle(nomination.reserved(snapshot, settled=settled), POLICIES[policy])
    for found in cycle.placements(limit=max(0, changes_max - len(actions))):
        for row, nodes in zip(found.rows.tolist(), found.nodes.tolist(), strict=True):
            actions.append(_allocation(snapshot, row, nodes, found.parts, why=cycle.chosen_words(row, found.parts)))
    return (*actions, *_queued(cycle, limit=changes_max - len(actions)))


def _queued(cycle: Cycle, *, limit: int) -> Iterator[Advance]:
    """The first `limit` of those still PENDING which did not fit, with the reason."""
    if limit <= 0 or not (cycle.failed or cycle.reserved):
        return
    snapshot = cycle.snapshot
    table = snapshot.workloads
    pending = np.flatnonzero((table.phase[cycle.order] == Phase.PENDING) & ~cycle.started[cycle.order])
    reasons: dict[tuple[int, int], Reason] = {}
    for position in pending.tolist():
        row, number = int(cycle.order[position]), int(cycle.numbers[position])
        if row in cycle.reserved:
            yield _advance_to_queued(snapshot, row, start_reserved(cycle, row, cycle.shape(row, number)))
            limit -= 1
            if not limit:
                return
            continue
        gave_up = next((queue for queue in (int(table.queue[row]), ANY_QUEUE) if (queue, number) in cycle.failed), None)
        if gave_up is None:
            if held_up_by(snapshot, cycle.order, cycle.started, row) is not None:
                yield _advance_to_queued(snapshot, row, in_strict_queue(snapshot, row))
                limit -= 1
                if not limit:
                    return
            continue
        if (gave_up, number) not in reasons:
            reasons[gave_up, number] = waits_for(cycle, row, number, gave_up)
        yield _advance_to_queued(snapshot, row, reasons[gave_up, number])
        limit -= 1
        if not limit:
            return


def in_strict_queue(snapshot: Snapshot, row: int) -> Reason:
    """That another one holds it up, be there room for it or not. Which one, who asks may be told or not."""
    name = snapshot.queues.names[int(snapshot.workloads.queue[row])]
    return Reason(code=Code.WAITS_IN_STRICT, object=name, numbers={"head": "another run"})


def waits_for(cycle: Cycle, row: int, number: int, queue: int) -> Reason:
    """Why the cycle gave up a workload: for the quota of its queue, or (ANY_QUEUE) since nothing has room for it."""
    shape = cycle.shape(row, number)
    if queue != ANY_QUEUE:
        return quota_refusal(cycle, shape, queue)
    return would_delay(cycle, shape) or kept_for_gpus(cycle, shape) or refusal(cycle.snapshot, shape, cycle.free)


def kept_for_gpus(cycle: Cycle, shape: Shape, queue: int = ANY_QUEUE) -> Reason | None:
    """That it has room but for what is kept for GPU work that waits, if so."""
    if not cycle.free.headroom or cycle.place(shape, queue, spends=True) is None:
        return None
    return Reason(code=Code.KEPT_FOR_GPUS, numbers={"needs": shape.words})


def would_delay(cycle: Cycle, shape: Shape, queue: int = ANY_QUEUE) -> Reason | None:
    """That it has room but for a start that is reserved, if so."""
    until = cycle.delayed_by(shape)
    if not until or cycle.place(shape, queue, delays=True) is None:
        return None
    return Reason(code=Code.WAITS_FOR_RESERVED, numbers={"needs": shape.words, "at": instant_words(until)})


def start_reserved(cycle: Cycle, row: int, shape: Shape) -> Reason:
    """When and where the workload in this row starts at the latest."""
    start = cycle.reserved[row]
    nodes = node_names(cycle.snapshot, start.nodes.tolist())
    return Reason(
        code=Code.START_RESERVED,
        numbers={"needs": shape.words, "at": instant_words(start.starts_at), "nodes": nodes},
    )


def quota_refusal(cycle: Cycle, shape: Shape, queue: int) -> Reason:
    """What the queue lacks for the first choice of which it has a quota, with the figures, and of all that was tried for it how
    each is.
    """
    name, allowance = cycle.snapshot.queues.names[queue], cycle.allowance
    choice = next((way for way in shape.ways if _has_quota(allowance, queue, way)), shape.ways[0])
    ways = list(allowance.flavors_of(queue, choice))
    shorts = [allowance.short(queue, way) for way in ways]
    usable = next((way for way in ways if allowance.may_use_parts(queue, way)), None)
    tried: dict[str, int | float | str] = {}
    if len(ways) > 1 and (usable or any(shorts)):
        tried["detail"] = _tried_words(cycle, ways, shorts, queue=queue)
    if usable:
        needs, most, fitting = _short(cycle.snapshot, cycle.free, _asking(shape, usable))
        numbers = {**needs, "free": most, "nodes_fitting": fitting, **tried}
        return Reason(code=Code.WAITS_FOR_CAPACITY, numbers=numbers)
    needs = {"needs": shape.words}
    if shape.sets:
        needs = _needs_of_sets(shape, _first_over_quota(cycle, shape.ways[0], queue))
    short = next(filter(None, shorts), None)
    if short is None:
        return Reason(code=Code.NO_QUOTA, object=name, numbers=needs)
    words = partial(amount_words, short.resource, like=shape.choices[0].memory_bytes)
    figures = {"resource": short.resource, "flavor": short.flavor, "left": words(short.left)}
    used, nominal = words(short.used), words(short.nominal)
    return Reason(
        code=Code.WAITS_FOR_QUOTA, object=name, numbers={**needs, **figures, "used": used, "nominal": nominal, **tried}
    )


def _has_quota(allowance: Allowance, queue: int, choice: Parts) -> bool:
    """Whether the queue has a quota of such pods on any nodes, however much of it is left."""
    return any(allowance.cells_of(queue, way) is not None for way in allowance.flavors_of(queue, choice))


def _tried_words(cycle: Cycle, ways: Sequence[Parts], shorts: Sequence[Shortage | None], *, queue: int) -> str:
    """`tried spot: 0 CPUs more of cpu; on-demand: no room; other nodes: no quota`."""
    found: dict[str, str] = {}
    for way, short in zip(ways, shorts, strict=True):
        where = " and ".join(dict.fromkeys(filter(None, (cycle.allowance.words_of(part.request) for part in way))))
        words = "no room" if cycle.allowance.may_use_parts(queue, way) else "no quota"
        if short is not None:
            words = f"{amount_words(short.resource, short.left)} more of {short.resource}"
        found.setdefault(where, words)
    told = [f"{where}: {words}" for where, words in found.items()]
    more = f"; and {len(told) - KINDS_NAMED} more" if len(told) > KINDS_NAMED else ""
    return f"tried {'; '.join(told[:KINDS_NAMED])}{more}"


def _asking(shape: Shape, way: Parts) -> Shape:
    """The same as this way asks for it, where quotas tell nodes or models apart."""
    if not shape.sets:
        return replace(shape, requests=(way[0].request,))
    sets = tuple(replace(one, requests=(part.request,)) for one, part in zip(shape.sets, way, strict=True))
    return replace(shape, sets=sets, requests=sets[0].requests)


def _first_over_quota(cycle: Cycle, way: Parts, queue: int) -> int:
    """The first set with which the queue may not use so much, whichever nodes they lie on."""
    for at in range(len(way)):
        ways = cycle.allowance.flavors_of(queue, way[: at + 1])
        if not any(cycle.allowance.may_use_parts(queue, one) for one in ways):
            return at
    return len(way) - 1


def _needs_of_sets(shape: Shape, at: int) -> dict[str, int | float | str]:
    """What it needs in words, the set that is short first, and which that is."""
    one = shape.sets[at]
    beside = " and ".join(other.words_in_set for other in shape.sets if other is not one)
    return {"needs": f"{one.words_in_set} beside {beside}{shape.where_words}", "set": one.name}


def refusal(snapshot: Snapshot, shape: Shape, free: Free) -> Reason:
    """Why a shape that does not fit `free` must wait, with the figures."""
    reach = shape.reach
    if reach is None or not reach.volume:
        return _refusal(snapshot, shape, free)
    detail = reach.words
    if reach.mask.any():
        detail = f"{detail}; {_refusal(snapshot, shape, free).sentence}"
    return Reason(code=Code.WAITS_FOR_VOLUME, object=reach.volume, numbers={"needs": shape.words, "detail": detail})


def _refusal(snapshot: Snapshot, shape: Shape, free: Free) -> Reason:
    needs: dict[str, int | float | str] = {"needs": shape.words}
    if shape.cluster in snapshot.closed_clusters:
        return _waits_for_cluster(snapshot, shape.cluster, needs)
    if not snapshot.nodes.key.size:
        return Reason(code=Code.NO_NODES, numbers=needs)
    whole = whole_of(snapshot)
    if shape.restriction and not whole.allowed(_anything(shape)).any():
        return _no_node_admits(snapshot, shape, whole, needs)
    if not _holds_any(whole, shape):
        needs, most, _ = _short(snapshot, whole, shape)
        lacks = next((one for one in shape.sets if one.name == needs.get("set")), shape)
        return Reason(code=Code.NEVER_FITS, numbers={**needs, "largest": most + _lacks_words(snapshot, whole, lacks)})
    for cluster in snapshot.closed_clusters:
        if _holds_any(free_in(snapshot, cluster), shape):
            return _waits_for_cluster(snapshot, cluster, needs)
    there = whole.opened(snapshot.nodes.ready, admits=snapshot.nodes.admits, sound=snapshot.nodes.sound)
    # Where those that take work could hold it, it waits for others to end, and for no node that does not.
    if not _holds_any(there, shape) and (reason := _waits_for_node(snapshot, shape, free, needs)):
        return reason
    if not free.usable(shape.requests[0]).any():
        return Reason(code=Code.NO_NODES, numbers=needs)
    needs, most, fitting = _short(snapshot, free, shape)
    return Reason(code=Code.WAITS_FOR_CAPACITY, numbers={**needs, "free": most, "nodes_fitting": fitting})


def _anything(shape: Shape) -> Request:
    """Of any node where it may run at all."""
    return replace(shape.requests[0], gpu_model=0, reach=None)


def _no_node_admits(snapshot: Snapshot, shape: Shape, whole: Free, needs: dict[str, int | float | str]) -> Reason:
    """That no node is as it must be, with what there is instead where that is known."""
    traits, wanted = snapshot.nodes.traits, shape.restriction
    if isinstance(wanted, str) or traits is None:
        return Reason(code=Code.NO_NODE_ADMITS, numbers=needs)
    here = whole.allowed(replace(_anything(shape), restriction=""))
    there = [traits.each[number] for number in np.unique(traits.number[here]).tolist()]
    found = affinity.lack(there, wanted)
    detail = found.words if found and there else "there is no node"
    field = found.field if found else "node_labels"
    return Reason(code=Code.NO_SUCH_NODES, numbers={**needs, "detail": detail, "field": field})


def _short(snapshot: Snapshot, free: Free, shape: Shape) -> tuple[dict[str, int | float | str], str, int]:
    """What it needs, the most that is there of it on one node, and how many nodes have room for a pod. Of several pod sets all of
    that is about the one that is short.
    """
    if not shape.sets:
        return {"needs": shape.words}, _most(snapshot, free, shape), _nodes_fitting(free, shape)
    short = short_of(free, shape.ways[0], policy=_POLICY)
    one = shape.sets[short.set_]
    request = one.requests[0]
    reach = short.inside if request.reach is None else short.inside & request.reach
    there = replace(one, requests=(replace(request, reach=reach),))
    most = _most(snapshot, short.free, there)
    if short.beside:
        most = f"{most}, with places for the others"
    return _needs_of_sets(shape, short.set_), most, _nodes_fitting(short.free, there)


_POLICY = POLICIES[DEFAULT_POLICY]


def _holds_any(free: Free, shape: Shape) -> bool:
    """Whether it fits in any way."""
    return any(_holds(free, way) for way in shape.ways)


def _waits_for_cluster(snapshot: Snapshot, cluster: str, needs: Mapping[str, int | float | str]) -> Reason:
    """It would fit there, if only the cluster took work."""
    numbers = {**needs, "detail": snapshot.closed_clusters[cluster].sentence}
    return Reason(code=Code.WAITS_FOR_CLUSTER, object=cluster, numbers=numbers)


def _waits_for_node(
    snapshot: Snapshot, shape: Shape, free: Free, needs: Mapping[str, int | float | str]
) -> Reason | None:
    """It would fit, if only the nodes took work that have room for it and are kept out or not ready."""
    nodes = snapshot.nodes
    if not snapshot.closed_nodes:
        return None
    shut = np.isin(nodes.key, np.fromiter(snapshot.closed_nodes, dtype=np.int64))
    shut &= np.fromiter((name not in snapshot.closed_clusters for name in nodes.clusters), np.bool_, nodes.key.size)
    met = {name: mask & (shut | nodes.admits[name]) for name, mask in nodes.meets.items()}
    opened = free.opened(shut | nodes.ready, admits={**nodes.admits, **met}, sound=shut | nodes.sound)
    for way in shape.ways:
        takes = np.logical_or.reduce([feasible(opened, part.request) for part in way])
        rows = np.flatnonzero(takes & shut)
        if not rows.size or not _holds(opened, way):
            continue
        row = int(rows[0])
        why = snapshot.closed_nodes[int(nodes.key[row])]
        return Reason(code=Code.WAITS_FOR_NODE, object=nodes.names[row], numbers={**needs, "detail": why.sentence})
    return None


def slot_resources(snapshot: Snapshot, node_row: int, request: Request) -> Resources:
    """What one pod holds on this node. The GPU model is the node's own, also where any was asked for: it is billed."""
    model = int(snapshot.nodes.gpu_model[node_row]) if request.gpus and not request.shape else 0
    return Resources(
        cpu_milli=request.cpu_milli,
        memory_bytes=request.memory_bytes,
        gpus=request.gpus,
        gpu_model=request.shape or snapshot.gpu_models[model],
        others=request.others,
    )


def _allocation(snapshot: Snapshot, row: int, nodes: Sequence[int], parts: Parts, *, why: str) -> Allocate:
    """A place for each rank of the workload in this row."""
    table, node_keys = snapshot.workloads, snapshot.nodes.key
    slots = tuple(
        Slot(rank=rank, node_key=int(node_keys[node]), resources=slot_resources(snapshot, node, request))
        for rank, (node, request) in enumerate(zip(nodes, requests_of(parts), strict=True))
    )
    return Allocate(
        guards=(_unchanged(snapshot, row), *capacity_guards(slots, parts[0].request.restriction)),
        reason=placed(snapshot, nodes, least=int(table.nodes_min[row]), most=int(table.nodes_max[row]), why=why),
        workload_key=int(table.key[row]),
        attempt=int(table.attempt[row]),
        slots=slots,
    )


def _advance_to_queued(snapshot: Snapshot, row: int, reason: Reason) -> Advance:
    table = snapshot.workloads
    return Advance(
        guards=(_unchanged(snapshot, row),),
        reason=reason,
        workload_key=int(table.key[row]),
        phase=Phase.QUEUED,
        attempt=int(table.attempt[row]),
        not_before=int(table.not_before[row]),
        infrastructure_failures=int(table.infrastructure_failures[row]),
        user_failures=int(table.user_failures[row]),
    )


def _unchanged(snapshot: Snapshot, row: int) -> RowVersion:
    table = snapshot.workloads
    return RowVersion(kind="workload", key=int(table.key[row]), version=int(table.version[row]))


def _holds(free: Free, way: Parts) -> bool:
    if len(way) > 1:
        return place_parts(free, way, policy=_POLICY) is not None
    request, count = way[0].request, way[0].ranks
    rows = np.flatnonzero(feasible(free, request))
    return bool(rows.size) and (count == 1 or bool((room_together(free, request, rows) >= count).any()))


def _nodes_fitting(free: Free, shape: Shape) -> int:
    return max(int(feasible(free, request).sum()) for request in shape.requests)


def _most(snapshot: Snapshot, free: Free, shape: Shape) -> str:
    """The node that comes closest to the first choice, in words: by model, then by GPUs, CPU and memory."""
    request = shape.requests[0]
    here = np.ones(free.key.size, dtype=np.bool_) if request.cluster == ANY_CLUSTER else free.cluster == request.cluster
    usable = here & free.usable(request)
    # Where no GPU is of the size that is asked for, the node counts that comes closest otherwise.
    here = (
        usable
        if usable.any()
        else here & free.usable(replace(request, reach=shape.reach.mask if shape.reach else None))
    )
    if not here.any():
        return "no node"
    model_fits = free.is_of_model(request.gpu_model) if request.gpu_model else np.ones(free.key.size, dtype=np.bool_)
    gpus = np.minimum(free.devices(request), request.gpus)
    row = int(np.lexsort((-free.key, free.memory_bytes, free.cpu_milli, gpus, model_fits, here))[-1])
    words = words_of(_left_on(snapshot, free, row, request), like=shape.choices[0].memory_bytes)
    return words + (
        _pods_words(snapshot, free, shape)
        or _spread_words(free, shape)
        or _topology_words(snapshot, free, shape)
        or _gang_words(free, shape)
    )


def _lacks_words(snapshot: Snapshot, whole: Free, shape: Shape) -> str:
    """That no node has such GPUs, whatever else it has; empty if that is not so."""
    return _gpus_words(snapshot, whole, shape) or _gpu_memory_words(snapshot, whole, shape)


def _gpu_memory_words(snapshot: Snapshot, whole: Free, shape: Shape) -> str:
    """That no GPU of its kind has as much memory as it asks for, and how much the largest have; empty if that is not so."""
    asked = min(shape.choices, key=lambda one: one.gpu_memory_bytes)
    if not asked.gpu_memory_bytes or len({one.gpu_model for one in shape.choices}) > 1 or is_shape(asked.gpu_model):
        return ""
    memory, has = memory_of_gpus(snapshot), whole.gpus > 0
    if shape.cluster:
        has &= whole.cluster == shape.requests[0].cluster
    if asked.gpu_model:
        has &= whole.gpu_model == model_number(asked.gpu_model, snapshot.gpu_models)
    row = int(np.where(has, memory, -1).argmax())
    if not has.any() or gpu.is_enough(int(memory[row]), asked.gpu_memory_bytes):
        return ""
    words = f", but no {asked.gpu_model or 'GPU'} is known to have {memory_words(asked.gpu_memory_bytes)}"
    if not memory[row]:
        return words
    unit, bytes_per_unit = memory_unit(asked.gpu_memory_bytes)
    most = f"{figure(round(int(memory[row]) / bytes_per_unit, 1))} {unit}"
    return f"{words}: the largest are {snapshot.gpu_models[int(whole.gpu_model[row])] or 'GPU'} with {most}"


def _gpus_words(snapshot: Snapshot, whole: Free, shape: Shape) -> str:
    """That no node has any of the GPUs that it asks for, and which there are, in words; empty if that is not so."""
    here = whole.cluster == shape.requests[0].cluster if shape.cluster else np.ones(whole.key.size, dtype=np.bool_)
    if not here.any() or any(_has_such_gpus(whole, request, here) for request in shape.requests):
        return ""
    count = {
        snapshot.gpu_models[number] or "GPU": int(whole.gpus[here & (whole.gpu_model == number)].sum())
        for number in np.unique(whole.gpu_model[here]).tolist()
    }
    count |= {name: int(whole.nodes.free[column][here].sum()) for name, column in whole.shapes.items()}
    most = sorted((-amount, kind) for kind, amount in count.items() if amount)
    asked = " or ".join(dict.fromkeys(choice.gpu_model or "GPU" for choice in shape.choices))
    words = f", but no node of {f'cluster {shape.cluster}' if shape.cluster else 'the fleet'} has any {asked}"
    there = ", ".join(f"{-amount} x {kind}" for amount, kind in most[:KINDS_NAMED])
    more = f" and {len(most) - KINDS_NAMED} more kinds" if len(most) > KINDS_NAMED else ""
    return f"{words}: it has {there}{more}" if most else words


def _has_such_gpus(whole: Free, request: Request, here: Bools) -> bool:
    """Whether any of these nodes has one GPU of its kind; whoever asks for none lacks none."""
    model = whole.is_of_model(request.gpu_model) if request.gpu_model else here
    return not request.gpus or bool((here & model & (whole.devices(request) > 0)).any())


def _pods_words(snapshot: Snapshot, free: Free, shape: Shape) -> str:
    """That there is all it needs but places for pods, in numbers; empty if that is not so."""
    if PODS not in free.others:
        return ""
    endless = free.without(PODS)
    request = next((way[0].request for way in shape.ways if _holds(endless, way)), None)
    if request is None:
        return ""
    rows = np.flatnonzero(feasible(free, request))
    if rows.size:
        return f", but its nodes take no more than {room_together(free, request, rows).max(initial=0)} such pods"
    row = int(np.flatnonzero(feasible(endless, request))[0])
    most = int(snapshot.nodes.others[PODS][row])
    there = most - int(free.nodes.free[free.others[PODS], row])
    return f", but no node has room for one more pod ({snapshot.nodes.names[row]} has {there} of {most})"


def _spread_words(free: Free, shape: Shape) -> str:
    """That there is all it needs, but its pods would not lie as far apart as they must, in numbers; empty if that is not so."""
    need = shape.topology
    if need is None or need.spread is None or not need.spread.at_most or shape.one_node:
        return ""
    spread, near = need.spread, replace(need, spread=None)
    beside = [replace(request, topology=near) for request in shape.requests]
    number = next((at for at, one in enumerate(beside) if _holds(free, (Part(ranks=shape.least, request=one),))), None)
    if number is None:
        return ""
    request = shape.requests[number]
    rows = np.flatnonzero(feasible(free, request))
    number_of = numbers(free, spread.level)[rows]
    there = np.unique(number_of[number_of < known(free, spread.level)]).size
    if not there:
        return f", but of no node with room is it known in which {spread.level} it is"
    most = int(room_together(free, request, rows).max(initial=0))
    return (
        f", but with {spread.words} there is room for {most} of {shape.least}: {counted(there, spread.level)} with room"
    )


def _topology_words(snapshot: Snapshot, free: Free, shape: Shape) -> str:
    """That there is all it needs, but not in one domain, in numbers; empty if that is not so."""
    need = shape.topology
    if need is None or not need.required or shape.one_node:
        return ""
    anywhere = [replace(request, topology=None) for request in shape.requests]
    request = next((one for one in anywhere if _holds(free, (Part(ranks=shape.least, request=one),))), None)
    if request is None:
        return ""
    rows = np.flatnonzero(feasible(free, request))
    most = room_per_domain(free, need.level, rows, room_on(free, request, rows))
    if not most.size:
        return f", but of no node is it known in which {need.level} it is"
    roomiest = int(most.argmax())
    names = snapshot.nodes.names if need.level == HOST else free.levels[need.level].names
    there = f"the roomiest, {names[roomiest]}, has room for {most[roomiest]}"
    return f", but no {need.level} has room for {shape.least} such pods: {there}"


def _gang_words(free: Free, shape: Shape) -> str:
    """That each of its pods has room but not all of them together, in numbers; empty if that is not so."""
    if shape.least == 1 or shape.one_node:
        return ""
    there = [(request, np.flatnonzero(feasible(free, request))) for request in shape.requests]
    most = max(int(room_together(free, request, rows).max(initial=0)) for request, rows in there)
    if not 0 < most < shape.least:
        return ""
    together = "no cluster has room for more than" if np.unique(free.cluster).size > 1 else "all nodes have room for"
    return f", and {together} {most} of {shape.least} such pods"


def _left_on(snapshot: Snapshot, free: Free, row: int, request: Request) -> Resources:
    """Of GPUs the kind that was asked for."""
    gpus = max(0, int(free.devices(request)[row]))
    model = request.shape or snapshot.gpu_models[int(free.gpu_model[row])]
    return Resources(
        cpu_milli=max(0, int(free.cpu_milli[row])),
        memory_bytes=max(0, int(free.memory_bytes[row])),
        gpus=gpus,
        gpu_model=model if gpus else "",
        others=tuple(
            (name, int(free.nodes.free[free.others[name], row])) for name, _ in request.others if name in free.others
        ),
    )
