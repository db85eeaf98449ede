"""Quantities and times as Kubernetes writes them. A cluster may write nonsense: that counts as nothing, never as much.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType

from mainstay.clusters.kubernetes.objects import Quantity

_FORM = re.compile(
    r"(?P<number>[+-]?(?:\d{1,24}(?:\.\d{0,12})?|\.\d{1,12}))(?:[eE](?P<power>[+-]?\d{1,2})|(?P<suffix>[A-Za-z]{0,2}))\Z",
    re.ASCII,
)
_SUFFIXES: Mapping[str, Decimal] = MappingProxyType(
    {
        **{suffix: Decimal(1_024) ** power for power, suffix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
        **{
            suffix: Decimal(10) ** power
            for suffix, power in {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9}.items()
        },
        **{suffix: Decimal(10) ** power for suffix, power in {"T": 12, "P": 15, "E": 18}.items()},
    }
)
WHOLE_MAX = 1 << 60
"""Beyond it a figure is a lie, and no column could hold it."""


@lru_cache(maxsize=4_096)
def milli(quantity: Quantity | None) -> int:
    """Thousandths, rounded up; 0 for nonsense and for less than nothing."""
    return _bounded(_value(quantity) * 1_000)


@lru_cache(maxsize=4_096)
def whole(quantity: Quantity | None) -> int:
    """Units (bytes, devices, pods), rounded up; 0 for nonsense and for less than nothing."""
    return _bounded(_value(quantity))


@lru_cache(maxsize=4_096)
def instant(text: str | None) -> int:
    """UTC microseconds of an RFC 3339 time; 0 for none and for nonsense."""
    if not text:
        return 0
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return 0
    at = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    return max(0, (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds)


def _value(quantity: Quantity | None) -> Decimal:
    found = _FORM.match(str(quantity)) if quantity is not None else None
    if not found:
        return Decimal(0)
    number = Decimal(found["number"])
    if found["power"]:
        return number * Decimal(10) ** int(found["power"])
    factor = _SUFFIXES.get(found["suffix"] or "")
    return number * factor if factor else Decimal(0)


def _bounded(value: Decimal) -> int:
    if value <= 0 or value > WHOLE_MAX:
        return 0
    return int(value.to_integral_value(rounding="ROUND_CEILING"))
