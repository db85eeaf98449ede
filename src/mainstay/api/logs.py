"""Logs: printable text of a pod's output, in pieces or as a stream that goes on where it broke."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response

from mainstay.api.buckets import Buckets
from mainstay.api.limits import LOG_BYTES_DEFAULT, LOG_BYTES_MAX, LOG_BYTES_PER_SECOND
from mainstay.api.routes import Call, Caller, Routes, json_response
from mainstay.api.standing import until_refused
from mainstay.api.streams import HEARTBEAT, HEARTBEAT_SECONDS, MEDIA_TYPE, EventStream, frame, resume_after
from mainstay.domain import logtext
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation, Seen
from mainstay.domain.errors import Invalid, NotFound, NotYet, TooFast, Unavailable
from mainstay.domain.masking import Masks
from mainstay.domain.workload import Workload
from mainstay.operations.enter import require_rank
from mainstay.operations.principal import workload_for
from mainstay.operations.redaction import masked_log, masks_of
from mainstay.operations.services import Services
from mainstay.wire.views import LogEnd, LogView

routes = Routes("logs")
POLL_SECONDS = 0.02
POLL_SECONDS_MAX = 0.05
"""A quiet log is looked at less and less often; a line is never later than this."""
LOOK_SECONDS = 1.0
"""A pod that ended without ever having a log is noticed at least so soon."""
WAIT_SECONDS = 0.05
"""While there is no pod: the pulse of a commit wakes us earlier."""

Rank = Annotated[int, Query(ge=0, lt=1_000, description="Which of the nodes of the workload.")]
AttemptNumber = Annotated[int, Query(ge=0, lt=1 << 31, description="0: the newest that has a pod.")]
Offset = Annotated[
    int,
    Query(
        ge=0, lt=1 << 62, description="Bytes of this attempt to skip; `attempt` and `next_offset` of the piece before."
    ),
]
Limit = Annotated[int, Query(ge=1, le=LOG_BYTES_MAX, description="At most so many bytes of the log.")]


@routes.add("GET", "/v1/workloads/{ref}/logs", needs=Permission.READ, answers=LogView, of_projects=True)
async def read_log(
    call: Caller,
    request: Request,
    ref: str,
    rank: Rank = 0,
    attempt: AttemptNumber = 0,
    offset: Offset = 0,
    limit: Limit = LOG_BYTES_DEFAULT,
) -> Response:
    """A piece of a log. With `Accept: text/event-stream` it is followed, as under `/logs/stream`."""
    if MEDIA_TYPE in request.headers.get("accept", ""):
        return await stream_log(call, request, ref, rank=rank, attempt=attempt, offset=offset)
    _require_attempt(attempt, offset)
    place = await _place(call, ref, rank=rank, attempt=attempt)
    if place.allocation is None:
        view = LogView(
            pod="", rank=rank, attempt=place.attempt, text="", next_offset=offset, ended=place.workload.phase.final
        )
    else:
        view = await _paced_piece(call, request, place, offset=offset, limit=limit)
    return json_response(view.model_dump_json())


@routes.add("GET", "/v1/workloads/{ref}/logs/stream", needs=Permission.READ, media_type=MEDIA_TYPE, of_projects=True)
async def stream_log(
    call: Caller, request: Request, ref: str, rank: Rank = 0, attempt: AttemptNumber = 0, offset: Offset = 0
) -> Response:
    """Follow the log of one attempt as server-sent events: `event: log` with a LogView, then `event: end` with a
    LogEnd, which says whether another attempt follows. `id` = ATTEMPT:OFFSET. Waits while the pod has not started.
    """
    attempt, offset = resume_after(request, given=(attempt, offset))
    _require_attempt(attempt, offset)
    place = await _place(call, ref, rank=rank, attempt=attempt)
    frames = _frames(call, place, request.app.state.log_bytes, rank=rank, offset=offset)
    return EventStream(
        frames,
        streams=request.app.state.streams,
        tenant=call.principal.tenant,
        until=partial(until_refused, call, Permission.READ, place.workload.project),
    )


def _require_attempt(attempt: int, offset: int) -> None:
    """Raises Invalid for bytes of nobody: the newest attempt may be another by now, with a log of its own."""
    if offset and not attempt:
        msg = "an offset without the attempt that it belongs to"
        raise Invalid(msg, object_="offset", hint="give `attempt` as well: it stands beside `next_offset`")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Whose log it is. `allocation` is None while the attempt has no pod (yet)."""

    workload: Workload
    attempt: int
    allocation: Allocation | None


