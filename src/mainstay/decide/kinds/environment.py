"""The environment that tells every rank who it is, by our names and by torchrun's.

Source of the names: interface.md 2.6 (7) and the list of variables in PyTorch's torchrun reference. The addresses
(`MASTER_ADDR`, `MASTER_PORT`, `MAINSTAY_NODE_IPS`) are known only to the cluster, which adds them.
"""

from __future__ import annotations

from mainstay.domain.allocation import Allocation
from mainstay.domain.workload import OnPartition, WorkloadSpec


def environment(allocation: Allocation, spec: WorkloadSpec) -> tuple[tuple[str, str], ...]:
    """The user's variables and ours, by name. Ours win: a rank must not be told that it is another one.

    Except for what only lets libraries do well by default: numbers of threads, and how torchrun meets anew.
    """
    rank, size = str(allocation.rank), str(allocation.ranks)
    ours = {
        "MAINSTAY_RUN": allocation.workload,
        "MAINSTAY_ATTEMPT": str(allocation.attempt),
        "MAINSTAY_NODE_RANK": rank,
        "MAINSTAY_NUM_NODES": size,
        "MAINSTAY_NNODES": f"{spec.nodes_min}:{spec.nodes_max}" if spec.elastic else size,
        "MAINSTAY_GPUS_PER_NODE": str(allocation.resources.gpus),
        "RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "NODE_RANK": rank,
        "GROUP_RANK": rank,
    }
    return tuple(
        sorted({**_threads(spec), **_meeting(spec), **dict(spec.env), **ours, **_set(allocation, spec)}.items())
    )


def _set(allocation: Allocation, spec: WorkloadSpec) -> dict[str, str]:
    """Of one of several pod sets: which, which number it has in it, and how many that has."""
    found = spec.place_in_set(allocation.rank)
    if found is None:
        return {}
    one, number = found
    return {
        "MAINSTAY_SET": one.name,
        "MAINSTAY_SET_RANK": str(number),
        "MAINSTAY_SET_NODES": str(one.nodes),
        "MAINSTAY_SETS": ",".join(f"{each.name}:{each.nodes}" for each in spec.sets),
    }


def _threads(spec: WorkloadSpec) -> dict[str, str]:
    """As many threads as cores may be used. Numeric libraries start one per core of the machine and let them spin:
    measured on 2 busy cores, a training run limited to one core took 30 s instead of 3.
    """
    if not spec.cpu_limit_milli:
        return {}
    threads = str(-(-spec.cpu_limit_milli // 1_000))
    return {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def _meeting(spec: WorkloadSpec) -> dict[str, str]:
    """Ranks of torchrun share one store by default, from PyTorch 2.4 on. A rank that joins later waits in it for an address that
    nobody writes again, for 60 seconds, and then all fail. Source: its next_rendezvous, issue 135712; seen with 2.15.
    """
    return {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if spec.elastic else {}


def dead_man_seconds(spec: WorkloadSpec) -> int:
    """After so long without being renewed a pod ends itself; 0: it never does."""
    return spec.partition_seconds if spec.on_partition is OnPartition.REQUEUE_AFTER else 0
