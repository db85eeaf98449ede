"""The GPUs of this machine, asked of NVML; without the library or a driver there are none."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

BRANDS = re.compile(r"\b(NVIDIA|Tesla|GeForce|Quadro)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What this machine can hand out: the indices of its GPUs of one model."""

    model: str
    indices: tuple[int, ...]
    memory_bytes: int = 0
    """Of the smallest of them; 0: not known."""


NO_GPUS = Gpus(model="", indices=())


def find_gpus() -> Gpus:
    """Ask NVML. Blocks while the driver wakes up. Of several models in one machine the commonest is handed out."""
    try:
        nvml: Any = importlib.import_module("pynvml")  # untyped, and absent where nobody needs it
    except ImportError:
        return NO_GPUS
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return NO_GPUS
    try:
        found = gpus_of([_name(nvml, index) for index in range(nvml.nvmlDeviceGetCount())])
        return replace(found, memory_bytes=min((_memory(nvml, index) for index in found.indices), default=0))
    except nvml.NVMLError:
        return NO_GPUS
    finally:
        nvml.nvmlShutdown()


def gpus_of(names: list[str]) -> Gpus:
    """What to hand out of the devices with these names, in index order. An empty name is a device that does not answer."""
    models = [model_word(name) for name in names]
    counts = Counter(model for model in models if model)
    if not counts:
        return NO_GPUS
    # The commonest; of equally many the one with the lowest index, so that the answer never changes between looks.
    commonest = max(counts, key=lambda model: (counts[model], -models.index(model)))
    return Gpus(model=commonest, indices=tuple(index for index, model in enumerate(models) if model == commonest))


def model_word(name: str) -> str:
    """The word that users write: `NVIDIA H100 80GB HBM3` is H100, `NVIDIA GeForce RTX 4090` is RTX4090."""
    words = BRANDS.sub(" ", name).replace("-", " ").split()
    if not words:
        return ""
    if words[0].upper() in {"RTX", "GTX", "TITAN"} and len(words) > 1:
        return (words[0] + words[1]).upper()
    return words[0].upper()


def _name(nvml: Any, index: int) -> str:
    try:
        name = nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(index))
    except nvml.NVMLError:
        return ""
    return name.decode() if isinstance(name, bytes) else str(name)


def _memory(nvml: Any, index: int) -> int:
    """In bytes; 0 of a device that does not say it."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).total)
    except nvml.NVMLError:
        return 0
