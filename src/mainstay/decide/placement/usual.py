"""Least waste: whole GPUs are placed where those who usually ask for GPUs here lose least: the score of gpu_score.py, as a table.

    score = growth of F + a x idle GPUs + b x GPUs asked for x scarcity of the model + c x fullness      (in GPUs)

With whole GPUs, F of a node (fragmentation.py) depends on nothing but its model, its idle GPUs and its free CPUs, and of the CPUs
only on which of the usual requests there are enough for. So a cycle makes a table once, and a score is two look-ups.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.columns import Nodes, Usual
from mainstay.decide.kernel import CPU, FULLNESS, GPU_MILLI, GPUS, IDLE_GPU, SCARCITY
from mainstay.decide.placement.fragmentation import NodeCards, allowed, usual_rate
from mainstay.decide.placement.gpu_score import Scarcity
from mainstay.decide.placement.mix import Mix, mix_of
from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.snapshot import Snapshot

REQUESTS_MAX = 64
"""The most frequent requests are heeded: a table stays small, and with fewer pods that ask for the same it says little."""
NOBODY = Usual(
    cpus=np.zeros(0, dtype=np.int64),
    fitting=np.zeros((0, 0, 0)),
    pods=np.zeros(1),
    rate=np.zeros(2, dtype=np.int64),
    scarcity=np.zeros(0),
)
"""Nobody asks for whole GPUs, or they are not to be heeded."""


def usual_of(snapshot: Snapshot) -> Usual:
    """The table of those who wait and run now. O(n log n) in the workloads."""
    nodes = snapshot.nodes
    if not nodes.gpus.any():
        return NOBODY
    mix = mix_of(snapshot)
    mix = Mix(counts=dict(list(mix.counts.items())[:REQUESTS_MAX]))
    if not mix.counts:
        return NOBODY
    idle = np.maximum(0, nodes.gpus - nodes.used_gpus) * GPU_MILLI
    cards = NodeCards(gpu_milli=idle[:, np.newaxis], cpu_milli=nodes.cpu_milli, model=nodes.gpu_model)
    scarcity = np.zeros(len(snapshot.gpu_models))
    known = Scarcity(cards, mix).of_models(idle)
    scarcity[: known.size] = known
    return table_of(mix, models=scarcity.size, gpus_max=int(nodes.gpus.max()), scarcity=scarcity)


def table_of(mix: Mix, *, models: int, gpus_max: int, scarcity: Floats) -> Usual:
    """The table of a mix of whole GPUs, for nodes of up to so many."""
    requests = list(mix.counts)
    cpus = np.unique([request.cpu_milli for request in requests])
    will_do = allowed(requests, models=models)
    fitting = np.zeros((models, gpus_max + 1, cpus.size + 1))
    for number, request in enumerate(requests):
        enough = int(np.searchsorted(cpus, request.cpu_milli)) + 1
        fitting[will_do[:, number], request.gpus :, enough:] += mix.counts[request]
    return Usual(
        cpus=cpus,
        fitting=fitting,
        pods=np.array([float(mix.total)]),
        rate=np.array(usual_rate(mix), dtype=np.int64),
        scarcity=scarcity,
    )


def scores(nodes: Nodes, rows: Ints, *, gpus: int, cpu_milli: int) -> Floats:
    """A number for each of `rows`, which have room for a pod with so many GPUs and CPUs; the lowest is the best place."""
    usual, model = nodes.usual, nodes.gpu_model[rows]
    idle, cpus = nodes.free[GPUS, rows], nodes.free[CPU, rows]
    growth = (wasted(usual, model, idle - gpus, cpus - cpu_milli) - nodes.wasted[rows]) / (GPU_MILLI * usual.pods[0])
    scarce = SCARCITY * gpus * usual.scarcity[model]
    score: Floats = growth + IDLE_GPU * idle + scarce + FULLNESS * nodes.left[rows]
    return score


def wasted(usual: Usual, model: Ints, gpus: Ints, cpu_milli: Ints) -> Floats:
    """F of nodes with so many idle GPUs and CPUs: thousandths of GPUs, summed over those who usually ask."""
    reached = np.searchsorted(usual.cpus, cpu_milli, side="right")
    idle, (cpu_share, gpu_share) = GPU_MILLI * gpus, usual.rate.tolist()
    beyond = np.maximum(0, idle - cpu_milli * gpu_share // cpu_share) if cpu_share else np.zeros_like(idle)
    fitting = usual.fitting[model, np.minimum(gpus, usual.fitting.shape[1] - 1), reached]
    found: Floats = fitting * beyond + (usual.pods[0] - fitting) * idle
    return found
