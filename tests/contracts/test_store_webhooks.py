"""What every store promises about webhooks and what is on its way to them, over both databases."""

from __future__ import annotations

import pytest

from mainstay.domain.errors import NotFound
from mainstay.domain.plan import (
    AddWebhook,
    EnableWebhook,
    QueueDeliveries,
    RecordAttempt,
    RemoveWebhook,
    RotateWebhook,
)
from mainstay.domain.reason import Code
from mainstay.domain.webhook import WAIT_SECONDS_MAX, WEBHOOKS_MAX, Attempt, Delivery, NewWebhook, Outcome
from tests.stores import SECOND, TENANT, USER, WHY, Scene, scene, store

__all__ = ["scene", "store"]

MONTH = 30 * 86_400 * SECOND


def add(name: str = "hook", *, tenant: str = TENANT, sealed: str = "one") -> AddWebhook:
    new = NewWebhook(
        tenant=tenant, name=name, project="", url="https://a.b/c", types=("run.failed", "run.started"), sealed=sealed
    )
    return AddWebhook(webhook=new, reason=WHY)


def queue(scene: Scene, *seqs: int, name: str = "hook", after: int | None = None, upto: int = 0) -> QueueDeliveries:
    found = tuple(Delivery(tenant=TENANT, webhook=name, seq=seq, type="run.failed", made_at=seq) for seq in seqs)
    cursor = scene.store.webhook(name, tenant=TENANT).cursor if after is None else after
    return QueueDeliveries(
        tenant=TENANT, name=name, after=cursor, upto=upto or max(seqs, default=cursor), deliveries=found, reason=WHY
    )


def listed(scene: Scene, name: str = "hook") -> list[Delivery]:
    return list(scene.store.deliveries(name, tenant=TENANT, before=0, limit=1_000))


def due(scene: Scene, *, now: int, limit: int = 99) -> list[int]:
    return [one.seq for one in scene.store.due_deliveries("hook", tenant=TENANT, now=now, limit=limit)]


def test_a_webhook_is_there_until_it_is_removed_and_starts_with_what_happens_next(scene: Scene) -> None:
    scene.submit()
    scene.applied(add())
    (hook,) = scene.store.webhooks(tenant=TENANT)
    last = scene.store.last_events(tenant=TENANT, workload="", limit=1)[0]
    assert (hook.name, hook.types, hook.sealed, hook.made_by) == ("hook", ("run.failed", "run.started"), "one", USER)
    assert hook.cursor == last.seq
    assert (last.kind, last.object) == ("webhook", "hook")
    scene.applied(RemoveWebhook(tenant=TENANT, name="hook", reason=WHY))
    assert scene.store.webhooks() == ()
    with pytest.raises(NotFound):
        scene.store.webhook("hook", tenant=TENANT)


def test_a_name_is_of_one_webhook_of_a_tenant_and_there_are_only_so_many(scene: Scene) -> None:
    scene.applied(*(add(f"hook-{number}") for number in range(WEBHOOKS_MAX)))
    (again,) = scene.commit(add("hook-1")).refused
    (more,) = scene.commit(add("more")).refused
    assert (again.reason.code, more.reason.code) == (Code.WEBHOOK_KNOWN, Code.TOO_MANY_WEBHOOKS)
    scene.applied(add("hook-1", tenant="chemistry"))
    assert [one.name for one in scene.store.webhooks(tenant="chemistry")] == ["hook-1"]
    assert len(scene.store.webhooks()) == WEBHOOKS_MAX + 1


def test_names_are_paged_and_a_wrong_one_is_told_the_nearest(scene: Scene) -> None:
    scene.applied(add("a"), add("b"), add("c"))
    assert [one.name for one in scene.store.webhooks(tenant=TENANT, after="a", limit=1)] == ["b"]
    scene.applied(add("receiver"))
    with pytest.raises(NotFound) as missing:
        scene.store.webhook("reciever", tenant=TENANT)
    assert missing.value.hint == "did you mean receiver?"


def test_a_rotation_keeps_the_key_before_it_and_none_older(scene: Scene) -> None:
    scene.applied(add())
    for sealed, until in (("two", 50), ("three", 60)):
        scene.applied(RotateWebhook(tenant=TENANT, name="hook", sealed=sealed, before_until=until, reason=WHY))
    hook = scene.store.webhook("hook", tenant=TENANT)
    assert (hook.sealed, hook.sealed_before, hook.before_until) == ("three", "two", 60)


def test_deliveries_and_the_cursor_move_together_and_once(scene: Scene) -> None:
    scene.applied(add())
    action = queue(scene, 10, 12, upto=15)
    scene.applied(action)
    (refused,) = scene.commit(action).refused
    assert refused.reason.code is Code.WEBHOOK_IS_AHEAD
    assert [one.seq for one in listed(scene)] == [12, 10]
    assert scene.store.webhook("hook", tenant=TENANT).cursor == 15
    assert scene.store.pending_deliveries("hook", tenant=TENANT) == 2
    assert [one.seq for one in scene.store.deliveries("hook", tenant=TENANT, before=12, limit=9)] == [10]


