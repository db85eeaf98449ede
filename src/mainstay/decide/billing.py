"""Usage x price -> charges: exact, and the same however the time is cut.

Each charge is the difference of two rounded cumulative costs, both counted from where the price began to apply to the
allocation. Sums over adjoining pieces telescope, so cutting an interval never gains or loses a micro-unit, and the cost
of the whole is rounded once (billing.md 4.5: invariance under time splitting, no negative line).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from mainstay.domain.allocation import Allocation
from mainstay.domain.billing import Charge, Price, Sku, UsageRecord
from mainstay.domain.quantity import BYTES_PER_GIB, Money, Resources, cost_micros


def charges(usage: UsageRecord, *, since_start: int, prices: Sequence[Price]) -> tuple[Charge, ...]:
    """The charges of one usage record: by SKU, then by time, one for each price in effect.

    `since_start`: when the allocation's pod started (UTC microseconds), from which the rounding counts; the same for
    all records of an allocation. Time before the first price of a SKU costs nothing.
    """
    span = _Span(since_start=min(since_start, usage.start), start=usage.start, end=usage.end)
    return _charges(usage.allocation_key, usage.resources, span, prices)


def accrued(allocation: Allocation, now: int, prices: Sequence[Price]) -> tuple[Charge, ...]:
    """What a pod has run up since its last usage record: not a bill yet, but what the bill will say. Never negative."""
    if not allocation.started_at:
        return ()
    start = max(allocation.metered_until, allocation.started_at)
    end = allocation.ended_at or now
    span = _Span(since_start=allocation.started_at, start=start, end=end)
    return _charges(allocation.key, allocation.resources, span, prices)


def total(charges: Iterable[Charge], *, currency: str = "USD") -> Money:
    """The sum. Raises ValueError if a charge is in another currency."""
    return sum((charge.cost for charge in charges), start=Money(micros=0, currency=currency))


def price_per_hour(resources: Resources, at: int, prices: Sequence[Price]) -> Money:
    """What holding this costs per hour at the prices in effect at `at`, rounded once per SKU."""
    span = _Span(since_start=at, start=at, end=at + 1)
    found = Money(micros=0, currency=prices[0].per_hour.currency if prices else "USD")
    for charge in _charges(0, resources, span, prices):
        per_amount = _PER_AMOUNT[charge.sku.partition("/")[0]]
        micros = (2 * charge.unit_price.micros * charge.quantity + per_amount) // (2 * per_amount)
        found += Money(micros=micros, currency=charge.unit_price.currency)
    return found


def cost_at_most(resources: Resources, *, seconds: int, now: int, prices: Sequence[Price]) -> int:
    """In millionths: what holding this for so long costs at most, whenever that begins from `now` on, by the prices that the book
    has now. Never less than its charges will be, however these are rounded.

    GPUs of no model may be of any, and a part of a GPU has a name of its own: both count with the dearest in the book.
    """
    found = 0
    for sku, quantity in _quantities(resources):
        models = {resources.gpu_model}
        if sku is Sku.GPU and not (resources.gpu_model and resources.is_plain):
            models |= {price.sku.partition("/")[2] for price in prices if price.sku.startswith(f"{sku.value}/")}
        timelines = [_timeline(sku, model, prices) for model in models]
        found += max(_at_most(sku, quantity, timeline, seconds=seconds, now=now) for timeline in timelines)
    return found


def _at_most(sku: Sku, quantity: int, timeline: list[Price], *, seconds: int, now: int) -> int:
    """At the highest of the prices to come; each of them is rounded by itself, up by half a millionth at most."""
    to_come = [segment.price.per_hour.micros for segment in _segments(timeline) if segment.end > now]
    if not to_come:
        return 0
    whole = _PER_AMOUNT[sku.value] * 3_600
    return -(-max(to_come) * quantity * seconds // whole) + len(to_come) - 1


def default_price_book() -> tuple[Price, ...]:
    """List prices in USD to start from, in effect since ever; a site sets its own.

    Source: on-demand list prices of mid 2026. CPU and memory: least squares over c6i, m6i and r6i in us-east-1, which
    fit price = 0.035 x vCPU + 0.00346 x GiB exactly. GPUs: over all clouds of the catalogue, the median per model of
    (instance price - its vCPUs and GiB at those prices) / GPUs, rounded to cents. `gpu` without a model is the price
    of a T4, the cheapest that is common: better to charge an unknown model too little than to invent a figure.
    """
    return tuple(
        Price(sku=sku, per_hour=Money(micros=micros), effective_from=0) for sku, micros in sorted(_LIST_PRICES.items())
    )


_LIST_PRICES = {
    "cpu": 35_000,
    "memory": 3_460,
    "gpu": 390_000,
    "gpu/T4": 390_000,
    "gpu/L4": 520_000,
    "gpu/A10": 730_000,
    "gpu/A10G": 870_000,
    "gpu/L40S": 2_200_000,
    "gpu/V100": 2_600_000,
    "gpu/A100": 2_990_000,
    "gpu/A100-80GB": 3_280_000,
    "gpu/H100": 6_710_000,
    "gpu/H200": 6_310_000,
    "gpu/B200": 12_640_000,
    "gpu/B300": 15_490_000,
}
"""Millionths of a USD per core, GiB or GPU and hour."""

_PER_AMOUNT = {Sku.CPU.value: 1_000, Sku.MEMORY.value: BYTES_PER_GIB, Sku.GPU.value: 1}
"""How many of a quantity's small units make the unit that is priced."""

