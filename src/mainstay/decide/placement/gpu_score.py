"""The default score of nodes: keep what is idle of use to the usual requests, keep nodes full, save scarce models.

    with GPUs:    score = growth of F + a x idle GPUs + b x GPUs asked for x scarcity of the model      (in GPUs)
    without:      score = growth of F + c x idle GPUs + d x idle CPUs

The growth of F (fragmentation.py) alone is blind where it is zero. What is idle on the node is best-fit, so weak that it
decides only where F hardly does.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mainstay.decide.kernel import IDLE_GPU, SCARCITY
from mainstay.decide.placement.fragmentation import Floats, Fragmentation, NodeCards, allowed
from mainstay.decide.placement.mix import GPU_MILLI, CardRequest, Mix
from mainstay.domain.arrays import Ints

IDLE_GPU_FOR_CPU_WORK = 5 * IDLE_GPU
"""For a pod without GPUs: it belongs where hardly a GPU is left that would need the CPUs."""
IDLE_CPU_FOR_CPU_WORK = IDLE_GPU / 16
"""For such a pod 16 CPUs weigh as much as a GPU does for others. With GPUs, F knows better what CPUs are worth."""
SCARCITY_MAX = 5.0
"""A model that is used up does not outweigh everything else."""
REQUESTS_KEPT = 256
"""Requests whose growth is kept, up to 0.4 MB each at 15,000 nodes. The one that was asked for longest ago goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Growth:
    """Of one request: the least growth on each node, the cards that have it, and after which change they were found."""

    growth: Floats
    cards: npt.NDArray[np.int8]
    found_after: Ints


class GpuScore:
    """Scores under one mix, for as long as it is the mix.

    The least growth on a node is kept per request; asked again, only nodes that have changed since are computed. That
    is the same as computing all of them, since the growth on a node depends on nothing but this node and the mix.
    """

    def __init__(self, nodes: NodeCards, mix: Mix) -> None:
        self._nodes = nodes
        self._fragmentation = Fragmentation(nodes, mix)
        self._scarcity = Scarcity(nodes, mix)
        self._idle = nodes.gpu_milli.sum(axis=1)
        self._changes = 0
        self._changed_after = np.zeros(nodes.cpu_milli.size, dtype=np.int64)
        self._kept: OrderedDict[CardRequest, _Growth] = OrderedDict()

    def scores(self, request: CardRequest, rows: Ints) -> Floats:
        """A number for each of `rows`, nodes that can take the request; the lowest is the best place. In GPUs."""
        growth, idle_gpus = self._current(request, rows).growth[rows], self._idle[rows] / GPU_MILLI
        score: Floats
        if not request.gpus:
            idle_cpus = self._nodes.cpu_milli[rows] / 1_000
            score = growth + IDLE_GPU_FOR_CPU_WORK * idle_gpus + IDLE_CPU_FOR_CPU_WORK * idle_cpus
            return score
        gpus = request.gpus * request.gpu_milli / GPU_MILLI
        scarcity = self._scarcity.of_models(self._idle)[self._nodes.model[rows]]
        score = growth + IDLE_GPU * idle_gpus + SCARCITY * gpus * scarcity
        return score

    def cards(self, request: CardRequest, row: int) -> Ints:
        """The cards of this node to take, for the score that it was given."""
        cards: Ints = self._current(request, np.array([row])).cards[row].astype(np.int64)
        return cards

    def changed(self, rows: Ints) -> None:
        """The columns of these nodes have changed."""
        self._fragmentation.changed(rows)
        self._idle[rows] = self._nodes.gpu_milli[rows].sum(axis=1)
        self._changes += 1
        self._changed_after[rows] = self._changes

    def _current(self, request: CardRequest, rows: Ints) -> _Growth:
        kept = self._kept.get(request) or self._nothing_found(request)
        self._kept[request] = kept
        self._kept.move_to_end(request)
        if len(self._kept) > REQUESTS_KEPT:
            self._kept.popitem(last=False)
        stale = rows[kept.found_after[rows] < self._changed_after[rows]]
        if stale.size:
            self._find(kept, request, stale)
        return kept

    def _nothing_found(self, request: CardRequest) -> _Growth:
        nodes = self._idle.size
        return _Growth(
            growth=np.full(nodes, np.inf),
            cards=np.zeros((nodes, request.gpus), dtype=np.int8),
            found_after=np.full(nodes, -1, dtype=np.int64),
        )

    def _find(self, kept: _Growth, request: CardRequest, rows: Ints) -> None:
        options = self._fragmentation.options(request, rows)
        ranking = np.lexsort((options.growth, options.row))
        row = options.row[ranking]
        is_first = np.ones(row.size, dtype=np.bool_)
        is_first[1:] = row[1:] != row[:-1]
        best = ranking[is_first]
        kept.growth[rows] = np.inf
        kept.growth[options.row[best]] = options.growth[best]
        kept.cards[options.row[best]] = options.cards[best]
        kept.found_after[rows] = self._changes


class Scarcity:
    """How scarce the GPUs of each model are, for requests that can do with few models only.

    Such a request has a share of the demand, and its models have a share of what is idle. The scarcity of a model is the sum
    of demand over idle of all such requests that it would do for: 1 if half of the demand needs what half of the idle
    GPUs are. A pod that could go anywhere stays away from it.
    """

    def __init__(self, nodes: NodeCards, mix: Mix) -> None:
        self._model = nodes.model
        self._models = int(nodes.model.max(initial=0)) + 1
        requests = [request for request in mix.counts if request.gpus]
        demand = np.array([mix.counts[request] * request.gpus * request.gpu_milli for request in requests], dtype=float)
        will_do = allowed(requests, models=self._models)
        choosy = ~will_do.all(axis=0) & will_do.any(axis=0)
        self._will_do = will_do[:, choosy].astype(np.float64)
        self._demand = demand[choosy] / max(1.0, demand.sum())

    def of_models(self, idle: Ints) -> Floats:
        """[models], at most SCARCITY_MAX; 0 where nobody is choosy. `idle`: milli-GPUs on each node."""
        of_model = np.bincount(self._model, weights=idle, minlength=self._models)
        useful = self._will_do.T @ of_model
        scarcity: Floats = self._will_do @ (self._demand * of_model.sum() / np.maximum(1.0, useful))
        return np.minimum(scarcity, SCARCITY_MAX)
