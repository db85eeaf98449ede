"""What the runs of tokens take of their caps: read for a plan, and for who asks. The rows change in `apply/caps.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, cast

import sqlalchemy as sa

from mainstay.domain.access import Caps
from mainstay.domain.caps import CapUse
from mainstay.store import codec_access, queries, tables
from mainstay.store.rows import AllocationRow, CapUseRow
from mainstay.store.world import World

if TYPE_CHECKING:
    from mainstay.store.load import Needs


def load(connection: sa.Connection, world: World, needs: Needs) -> None:
    """Of tokens with which is submitted, what all their runs take; of runs that cost or end, what each takes.

    Adds to what is needed: of the latter the workload, its pods that are not closed, and the token. Where no token has caps,
    this is one look at an empty table, and none where something is submitted.
    """
    world.caps = of_tokens(connection, needs.caps_of) if needs.caps_of else {}
    keys = needs.cap_uses_of | needs.specifications
    keys |= {world.allocations[key]["workload_key"] for key in needs.costs & world.allocations.keys()}
    table, pods = tables.cap_uses, tables.allocations
    for batch in queries.batches(keys):
        for row in queries.fetch(connection, sa.select(table).where(table.c.workload_key.in_(batch))):
            world.cap_uses[row["workload_key"]] = cast("CapUseRow", row)
    needs.workloads |= world.cap_uses.keys()
    needs.tokens |= {row["token"] for row in world.cap_uses.values()}
    for batch in queries.batches(world.cap_uses.keys()):
        open_ = sa.select(pods).where(pods.c.closed == 0, pods.c.workload_key.in_(batch))
        world.know_allocations(cast("list[AllocationRow]", queries.fetch(connection, open_)))


def of_tokens(connection: sa.Connection, ids: Collection[str]) -> Mapping[str, tuple[Caps, CapUse]]:
    """The caps of each token, and what its runs take of them. O(its open runs), by the index of `cap_uses`."""
    token, use = tables.tokens, tables.cap_uses
    total = (
        sa.select(
            token.c.id, token.c.caps, token.c.spent_micros, sa.func.sum(use.c.gpus), sa.func.sum(use.c.cost_micros)
        )
        .select_from(token.outerjoin(use, use.c.token == token.c.id))
        .group_by(token.c.id, token.c.caps, token.c.spent_micros)
    )
    found: dict[str, tuple[Caps, CapUse]] = {}
    for batch in queries.batches(ids):
        for id_, caps, spent, gpus, reserved in connection.execute(total.where(token.c.id.in_(batch))):
            used = CapUse(gpus=int(gpus or 0), spent_micros=spent, reserved_micros=int(reserved or 0))
            found[id_] = codec_access.caps_of(caps), used
    return found


def runs(connection: sa.Connection, token: str, *, limit: int) -> tuple[str, ...]:
    """Ids of runs that take of the caps of a token and that nobody has told to stop, the newest first."""
    work, use = tables.workloads, tables.cap_uses
    query = (
        sa.select(work.c.id)
        .select_from(use.join(work, work.c.key == use.c.workload_key))
        .where(use.c.token == token, work.c.stop_requested == 0, sa.text("phase < 10"))
        .order_by(use.c.workload_key.desc())
        .limit(limit)
    )
    return tuple(connection.scalars(query))
