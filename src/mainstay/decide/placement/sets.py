"""Gangs of several pod sets: all ranks of all sets find a place in one cluster (or domain that must hold them), or none does.

Whether pods of several sizes fit on nodes is bin packing, which nobody solves exactly in time. So the sets are placed one after
the other, in two orders: those with GPUs first, and those with the largest pods first. A gang that would fit only if its pods
were mixed otherwise waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mainstay.decide.kernel import CPU, MEMORY
from mainstay.decide.placement.domains import CLUSTER, LADDER, known, numbers, room_per_domain
from mainstay.decide.placement.fill import Policy
from mainstay.decide.placement.fit import Free, Request, feasible, room_on
from mainstay.decide.placement.gang import place
from mainstay.decide.placement.prefer import liking_per_domain
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.topology import HOST

DOMAINS_MAX = 32
"""So many clusters, or domains of a topology, are tried for one gang, those with the least room first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Ranks that ask for the same, numbered one after the other."""

    ranks: int
    request: Request


Parts: TypeAlias = tuple[Part, ...]
"""All ranks of a workload, from 0 on: one part, or one for each of its pod sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """The first set for which there is no room, and what those that are placed before it have left."""

    set_: int
    free: Free
    inside: Bools
    """[nodes] Where it would have to lie."""
    beside: bool
    """It would find a place if it were alone."""


def place_parts(free: Free, parts: Parts, *, policy: Policy) -> Ints | None:
    """Node row of each rank, or None if not all fit. Writes nothing."""
    if len(parts) == 1:
        return place(free, parts[0].request, count=parts[0].ranks, policy=policy)
    for level in _levels(parts[0].request):
        for inside in _domains(free, parts, level):
            for order in _orders(free, parts):
                nodes, _, _ = _within(free, parts, inside, order=order, policy=policy)
                if nodes is not None:
                    return nodes
    return None


def requests_of(parts: Parts) -> Iterator[Request]:
    """What each rank asks for."""
    for part in parts:
        for _ in range(part.ranks):
            yield part.request


def with_late(parts: Parts, late: int) -> Parts:
    """The same, each of which would delay these reserved starts if it used their places (`Request.late`)."""
    return tuple(replace(part, request=replace(part.request, late=late)) for part in parts)


def leaving_headroom(parts: Parts) -> Parts:
    """The same; where none of them asks for GPUs, they leave what is kept for these (`Request.leaves_headroom`)."""
    if any(part.request.gpus for part in parts):
        return parts
    return tuple(replace(part, request=replace(part.request, leaves_headroom=True)) for part in parts)


def within(parts: Parts, nodes: Bools) -> Parts:
    """The same, on these nodes only."""

    def here(request: Request) -> Request:
        return replace(request, reach=nodes if request.reach is None else nodes & request.reach)

    return tuple(replace(part, request=here(part.request)) for part in parts)


def nodes_by_part(nodes: Ints, parts: Parts) -> Iterator[tuple[Part, Ints]]:
    """Each part with the nodes of its ranks, out of [..., ranks]."""
    begin = 0
    for part in parts:
        yield part, nodes[..., begin : begin + part.ranks]
        begin += part.ranks


def take_parts(free: Free, nodes: Ints, parts: Parts) -> None:
    """Lower what is free by all ranks."""
    for part, rows in nodes_by_part(nodes, parts):
        free.take(*np.unique(rows, return_counts=True), part.request)


def hardest_first(free: Free, parts: Parts) -> tuple[int, ...]:
    """Numbers of the parts: those that ask for GPUs first, of a model before of any, then the largest."""
    return _orders(free, parts)[0]


def short_of(free: Free, parts: Parts, *, policy: Policy) -> Short:
    """Of a gang that finds no place: which of its sets finds none, by itself or beside the others."""
    for at, part in enumerate(parts):
        if place(free, part.request, count=part.ranks, policy=policy) is None:
            return Short(set_=at, free=free, inside=np.ones(free.key.size, dtype=np.bool_), beside=False)
    inside = _most_hopeful(free, parts)
    order = hardest_first(free, parts)
    _, left, failed = _within(free, parts, inside, order=order, policy=policy)
    return Short(set_=order[-1] if failed is None else failed, free=left, inside=inside, beside=True)


