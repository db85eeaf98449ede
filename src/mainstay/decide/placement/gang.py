"""All ranks of a gang find a place, in one cluster, or none does; of an elastic one as many as there is room for."""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.apart import room_apart
from mainstay.decide.placement.domains import CLUSTER, known, numbers, room_per_domain
from mainstay.decide.placement.fill import Policy, fill
from mainstay.decide.placement.fit import Free, Request, feasible
from mainstay.decide.placement.near import place_near
from mainstay.decide.placement.prefer import domain_for
from mainstay.domain.arrays import Bools, Ints


def place(free: Free, request: Request, *, count: int, least: int = 0, policy: Policy) -> Ints | None:
    """Node row of each rank, or None if not all fit. Writes nothing.

    Ranks talk to each other all the time, so a gang stays within one cluster: the one with the least room that
    holds it whole, to leave the roomy ones to larger gangs; then the first by name.

    With a `least`, `count` is the most: there are as many ranks as the roomiest cluster, or domain that must hold them, takes.
    """
    rows = np.flatnonzero(feasible(free, request))
    if not rows.size:
        return None
    if count > least > 0:
        count = min(count, int(room_together(free, request, rows).max(initial=0)))
        if count < least:
            return None
    if request.one_node:
        node, _ = fill(free, request, policy, rows[room_apart(free, request, rows) >= count], 1)
        return np.repeat(node, count) if node.size else None
    if count > 1:
        if request.topology is not None:
            return place_near(free, request, request.topology, rows, count=count, policy=policy)
        per_cluster = room_together(free, request, rows)
        holds = np.flatnonzero(per_cluster >= count)
        if not holds.size:
            return None
        number, room = free.cluster[rows], room_apart(free, request, rows)
        best = domain_for(free, request, rows, room=room, number=number, most=per_cluster, holds=holds, count=count)
        rows = rows[number == best]
    return np.repeat(*fill(free, request, policy, rows, count))


def room_together(free: Free, request: Request, rows: Ints) -> Ints:
    """How many pods of one gang these feasible nodes take in each cluster, or each domain that must hold it; by its number."""
    room = room_apart(free, request, rows)
    if request.one_node:
        most = np.zeros(int(free.cluster.max()) + 1, dtype=np.int64)
        np.maximum.at(most, free.cluster[rows], room)
        return most
    return room_per_domain(free, _bound_of(request), rows, room)


def together(free: Free, request: Request) -> Ints:
    """[nodes] The number that `room_together` has for where each lies."""
    return numbers(free, _bound_of(request))


def domains(free: Free, request: Request) -> tuple[Ints, Bools]:
    """[nodes] The number of the domain that must hold all ranks, and whether it is known in which the node is."""
    if request.one_node:
        return np.arange(free.key.size), np.ones(free.key.size, dtype=np.bool_)
    number = together(free, request)
    return number, number < known(free, _bound_of(request))


def _bound_of(request: Request) -> str:
    """The level of which one domain must hold a gang whole."""
    need = request.topology
    return need.level if need is not None and need.required and not request.one_node else CLUSTER
