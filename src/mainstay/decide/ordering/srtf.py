"""Shortest remaining time first: the least mean completion time on one machine (Schrage, 1968)."""

from __future__ import annotations

import numpy as np

from mainstay.decide.ordering.contenders import Contenders
from mainstay.domain.arrays import Ints


def srtf(contenders: Contenders) -> Ints:
    """Rows by the time that is left, then arrival, then key."""
    return np.lexsort((contenders.key, contenders.arrived_at, contenders.remaining_seconds))
