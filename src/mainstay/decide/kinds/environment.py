"""The environment that tells every rank who it is, by our names and by torchrun's.

Source of the names: interface.md 2.6 (7) and the list of variables in PyTorch's torchrun reference. The addresses
(`MASTER_ADDR`, `MASTER_PORT`, `MAINSTAY_NODE_IPS`) are known only to the cluster, which adds them.
"""

from __future__ import annotations

from mainstay.domain.allocation import Allocation
from mainstay.domain.workload import WorkloadSpec


def environment(allocation: Allocation, spec: WorkloadSpec) -> tuple[tuple[str, str], ...]:
    """The user's variables and ours, by name. Ours win: a rank must not be told that it is another one."""
    rank, size = str(allocation.rank), str(spec.nodes)
    ours = {
        "MAINSTAY_RUN": allocation.workload,
        "MAINSTAY_ATTEMPT": str(allocation.attempt),
        "MAINSTAY_NODE_RANK": rank,
        "MAINSTAY_NUM_NODES": size,
        "MAINSTAY_GPUS_PER_NODE": str(allocation.resources.gpus),
        "RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "NODE_RANK": rank,
        "GROUP_RANK": rank,
    }
    return tuple(sorted({**dict(spec.env), **ours}.items()))
