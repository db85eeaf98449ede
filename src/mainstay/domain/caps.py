"""What the runs of a token take of its caps together, and why one more would be too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mainstay.domain.access import Caps
from mainstay.domain.quantity import decimal
from mainstay.domain.reason import Code, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMost:
    """What one run takes of the caps of its token, whatever becomes of it. Of what is not capped it takes 0."""

    gpus: int = 0
    """In its largest size and choice, over all its pods."""
    cost_micros: int = 0
    """Over all attempts that it may make, in millionths of the currency of the price book."""

    def __add__(self, other: AtMost) -> AtMost:
        return AtMost(gpus=self.gpus + other.gpus, cost_micros=self.cost_micros + other.cost_micros)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapUse:
    """What the runs of a token take of its caps now, those of its sessions included."""

    gpus: int = 0
    """So many those that are open may hold."""
    spent_micros: int = 0
    """So much all of them have cost, by the ledger."""
    reserved_micros: int = 0
    """So much those may cost yet that are open, or whose last usage is not in the ledger."""


NOTHING_USED: Final = CapUse()


def over(token: str, caps: Caps, used: CapUse, asked: AtMost) -> Reason | None:
    """Why a token may not have so much more; None if it may. With the figures of the cap that is in the way."""
    if caps.gpus is not None and asked.gpus and used.gpus + asked.gpus > caps.gpus:
        numbers = {"cap": caps.gpus, "held": used.gpus, "asked": asked.gpus}
        return Reason(code=Code.GPU_CAP_REACHED, object=token, numbers=numbers)
    cost = asked.cost_micros
    if caps.spend_micros is not None and cost and used.spent_micros + used.reserved_micros + cost > caps.spend_micros:
        money = {
            "cap": caps.spend_micros,
            "spent": used.spent_micros,
            "reserved": used.reserved_micros,
            "asked": asked.cost_micros,
        }
        return Reason(
            code=Code.SPEND_CAP_REACHED, object=token, numbers={name: decimal(of) for name, of in money.items()}
        )
    return None
