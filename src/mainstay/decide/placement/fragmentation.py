"""Fragmentation: how much of what is idle on a node the usual requests could not use, and what a placement adds.

The measure goes back to FGD (Weng et al., "Beware of Fragmentation", USENIX ATC 2023): a request is drawn from the mix of
those that are usual here, and F of a node is the expected idle milli-GPUs that it could not use.

- A request that does not fit on the node can use nothing, and one without GPUs neither.
- One that fits cannot use the rest that is left of each card when as many of it as fit are there: 0.81 of a card leave
  0.19. (As published, it can use every card on which one fits, whole.)
- Nor can it use GPUs beyond those that the free CPUs could serve at the usual rate. (As published, CPUs count only where
  they do not suffice for a single request, when it is too late.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mainstay.decide.placement.mix import GPU_MILLI, CardRequest, Mix
from mainstay.domain.arrays import Bools, Ints

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCards:
    """What is free on each node, card by card. The columns belong to the caller, who lowers and raises them."""

    gpu_milli: Ints
    """[nodes, cards]; 0 where a node has fewer cards than the others."""
    cpu_milli: Ints
    """[nodes]"""
    model: Ints
    """[nodes]: the number of the model of the node's GPUs, from 0; means nothing where it has no cards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Ways to place one pod: option i takes `cards[i]` of the node in row `row[i]`. Rows ascend."""

    row: Ints
    cards: Ints
    """[options, gpus]"""
    growth: Floats
    """[options]: what F of the node gains by it, in GPUs; negative where the pod fills what nobody else could use."""