def _levels(request: Request) -> Sequence[str]:
    """Of which level one domain is to hold all, one after the other."""
    if request.one_node:
        return (HOST,)
    if request.topology is None:
        return (CLUSTER,)
    at = LADDER.index(request.topology.level or CLUSTER)
    return LADDER[at : at + 1] if request.topology.required else LADDER[at::-1]


def _domains(free: Free, parts: Parts, level: str) -> Iterator[Bools]:
    """[nodes] Those of each domain that has room for every part if it were alone: that with the most preferred nodes first, of
    equals that with the least room.
    """
    number = numbers(free, level)
    room = _gangs_per_domain(free, parts, level)
    holds = np.flatnonzero(room >= 1)
    liking = np.zeros(room.size, dtype=np.int64)
    for part in parts:
        rows = np.flatnonzero(feasible(free, part.request))
        there = room_on(free, part.request, rows)
        liked = liking_per_domain(
            free, part.request, rows, room=there, number=number[rows], domains=room.size, count=part.ranks
        )
        liking += 0 if liked is None else liked
    for domain in holds[np.lexsort((room[holds], -liking[holds]))][:DOMAINS_MAX].tolist():
        yield number == domain


def _most_hopeful(free: Free, parts: Parts) -> Bools:
    """[nodes] Those of the domain that must hold all and that comes closest to it."""
    level = _levels(parts[0].request)[-1]
    room = _gangs_per_domain(free, parts, level)
    return numbers(free, level) == int(room.argmax()) if room.size else np.zeros(free.key.size, dtype=np.bool_)


def _gangs_per_domain(free: Free, parts: Parts, level: str) -> Floats:
    """[domains] How many times all of them would fit at most, by what is left in the whole domain, and by each part as if it
    were alone. A fraction of one, too.
    """
    times = np.full(known(free, level), np.inf)
    asked = np.sum([part.ranks * free.amounts(part.request).astype(np.float64) for part in parts], axis=0)
    for column in np.flatnonzero(asked).tolist():
        left = np.maximum(free.nodes.free[column], 0)
        there = np.bincount(numbers(free, level), weights=left, minlength=times.size)[: times.size]
        np.minimum(times, there / asked[column], out=times)
    for part in parts:
        rows = np.flatnonzero(feasible(free, part.request))
        room = room_per_domain(free, level, rows, room_on(free, part.request, rows))
        np.minimum(times, room / part.ranks, out=times)
    return times


def _orders(free: Free, parts: Parts) -> tuple[tuple[int, ...], ...]:
    """Numbers of the parts, in which they are placed: one order, and another where that is a different one."""
    weight = free.nodes.weight
    asked = [free.amounts(part.request) * weight for part in parts]

    def scarce(at: int) -> tuple[bool, bool, float, int]:
        request = parts[at].request
        return not request.gpus, not (request.gpu_model or request.shape), -float(asked[at].max()), at

    def large(at: int) -> tuple[float, int]:
        return -float(max(asked[at][CPU], asked[at][MEMORY])), at

    first, second = tuple(sorted(range(len(parts)), key=scarce)), tuple(sorted(range(len(parts)), key=large))
    return (first,) if first == second else (first, second)


def _within(
    free: Free, parts: Parts, inside: Bools, *, order: Sequence[int], policy: Policy
) -> tuple[Ints | None, Free, int | None]:
    """Node row of each rank on these nodes; else what is left once all before a part have their places, and the number of it."""
    left, found = free.copy(), dict[int, Ints]()
    for at in order:
        part = parts[at]
        reach = inside if part.request.reach is None else inside & part.request.reach
        nodes = place(left, replace(part.request, reach=reach), count=part.ranks, policy=policy)
        if nodes is None:
            return None, left, at
        left.take(*np.unique(nodes, return_counts=True), part.request)
        found[at] = nodes
    return np.concatenate([found[at] for at in range(len(parts))]), left, None
