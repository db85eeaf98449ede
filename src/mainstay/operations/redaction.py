"""What a reader of a log is not shown: the values of secrets that its pod was handed, and those of now.

Clusters mask where it is written, by the same record (`ports.Secrets.handed`). This covers every cluster at the last step, also
one that is far away and older than we are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import structlog

from mainstay.domain.allocation import Allocation
from mainstay.domain.capacity import LogChunk
from mainstay.domain.errors import Denied
from mainstay.domain.masking import Masks, patterns_of
from mainstay.domain.secret import Sealed
from mainstay.domain.workload import Workload
from mainstay.operations.sealing import Sealing
from mainstay.ports import Cluster, Store

log = structlog.get_logger()


def masks_of(store: Store, sealing: Sealing, workload: Workload, allocation: Allocation) -> Masks:
    """Of what a run was handed, as its log is read."""
    names = dict.fromkeys(use.name for use in workload.spec.secrets)
    sealed = {one.place: one for one in store.sealed_secrets(names, tenant=workload.tenant).values()}
    sealed |= {one.place: one for one in store.handed_secrets(allocation.key)}
    return Masks(patterns_of(opened(sealing, sealed.values(), pod=allocation.pod)))


def opened(sealing: Sealing, sealed: Iterable[Sealed], *, pod: str) -> tuple[bytes, ...]:
    """The values that are to be masked. What no key here opens cannot be."""
    values = []
    for one in sealed:
        try:
            values.append(sealing.opened_secret(one.tenant, one.name, one.text))
        except Denied as error:
            log.warning("not_masked", pod=pod, secret=one.name, reason=error.message)
    return tuple(values)


async def masked_log(cluster: Cluster, pod: str, masks: Masks, *, offset: int, limit: int) -> LogChunk:
    """As `Cluster.read_log`. A value that begins before the piece or ends behind it is masked too: so much more is read.

    What may be the beginning of a value waits until more of the log is there.
    """
    begin = max(0, offset - masks.longest + 1)
    chunk, whole = await _in_one(cluster, pod, offset=begin, limit=offset - begin + limit + masks.longest)
    if begin < offset and chunk.next_offset <= offset and not chunk.ended:
        # What was dropped in between ends a chunk: the context is not there.
        chunk, whole = await _in_one(cluster, pod, offset=offset, limit=limit + masks.longest)
    start = chunk.next_offset - len(chunk.data)
    masked = masks.masked(chunk.data)
    shown = len(masked) if whole else len(masked) - masks.held(masked)
    first = max(0, offset - start)
    data = masked[first : max(first, min(shown, first + limit))]
    at = max(offset, start)
    over = chunk.ended and first + len(data) >= len(masked)
    return LogChunk(
        data=data,
        next_offset=max(at + len(data), chunk.next_offset) if over else at + len(data),
        dropped=at - offset,
        ended=over,
    )


async def _in_one(cluster: Cluster, pod: str, *, offset: int, limit: int) -> tuple[LogChunk, bool]:
    """As much as that, if it is there without a gap: a cluster may give less at a time. And whether nothing follows its end."""
    chunk = await cluster.read_log(pod, offset=offset, limit=limit)
    while chunk.data and not chunk.ended and len(chunk.data) < limit:
        more = await cluster.read_log(pod, offset=chunk.next_offset, limit=limit - len(chunk.data))
        if more.dropped:
            return chunk, True
        if not more.data:
            return replace(chunk, ended=more.ended), more.ended
        chunk = replace(more, data=chunk.data + more.data, dropped=chunk.dropped)
    return chunk, chunk.ended
