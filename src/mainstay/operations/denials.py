"""What was refused goes on record, once a second at most for each who is refused: a thief leaves a trace, and fills no disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from mainstay.domain.errors import Ended, MainstayError
from mainstay.domain.plan import Plan, RecordDenial
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Principal
from mainstay.ports import Clock

if TYPE_CHECKING:
    from mainstay.operations.services import Services

log = structlog.get_logger()
EVERY_SECONDS: Final = 1.0
"""The denials of one cluster or person go on record at most so often, and those of all who are nobody together."""
NOBODY: Final = "(unknown)"
"""Who is refused at the door, in the audit: no member can have this name."""
WORDS_MAX: Final = 300
"""Of a refusal that may repeat what a stranger has sent."""


class Denials:
    """Which refusals of this process go on record. `who` is a cluster, a person as TENANT/NAME, or `NOBODY`.

    All of it may be lost at any moment: how many others a row stands for is then too few.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    @contextmanager
    def due(self, who: str) -> Iterator[int]:
        """Count a refusal. For how many the row of the block stands, this one included, or 0 if it may not write one yet.

        If the block fails, they are counted in the next row.
        """
        now = self._clock.monotonic()
        self._untold[who] += 1
        if now - self._at.get(who, float("-inf")) < EVERY_SECONDS:
            yield 0
            return
        self._at[who] = now
        count = self._untold.pop(who)
        try:
            yield count
        except BaseException:
            self._untold[who] += count
            raise


def denial(principal: Principal, error: MainstayError, *, count: int, now: int) -> Plan:
    """What puts on record that somebody was refused what they may not do. The row stands for `count` refusals."""
    numbers = {"detail": error.message + _others(count)}
    reason = Reason(code=Code.FORBIDDEN, object=error.object, numbers=numbers)
    action = RecordDenial(object=error.object or principal.cluster, reason=reason)
    return Plan(actor=principal.name, now=now, actions=(action,))


async def note_unknown(services: Services, error: MainstayError, *, asked: str, address: str) -> None:
    """Somebody showed what does not let them in. In audit and log, at most once a second for each member whose it was, and for
    all together who were never anybody: strangers must not fill either. `address`: where they come from, as far as we know.

    Raises Unavailable where it cannot be put on record.
    """
    tenant, name = (error.tenant, error.member) if isinstance(error, Ended) else ("", NOBODY)
    who, denials = f"{tenant}/{name}", services.agents.denials
    with denials.due(who) as count:
        if not count:
            return
        log.warning("not_let_in", actor=name, object=asked, reason=error.message, address=address, count=count)
        numbers = {"detail": _words(error) + (f"; from {address}" if address else "") + _others(count)}
        reason = Reason(code=Code.NOT_LET_IN, object=asked, numbers=numbers)
        plan = Plan(actor=name, now=services.clock.now(), actions=(RecordDenial(object=asked, reason=reason),))
        await services.offload(services.store.commit, plan)


def _words(error: MainstayError) -> str:
    """Of what was shown no more than its public id, if it has one."""
    id_ = f": {error.object}" if error.object and error.object not in error.message else ""
    return error.message[:WORDS_MAX] + id_[:WORDS_MAX]


def _others(count: int) -> str:
    return f"; and {count - 1} more since the row before" if count > 1 else ""
