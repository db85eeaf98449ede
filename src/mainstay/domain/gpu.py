"""What a GPU is: how much memory it has, and which part of a card a slice or a share of it is.

Nodes say it in the labels of NVIDIA's GPU feature discovery (https://github.com/NVIDIA/k8s-device-plugin), slices in their names:
of the seven compute slices of a card (MIG User Guide; four of an A30) `3g.40gb` has three, and 40 GB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from mainstay.domain.affinity import Traits
from mainstay.domain.quantity import BYTES_PER_GIB, MEMORY_LABEL, is_shape

SHARED_SUFFIX = ".shared"
"""Of the name of a share in time of a GPU, or of a slice."""
PRODUCT = "nvidia.com/gpu.product"
_RESOURCE, _MIG_RESOURCE, _REPLICAS = "nvidia.com/gpu", "nvidia.com/mig-", ".replicas"
"""A label of such a resource says into how many shares each of its devices is cut."""
_MIG = re.compile(r"(?P<slices>\d{1,2})g\.(?P<gb>\d{1,4})gb(?:\.(?!shared)[a-z0-9]+)*\Z")
SLICES, SLICES_OF_FOUR = 7, 4
FOUR_SLICES = frozenset({"1g.6gb", "2g.12gb", "4g.24gb"})
"""Profiles of cards that are cut into four (A30); no other card has slices with these names."""
KNOWN_GIB: Mapping[str, int] = MappingProxyType(
    {
        "A10": 24,
        "A10G": 24,
        "A100": 40,
        "A100-80GB": 80,
        "A30": 24,
        "A40": 48,
        "B200": 180,
        "B300": 270,
        "GB200": 186,
        "GH200": 96,
        "H100": 80,
        "H200": 141,
        "L4": 24,
        "L40": 48,
        "L40S": 48,
        "P100": 16,
        "RTX3090": 24,
        "RTX4090": 24,
        "RTX5090": 32,
        "T4": 16,
        "V100": 16,
    }
)
"""Where a node does not say it: as its maker sells the model; of several sizes the smallest."""
RESERVED = 16
"""Error correction takes up to one part of sixteen of the memory that a card is sold with, and the driver reports the rest:
whoever asks for 16 GB means a T4, which reports 15 GiB. A maker's GB is a GiB of those.
"""
SLACK = 64
"""Cards of 80 GB report 79.6 GiB: one part of sixty-four less than what is asked for, to the byte, is as good."""


def memory_of(kind: str, traits: Traits) -> int:
    """Bytes of one whole GPU of this model, or of one slice or share of this shape, on a node; 0: nobody knows."""
    base = kind.removesuffix(SHARED_SUFFIX)
    mig = _MIG.match(base)
    said = traits.value(MEMORY_LABEL) or ""
    whole = int(said) << 20 if said.isdecimal() and len(said) < 9 else KNOWN_GIB.get(base, 0) * BYTES_PER_GIB
    if mig:
        whole = int(mig["gb"]) * 10**9
    elif is_shape(base):
        return 0
    return whole // _shares(kind, traits)


def least_enough(asked: int) -> int:
    """So many bytes a GPU of the size that is asked for reports at least."""
    as_sold = -(-asked * (RESERVED - 1) * BYTES_PER_GIB // (RESERVED * 10**9))
    return min(as_sold, -(-asked * SLACK // (SLACK + 1)))


def is_enough(memory: int, asked: int) -> bool:
    """Whether a GPU with so many bytes is one of the size that is asked for."""
    return memory >= least_enough(asked)


def part_of_card(kind: str, traits: Traits) -> int:
    """Thousandths of a card that one slice or share of this shape has to itself; 0: nobody knows, or it is no part of a GPU."""
    base = kind.removesuffix(SHARED_SUFFIX)
    mig = _MIG.match(base)
    if is_shape(base) and not mig:
        return 0
    if base != kind and traits.value(_label(base)) is None:
        return 0
    slices = SLICES_OF_FOUR if base in FOUR_SLICES else SLICES
    part = 1_000 * int(mig["slices"]) // slices if mig else 1_000
    return part // _shares(kind, traits)


def is_of_card(kind: str, model: str, traits: Traits) -> bool:
    """Whether a slice or share of this shape is one of a card of this model, as far as its node says."""
    base = kind.removesuffix(SHARED_SUFFIX)
    if not _MIG.match(base):
        return base == model
    words = re.split(r"[^A-Za-z0-9]+", (traits.value(PRODUCT) or "").upper())
    return model.upper() in words


def _shares(kind: str, traits: Traits) -> int:
    """Into how many its device is cut on this node."""
    base = kind.removesuffix(SHARED_SUFFIX)
    said = (traits.value(_label(base)) or "") if base != kind else ""
    return max(1, int(said)) if said.isdecimal() and len(said) < 6 else 1


def _label(base: str) -> str:
    return f"{_MIG_RESOURCE}{base}{_REPLICAS}" if _MIG.match(base) else f"{_RESOURCE}{_REPLICAS}"