async def _masks(services: Services, place: _Place) -> Masks:
    assert place.allocation is not None
    return await services.offload(masks_of, services.store, services.sealing, place.workload, place.allocation)


async def piece(
    services: Services, allocation: Allocation, *, offset: int, limit: int, masks: Masks | None = None
) -> LogView:
    """Printable text from an offset, never ending inside a character or an escape sequence, nor showing a secret of the run.

    A pod that has ended without a log (it never started) has an empty one that has ended.
    """
    cluster = services.clusters.get(allocation.cluster)
    if cluster is None:
        msg = f"the log lies in cluster {allocation.cluster}, which this replica does not reach"
        raise Unavailable(msg, object_=allocation.pod, hint="ask the replica that runs in that cluster")
    try:
        if masks and masks.patterns:
            chunk = await masked_log(cluster, allocation.pod, masks, offset=offset, limit=limit)
        else:
            chunk = await cluster.read_log(allocation.pod, offset=offset, limit=limit)
    except (NotFound, NotYet):
        return LogView(
            pod=allocation.pod,
            rank=allocation.rank,
            attempt=allocation.attempt,
            text="",
            next_offset=offset,
            ended=allocation.seen is Seen.ENDED,
        )
    whole = len(chunk.data) if chunk.ended else logtext.complete(chunk.data)
    return LogView(
        pod=allocation.pod,
        rank=allocation.rank,
        attempt=allocation.attempt,
        text=logtext.printable(chunk.data[:whole]),
        next_offset=chunk.next_offset - (len(chunk.data) - whole),
        dropped=chunk.dropped,
        ended=chunk.ended,
    )


async def _paced_piece(call: Call, request: Request, place: _Place, *, offset: int, limit: int) -> LogView:
    """Raises TooFast where its tenant has just read more than it may."""
    bytes_read: Buckets = request.app.state.log_bytes
    clock, tenant = call.services.clock, call.principal.tenant
    if seconds := bytes_read.wait(tenant, now=clock.monotonic()):
        msg = f"more than {LOG_BYTES_PER_SECOND >> 20} MiB of logs a second of {tenant}"
        numbers = {"bytes_per_second_max": LOG_BYTES_PER_SECOND, "retry_after_seconds": math.ceil(seconds)}
        raise TooFast(msg, object_=tenant, hint="come back in a moment, or follow it as a stream", numbers=numbers)
    assert place.allocation is not None
    masks = await _masks(call.services, place)
    view = await piece(call.services, place.allocation, offset=offset, limit=limit, masks=masks)
    bytes_read.spend(tenant, len(view.text), now=clock.monotonic())
    return view


async def _next_piece(
    services: Services, place: _Place, *, offset: int, masks: Masks | None
) -> tuple[LogView, Masks | None]:
    """An empty one while whoever reaches its cluster is away: what it has said meanwhile comes once somebody is back.

    `masks`: None until the pod has said anything. What it was handed is on record by then, and whoever follows its log may have
    waited for it since before it started.
    """
    allocation = place.allocation
    assert allocation is not None
    try:
        view = await piece(services, allocation, offset=offset, limit=LOG_BYTES_DEFAULT, masks=masks)
        if view.text and masks is None:
            masks = await _masks(services, place)
            view = await piece(services, allocation, offset=offset, limit=LOG_BYTES_DEFAULT, masks=masks)
    except Unavailable:
        view = LogView(
            pod=allocation.pod,
            rank=allocation.rank,
            attempt=allocation.attempt,
            text="",
            next_offset=offset,
            ended=False,
        )
    return view, masks