class Fragmentation:
    """F of every node under one mix, kept current by `changed`.

    F counts requests x milli-GPUs, in integers below 2**53 that a float64 holds exactly. So it does not matter in which
    order sums are made or how many rows are computed at once, and equal nodes have equal F to the last bit.
    """

    def __init__(self, nodes: NodeCards, mix: Mix) -> None:
        self.nodes = nodes
        with_cards = [request for request in mix.counts if request.gpus]
        self._count = np.array([mix.counts[request] for request in with_cards], dtype=np.float64)
        self._cpu_only = float(mix.total - self._count.sum())
        self._cpu_milli = np.array([request.cpu_milli for request in with_cards], dtype=np.int64)
        self._gpus = np.array([request.gpus for request in with_cards], dtype=np.int64)
        self._cpus_per_gpu = usual_rate(mix)
        self._allowed = allowed(with_cards, models=int(nodes.model.max(initial=0)) + 1)
        # Requests differ in few amounts per card: what depends on the amount alone is computed once for each.
        milli = np.array([request.gpu_milli for request in with_cards], dtype=np.int64)
        self._amounts, self._amount_of = np.unique(milli, return_inverse=True)
        self._gpus_of_mix = float(max(1, mix.total) * GPU_MILLI)
        rows = nodes.cpu_milli.size
        self._with_room = np.zeros((rows, self._amounts.size), dtype=np.int64)
        self._rest = np.zeros_like(self._with_room)
        self._idle = np.zeros(rows, dtype=np.int64)
        self._value = np.zeros(rows)
        self.changed(np.arange(rows))

    def changed(self, rows: Ints) -> None:
        """The columns of these nodes have changed."""
        free = self.nodes.gpu_milli[rows]
        with_room, rest = self._cards_by_amount(free)
        self._with_room[rows], self._rest[rows], self._idle[rows] = with_room, rest, free.sum(axis=1)
        self._value[rows] = self._expected(rows, self.nodes.cpu_milli[rows], with_room, rest, self._idle[rows])

    def values(self, rows: Ints) -> Floats:
        """F of these nodes, in GPUs."""
        return self._value[rows] / self._gpus_of_mix

    def options(self, request: CardRequest, rows: Ints) -> Options:
        """Every way to place the request on nodes that can take it, `rows` ascending; none for a node that cannot.

        Part of a card or one card: each card with room, but one only of equally free ones. Several cards: those with the
        least room that will do. O(options x requests of the mix).
        """
        free = self.nodes.gpu_milli[rows]
        ranking = np.argsort(free, axis=1, kind="stable")
        ascending = free[np.arange(rows.size)[:, None], ranking]
        at, chosen = _choices(ascending, request)
        row, cards, before = rows[at], ranking[at[:, None], chosen], ascending[at[:, None], chosen]
        with_room, rest = self._cards_by_amount(before)
        with_room_after, rest_after = self._cards_by_amount(before - request.gpu_milli)
        after = self._expected(
            row,
            self.nodes.cpu_milli[row] - request.cpu_milli,
            self._with_room[row] - with_room + with_room_after,
            self._rest[row] - rest + rest_after,
            self._idle[row] - request.gpus * request.gpu_milli,
        )
        return Options(row=row, cards=cards, growth=(after - self._value[row]) / self._gpus_of_mix)

    def rest(self, free: Ints, amounts: Ints) -> Ints:
        """What requests of each amount cannot use of each card, where one of them fits."""
        left: Ints = free % amounts
        return left

    def beyond_cpus(self, idle: Ints, cpu_milli: Ints) -> Ints:
        """What idle milli-GPUs the free CPUs of a node could not serve at the usual rate; negative if they could more."""
        cpu_share, gpu_share = self._cpus_per_gpu
        beyond: Ints = idle - cpu_milli * gpu_share // cpu_share if cpu_share else np.zeros_like(idle)
        return beyond

    def _cards_by_amount(self, free: Ints) -> tuple[Ints, Ints]:
        """Per amount: how many of the cards have it free, and what cannot be used of all of them."""
        each = free[:, :, None]
        return (each >= self._amounts).sum(axis=1), self.rest(each, self._amounts).sum(axis=1)

    def _expected(self, rows: Ints, cpu_milli: Ints, with_room: Ints, rest: Ints, idle: Ints) -> Floats:
        """F of nodes in such a state: what a request that fits cannot use, and all that is idle for one that does not."""
        fits = cpu_milli[:, None] >= self._cpu_milli
        fits &= with_room[:, self._amount_of] >= self._gpus
        fits &= self._allowed[self.nodes.model[rows]]
        beyond = self.beyond_cpus(idle, cpu_milli)
        lost = np.where(fits, np.maximum(rest[:, self._amount_of], beyond[:, None]), idle[:, None])
        expected: Floats = self._cpu_only * idle + lost @ self._count
        return expected


def allowed(requests: list[CardRequest], *, models: int) -> Bools:
    """[models, requests]: whether a GPU of this model will do."""
    will_do = np.zeros((models, len(requests)), dtype=np.bool_)
    for index, request in enumerate(requests):
        will_do[[model for model in request.models if model < models] if request.models else slice(None), index] = True
    return will_do


def usual_rate(mix: Mix) -> tuple[int, int]:
    """Milli-CPUs to milli-GPUs over all requests with GPUs, in lowest terms."""
    cpu = sum(count * request.cpu_milli for request, count in mix.counts.items() if request.gpus)
    gpu = sum(count * request.gpus * request.gpu_milli for request, count in mix.counts.items())
    divisor = math.gcd(cpu, gpu) or 1
    return cpu // divisor, gpu // divisor


def _choices(free: Ints, request: CardRequest) -> tuple[Ints, Ints]:
    """Positions in `free` (each row ascending) that the request may take: [options], [options, gpus]."""
    rows, cards = free.shape
    if not request.gpus:
        return np.arange(rows), np.zeros((rows, 0), dtype=np.int64)
    has_room = free >= request.gpu_milli
    if request.gpus == 1:
        has_room[:, 1:] &= free[:, 1:] != free[:, :-1]
        at, card = np.nonzero(has_room)
        return at, card[:, None]
    first = cards - has_room.sum(axis=1)
    at = np.flatnonzero(first + request.gpus <= cards)
    return at, first[at, None] + np.arange(request.gpus)
