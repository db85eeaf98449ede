"""First in, first out."""

from __future__ import annotations

import numpy as np

from mainstay.decide.ordering.contenders import Contenders
from mainstay.domain.arrays import Ints


def fifo(contenders: Contenders) -> Ints:
    """Rows by arrival, then key."""
    return np.lexsort((contenders.key, contenders.arrived_at))
