"""Whoever has been given the least goes first: those who submit to a queue take turns (decision 0026)."""

from __future__ import annotations

import numpy as np

from mainstay.decide.ordering.contenders import Contenders
from mainstay.domain.arrays import Ints


def fair(contenders: Contenders) -> Ints:
    """Rows by the share that their submitter has before their turn, then arrival, then key."""
    return np.lexsort((contenders.key, contenders.arrived_at, contenders.share))
