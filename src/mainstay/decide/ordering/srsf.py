"""Shortest remaining service first: remaining time x GPUs (Gu et al., "Tiresias", NSDI 2019)."""

from __future__ import annotations

import numpy as np

from mainstay.decide.ordering.contenders import Contenders
from mainstay.domain.arrays import Ints


def srsf(contenders: Contenders) -> Ints:
    """Rows by the GPU-seconds that are left, then arrival, then key."""
    service = contenders.remaining_seconds * contenders.gpus
    return np.lexsort((contenders.key, contenders.arrived_at, service))
