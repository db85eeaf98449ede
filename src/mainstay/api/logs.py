"""Logs of pods: printable text by global byte offset, as a chunk or as a stream that resumes where it broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from mainstay.api.auth import All, Reader
from mainstay.api.streams import HEARTBEAT, HEARTBEAT_SECONDS, Stream, event_stream
from mainstay.domain.allocation import Allocation
from mainstay.domain.errors import NotFound
from mainstay.domain.logtext import complete_bytes, printable
from mainstay.domain.workload import Workload
from mainstay.operations.services import Services
from mainstay.wire.views import LogView

router = APIRouter(prefix="/v1", tags=["logs"])

CHUNK_BYTES = 256 * 1024
POLL_SECONDS = 0.03
"""Output of a running pod is looked for so often: what a person does not notice."""

Offset = Annotated[int, Query(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The pod whose log is meant; no pod yet if the workload still waits."""

    workload: Workload
    pod: Allocation | None


@router.get("/workloads/{reference}/logs")
async def get_logs(
    reference: str,
    principal: Reader,
    services: All,
    *,
    rank: Annotated[int, Query(ge=0)] = 0,
    attempt: Annotated[int, Query(ge=0)] = 0,
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=CHUNK_BYTES)] = CHUNK_BYTES,
) -> LogView:
    """Text from an offset on. `attempt` 0: the latest. Empty while the pod has not started."""
    source = await _source(services, reference, tenant=principal.tenant, rank=rank, attempt=attempt)
    return await _view(services, source, rank=rank, offset=offset, limit=limit)


@router.get("/workloads/{reference}/logs/stream", response_class=StreamingResponse)
async def stream_logs(
    reference: str,
    principal: Reader,
    services: All,
    stream: Stream,
    *,
    rank: Annotated[int, Query(ge=0)] = 0,
    attempt: Annotated[int, Query(ge=0)] = 0,
    offset: Offset = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """Server-sent events `log` (a LogView; its id is `ATTEMPT:OFFSET`), then `end`. Follows one attempt to its end.

    Give the last id back as Last-Event-ID to go on after it.
    """
    first = await _source(services, reference, tenant=principal.tenant, rank=rank, attempt=attempt)
    resumed_attempt, resumed_offset = _resumed(last_event_id)
    text = _follow(
        services,
        first.workload.id,
        tenant=principal.tenant,
        rank=rank,
        attempt=resumed_attempt or attempt or first.workload.attempt,
        offset=resumed_offset if resumed_attempt else offset,
    )
    return event_stream(text, stream)


async def _follow(
    services: Services, workload: str, *, tenant: str, rank: int, attempt: int, offset: int
) -> AsyncIterator[str]:
    quiet = 0.0
    with services.pulse.listener() as listener:
        while True:
            source = await _source(services, workload, tenant=tenant, rank=rank, attempt=attempt)
            view = await _view(services, source, rank=rank, offset=offset, limit=CHUNK_BYTES)
            if view.text or view.dropped:
                quiet = 0.0
                offset = view.next_offset
                yield f"event: log\nid: {attempt}:{offset}\ndata: {view.model_dump_json()}\n\n"
            elif view.ended or _over(source, attempt):
                yield f"event: end\ndata: {view.model_dump_json()}\n\n"
                return
            elif source.pod is None or not source.pod.started_at:
                # Nothing to read yet: whatever starts it is a commit, and commits beat.
                await listener.wait(1.0)
                quiet += 1.0
            else:
                await asyncio.sleep(POLL_SECONDS)
                quiet += POLL_SECONDS
            if quiet >= HEARTBEAT_SECONDS:
                quiet = 0.0
                yield HEARTBEAT


async def _source(services: Services, reference: str, *, tenant: str, rank: int, attempt: int) -> Source:
    workload = await services.offload(services.store.workload, reference, tenant=tenant)
    if rank >= workload.spec.nodes:
        msg = f"{workload.id} has no rank {rank}: it has {workload.spec.nodes} nodes"
        raise NotFound(msg, object_=workload.id)
    wanted = attempt or workload.attempt
    pods = await services.offload(services.store.allocations, workload.key)
    pod = next((row for row in pods if row.attempt == wanted and row.rank == rank), None)
    return Source(workload=workload, pod=pod)


async def _view(services: Services, source: Source, *, rank: int, offset: int, limit: int) -> LogView:
    pod = source.pod
    cluster = services.clusters.get(pod.cluster) if pod else None
    if pod is None or cluster is None:
        return _empty(source, rank=rank, offset=offset)
    try:
        chunk = await cluster.read_log(pod.pod, offset=offset, limit=limit)
    except NotFound:
        return _empty(source, rank=rank, offset=offset)
    data = chunk.data if chunk.ended else complete_bytes(chunk.data, whole_at=limit)
    taken = chunk.next_offset - (len(chunk.data) - len(data))
    return LogView(
        pod=pod.pod,
        rank=rank,
        attempt=pod.attempt,
        text=printable(data),
        next_offset=taken,
        dropped=chunk.dropped,
        ended=chunk.ended and taken == chunk.next_offset and not data,
    )


def _empty(source: Source, *, rank: int, offset: int) -> LogView:
    pod = source.pod
    return LogView(
        pod=pod.pod if pod else "",
        rank=rank,
        attempt=pod.attempt if pod else source.workload.attempt,
        text="",
        next_offset=offset,
        ended=source.workload.phase.final,
    )


def _over(source: Source, attempt: int) -> bool:
    """The attempt has no pod and will have none."""
    return source.pod is None and (source.workload.phase.final or source.workload.attempt > attempt)


def _resumed(last_event_id: str) -> tuple[int, int]:
    attempt, _, offset = last_event_id.partition(":")
    if attempt.isdecimal() and offset.isdecimal() and len(last_event_id) < 30:
        return int(attempt), int(offset)
    return 0, 0
