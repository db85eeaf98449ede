"""The most that a run may hold and cost, whatever becomes of it: what it takes of the caps of a token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mainstay.decide import billing
from mainstay.domain.billing import Price
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import WorkloadSpec


def gpus(spec: WorkloadSpec) -> int:
    """In whichever choice and size; devices that are claimed by their class count as GPUs, since they may be some."""
    claimed = sum(int(count) for _, colon, count in (device.partition(":") for device in spec.devices) if colon)
    most = max(sum(nodes * each.gpus for nodes, each in pods) for pods in _ways(spec))
    return most + claimed * max(spec.nodes, spec.nodes_max)


def seconds(spec: WorkloadSpec) -> int:
    """Of one attempt: its time limit, and what a pod then has for its last words. 0: it has no end."""
    return spec.max_duration_seconds + spec.stop_grace_seconds if spec.max_duration_seconds else 0


def attempts(spec: WorkloadSpec) -> int:
    """The first one, and one after each failure that it survives."""
    return 1 + spec.retry.infrastructure_max + spec.retry.user_max


def cost_micros(spec: WorkloadSpec, *, now: int, prices: Sequence[Price]) -> int:
    """Of all its attempts, at the dearest prices that the book has from `now` on (UTC microseconds)."""
    limit = seconds(spec)
    one = max(
        sum(nodes * billing.cost_at_most(each, seconds=limit, now=now, prices=prices) for nodes, each in pods)
        for pods in _ways(spec)
    )
    return attempts(spec) * one


def _ways(spec: WorkloadSpec) -> Iterator[tuple[tuple[int, Resources], ...]]:
    """Each way in which it may run, in its largest size: so many pods, and what each of them holds."""
    if spec.sets:
        yield tuple((one.nodes, one.resources) for one in spec.sets)
        return
    for choice in spec.choices:
        yield ((max(spec.nodes, spec.nodes_max), choice),)
