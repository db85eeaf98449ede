"""Who goes first. Policies by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mainstay.decide.ordering.contenders import Order
from mainstay.decide.ordering.fair import fair
from mainstay.decide.ordering.fifo import fifo
from mainstay.decide.ordering.srsf import srsf
from mainstay.decide.ordering.srtf import srtf
from mainstay.domain.queue import FAIR, FIFO, STRICT

ORDERS: Mapping[str, Order] = MappingProxyType({FAIR: fair, FIFO: fifo, STRICT: fifo, "srtf": srtf, "srsf": srsf})
"""Every order. A queue has one of them by name; within it, what is more urgent goes first in any case."""

__all__ = ["FAIR", "FIFO", "ORDERS", "STRICT"]
