"""Resources and money: the units of everything that is placed, metered and billed, and how they round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MICROS_PER_UNIT = 1_000_000
MICROSECONDS_PER_SECOND = 1_000_000
MICROSECONDS_PER_HOUR = 3_600 * MICROSECONDS_PER_SECOND
BYTES_PER_GIB = 1 << 30

ANY_GPU = ""
"""The GPU model of a request that does not mind which, and of a node that has none."""


Counts = tuple[tuple[str, int], ...]
"""So many of each, by name; sorted, and none of 0."""

MEMORY_LABEL = "nvidia.com/gpu.memory"
"""Of a node: the memory of each of its GPUs, in MiB."""

SHAPE_MARK = "."
"""In the name of a slice of a GPU (`1g.10gb`, `T4.shared`) or of another device (`amd.com/gpu`), and in that of no model."""


def is_shape(gpu_model: str) -> bool:
    """Whether it names slices of GPUs or other devices.

    They are counted apart from whole GPUs, and never given where any GPU is asked for.
    """
    return SHAPE_MARK in gpu_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """An amount of compute: thousandths of a core, bytes of memory, and GPUs of one model, or slices or devices of one shape.

    Never negative.
    """

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    gpu_model: str = ANY_GPU
    others: Counts = ()
    """What else a node has so much of: disk, network cards."""
    gpu_memory_bytes: int = 0
    """Only of what is asked for: each GPU has at least so much memory."""
    gpu_part_permille: int = 0
    """Only of what is asked for: one slice or share that is at least so many thousandths of a card, in place of a whole GPU."""

    def __post_init__(self) -> None:
        gpu = self.gpu_memory_bytes, self.gpu_part_permille
        if min(self.cpu_milli, self.memory_bytes, self.gpus, *gpu, *(amount for _, amount in self.others)) < 0:
            msg = f"resources are never negative: {self}"
            raise ValueError(msg)

    @property
    def is_plain(self) -> bool:
        """Whether it asks for nothing of a GPU but its model."""
        return not (self.gpu_memory_bytes or self.gpu_part_permille)

    @property
    def gpu_words(self) -> str:
        """`8 x H100`, `2 x GPU of 40 GB`, `0.5 x T4`; empty without GPUs."""
        if not self.gpus:
            return ""
        count = figure(self.gpu_part_permille / 1_000 or self.gpus)
        of = f" of {memory_words(self.gpu_memory_bytes)}" if self.gpu_memory_bytes else ""
        return f"{count} x {self.gpu_model or 'GPU'}{of}"


def total(amounts: Iterable[Resources]) -> tuple[Resources, ...]:
    """All of them together: one amount; and where devices of several kinds are among them, one more of devices alone for each
    other kind.
    """
    cpu_milli, memory_bytes = 0, 0
    devices, others = Counter[str](), Counter[str]()
    for amount in amounts:
        cpu_milli, memory_bytes = cpu_milli + amount.cpu_milli, memory_bytes + amount.memory_bytes
        others.update(dict(amount.others))
        if amount.gpus:
            devices[amount.gpu_model] += amount.gpus
    (model, gpus), *more = devices.items() or [(ANY_GPU, 0)]
    first = Resources(
        cpu_milli=cpu_milli, memory_bytes=memory_bytes, gpus=gpus, gpu_model=model, others=tuple(sorted(others.items()))
    )
    return (first, *(Resources(gpus=count, gpu_model=other) for other, count in more))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Money:
    """An exact amount: millionths of one unit of a currency (ISO 4217 code). Adds only to its own currency."""

    micros: int
    currency: str = "USD"

    def __add__(self, other: Money) -> Money:
        if self.currency != other.currency:
            msg = f"cannot add {other.currency} to {self.currency}"
            raise ValueError(msg)
        return Money(micros=self.micros + other.micros, currency=self.currency)

    def __str__(self) -> str:
        sign = "-" if self.micros < 0 else ""
        units, micros = divmod(abs(self.micros), MICROS_PER_UNIT)
        return f"{sign}{units}.{micros:06d} {self.currency}"


MEMORY_UNITS = (("GiB", BYTES_PER_GIB), ("GB", 10**9), ("MiB", 1 << 20), ("MB", 10**6))


def counted(count: float, noun: str) -> str:
    """So many of what can be counted: `1 pod`, `3 pods`, `0.5 CPUs`."""
    return f"{figure(count)} {noun}" if count == 1 else f"{figure(count)} {noun}s"


def cores_words(cpu_milli: int) -> str:
    """`1 CPU`, `2.5 CPUs`."""
    return counted(cpu_milli / 1_000, "CPU")


def memory_words(size: int, *, like: int = 0) -> str:
    """In the unit it was most likely written in, as commands and pages show it: `1 GB`, `16 GiB`, `512 MiB`. `like`: in the kind
    of units in which that amount was, beside which it is told.
    """
    largest, bytes_per_largest = memory_unit(like or size)
    for unit, bytes_per_unit in MEMORY_UNITS:
        if size and size % bytes_per_unit == 0 and len(unit) == len(largest):
            return f"{figure(size // bytes_per_unit)} {unit}"
    return f"{figure(round(size / bytes_per_largest, 2) or size / bytes_per_largest)} {largest}"


def memory_unit(size: int) -> tuple[str, int]:
    """GB or GiB with its bytes: of which kind the unit is that this amount was most likely written in."""
    unit = next((unit for unit, bytes_per_unit in MEMORY_UNITS if size and size % bytes_per_unit == 0), "GiB")
    return ("GiB", BYTES_PER_GIB) if unit in {"GiB", "MiB"} else ("GB", 10**9)


def decimal(micros: int) -> str:
    """An amount in millionths, exactly: `0.5`, `12`, `0.008334`."""
    units, rest = divmod(abs(micros), MICROS_PER_UNIT)
    return f"{'-' if micros < 0 else ''}{units}.{rest:06d}".rstrip("0").rstrip(".")


def figure(value: float) -> str:
    """Up to three decimals, and never an exponent: `4`, `0.125`, `1300`."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def duration_words(seconds: int) -> str:
    """In one or two units: `40 s`, `5 min`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds} s"
    for size, unit, below, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if seconds >= size:
            whole, rest = divmod(round(seconds / below), size // below)
            return f"{whole} {unit} {rest} {small}" if rest else f"{whole} {unit}"
    return f"{round(seconds / 60)} min"


def written(seconds: int) -> str:
    """Exactly, as a job file says it: `6m31s`, `8h`, `2d`."""
    parts, rest = [], seconds
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def cost_micros(*, price_per_hour_micros: int, amount: int, per_amount: int, duration_us: int) -> int:
    """Price × amount × time in micro-units, rounded half up; exact integer arithmetic, so that it never drifts.

    `amount` is counted in the resource's own unit and `per_amount` of them make the priced unit (1,000 for
    thousandths of a core, 2³⁰ for bytes priced by the GiB, 1 for whole GPUs).
    """
    whole = per_amount * MICROSECONDS_PER_HOUR
    return (2 * price_per_hour_micros * amount * duration_us + whole) // (2 * whole)
