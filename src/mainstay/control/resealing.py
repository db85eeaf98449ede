"""The loop that seals anew what older keys have sealed, a few rows a turn, until those can be dropped.

A turn reads some rows, opens and seals them, and writes each where it still is what was read: what somebody sets meanwhile
stays. A crash loses nothing: what is not written is found again. What no key here opens is left, and said.
"""

from __future__ import annotations

from typing import Final

import structlog

from mainstay.control.loop import Due, Loop
from mainstay.control.tenure import Tenure
from mainstay.domain.errors import Denied, Fenced
from mainstay.domain.plan import Epoch, Plan, Reseal
from mainstay.domain.reason import Code, Reason
from mainstay.operations.pulse import NOTHING
from mainstay.operations.services import Services

log = structlog.get_logger()

LEASE = "reseal"
PERIOD_SECONDS = 60.0
ROWS = 20
"""Of a turn: 64 KiB each at most, so some milliseconds under the lock of the writers."""
FIRST: Final = ("", "", 0)


class Resealing:
    """Goes through all rows, again and again, as long as there are older keys."""

    def __init__(self, services: Services, *, holder: str) -> None:
        self._services = services
        self._tenure = Tenure(services.store, services.clock, lease=LEASE, holder=holder, seconds=2 * PERIOD_SECONDS)
        self._after = FIRST
        self._said: set[str] = set()

    def loop(self) -> Loop:
        """What the runner runs."""
        return Loop(name="reseal", turn=self.turn, woken_by=NOTHING)

    async def turn(self) -> Due:
        """Some rows. Raises Fenced, once it is known that another one leads."""
        rests = Due(wait=PERIOD_SECONDS)
        if not self._services.sealing.older:
            return rests
        epoch = await self._services.offload(self._tenure.epoch)
        if epoch is None:
            self._after = FIRST
            return rests
        try:
            more = await self._services.offload(self._step, epoch)
        except Fenced:
            self._tenure.lost()
            raise
        return Due(wait=0.0) if more else rests

    def _step(self, epoch: Epoch) -> bool:
        """Whether there may be more behind these."""
        store, sealing = self._services.store, self._services.sealing
        found = store.sealed_with_others(sealing.key_id, after=self._after, limit=ROWS)
        actions = []
        for one in found:
            try:
                reason = Reason(code=Code.RESEALED, object=one.name, numbers={"key": sealing.key_id})
                actions.append(Reseal(before=one, sealed=sealing.resealed(one), reason=reason))
            except Denied as error:
                log.warning("not_resealed", tenant=one.tenant, name=one.name, reason=error.message, hint=error.hint)
        if actions:
            store.commit(Plan(actor="reseal", now=self._services.clock.now(), actions=tuple(actions), epoch=epoch))
        self._after = found[-1].place if len(found) == ROWS else FIRST
        if len(found) < ROWS:
            self._say_unused()
        return len(found) == ROWS

    def _say_unused(self) -> None:
        left = self._services.store.sealed_by_key()
        for key in self._services.sealing.older_ids:
            if not left.get(key) and key not in self._said:
                self._said.add(key)
                log.info("key_unused", key=key, hint="nothing is sealed with it: its line may leave the file of keys")
