"""A service: a pod that answers on a port until it is stopped."""

from __future__ import annotations

from dataclasses import replace

from mainstay.decide.kinds import job
from mainstay.domain.allocation import Allocation, PodSpec
from mainstay.domain.workload import WorkloadSpec


def pod_spec(allocation: Allocation, spec: WorkloadSpec) -> PodSpec:
    """The pod of one rank of a service: as a job's, and it always has a port."""
    return replace(job.pod_spec(allocation, spec), port=True)
