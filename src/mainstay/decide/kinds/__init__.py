"""The kinds of workload: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mainstay.decide.kinds import job, service
from mainstay.domain.allocation import Allocation, PodSpec
from mainstay.domain.workload import Kind, WorkloadSpec

KINDS: Mapping[Kind, Callable[[Allocation, WorkloadSpec], PodSpec]] = MappingProxyType(
    {
        Kind.JOB: job.pod_spec,
        Kind.SERVICE: service.pod_spec,
    }
)
"""How each kind makes the pod of an allocation; that of a guest is there already. Their order is that of `Kind`."""


def pod_spec(allocation: Allocation, spec: WorkloadSpec) -> PodSpec:
    """The pod of an allocation, by the kind of its workload."""
    return KINDS[spec.kind](allocation, spec)