def test_an_attempt_is_recorded_once_however_often_it_is_said(scene: Scene) -> None:
    scene.applied(add(), queue_of_new(10))
    (delivery,) = listed(scene)
    action = RecordAttempt(delivery=delivery, attempt=Attempt(at=scene.now, status=500, detail="no"), reason=WHY)
    scene.applied(action)
    (refused,) = scene.commit(action).refused
    assert refused.reason.code is Code.WEBHOOK_IS_AHEAD
    (delivery,) = listed(scene)
    assert (delivery.attempts, delivery.status, delivery.detail, delivery.outcome) == (1, 500, "no", Outcome.PENDING)
    scene.applied(RecordAttempt(delivery=delivery, attempt=Attempt(at=scene.now, status=204), reason=WHY))
    (delivery,) = listed(scene)
    assert (delivery.attempts, delivery.outcome) == (2, Outcome.DELIVERED)
    (refused,) = scene.commit(RecordAttempt(delivery=delivery, attempt=Attempt(at=1, status=500), reason=WHY)).refused
    assert refused.reason.code is Code.WEBHOOK_IS_AHEAD
    assert scene.store.pending_deliveries("hook", tenant=TENANT) == 0


def queue_of_new(*seqs: int) -> QueueDeliveries:
    """Of a webhook that the same plan adds as the first thing that happens."""
    found = tuple(Delivery(tenant=TENANT, webhook="hook", seq=seq, type="run.failed", made_at=seq) for seq in seqs)
    return QueueDeliveries(tenant=TENANT, name="hook", after=1, upto=max(seqs), deliveries=found, reason=WHY)


def test_the_longest_due_come_first_and_what_a_wrong_clock_put_far_ahead_is_due_too(scene: Scene) -> None:
    scene.applied(add(), queue_of_new(10, 11, 12))
    for delivery in reversed(listed(scene)[:2]):
        at = scene.now if delivery.seq == 11 else scene.now + 2 * WAIT_SECONDS_MAX * SECOND
        scene.applied(RecordAttempt(delivery=delivery, attempt=Attempt(at=at, status=500), reason=WHY))
    assert due(scene, now=scene.now) == [10, 12]
    assert due(scene, now=scene.now + 10 * SECOND) == [10, 11, 12]
    assert due(scene, now=scene.now + 10 * SECOND, limit=1) == [10]


def test_a_webhook_that_goes_takes_its_deliveries_along_and_leaves_those_of_others(scene: Scene) -> None:
    scene.applied(add(), add("other"))
    scene.applied(queue(scene, 10), queue(scene, 10, name="other"))
    (delivery,) = listed(scene)
    scene.applied(RemoveWebhook(tenant=TENANT, name="hook", reason=WHY))
    assert (len(listed(scene)), len(listed(scene, "other"))) == (0, 1)
    (refused,) = scene.commit(RecordAttempt(delivery=delivery, attempt=Attempt(at=1, status=200), reason=WHY)).refused
    assert refused.reason.code is Code.NO_SUCH_WEBHOOK


def test_what_ended_long_ago_goes_and_what_is_pending_stays(scene: Scene) -> None:
    scene.applied(add(), queue_of_new(10, 11, 12))
    pending, old, new = reversed(listed(scene))
    scene.applied(RecordAttempt(delivery=old, attempt=Attempt(at=scene.now, status=200), reason=WHY))
    scene.now += MONTH
    scene.applied(RecordAttempt(delivery=new, attempt=Attempt(at=scene.now, status=200), reason=WHY))
    assert [one.seq for one in listed(scene)] == [new.seq, pending.seq]


def test_disabling_is_told_once_and_enabling_ends_it(scene: Scene) -> None:
    scene.applied(add(), queue_of_new(10, 11))
    for delivery in listed(scene):
        scene.applied(RecordAttempt(delivery=delivery, attempt=Attempt(at=scene.now, status=410), reason=WHY))
    events = scene.store.events(tenant=TENANT, workload="", after=1, limit=99)
    assert [event.reason.code for event in events] == [Code.WEBHOOK_DISABLED]
    assert scene.store.webhook("hook", tenant=TENANT).disabled
    for _ in range(2):
        scene.applied(EnableWebhook(tenant=TENANT, name="hook", reason=WHY))
    hook = scene.store.webhook("hook", tenant=TENANT)
    assert (hook.disabled, hook.failures, hook.failing_since) == ("", 0, 0)
    assert len(scene.store.events(tenant=TENANT, workload="", after=1, limit=99)) == 2


def test_the_log_of_deliveries_is_in_no_audit_and_the_doings_of_people_are(scene: Scene) -> None:
    scene.applied(add(), queue_of_new(10))
    (delivery,) = listed(scene)
    scene.applied(RecordAttempt(delivery=delivery, attempt=Attempt(at=1, status=200), reason=WHY))
    assert [row.action for row in scene.store.audit(after=0, limit=9)] == ["add_webhook"]


def test_what_a_receiver_says_is_stored_whatever_it_is(scene: Scene) -> None:
    scene.applied(add(), queue_of_new(10))
    (delivery,) = listed(scene)
    said = Attempt(at=1, detail="nul \0 and half \ud800 a pair")
    scene.applied(RecordAttempt(delivery=delivery, attempt=said, reason=WHY))
    assert listed(scene)[0].detail == "nul \N{REPLACEMENT CHARACTER} and half ? a pair"
