"""What an order is decided on: the work that runs or waits, as columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mainstay.domain.arrays import Ints

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contenders:
    """Work that wants to run now, whether or not it does. All columns have the same length."""

    key: Ints
    """Ascending with the age of what arrived at the same instant; no two are equal."""
    arrived_at: Floats
    """Seconds."""
    remaining_seconds: Floats
    """For which it still has to run; infinite where nobody knows."""
    gpus: Ints
    """Over all nodes, for as long as it runs; 1 for what has none."""
    share: Floats
    """Dominant share of a queue that its submitter has once all of theirs that go before it have their places; 0 where all are
    one submitter's."""


Order: TypeAlias = Callable[[Contenders], Ints]
"""Contenders -> their rows, who goes first first."""
