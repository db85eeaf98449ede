"""How amounts are written: `4+` cores, `16GB`, `H100:8`, `1h30m`. Text in, integers out; ValueError says what is allowed.

What is finer than our units, a thousandth of a core and a byte, is rounded up, as Kubernetes does: nobody gets less than they
asked for, and a file has one meaning wherever it is applied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

CPU_MILLI_MAX = 10**9
MEMORY_BYTES_MAX = 1 << 50
GPUS_MAX = 100_000
AMOUNT_MAX = 1 << 50
COUNT_MAX = 10**11
SECONDS_MAX = 10 * 366 * 86_400

_NUMBER = r"[0-9]{1,30}(?:\.[0-9]{1,6})?"
"""Digits of ASCII: those of other scripts, which look alike in no font, are mistakes. More of them than any bound has, so that
what is too large is told so.
"""
_CPU = re.compile(rf"(?P<number>{_NUMBER})(?P<milli>m?)\Z")
_MEMORY = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>[A-Za-z]*)\Z")
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?\Z", re.ASCII)
_MIG = r"\d{1,2}g\.\d{1,4}gb(?:[.+][a-z0-9]{1,10}){0,3}"
"""A slice as NVIDIA names its MIG profiles: 1g.10gb, 1g.10gb+me."""
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_RESOURCE = rf"(?=.{{1,110}}\Z){_LABEL}(?:\.{_LABEL})+/[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
"""An extended resource of Kubernetes, of other devices than GPUs of NVIDIA: amd.com/gpu, google.com/tpu."""
_GPU = re.compile(
    rf"(?:(?P<shape>{_MIG})|(?P<resource>{_RESOURCE})|(?P<model>[A-Za-z][A-Za-z0-9-]{{0,40}}(?:\.shared)?))?"
    r"(?:(?::|\A)(?P<part>0?\.\d{1,6})|:?(?P<count>\d{1,30}))?\Z",
    re.ASCII,
)
_GPU_MEMORY = re.compile(rf"{_NUMBER}\s*[KMGT]i?B?\Z", re.IGNORECASE | re.ASCII)
"""Of one GPU; its unit tells it from a number of GPUs."""

_BYTES = {
    "": 10**9,
    "B": 1,
    "K": 10**3,
    "KB": 10**3,
    "M": 10**6,
    "MB": 10**6,
    "G": 10**9,
    "GB": 10**9,
    "T": 10**12,
    "TB": 10**12,
    "KI": 1 << 10,
    "KIB": 1 << 10,
    "MI": 1 << 20,
    "MIB": 1 << 20,
    "GI": 1 << 30,
    "GIB": 1 << 30,
    "TI": 1 << 40,
    "TIB": 1 << 40,
}


class Range(NamedTuple):
    """What is reserved and what may be used at most; `high` None: no limit."""

    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Gpus:
    """A number of GPUs of a model, or of slices of a shape; an empty model means any whole GPU."""

    model: str
    count: int
    memory_bytes: int = 0
    """Each has at least so much; 0: whatever it has."""
    part_permille: int = 0
    """At least so many thousandths of a GPU, in place of a whole one; 0: whole ones."""


def cpu(text: str) -> Range:
    """Thousandths of a core: `4`, `0.5`, `500m`, `4+` (no limit), `4..8`. A plain number reserves and limits."""
    return _range(text, _cpu_milli, "a number of cores such as 4, 0.5, 500m, 4+ or 4..8", CPU_MILLI_MAX)


def memory(text: str) -> Range:
    """Bytes: `16GB`, `32Gi`, `512MB`, `32+`, `24GB..80GB`. A number without a unit is in GB."""
    return _range(text, _memory_bytes, "an amount such as 16GB, 512MB, 32Gi, 32GB+ or 24GB..80GB", MEMORY_BYTES_MAX)


def size(text: str) -> int:
    """Bytes of a volume: `50GB`, `1Ti`; a number without a unit is in GB."""
    found = _memory_bytes(text)
    if found is None or not 0 < found <= MEMORY_BYTES_MAX:
        msg = f"{text!r} is not a size such as 50GB, 500MB or 1Ti"
        raise ValueError(msg)
    return found


def gpu(text: str) -> Gpus:
    """GPUs: `8`, `H100` (one), `H100:8`; of a size: `40GB`, `A100:40GB:2`; a part of one: `0.5`, `T4:0.25`; slices: `1g.10gb:2`
    (MIG), `T4.shared` (a share in time); others: `amd.com/gpu:8`.
    """
    parts = [part.strip() for part in text.strip().split(":")]
    sizes = [part for part in parts if _GPU_MEMORY.match(part)]
    found = _GPU.match(":".join(part for part in parts if part not in sizes))
    if not found or not text.strip() or len(sizes) > 1 or not all(parts):
        allowed = (
            "GPUs such as 8, H100, H100:8 or H100:80GB:8, nor a part of one such as 0.5, nor of slices such as 1g.10gb:2 "
            "or other devices such as amd.com/gpu:8"
        )
        msg = f"{text!r} is not a number of {allowed}"
        raise ValueError(msg)
    count, part = int(found["count"] or 1), int(Decimal(found["part"] or 0) * 1_000)
    if count > GPUS_MAX:
        msg = f"{count} GPUs are more than {GPUS_MAX}"
        raise ValueError(msg)
    memory_bytes = _memory_bytes(sizes[0]) or 0 if sizes else 0
    if (sizes and not 0 < memory_bytes <= MEMORY_BYTES_MAX) or (found["part"] and not part):
        msg = f"{text!r}: of a GPU at least a thousandth, with more than no memory"
        raise ValueError(msg)
    if found["resource"] and (memory_bytes or part):
        msg = f"{text!r}: of {found['resource']} it is not known which memory or which part of a device it is; ask for a number"
        raise ValueError(msg)
    if part and (found["shape"] or (found["model"] or "").endswith(".shared")):
        msg = f"{text!r}: a slice or share is part of a GPU already; ask for a number of them, or for a part of a model"
        raise ValueError(msg)
    model = found["resource"] or (found["shape"] or "").replace("+", ".")
    if not model:
        name, dot, share = (found["model"] or "").partition(".")
        model = (name.upper() if name.islower() else name) + dot + share
    return Gpus(model=model, count=count, memory_bytes=memory_bytes, part_permille=part)


def amount(resource: str, text: str) -> int:
    """Of a quota, in the unit of its resource: thousandths of a core, bytes, or a count. 0 is an amount."""
    parse, allowed = _AMOUNTS[resource]
    found = parse(text)
    if found is None:
        msg = f"{text!r} is not {allowed}"
        raise ValueError(msg)
    if found > (COUNT_MAX if resource in {"gpu", "pods"} else AMOUNT_MAX):
        msg = f"{text!r} is out of bounds: absurdly large"
        raise ValueError(msg)
    return found


def flavor(text: str) -> str:
    """A flavor of a quota as nodes call it: the model of GPUs, the shape of slices, or `default`."""
    try:
        found = Gpus(model="default", count=1) if text == "default" else gpu(f"{text}:1")
    except ValueError:
        found = Gpus(model="", count=0)
    if not found.model or found.memory_bytes:
        msg = f"{text!r} is not a flavor such as H100, 1g.10gb, amd.com/gpu or default"
        raise ValueError(msg)
    return found.model


def duration(text: str) -> int:
    """Seconds: `90s`, `30m`, `12h`, `2d`, `1h30m`, or `0`. Of a number without a unit nobody can tell whether hours are meant."""
    plain = text.strip()
    found = _DURATION.match(plain)
    if _is_number(plain) and len(plain) <= 10:
        seconds = int(plain)
        if seconds:
            msg = f"{text!r} has no unit: {seconds}h, {seconds}m or {seconds}s?"
            raise ValueError(msg)
    elif plain and found:
        days, hours, minutes, rest = (int(part or 0) for part in found.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    else:
        msg = f"{text!r} is not a duration such as 90s, 30m, 12h, 2d or 1h30m"
        raise ValueError(msg)
    if seconds > SECONDS_MAX:
        msg = f"{text!r} is longer than ten years"
        raise ValueError(msg)
    return seconds


def _range(text: str, parse: Callable[[str], int | None], allowed: str, most: int) -> Range:
    plain = text.strip()
    low_text, mark, high_text = _split(plain)
    low = parse(low_text)
    high = low if not mark else (parse(high_text) if high_text else None)
    if low is None or (high_text and high is None):
        msg = f"{text!r} is not {allowed}"
        raise ValueError(msg)
    if low <= 0 or low > most or (high is not None and high > most):
        msg = f"{text!r} is out of bounds: above 0 and not absurdly large"
        raise ValueError(msg)
    if high is not None and high < low:
        msg = f"{text!r}: the high end is below the low end"
        raise ValueError(msg)
    return Range(low=low, high=high)


def _split(text: str) -> tuple[str, str, str]:
    if ".." in text:
        low, _, high = text.partition("..")
        return low, "..", high
    if text.endswith("+"):
        return text[:-1], "+", ""
    return text, "", ""


def _cpu_milli(text: str) -> int | None:
    found = _CPU.match(text.strip())
    if not found:
        return None
    number = Decimal(found["number"])
    return math.ceil(number if found["milli"] else number * 1_000)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _count(text: str) -> int | None:
    plain = text.strip()
    return int(plain) if _is_number(plain) and len(plain) <= 30 else None


def _memory_bytes(text: str) -> int | None:
    found = _MEMORY.match(text.strip())
    unit = _BYTES.get(found["unit"].upper()) if found else None
    return math.ceil(Decimal(found["number"]) * unit) if found and unit else None


_AMOUNTS: Mapping[str, tuple[Callable[[str], int | None], str]] = MappingProxyType(
    {
        "cpu": (_cpu_milli, "a number of cores such as 64 or 500m"),
        "memory": (_memory_bytes, "an amount such as 1TB, 500GB or 64Gi"),
        "gpu": (_count, "a number of GPUs such as 8"),
        "pods": (_count, "a number of pods such as 100"),
    }
)
