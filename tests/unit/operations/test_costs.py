"""The bill: what is charged and what accrues, from one moment, in the currency of the price book."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mainstay.decide.metering import meter
from mainstay.domain.quantity import MICROSECONDS_PER_HOUR, Money
from mainstay.operations.costs import Bill, bill
from mainstay.operations.principal import Principal
from tests.databases import empty_sqlite
from tests.stores import ALL, SECOND, TENANT, USER, Scene

ADA = Principal(name=USER, tenant=TENANT, role="maintainer")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield Scene(store)
    store.close()


def billed(scene: Scene, *, now: int) -> Bill:
    return bill(scene.store, ADA, group_by="project", since=0, until=1 << 60, now=now)


def test_a_bill_in_another_currency_says_so(scene: Scene) -> None:
    price = scene.price(36_000_000)
    scene.applied(replace(price, price=replace(price.price, per_hour=Money(micros=36_000_000, currency="EUR"))))
    scene.fleet()
    pod = scene.run(scene.submit())
    found = billed(scene, now=pod.started_at + 10 * SECOND)
    assert (found.currency, found.total_micros) == ("EUR", 100_000)


def test_a_bill_stays_the_same_when_what_accrues_is_recorded_across_a_change_of_price(scene: Scene) -> None:
    """The price doubles within the hour in which the pod runs, and its usage is recorded afterwards."""
    scene.applied(scene.price(36_000_000))
    scene.fleet()
    pod = scene.run(scene.submit())
    change = scene.now + 60 * SECOND
    scene.applied(scene.price(72_000_000, since=change))
    end = change + 30 * SECOND
    accruing = billed(scene, now=end)
    ended = scene.end(pod, ended_at=end)
    snapshot = scene.store.snapshot(now=end + MICROSECONDS_PER_HOUR, seed=0)
    scene.applied(*meter(snapshot))
    assert scene.pod(ended).metered_until == end
    charged = billed(scene, now=end)
    assert [line.accruing_micros for line in charged.lines] == [0]
    assert charged.total_micros == accruing.total_micros == (change - pod.started_at) // 100 + 60 * 10_000
    assert len(scene.store.usage(tenant=TENANT, since=0, until=ALL * ALL * ALL)[0][1]) == 2