_FOR_EVER = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """[start, end) of an allocation whose pod started at `since_start`."""

    since_start: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    """A stretch of time in which one price holds."""

    price: Price
    start: int
    end: int


def _charges(allocation_key: int, resources: Resources, span: _Span, prices: Sequence[Price]) -> tuple[Charge, ...]:
    found: list[Charge] = []
    for sku, quantity in _quantities(resources):
        for segment in _segments(_timeline(sku, resources.gpu_model, prices)):
            start, end = max(span.start, segment.start), min(span.end, segment.end)
            if start < end:
                begin = max(span.since_start, segment.start)
                cost = _cost(sku, quantity, segment.price, end - begin) - _cost(
                    sku, quantity, segment.price, start - begin
                )
                found.append(
                    Charge(
                        allocation_key=allocation_key,
                        start=start,
                        end=end,
                        sku=segment.price.sku,
                        quantity=quantity,
                        unit_price=segment.price.per_hour,
                        cost=Money(micros=cost, currency=segment.price.per_hour.currency),
                    )
                )
    return tuple(found)


def _quantities(resources: Resources) -> Iterator[tuple[Sku, int]]:
    amounts = ((Sku.CPU, resources.cpu_milli), (Sku.MEMORY, resources.memory_bytes), (Sku.GPU, resources.gpus))
    return ((sku, amount) for sku, amount in amounts if amount)


def _timeline(sku: Sku, gpu_model: str, prices: Sequence[Price]) -> list[Price]:
    """The prices that apply, by date. From the first price of its own model on, the general GPU price is out."""
    general = sorted((price for price in prices if price.sku == sku.value), key=_date)
    if sku is not Sku.GPU or not gpu_model:
        return general
    own = sorted((price for price in prices if price.sku == f"{sku.value}/{gpu_model}"), key=_date)
    return [price for price in general if not own or price.effective_from < own[0].effective_from] + own


def _date(price: Price) -> int:
    return price.effective_from


def _segments(timeline: list[Price]) -> Iterator[_Segment]:
    for price, following in zip_longest(timeline, timeline[1:]):
        end = following.effective_from if following else _FOR_EVER
        yield _Segment(price=price, start=price.effective_from, end=end)


def _cost(sku: Sku, quantity: int, price: Price, duration_us: int) -> int:
    return cost_micros(
        price_per_hour_micros=price.per_hour.micros,
        amount=quantity,
        per_amount=_PER_AMOUNT[sku.value],
        duration_us=duration_us,
    )