async def _frames(call: Call, place: _Place, bytes_read: Buckets, *, rank: int, offset: int) -> AsyncIterator[bytes]:
    services, clock, tenant = call.services, call.services.clock, call.principal.tenant
    silent_since = looked_up = clock.monotonic()
    pause, whole = POLL_SECONDS, False
    masks: Masks | None = None
    with services.pulse.listener() as listener:
        while True:
            if place.allocation is None or whole:
                # The end of a pod is not the end of its run: whether another attempt follows is decided after it.
                if place.workload.phase.final or place.workload.attempt > place.attempt:
                    break
                await listener.wait(WAIT_SECONDS)
                place = await _again(call, place, rank=rank)
            else:
                if seconds := bytes_read.wait(tenant, now=clock.monotonic()):
                    await clock.sleep(seconds)
                    continue
                view, masks = await _next_piece(services, place, offset=offset, masks=masks)
                bytes_read.spend(tenant, len(view.text), now=clock.monotonic())
                if view.text or view.dropped or view.next_offset > offset:
                    offset, silent_since, pause = view.next_offset, clock.monotonic(), POLL_SECONDS
                    yield frame("log", view.model_dump_json(), id_=f"{place.attempt}:{offset}")
                    if not view.ended:
                        continue
                if view.ended:
                    whole, place = True, await _again(call, place, rank=rank)
                    continue
                await clock.sleep(pause)
                pause = min(pause * 1.1, POLL_SECONDS_MAX)
                if clock.monotonic() - looked_up >= LOOK_SECONDS:
                    looked_up, place = clock.monotonic(), await _again(call, place, rank=rank)
            if clock.monotonic() - silent_since >= HEARTBEAT_SECONDS:
                silent_since = clock.monotonic()
                yield HEARTBEAT
    end = await _end(call, place, rank=rank)
    yield frame("end", end.model_dump_json(), id_=f"{place.attempt}:{offset}")


async def _end(call: Call, place: _Place, *, rank: int) -> LogEnd:
    workload = (await _again(call, place, rank=rank)).workload
    return LogEnd(
        workload=workload.id,
        rank=rank,
        attempt=place.attempt,
        next_attempt=place.attempt + 1 if workload.attempt > place.attempt else 0,
        phase=workload.phase.word,
    )


async def _place(call: Call, reference: str, *, rank: int, attempt: int) -> _Place:
    """Raises NotFound for a workload, rank or attempt that is none, Invalid for a guest."""
    services = call.services

    def read() -> tuple[Workload, tuple[Allocation, ...]]:
        workload = workload_for(services.store, call.principal, reference, Permission.READ)
        return workload, services.store.allocations(workload.key)

    workload, allocations = await services.offload(read)
    if workload.spec.guests:
        pod = workload.spec.guests[min(rank, workload.spec.nodes - 1)]
        msg = f"the output of {workload.id} is not kept by mainstay: others made its pod"
        raise Invalid(msg, object_=workload.id, hint=f"kubectl logs -n {pod.namespace} {pod.name}")
    require_rank(workload, allocations, rank)
    if attempt > workload.attempt:
        msg = f"workload {workload.id} is at attempt {workload.attempt}; there is no attempt {attempt}"
        raise NotFound(msg, object_=workload.id)
    of_rank = [allocation for allocation in allocations if allocation.rank == rank]
    wanted = attempt or max((allocation.attempt for allocation in of_rank), default=workload.attempt)
    found = next((allocation for allocation in of_rank if allocation.attempt == wanted), None)
    return _Place(workload=workload, attempt=wanted, allocation=found)


async def _again(call: Call, place: _Place, *, rank: int) -> _Place:
    return await _place(call, place.workload.id, rank=rank, attempt=place.attempt)
