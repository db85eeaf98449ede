"""The mix: what is usually asked for, by the requests of the workloads that wait and run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

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
    """The mix of all pods that wait or run; a model has its number in `Snapshot.gpu_models`.

    Who asks for slices of GPUs counts as asking for none: whole ones are of no use to it. O(n log n) in the workloads.
    """
    table = snapshot.workloads
    slices = [number for number, model in enumerate(snapshot.gpu_models) if is_shape(model)]
    gpus = np.where(np.isin(table.gpu_model, slices), 0, table.gpus)
    model = np.where(gpus > 0, table.gpu_model, 0)
    asked, group = np.unique(np.stack((table.cpu_milli, gpus, model)), axis=1, return_inverse=True)
    pods = np.bincount(group, weights=table.nodes, minlength=asked.shape[1])
    return usual(
        {
            CardRequest(
                cpu_milli=cpu, gpus=cards, gpu_milli=GPU_MILLI if cards else 0, models=(only,) if only else ()
            ): int(count)
            for cpu, cards, only, count in zip(*asked.tolist(), pods.tolist(), strict=True)
        }
    )
