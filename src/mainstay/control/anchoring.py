"""The loop that anchors the audit: every few minutes its head is signed and kept outside of the database.

It signs no head that contradicts what it has anchored before: whoever shortened or rewrote the audit would have it blessed.
Whoever leads may be two for a moment: an anchor says what is so, and the same twice is once.
"""

from __future__ import annotations

import structlog

from mainstay.chain import Head
from mainstay.chain.anchors import public_key, signed
from mainstay.control.loop import Due, Loop
from mainstay.control.tenure import Tenure
from mainstay.operations.pulse import NOTHING
from mainstay.operations.services import Services
from mainstay.ports import Anchors, Store

log = structlog.get_logger()

LEASE = "audit-anchor"
PERIOD_SECONDS = 300.0
"""What was written since the last anchor can be taken away unseen: so much at most."""
LOOKED_AT = 100
"""Anchors that are read at first: among them is one that we can check."""


class Anchoring:
    """Keeps the newest anchor in mind, as long as we lead."""

    def __init__(self, services: Services, anchors: Anchors, *, holder: str) -> None:
        self._services, self._anchors = services, anchors
        seconds = 2 * PERIOD_SECONDS
        self._tenure = Tenure(services.store, services.clock, lease=LEASE, holder=holder, seconds=seconds)
        self._last: Head | None = None

    def loop(self) -> Loop:
        """What the runner runs."""
        return Loop(name="anchor", turn=self.turn, woken_by=NOTHING)

    async def turn(self) -> Due:
        """One look. Raises Unavailable while the place does not answer, Conflict if the row was anchored as another one."""
        services = self._services
        if await services.offload(self._tenure.epoch) is None:
            self._last = None
            return Due(wait=PERIOD_SECONDS)
        last = self._last or await self._newest()
        head, holds = await services.offload(_head_after, services.store, last)
        if not holds:
            log.error(
                "audit_contradicts_its_anchor",
                anchored=last.seq if last else 0,
                now=head.seq,
                hint="mainstay audit verify",
            )
            self._last = None
        elif head.seq and head != last:
            keys = services.sealing.signing_keys()
            await self._anchors.keep(signed(services.system, head, at=services.clock.now(), keys=keys))
            self._last = head
        return Due(wait=PERIOD_SECONDS)

    async def _newest(self) -> Head | None:
        """Of those that we have signed: others prove nothing."""
        ours = set(map(public_key, self._services.sealing.signing_keys()))
        found = await self._anchors.newest(LOOKED_AT)
        return next((anchor.head for anchor in reversed(found) if anchor.signed_by(ours)), None)


def _head_after(store: Store, last: Head | None) -> tuple[Head, bool]:
    """The head, and whether the row that was anchored last is there as it was."""
    head = store.audit_head()
    if last is None or last.seq == 0:
        return head, True
    rows = store.audit(after=last.seq - 1, limit=1)
    return head, head.seq >= last.seq and bool(rows) and (rows[0].seq, rows[0].hash) == (last.seq, last.hash)
