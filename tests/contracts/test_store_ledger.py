"""What every store promises about usage, prices and bills, over both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mainstay.domain.allocation import Progress, Seen
from mainstay.domain.billing import GroupBy, Ledger
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import Conflict
from mainstay.domain.plan import ObserveNodes, StopPod
from mainstay.domain.quantity import Money
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase
from tests.stores import NOON, SECOND, TENANT, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]


def test_usage_joins_without_gap_or_overlap_and_twice_is_once(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    start = pod.started_at
    scene.applied(scene.usage(pod, start=start, end=start + 10))
    again = scene.commit(scene.usage(pod, start=start, end=start + 10))
    assert again.refused[0].reason.code is Code.DUPLICATE
    assert scene.commit(scene.usage(pod, start=start + 11, end=start + 20)).refused
    assert scene.commit(scene.usage(pod, start=start + 5, end=start + 20)).refused
    assert scene.commit(scene.usage(pod, start=start + 10, end=start + 10)).refused
    scene.applied(scene.usage(pod, start=start + 10, end=start + 20))
    rows = scene.store.usage(tenant=TENANT, since=0, until=NOON * 2)
    assert [(record.start - start, record.end - start) for record, _ in rows] == [(0, 10), (10, 20)]
    assert [charge.cost.micros for _, charges in rows for charge in charges] == [7, 7]
    assert scene.pod(pod).metered_until == start + 20


def test_usage_does_not_go_beyond_the_end_or_before_the_start(scene: Scene) -> None:
    scene.fleet(cpus=8)
    waiting = scene.place(scene.submit())
    assert scene.commit(scene.usage(waiting, start=0, end=10)).refused
    ended = scene.end(scene.run(scene.submit()), ended_at=scene.now + 10)
    assert scene.commit(scene.usage(ended, start=ended.started_at, end=ended.ended_at + 1)).refused
    scene.applied(scene.usage(ended, start=ended.started_at, end=ended.ended_at))
    assert bill_of(scene).accruing == ()


def test_what_goes_out_of_sight_keeps_up_to_when_it_was_witnessed(scene: Scene) -> None:
    (node,) = scene.fleet()
    pod = scene.run(scene.submit())
    seen = NodeState(name=node.name, capacity=node.capacity, ready=True)
    scene.applied(ObserveNodes(cluster="local", nodes=(seen,), at=scene.now, reason=WHY))
    at = scene.now - SECOND
    assert scene.pod(pod).witnessed_at == 0
    for detail in ("missing", "still missing"):
        scene.applied(scene.see(pod, Seen.UNKNOWN, detail=detail))
        scene.applied(ObserveNodes(cluster="local", nodes=(seen,), at=scene.now, reason=WHY))
        assert scene.pod(pod).witnessed_at == at


def test_progress_sums_what_attempts_ran_without_what_was_waited_between_them(scene: Scene) -> None:
    scene.fleet()
    work, waits = scene.submit(), scene.submit()
    first = scene.run(work)
    scene.end(first, ended_at=first.started_at + 5 * SECOND, exit_code=1)
    scene.now += 600 * SECOND
    scene.applied(scene.advance(scene.workload(work.id), Phase.PENDING, attempt=2))
    second = scene.run(scene.workload(work.id))
    found = scene.store.progress([work.key, waits.key])
    assert found == {work.key: Progress(ran_us=5 * SECOND, running_since=second.started_at, ranks=1, has=one_cpu())}
    scene.applied(StopPod(allocation_key=second.key, reason=WHY))
    assert scene.store.progress([work.key])[work.key].stopping_since == scene.now
    assert scene.pod(second).stop_asked_at == scene.now
    scene.end(second, ended_at=second.started_at + 2 * SECOND)
    assert scene.store.progress([work.key]) == {work.key: Progress(ran_us=7 * SECOND, ranks=1, has=one_cpu())}


def test_usage_is_asked_for_by_tenant_and_by_its_start(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    start = pod.started_at
    scene.applied(scene.usage(pod, start=start, end=start + 10))
    assert len(scene.store.usage(tenant=TENANT, since=start, until=start + 1)) == 1
    assert scene.store.usage(tenant=TENANT, since=start + 1, until=start + 10) == ()
    assert scene.store.usage(tenant=TENANT, since=0, until=start) == ()
    assert scene.store.usage(tenant="chemistry", since=0, until=NOON * 2) == ()
    assert [row.key for row in bill_of(scene).accruing] == [pod.key]
    assert bill_of(scene, tenant="chemistry") == Ledger(usage=(), costs=(), accruing=(), prices=())


def bill_of(scene: Scene, *, tenant: str = TENANT, group_by: GroupBy = "workload") -> Ledger:
    return scene.store.ledger(tenant=tenant, group_by=group_by, since=0, until=NOON * 2)


def test_a_bill_sums_usage_and_charges_by_group(scene: Scene) -> None:
    scene.fleet(cpus=8)
    day = 86_400 * SECOND
    first, second = scene.run(scene.submit()), scene.run(scene.submit(choices=(one_cpu(cpu_milli=500),)))
    start, midnight = first.started_at, (first.started_at // day + 1) * day
    for pod, end in ((first, start + 10), (first, midnight), (first, midnight + 5), (second, second.started_at + 1)):
        scene.applied(scene.usage(scene.pod(pod), start=scene.pod(pod).metered_until or pod.started_at, end=end))
    by_workload = bill_of(scene)
    assert [(row.group, row.resources, row.duration_us) for row in by_workload.usage] == [
        (first.workload, first.resources, midnight + 5 - start),
        (second.workload, second.resources, 1),
    ]
    assert {(row.group, row.cost) for row in by_workload.costs} == {
        (first.workload, Money(micros=21)),
        (second.workload, Money(micros=7)),
    }
    assert [(row.group, row.cost.micros) for row in bill_of(scene, group_by="project").costs] == [("default", 28)]
    by_day = bill_of(scene, group_by="day")
    assert [(row.group, row.cost.micros) for row in by_day.costs] == [("2023-11-14", 21), ("2023-11-15", 7)]
    assert sum(row.duration_us for row in by_day.usage) == midnight + 5 - start + 1
    assert [row.project for row in by_day.accruing] == ["default", "default"]


def test_a_price_that_changes_within_a_record_makes_two_charges_of_it(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    start = pod.started_at
    record = scene.usage(pod, start=start, end=start + 20)
    (charge,) = record.charges
    halves = (replace(charge, end=start + 10), replace(charge, start=start + 10, cost=Money(micros=8)))
    scene.applied(replace(record, charges=halves))
    ((usage, charges),) = scene.store.usage(tenant=TENANT, since=0, until=NOON * 2)
    assert (usage, charges) == (record.usage, halves)
    assert [row.cost.micros for row in bill_of(scene).costs] == [15]


def test_what_the_database_refuses_holds_up_nothing_else(scene: Scene) -> None:
    scene.fleet(cpus=8)
    pods = [scene.run(scene.submit()) for _ in range(5)]
    records = [scene.usage(pod, start=pod.started_at, end=pod.started_at + 10) for pod in pods]
    records[3] = replace(records[3], charges=records[3].charges * 2)
    result = scene.commit(*records, epoch=scene.lead())
    assert (result.applied, result.version) == (4, scene.store.version())
    assert [(refused.index, refused.reason.code) for refused in result.refused] == [(3, Code.CONTRADICTION)]
    assert [scene.pod(pod).metered_until > 0 for pod in pods] == [True, True, True, False, True]
    with pytest.raises(Conflict):
        scene.commit(records[3], atomic=True)


def test_a_price_is_added_and_never_changed(scene: Scene) -> None:
    later = scene.now + 3_600 * SECOND
    scene.applied(scene.price(10), scene.price(20, since=later), scene.price(5, sku="gpu"))
    scene.applied(scene.price(10), atomic=True)
    assert scene.commit(scene.price(11)).refused
    listed = [(price.sku, price.effective_from, price.per_hour.micros) for price in scene.store.prices()]
    assert listed == [("cpu", 0, 10), ("cpu", later, 20), ("gpu", 0, 5)]
    assert scene.store.snapshot(now=0, seed=0).prices == scene.store.prices()


def test_a_price_of_the_past_is_refused_once_there_is_a_book(scene: Scene) -> None:
    scene.applied(scene.price(10))
    assert scene.commit(scene.price(9, sku="gpu")).refused
    assert scene.commit(scene.price(9, since=scene.now)).refused
    scene.applied(scene.price(9, since=scene.now + 2 * SECOND))


def test_a_price_book_has_one_currency(scene: Scene) -> None:
    scene.applied(scene.price(10))
    dollars = scene.price(9, since=scene.now + 9 * SECOND)
    euros = replace(dollars, price=replace(dollars.price, per_hour=Money(micros=9, currency="EUR")))
    (refused,) = scene.commit(euros).refused
    assert refused.reason.sentence == "cpu is priced in EUR, but the price book is in USD"
