"""Who goes first. Policies by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mainstay.decide.ordering.contenders import Order
from mainstay.decide.ordering.fifo import fifo
from mainstay.decide.ordering.srsf import srsf
from mainstay.decide.ordering.srtf import srtf

ORDERS: Mapping[str, Order] = MappingProxyType({"fifo": fifo, "srtf": srtf, "srsf": srsf})
"""Every order."""
