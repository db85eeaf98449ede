"""The mix: what is usually asked for, by the requests of the workloads that wait and run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mainstay.decide.rows import rows_of_sets
from mainstay.domain.quantity import is_shape
from mainstay.domain.snapshot import Snapshot

GPU_MILLI = 1_000
"""Milli-GPUs of one card."""
COVERED = 0.95
"""Share of all requests that the mix covers, the most frequent first (as published): rare ones cost time, not quality."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CardRequest:
    """What one pod asks of the CPUs and cards of a node."""

    cpu_milli: int
    gpus: int = 0
    """Cards; 0: the pod needs none."""
    gpu_milli: int = 0
    """Of each of the cards, 1 to 1,000."""
    models: tuple[int, ...] = ()
    """The only models of GPUs that will do, ascending; empty: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The usual requests, and how many pods make each of them."""

    counts: Mapping[CardRequest, int]

    @property
    def total(self) -> int:
        """Over all requests."""
        return sum(self.counts.values())


def usual(counts: Mapping[CardRequest, int], *, covered: float = COVERED) -> Mix:
    """The most frequent requests, as few as make up this share of all. Of equal ones the smaller go first."""
    ranking = sorted(counts, key=lambda request: (-counts[request], request))
    wanted, chosen = covered * sum(counts.values()), dict[CardRequest, int]()
    for request in ranking:
        if sum(chosen.values()) >= wanted:
            break
        chosen[request] = counts[request]
    return Mix(counts=chosen)


def mix_of(snapshot: Snapshot) -> Mix:
    """The mix of all pods that wait or run with whole GPUs; a model has its number in `Snapshot.gpu_models`.

    O(n log n) in the workloads.
    """
    table = snapshot.workloads
    slices = np.array([is_shape(model) for model in snapshot.gpu_models], dtype=np.bool_)
    rows = np.flatnonzero((table.gpus > 0) & ~slices[table.gpu_model])
    rows = np.delete(rows, rows_of_sets(table, rows))
    parts = [key for key, choices in table.choices.items() if choices[0].gpu_part_permille]
    rows = rows[~np.isin(table.key[rows], parts)] if parts else rows
    _, cpu = np.unique(table.cpu_milli[rows], return_inverse=True)
    gpus, card = np.unique(table.gpus[rows], return_inverse=True)
    alike = (cpu * gpus.size + card) * len(snapshot.gpu_models) + table.gpu_model[rows]
    _, first, group = np.unique(alike, return_index=True, return_inverse=True)
    pods = np.bincount(group, weights=table.nodes[rows], minlength=first.size)
    counts = Counter[CardRequest]()
    for row, count in zip(rows[first].tolist(), pods.tolist(), strict=True):
        counts[_request(table.cpu_milli[row], table.gpus[row], table.gpu_model[row])] += int(count)
    numbers = {model: number for number, model in enumerate(snapshot.gpu_models)}
    for sets in table.sets.values():
        for one in sets:
            asked = one.resources
            whole = asked.gpus and not (asked.gpu_part_permille or is_shape(asked.gpu_model))
            if whole and asked.gpu_model in numbers:
                counts[_request(asked.cpu_milli, asked.gpus, numbers[asked.gpu_model])] += one.nodes
    return usual(counts)


def _request(cpu_milli: int, gpus: int, model: int) -> CardRequest:
    models = (int(model),) if model else ()
    return CardRequest(cpu_milli=int(cpu_milli), gpus=int(gpus), gpu_milli=GPU_MILLI, models=models)
