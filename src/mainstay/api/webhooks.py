"""Webhooks of a tenant: add, list, remove, rotate, enable, try out; and what became of their deliveries."""

from __future__ import annotations

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api.convert import instant
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit, cursor_key
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.outbound import target_of
from mainstay.domain.webhook import Delivery, NewWebhook, WebhookRecord, message_id
from mainstay.operations import webhooks as operations
from mainstay.wire.requests import WebhookRequest
from mainstay.wire.views import DeliveryView, Page, WebhookTestView, WebhookView

routes = Routes("webhooks")
_WEBHOOKS = TypeAdapter(Page[WebhookView])
_DELIVERIES = TypeAdapter(Page[DeliveryView])


@routes.add("POST", "/v1/webhooks", needs=Permission.WEBHOOKS, answers=WebhookView, status=201, keyed=True)
async def add_webhook(call: Caller, body: WebhookRequest) -> Response:
    """Tell an address outside what happens from now on. Its secret is in the answer, and never again: a repetition with the
    same key shows none.
    """

    def reply(new: NewWebhook, now: int) -> str:
        made = WebhookRecord(
            tenant=new.tenant,
            name=new.name,
            project=new.project,
            url=new.url,
            types=new.types,
            sealed="",
            cursor=0,
            made_at=now,
            made_by=call.principal.name,
        )
        return webhook_view(made).model_dump_json()

    wish = operations.WebhookWish(url=body.url, types=tuple(body.events), name=body.name, project=body.project)
    result, secret = await operations.add(call.services, call.principal, wish, request=call.key, reply=reply)
    if not secret:
        return done(result, status=201)
    # What is kept for a repetition must not hold it.
    view = WebhookView.model_validate_json(result.reply).model_copy(update={"secret": secret})
    return json_response(view.model_dump_json(), status=201)


@routes.add("GET", "/v1/webhooks", needs=Permission.READ, answers=Page[WebhookView])
async def list_webhooks(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """The webhooks of the caller's tenant, by name. Who may not add any sees of an address the host: the rest may be a secret."""
    store, open_ = call.services.store, call.principal.may(Permission.WEBHOOKS)
    found = await call.services.offload(store.webhooks, tenant=call.principal.tenant, after=cursor, limit=limit + 1)
    page = Page[WebhookView](
        items=[webhook_view(one, whole=open_) for one in found[:limit]],
        next=found[limit - 1].name if len(found) > limit else "",
    )
    return json_response(_WEBHOOKS.dump_json(page))


@routes.add("DELETE", "/v1/webhooks/{name}", needs=Permission.WEBHOOKS, status=204, keyed=True)
async def remove_webhook(call: Caller, name: str) -> Response:
    """Forget a webhook, and what is on its way to it."""
    services = call.services
    result = await services.offload(
        operations.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)


@routes.add(
    "POST", "/v1/webhooks/{name}/rotate", needs=Permission.WEBHOOKS, answers=WebhookView, status=201, keyed=True
)
async def rotate_webhook(call: Caller, name: str) -> Response:
    """Make a new secret; for a day all are signed with the one before it, too. A repetition with the same key shows none."""
    webhook, secret = await call.services.offload(
        operations.rotate, call.services, call.principal, name, request=call.key
    )
    view = webhook_view(webhook).model_copy(update={"secret": secret})
    return json_response(view.model_dump_json(), status=201)


@routes.add("PUT", "/v1/webhooks/{name}/enabled", needs=Permission.WEBHOOKS, answers=WebhookView)
async def enable_webhook(call: Caller, name: str) -> Response:
    """Send again, from where it was disabled: what has happened meanwhile is told late."""
    services = call.services
    webhook = await services.offload(operations.enable, services.store, call.principal, name, now=services.clock.now())
    return json_response(webhook_view(webhook).model_dump_json())


@routes.add("POST", "/v1/webhooks/{name}/test", needs=Permission.WEBHOOKS, answers=WebhookTestView)
async def try_webhook(call: Caller, name: str) -> Response:
    """Send a message of the type `webhook.test` now, and tell what was answered. Each call sends one."""
    attempt, said = await operations.try_out(call.services, call.principal, name)
    detail = "" if attempt.delivered else attempt.detail
    view = WebhookTestView(delivered=attempt.delivered, status=attempt.status, detail=detail, answer=said)
    return json_response(view.model_dump_json())


@routes.add("GET", "/v1/webhooks/{name}/deliveries", needs=Permission.READ, answers=Page[DeliveryView])
async def list_deliveries(call: Caller, name: str, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """What was told, newest first, and what became of it. What has ended is kept for a month."""
    services, tenant = call.services, call.principal.tenant

    def read() -> tuple[WebhookRecord, tuple[Delivery, ...]]:
        webhook = services.store.webhook(name, tenant=tenant)
        before = cursor_key(cursor)
        return webhook, services.store.deliveries(name, tenant=tenant, before=before, limit=limit + 1)

    webhook, found = await services.offload(read)
    page = Page[DeliveryView](
        items=[_delivery_view(one, message_id(services.system, webhook, one.seq)) for one in found[:limit]],
        next=str(found[limit - 1].seq) if len(found) > limit else "",
    )
    return json_response(_DELIVERIES.dump_json(page))


def webhook_view(webhook: WebhookRecord, *, whole: bool = True) -> WebhookView:
    """Without its secret; unless `whole`, of its address only the host."""
    target = target_of(webhook.url, plain=True)
    return WebhookView(
        name=webhook.name,
        url=webhook.url if whole else f"{target.scheme}://{target.authority}/…",
        events=list(webhook.types),
        project=webhook.project,
        disabled=webhook.disabled,
        failures=webhook.failures,
        failing_since=instant(webhook.failing_since) if webhook.failing_since else None,
        made_at=instant(webhook.made_at),
        made_by=webhook.made_by,
    )


def _delivery_view(delivery: Delivery, id_: str) -> DeliveryView:
    return DeliveryView(
        id=id_,
        seq=delivery.seq,
        type=delivery.type,
        at=instant(delivery.made_at),
        outcome=delivery.outcome.value,
        attempts=delivery.attempts,
        status=delivery.status,
        detail=delivery.detail,
        attempted_at=instant(delivery.attempted_at) if delivery.attempted_at else None,
        next_at=instant(delivery.next_at) if delivery.next_at else None,
    )
