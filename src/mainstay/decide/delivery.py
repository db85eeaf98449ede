"""The next step of each endpoint: switch to a candidate that is healthy, drop one that is not, follow an address."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mainstay.domain.allocation import Seen
from mainstay.domain.plan import Action, DropCandidate, MoveEndpoint, RowVersion, SwitchEndpoint
from mainstay.domain.reason import Code, Reason
from mainstay.domain.registry import Endpoint
from mainstay.domain.snapshot import Snapshot

FAILURES_MAX = 3
"""So many attempts of a candidate may fail before it was ever ready; then the deployment has failed."""


def deliver(snapshot: Snapshot) -> tuple[Action, ...]:
    """At most one step per endpoint and cycle, by tenant and name."""
    endpoints = sorted(snapshot.endpoints, key=lambda endpoint: (endpoint.tenant, endpoint.name))
    return tuple(step for endpoint in endpoints if not endpoint.removed for step in _step(snapshot, endpoint))


def _step(snapshot: Snapshot, endpoint: Endpoint) -> Iterator[Action]:
    candidate = _candidate_step(snapshot, endpoint) if endpoint.candidate_key else None
    step = candidate or _follow(snapshot, endpoint)
    if step:
        yield step


def _candidate_step(snapshot: Snapshot, endpoint: Endpoint) -> Action | None:
    workload = _workload_row(snapshot, endpoint.candidate_key)
    if workload is None:
        return _drop(endpoint, detail="its workload has ended")
    if snapshot.workloads.stop_requested[workload]:
        return _drop(endpoint, detail="it was stopped")
    ready = _ready_row(snapshot, endpoint.candidate_key)
    if ready is not None:
        key, version = int(snapshot.allocations.key[ready]), int(snapshot.allocations.version[ready])
        return SwitchEndpoint(
            guards=(_unchanged(endpoint), RowVersion(kind="allocation", key=key, version=version)),
            reason=Reason(
                code=Code.ENDPOINT_SWITCHED,
                object=endpoint.name,
                numbers={"endpoint": endpoint.name, "version": endpoint.candidate_version},
            ),
            tenant=endpoint.tenant,
            endpoint=endpoint.name,
        )
    table = snapshot.workloads
    failures = int(table.infrastructure_failures[workload] + table.user_failures[workload])
    return _drop(endpoint, detail=f"{failures} attempts failed") if failures >= FAILURES_MAX else None


def _follow(snapshot: Snapshot, endpoint: Endpoint) -> MoveEndpoint | None:
    """Keep the address that of the pod which serves. One that blinks keeps it; nobody serves at an empty one."""
    address = _serving_address(snapshot, endpoint)
    if address == endpoint.address:
        return None
    return MoveEndpoint(
        guards=(_unchanged(endpoint),),
        reason=Reason(
            code=Code.POD_RUNNING if address else Code.POD_STARTING,
            object=endpoint.name,
            numbers={"address": address, "before": endpoint.address},
        ),
        tenant=endpoint.tenant,
        endpoint=endpoint.name,
        address=address,
    )


def _serving_address(snapshot: Snapshot, endpoint: Endpoint) -> str:
    if not endpoint.serving_key:
        return ""
    for row in _live_rows(snapshot, endpoint.serving_key):
        address = snapshot.addresses.get(int(snapshot.allocations.key[row]), "")
        if address and address == endpoint.address:
            return address
    ready = _ready_row(snapshot, endpoint.serving_key)
    return "" if ready is None else snapshot.addresses.get(int(snapshot.allocations.key[ready]), "")


def _ready_row(snapshot: Snapshot, workload_key: int) -> int | None:
    """The allocation that answers for a workload: running, ready and wanted; rank 0 before others."""
    table = snapshot.allocations
    rows = [
        row
        for row in _live_rows(snapshot, workload_key)
        if table.seen[row] == Seen.RUNNING and table.ready[row] and not table.stop[row]
    ]
    return min(rows, key=lambda row: int(table.rank[row]), default=None)


def _live_rows(snapshot: Snapshot, workload_key: int) -> list[int]:
    table = snapshot.allocations
    rows: list[int] = np.flatnonzero((table.workload_key == workload_key) & (table.seen != Seen.ENDED)).tolist()
    return rows


def _workload_row(snapshot: Snapshot, workload_key: int) -> int | None:
    row = int(np.searchsorted(snapshot.workloads.key, workload_key))
    found = row < snapshot.workloads.key.size and snapshot.workloads.key[row] == workload_key
    return row if found else None


def _drop(endpoint: Endpoint, *, detail: str) -> DropCandidate:
    return DropCandidate(
        guards=(_unchanged(endpoint),),
        reason=Reason(
            code=Code.DEPLOY_FAILED,
            object=endpoint.name,
            numbers={"endpoint": endpoint.name, "version": endpoint.candidate_version, "detail": detail},
        ),
        tenant=endpoint.tenant,
        endpoint=endpoint.name,
    )


def _unchanged(endpoint: Endpoint) -> RowVersion:
    return RowVersion(kind="endpoint", key=endpoint.name, tenant=endpoint.tenant, version=endpoint.version)
