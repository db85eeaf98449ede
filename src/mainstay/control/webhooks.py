"""Tells webhooks what has happened: looks at new events, and sends what is due.

What there is to tell is never remembered here. The cursor of a webhook says up to which event its deliveries are on record, and a
delivery is on record until it is delivered or given up; so whoever comes after a crash finds all of it. A message whose receipt
was not put on record is sent again, under the same id: at least once.

Each webhook has a round of its own, so that a receiver that is slow or silent holds up no other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

import structlog

from mainstay.control import decisions
from mainstay.control.loop import Due, Loop
from mainstay.control.tenure import Tenure
from mainstay.decide.telling import body_of, type_of
from mainstay.domain.errors import DiskFailed, Fenced, MainstayError, NotFound
from mainstay.domain.plan import Action, Epoch, Event, Plan, QueueDeliveries, RecordAttempt
from mainstay.domain.reason import Code, Reason
from mainstay.domain.webhook import Delivery, WebhookRecord
from mainstay.operations.pulse import NOTHING
from mainstay.operations.services import Services
from mainstay.operations.webhooks import send

log = structlog.get_logger()

NAME = "webhooks"
PERIOD_SECONDS = 1.0
"""So late something is told at most, if its receiver is quick. Woken by each commit it would read as often as there are any."""
EVENTS_MAX = 500
"""Of one webhook, looked at in one turn."""
PENDING_MAX = 1_000
"""Of one webhook: with more on its way nothing is added. The events wait where they are."""
AT_ONCE = 4
"""Requests to one receiver at a time; one of whose last attempts failed gets one."""
ROUNDS_MAX = 256
"""Receivers that are sent to at a time."""
ROUND_TURNS = 50
"""Then others have their turn."""

Key: TypeAlias = tuple[str, str]
"""Tenant and name of a webhook."""


class Teller:
    """The loop, and the rounds that it has under way. All that it knows may be lost at any moment."""

    def __init__(self, services: Services, *, holder: str) -> None:
        self._services = services
        self._tenure = Tenure(services.store, services.clock, lease=f"{decisions.LEASE}/{NAME}", holder=holder)
        self._rounds: dict[Key, asyncio.Task[None]] = {}

    def loop(self) -> Loop:
        """What the runner runs."""
        return Loop(name=NAME, turn=self.turn, woken_by=NOTHING, close=self.close)

    async def turn(self) -> Due:
        """Queue what is new, and begin a round for each webhook that has none. Raises Fenced, DiskFailed."""
        self._reap()
        epoch = await self._services.offload(self._tenure.epoch)
        if epoch is None:
            await self.close()  # another replica leads
            return Due(wait=PERIOD_SECONDS)
        try:
            due = await self._services.offload(self._queue, epoch)
        except Fenced:
            self._tenure.lost()
            raise
        for key in due:
            if key not in self._rounds and len(self._rounds) < ROUNDS_MAX:
                self._rounds[key] = asyncio.create_task(self._round(key, epoch), name=f"{NAME}/{'/'.join(key)}")
        return Due(wait=PERIOD_SECONDS)

    async def close(self) -> None:
        """Let go of what is under way: it is sent again by whoever leads next."""
        for task in self._rounds.values():
            task.cancel()
        await asyncio.gather(*self._rounds.values(), return_exceptions=True)
        self._rounds.clear()

    def _reap(self) -> None:
        """Forget rounds that have ended. Raises DiskFailed if that ended one."""
        for key, task in list(self._rounds.items()):
            if not task.done():
                continue
            del self._rounds[key]
            error = None if task.cancelled() else task.exception()
            if isinstance(error, DiskFailed):
                raise error
            if isinstance(error, Fenced):
                self._tenure.lost()
            elif error is not None:
                why = error.message if isinstance(error, MainstayError) else repr(error)
                log.warning("webhook_round_failed", tenant=key[0], webhook=key[1], reason=why)

    def _queue(self, epoch: Epoch) -> list[Key]:
        """Put on record what is to be told; the webhooks that have something due, in an order that favours none."""
        store, now = self._services.store, self._services.clock.now()
        webhooks = [one for one in store.webhooks() if not one.disabled]
        actions = tuple(action for one in webhooks for action in self._news(one))
        if actions:
            store.commit(Plan(actor=NAME, now=now, actions=actions, epoch=epoch))
        random.shuffle(webhooks)
        return [
            (one.tenant, one.name)
            for one in webhooks
            if store.due_deliveries(one.name, tenant=one.tenant, now=now, limit=1)
        ]

    def _news(self, webhook: WebhookRecord) -> Iterable[Action]:
        """What a webhook is to be told of the next events, with where its cursor goes."""
        store = self._services.store
        if store.pending_deliveries(webhook.name, tenant=webhook.tenant) >= PENDING_MAX:
            return
        events = store.events(tenant=webhook.tenant, workload="", after=webhook.cursor, limit=EVENTS_MAX)
        told = tuple(one for event in events for one in self._deliveries(webhook, event))
        # Without news the cursor stays: reading a few events again costs less than a commit.
        if told or len(events) == EVENTS_MAX:
            yield QueueDeliveries(
                tenant=webhook.tenant,
                name=webhook.name,
                after=webhook.cursor,
                upto=events[-1].seq,
                deliveries=told,
                reason=Reason(code=Code.TOLD, object=webhook.name),
            )

    def _deliveries(self, webhook: WebhookRecord, event: Event) -> Iterable[Delivery]:
        type_ = type_of(event)
        if type_ not in webhook.types:
            return
        if webhook.project:
            workload = self._services.store.workload(event.workload, tenant=webhook.tenant)
            if workload.project != webhook.project:
                return
        yield Delivery(tenant=webhook.tenant, webhook=webhook.name, seq=event.seq, type=type_, made_at=event.at)

    async def _round(self, key: Key, epoch: Epoch) -> None:
        """Send to one receiver what is due, until nothing is. Raises Fenced if another leader has taken over."""
        offload, store, clock = self._services.offload, self._services.store, self._services.clock
        tenant, name = key
        for _ in range(ROUND_TURNS):
            try:
                webhook = await offload(store.webhook, name, tenant=tenant)
            except NotFound:
                return
            if webhook.disabled:
                return
            width = 1 if webhook.failures else AT_ONCE
            due = await offload(store.due_deliveries, name, tenant=tenant, now=clock.now(), limit=width)
            if not due:
                return
            done = await asyncio.gather(*(self._tell(webhook, one, epoch) for one in due), return_exceptions=True)
            failed = [one for one in done if one is not None]
            if failed:
                raise failed[0]

    async def _tell(self, webhook: WebhookRecord, delivery: Delivery, epoch: Epoch) -> None:
        """One attempt, and its record."""
        body = await self._services.offload(self._body, delivery)
        attempt, _ = await send(self._services, webhook, delivery.seq, body)
        attempt = replace(attempt, jitter=random.random())
        log.debug("webhook_told", webhook=webhook.name, seq=delivery.seq, status=attempt.status, detail=attempt.detail)
        reason = Reason(code=Code.TOLD, object=webhook.name)
        action = RecordAttempt(delivery=delivery, attempt=attempt, reason=reason)
        plan = Plan(actor=NAME, now=self._services.clock.now(), actions=(action,), epoch=epoch)
        await self._services.offload(self._services.store.commit, plan)

    def _body(self, delivery: Delivery) -> bytes:
        """Made anew each time from what never changes: the event, and who its run is."""
        store = self._services.store
        (event,) = store.events(tenant=delivery.tenant, workload="", after=delivery.seq - 1, limit=1)
        workload = store.workload(event.workload, tenant=delivery.tenant) if event.workload else None
        return body_of(event, delivery.type, workload)
