"""What a reader of a log is not shown: the values of the secrets of its workload, as they are now.

Clusters mask what they can where it is written, with the values that they have handed in. This covers every cluster at the last
step: one that restarted and has forgotten them, and one that is far away.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from mainstay.domain.capacity import LogChunk
from mainstay.domain.errors import Denied
from mainstay.domain.masking import Masks, patterns_of
from mainstay.domain.workload import Workload
from mainstay.operations.sealing import Sealing
from mainstay.ports import Cluster, Store

log = structlog.get_logger()


def masks_of(store: Store, sealing: Sealing, workload: Workload) -> Masks | None:
    """None where there is nothing to mask. A secret that is gone, or that no key here opens, cannot be masked."""
    names = dict.fromkeys(use.name for use in workload.spec.secrets)
    if not names:
        return None
    tenant, values = workload.tenant, []
    for name, sealed in store.sealed_secrets(names, tenant=tenant).items():
        try:
            values.append(sealing.opened_secret(tenant, name, sealed))
        except Denied as error:
            log.warning("not_masked", workload=workload.id, secret=name, reason=error.message)
    patterns = patterns_of(values)
    return Masks(patterns) if patterns else None


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
