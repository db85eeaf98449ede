"""Webhooks: add, remove, rotate, enable, try out; and how one message is sent."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

from mainstay.decide.telling import test_body
from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, Denied, Invalid, Unavailable
from mainstay.domain.logtext import printable
from mainstay.domain.outbound import target_of
from mainstay.domain.plan import Action, AddWebhook, EnableWebhook, Plan, RemoveWebhook, RotateWebhook
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.webhook import (
    FINISHED,
    KEY_BYTES,
    ROTATION_SECONDS,
    TYPES,
    Attempt,
    NewWebhook,
    WebhookRecord,
    chosen,
    headers_of,
    message_id,
    secret_text,
)
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.operations.services import Services
from mainstay.ports import Store

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
OF_RUNS = "run."
SAID_CHARACTERS_MAX = 2_000

Reply: TypeAlias = Callable[[NewWebhook, int], str]
"""(what is added, when) -> what is answered, without the secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookWish:
    """What somebody wants told, and where. No `types`: all; no `name`: after the host; no `project`: of all."""

    url: str
    types: tuple[str, ...] = ()
    name: str = ""
    project: str = ""


async def add(
    services: Services, principal: Principal, wish: WebhookWish, *, request: RequestKey | None, reply: Reply
) -> tuple[Done, str]:
    """Put a webhook on record; with its secret, which is shown only now and is empty for a repetition.

    Raises Invalid, also for an address that nobody knows or to which nothing may be sent; Conflict if the name is taken or there
    are too many; Unavailable.
    """
    principal.require(Permission.WEBHOOKS)
    if done := await services.offload(replayed, services.store, principal, request):
        return done, ""
    await services.outbound.check(wish.url)
    name, types = _name(wish), _types(wish)
    key = secrets.token_bytes(KEY_BYTES)
    new = NewWebhook(
        tenant=principal.tenant,
        name=name,
        project=wish.project,
        url=wish.url,
        types=types,
        sealed=services.sealing.sealed_secret(principal.tenant, _place(name), key),
    )
    host = target_of(wish.url, plain=True).host
    reason = Reason(code=Code.WEBHOOK_ADDED, object=name, numbers={"host": host, "by": principal.name})
    now = services.clock.now()
    action = AddWebhook(webhook=new, reason=reason)
    done = await services.offload(
        _commit, services.store, principal, action, now=now, request=request, text=reply(new, now)
    )
    return done, "" if done.replayed else secret_text(key)


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Forget a webhook and what is on its way to it. Raises NotFound."""
    principal.require(Permission.WEBHOOKS)
    if done := replayed(store, principal, request):
        return done
    store.webhook(name, tenant=principal.tenant)
    reason = Reason(code=Code.WEBHOOK_REMOVED, object=name, numbers={"by": principal.name})
    action = RemoveWebhook(tenant=principal.tenant, name=name, reason=reason)
    return _commit(store, principal, action, now=now, request=request, text="")


def rotate(
    services: Services, principal: Principal, name: str, *, request: RequestKey | None
) -> tuple[WebhookRecord, str]:
    """Make a new secret; for a day messages are signed with the one before it, too. Empty for a repetition. Raises NotFound."""
    principal.require(Permission.WEBHOOKS)
    store = services.store
    if replayed(store, principal, request):
        return store.webhook(name, tenant=principal.tenant), ""
    store.webhook(name, tenant=principal.tenant)
    now, key = services.clock.now(), secrets.token_bytes(KEY_BYTES)
    action = RotateWebhook(
        tenant=principal.tenant,
        name=name,
        sealed=services.sealing.sealed_secret(principal.tenant, _place(name), key),
        before_until=now + ROTATION_SECONDS * MICROSECONDS_PER_SECOND,
        reason=Reason(code=Code.WEBHOOK_ROTATED, object=name, numbers={"by": principal.name}),
    )
    done = _commit(store, principal, action, now=now, request=request, text="")
    return store.webhook(name, tenant=principal.tenant), "" if done.replayed else secret_text(key)


def enable(store: Store, principal: Principal, name: str, *, now: int) -> WebhookRecord:
    """Send again what was not sent since it was disabled. Nothing happens to one that is enabled. Raises NotFound."""
    principal.require(Permission.WEBHOOKS)
    store.webhook(name, tenant=principal.tenant)
    reason = Reason(code=Code.WEBHOOK_ENABLED, object=name, numbers={"by": principal.name})
    action = EnableWebhook(tenant=principal.tenant, name=name, reason=reason)
    _commit(store, principal, action, now=now, request=None, text="")
    return store.webhook(name, tenant=principal.tenant)


async def try_out(services: Services, principal: Principal, name: str) -> tuple[Attempt, str]:
    """Send one message now, and tell what was answered. It counts for nothing. Raises NotFound."""
    principal.require(Permission.WEBHOOKS)
    webhook = await services.offload(services.store.webhook, name, tenant=principal.tenant)
    now = services.clock.now()
    return await send(services, webhook, f"test {secrets.token_hex(8)}", test_body(name, now=now))


async def send(services: Services, webhook: WebhookRecord, what: int | str, body: bytes) -> tuple[Attempt, str]:
    """One attempt: what came of it, and what was answered. It never fails, but may take as long as an answer may."""
    clock = services.clock
    try:
        keys = _keys(services, webhook, now=clock.now())
        headers = headers_of(message_id(services.system, webhook, what), body, keys, now=clock.now())
        heard = await services.outbound.post(webhook.url, headers=headers, body=body)
    except (Invalid, Unavailable, Denied) as error:
        return Attempt(at=clock.now(), detail=error.message), ""
    detail = f"it answered {heard.status}"
    if 300 <= heard.status < 400:
        detail += ", a redirect, which is not followed: add the address where it leads"
    return Attempt(at=clock.now(), status=heard.status, detail=detail), printable(heard.content)[:SAID_CHARACTERS_MAX]


def _keys(services: Services, webhook: WebhookRecord, *, now: int) -> list[bytes]:
    """The key, and the one before it while that counts. Raises Denied, with which key of the platform is needed."""
    sealed = [webhook.sealed]
    # A clock that was ahead must not let an old key count for ever.
    left = webhook.before_until - now
    if webhook.sealed_before and 0 < left <= ROTATION_SECONDS * MICROSECONDS_PER_SECOND:
        sealed.append(webhook.sealed_before)
    return [services.sealing.opened_secret(webhook.tenant, _place(webhook.name), one) for one in sealed]


def _place(name: str) -> str:
    """What its key is bound to: no secret that jobs may ask for has such a name."""
    return f"webhook/{name}"


def _name(wish: WebhookWish) -> str:
    name = wish.name or re.sub(r"[^a-z0-9]+", "-", target_of(wish.url, plain=True).host)[:40].strip("-")
    if not NAME.match(name):
        msg = f"name: {name!r} is not allowed"
        raise Invalid(
            msg, object_="name", hint="lower-case letters, digits and `-`, 1 to 40, a letter or digit at both ends"
        )
    return name


def _types(wish: WebhookWish) -> tuple[str, ...]:
    """Of a project only runs are told: what is served and registered is of the tenant."""
    for name in wish.types:
        if name not in {*TYPES, FINISHED}:
            near = get_close_matches(name, [*TYPES, FINISHED], n=1)
            msg = f"events: there is no {name!r}"
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join((FINISHED, *TYPES))}"
            raise Invalid(msg, object_="events", hint=hint)
        if wish.project and not name.startswith(OF_RUNS):
            msg = f"events: {name} belongs to no project"
            raise Invalid(msg, object_="events", hint="leave `project` out, or name events of runs only")
    if wish.types:
        return chosen(wish.types)
    return tuple(name for name in TYPES if name.startswith(OF_RUNS) or not wish.project)


def _commit(
    store: Store, principal: Principal, action: Action, *, now: int, request: RequestKey | None, text: str
) -> Done:
    kept = request.with_reply(text, principal) if request else None
    plan = Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept)
    try:
        result = store.commit(plan)
    except Conflict as error:
        hint = "choose another with `name`, or remove one: mainstay webhook list"
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error
    return Done(reply=text if result.reply is None else result.reply, replayed=result.reply is not None)
