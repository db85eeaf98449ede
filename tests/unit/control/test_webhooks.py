"""Telling webhooks what happens: at least once under one id, through crashes, slow receivers, clocks and two replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from mainstay.control.loop import Due
from mainstay.control.webhooks import AT_ONCE, Teller
from mainstay.domain.errors import Fenced, Unavailable
from mainstay.domain.plan import CommitResult, Plan, QueueDeliveries, RecordAttempt
from mainstay.domain.webhook import DISABLED_AFTER_SECONDS, ROTATION_SECONDS, WAITS_SECONDS, Delivery, Outcome
from mainstay.domain.workload import Phase, Workload
from mainstay.operations import webhooks as operations
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from mainstay.outbound import Outbound
from tests.clock import ManualClock
from tests.receivers import Got, Receiver, receiving
from tests.stores import TENANT, Scene
from tests.unit.web.site import services_of

ALICE = Principal(name="alice", tenant=TENANT, role="maintainer")
DAY = 86_400


@dataclass
class Telling:
    """One platform with its teller, and how to let things happen."""

    services: Services
    clock: ManualClock
    scene: Scene
    teller: Teller

    async def add(self, receiver: Receiver, *types: str, name: str = "hook", project: str = "") -> str:
        """Its secret."""
        wish = operations.WebhookWish(url=receiver.url, types=types, name=name, project=project)
        _, secret = await operations.add(self.services, ALICE, wish, request=None, reply=lambda _, __: "")
        return secret

    def run(self, phase: Phase = Phase.SUCCEEDED, **changes: Any) -> Workload:
        """A run that ends so: submitted, started, ended."""
        work = self.scene.submit(**changes)
        if not self.scene.store.nodes():
            self.scene.fleet(cpus=64)
        pod = self.scene.run(work)
        self.scene.end(pod)
        self.scene.applied(self.scene.advance(self.scene.workload(work.id), phase))
        return work

    async def turn(self, teller: Teller | None = None) -> Due:
        """One turn, and all that it has begun."""
        teller = teller or self.teller
        due = await teller.turn()
        await asyncio.gather(*teller._rounds.values(), return_exceptions=True)
        return due

    def deliveries(self, name: str = "hook") -> list[Delivery]:
        """Oldest first."""
        return list(reversed(self.services.store.deliveries(name, tenant=TENANT, before=0, limit=1_000)))

    def webhook(self, name: str = "hook"):
        return self.services.store.webhook(name, tenant=TENANT)

    def replica(self, name: str) -> Teller:
        """Another process on the same database."""
        return Teller(self.services, holder=name)


@pytest.fixture
async def telling(tmp_path: Path) -> AsyncIterator[Telling]:
    with services_of(tmp_path, url="http://platform.test") as given:
        clock = ManualClock()
        services = replace(
            given, clock=clock, outbound=Outbound(allowed=(ip_network("127.0.0.0/8"), ip_network("::1")))
        )
        teller = Teller(services, holder="one")
        yield Telling(services, clock, Scene(services.store, now=clock.now()), teller)
        await teller.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def types(receiver: Receiver) -> list[str]:
    return [json.loads(got.body)["type"] for got in receiver.got]


class Crash(Exception):
    """The process ends here."""


@contextmanager
def crashing(
    services: Services, monkeypatch: pytest.MonkeyPatch, *, after: bool, of: type = RecordAttempt
) -> Iterator[None]:
    """The next commit of such an action does not return: before it is done, or after."""
    commit: Callable[[Plan], CommitResult] = services.store.commit

    def crash(plan: Plan) -> CommitResult:
        if not any(isinstance(action, of) for action in plan.actions):
            return commit(plan)
        if after:
            commit(plan)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(services.store, "commit", crash)
        yield


async def test_what_happens_is_told_in_full_once_and_what_happened_before_is_not(
    telling: Telling, receiver: Receiver
) -> None:
    telling.run()
    await telling.add(receiver)
    work = telling.run(Phase.FAILED)
    await telling.turn()
    await telling.turn()
    assert sorted(types(receiver)) == ["run.failed", "run.started", "run.submitted"]
    body = next(json.loads(got.body) for got in receiver.got if b"run.failed" in got.body)
    assert set(body) == {"type", "timestamp", "data"}
    assert body["timestamp"].endswith("Z")
    assert (body["data"]["run"], body["data"]["phase"], body["data"]["name"]) == (work.id, "failed", "train")
    assert {one.outcome for one in telling.deliveries()} == {Outcome.DELIVERED}
    assert len(set(receiver.ids)) == 3


async def test_only_what_was_chosen_is_told(telling: Telling, receiver: Receiver) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    telling.run(Phase.FAILED)
    await telling.turn()
    assert sorted(types(receiver)) == ["run.failed", "run.succeeded"]


async def test_of_a_project_only_its_runs_are_told_and_of_another_tenant_nothing(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.submitted", project="vision")
    telling.scene.submit(project="vision", name="ours")
    telling.scene.submit(project="speech")
    telling.scene.submit(project="vision", tenant="chemistry")
    await telling.turn()
    assert [json.loads(got.body)["data"]["name"] for got in receiver.got] == ["ours"]


async def test_a_crash_after_sending_tells_again_under_the_same_id_and_with_the_same_words(
    telling: Telling, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    with crashing(telling.services, monkeypatch, after=False):
        await telling.turn()
    assert [one.attempts for one in telling.deliveries()] == [0]
    await telling.turn(telling.replica("one"))
    first, second = receiver.got
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert [(one.attempts, one.outcome) for one in telling.deliveries()] == [(1, Outcome.DELIVERED)]


async def test_a_crash_after_the_record_tells_nothing_again(
    telling: Telling, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    with crashing(telling.services, monkeypatch, after=True):
        await telling.turn()
    await telling.turn(telling.replica("one"))
    assert len(receiver.got) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_around_the_queueing_loses_and_doubles_nothing(
    telling: Telling, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    with crashing(telling.services, monkeypatch, after=after, of=QueueDeliveries), pytest.raises(Crash):
        await telling.turn()
    assert receiver.got == []
    await telling.turn(telling.replica("one"))
    await telling.turn()
    assert types(receiver) == ["run.succeeded"]


async def test_a_crash_while_sending_leaves_it_to_be_sent(telling: Telling, receiver: Receiver) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    receiver.open.clear()
    await telling.teller.turn()
    await receiver.until(1)
    await telling.teller.close()
    receiver.open.set()
    await telling.turn(telling.replica("one"))
    assert len(receiver.got) == 2
    assert len(set(receiver.ids)) == 1


async def test_a_receiver_that_fails_is_asked_again_by_the_schedule_and_then_given_up(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    receiver.status = 500
    for number, wait in enumerate(WAITS_SECONDS, start=1):
        await telling.turn()
        assert len(receiver.got) == number
        telling.clock.advance(wait - 1)
        await telling.turn()
        assert len(receiver.got) == number, "too early"
        telling.clock.advance(1 + 0.2 * wait)
    await telling.turn()
    (delivery,) = telling.deliveries()
    assert (delivery.outcome, delivery.attempts, delivery.status) == (Outcome.FAILED, 10, 500)
    assert delivery.detail == "it answered 500"
    assert len(set(receiver.ids)) == 1
    telling.clock.advance(DAY)
    await telling.turn()
    assert len(receiver.got) == 10


async def test_a_redirect_is_a_failure_that_says_what_to_do(telling: Telling, receiver: Receiver) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    receiver.status, receiver.headers = 301, {"Location": receiver.url}
    await telling.turn()
    (delivery,) = telling.deliveries()
    assert (len(receiver.got), delivery.outcome) == (1, Outcome.PENDING)
    assert "a redirect, which is not followed" in delivery.detail


async def test_a_receiver_that_is_gone_disables_its_webhook_and_an_event_says_so(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    receiver.status = 410
    await telling.turn()
    assert telling.webhook().disabled == "its receiver wants no more of it (410 Gone)"
    event = telling.services.store.last_events(tenant=TENANT, workload="", limit=1)[0]
    assert (event.kind, event.object, event.reason.code.value) == ("webhook", "hook", "WebhookDisabled")
    telling.run()
    telling.clock.advance(DAY)
    await telling.turn()
    assert len(receiver.got) == 1


async def test_what_happened_while_it_was_disabled_is_told_once_it_is_enabled(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    receiver.status = 410
    await telling.turn()
    telling.run(Phase.FAILED)
    await telling.turn()
    receiver.status = 200
    operations.enable(telling.services.store, ALICE, "hook", now=telling.clock.now())
    await telling.turn()
    assert types(receiver) == ["run.succeeded", "run.failed"]


async def test_after_days_of_failure_it_is_disabled_and_another_webhook_is_told(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    async with receiving() as other:
        await telling.add(other, "webhook.disabled", name="other")
        receiver.status = 503
        for _ in range(DISABLED_AFTER_SECONDS // DAY + 1):
            telling.run()
            telling.run()
            await telling.turn()
            telling.clock.advance(DAY)
        await telling.turn()
        await telling.turn()
        assert "nothing has arrived for 5 days" in telling.webhook().disabled
        assert types(other) == ["webhook.disabled"]


async def test_one_success_ends_the_count_of_failures(telling: Telling, receiver: Receiver) -> None:
    await telling.add(receiver, "run.finished")
    receiver.status = 500
    telling.run()
    await telling.turn()
    assert (telling.webhook().failures, telling.webhook().failing_since > 0) == (1, True)
    receiver.status = 200
    telling.clock.advance(10)
    await telling.turn()
    assert (telling.webhook().failures, telling.webhook().failing_since) == (0, 0)


async def test_a_clock_that_jumps_far_ahead_disables_nobody_and_one_that_comes_back_delays_nothing(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    receiver.status = 500
    telling.run()
    await telling.turn()
    telling.clock.jump(30 * DAY)
    telling.clock.advance(10)
    await telling.turn()
    assert len(receiver.got) == 2
    assert telling.webhook().disabled == ""
    telling.clock.jump(-30 * DAY)
    telling.clock.advance(10)
    receiver.status = 200
    await telling.turn()
    assert [one.outcome for one in telling.deliveries()] == [Outcome.DELIVERED]


async def test_a_slow_receiver_holds_up_no_other_and_gets_no_more_than_a_few_at_once(
    telling: Telling, receiver: Receiver
) -> None:
    async with receiving() as slow:
        slow.open.clear()
        await telling.add(slow, "run.submitted", name="slow")
        await telling.add(receiver, "run.submitted", name="quick")
        for _ in range(3 * AT_ONCE):
            telling.scene.submit()
        await telling.teller.turn()
        await receiver.until(3 * AT_ONCE)
        await slow.until(AT_ONCE)
        await telling.teller.turn()
        assert (len(slow.got), slow.waiting_most) == (AT_ONCE, AT_ONCE)
        assert {one.outcome for one in telling.deliveries("slow")} == {Outcome.PENDING}
        slow.open.set()
        await telling.turn()
        assert (len(slow.got), slow.waiting_most) == (3 * AT_ONCE, AT_ONCE)


async def test_of_two_replicas_one_tells(telling: Telling, receiver: Receiver) -> None:
    await telling.add(receiver, "run.finished")
    other = telling.replica("two")
    for _ in range(5):
        telling.run()
        await telling.turn()
        await telling.turn(other)
    assert len(receiver.got) == len(set(receiver.ids)) == 5


async def test_a_leader_that_was_replaced_while_it_sent_records_nothing_and_the_next_tells_again(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    receiver.open.clear()
    await telling.teller.turn()
    await receiver.until(1)
    telling.clock.advance(60)  # it was stopped: its lease has run out
    other = telling.replica("two")
    await other.turn()
    await receiver.until(2)
    receiver.open.set()
    await asyncio.gather(*other._rounds.values())
    (late,) = telling.teller._rounds.values()
    with pytest.raises(Fenced):
        await late
    assert [(one.attempts, one.outcome) for one in telling.deliveries()] == [(1, Outcome.DELIVERED)]
    assert len(set(receiver.ids)) == 1
    await telling.turn()
    assert len(receiver.got) == 2


async def test_a_database_that_is_away_for_a_moment_costs_nothing_but_time(
    telling: Telling, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()

    def away(*_: Any, **__: Any) -> Any:
        msg = "away"
        raise Unavailable(msg)

    with monkeypatch.context() as patch:
        patch.setattr(telling.services.store, "webhook", away)
        await telling.turn()
    assert receiver.got == []
    await telling.turn()
    assert len(receiver.got) == 1


async def test_a_webhook_that_is_removed_while_it_is_sent_to_is_forgotten_whole(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    receiver.open.clear()
    await telling.teller.turn()
    await receiver.until(1)
    operations.remove(telling.services.store, ALICE, "hook", now=telling.clock.now(), request=None)
    receiver.open.set()
    await telling.turn()
    assert telling.deliveries() == []
    await telling.add(receiver, "run.finished")
    await telling.turn()
    assert len(receiver.got) == 1


async def test_a_long_backlog_is_queued_in_parts_and_told_whole(
    telling: Telling, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mainstay.control.webhooks.PENDING_MAX", 3)
    monkeypatch.setattr("mainstay.control.webhooks.EVENTS_MAX", 4)
    await telling.add(receiver, "run.submitted")
    ids = [telling.scene.submit().id for _ in range(20)]
    receiver.open.clear()
    await telling.teller.turn()
    await telling.teller.turn()
    assert len(telling.deliveries()) == 4
    receiver.open.set()
    for _ in range(10):
        await telling.turn()
    assert sorted(json.loads(got.body)["data"]["run"] for got in receiver.got) == sorted(ids)


async def test_for_a_day_after_a_rotation_both_secrets_sign(telling: Telling, receiver: Receiver) -> None:
    old = await telling.add(receiver, "run.submitted")
    _, new = operations.rotate(telling.services, ALICE, "hook", request=None)
    assert old != new
    telling.scene.submit()
    await telling.turn()
    telling.clock.advance(ROTATION_SECONDS)
    telling.scene.submit()
    await telling.turn()
    during, after = receiver.got

    def verified(secret: str, got: Got) -> bool:
        at = datetime.fromtimestamp(int(got.headers["webhook-timestamp"]), UTC)
        signature = Webhook(secret).sign(got.headers["webhook-id"], at, got.body.decode())
        return signature in got.headers["webhook-signature"].split(" ")

    assert (verified(old, during), verified(new, during)) == (True, True)
    assert (verified(old, after), verified(new, after)) == (False, True)


async def test_an_address_that_leads_elsewhere_since_it_was_added_is_not_sent_to(
    telling: Telling, receiver: Receiver
) -> None:
    await telling.add(receiver, "run.finished")
    telling.run()
    closed = Teller(replace(telling.services, outbound=Outbound(allowed=(ip_network("127.0.0.9/32"),))), holder="one")
    await telling.turn(closed)
    (delivery,) = telling.deliveries()
    assert receiver.got == []
    assert "leads to an address that is refused: it is this machine" in delivery.detail
