"""Webhooks: who is told what, signed how, and when it is tried again.

Source of signature, headers, schedule and the meaning of answers: Standard Webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mainstay.domain.quantity import MICROSECONDS_PER_SECOND

SECRET_PREFIX = "whsec_"  # noqa: S105 no secret
KEY_BYTES = 32
"""The specification asks for 24 to 64."""
WEBHOOKS_MAX = 20
"""Of one tenant: each may have requests under way."""
ROTATION_SECONDS = 24 * 3_600
"""So long after a rotation messages are signed with the key before it, too."""

WAITS_SECONDS = (5, 5 * 60, 30 * 60, 2 * 3_600, 5 * 3_600, 10 * 3_600, 14 * 3_600, 20 * 3_600, 24 * 3_600)
"""Between one attempt that failed and the next; after the last of ten nothing more is tried. Source: its example schedule."""
JITTER = 0.2
"""Each wait is up to so much longer: receivers that failed together are not asked together again."""
WAIT_SECONDS_MAX = round(WAITS_SECONDS[-1] * (1 + JITTER))
DISABLED_AFTER_SECONDS = 5 * 86_400
DISABLED_AFTER_ATTEMPTS = 10
"""A webhook of which so long and so often in a row nothing arrived is disabled. Both: a clock that jumps disables nobody."""
GONE = 410
DETAIL_CHARACTERS_MAX = 300

ENDS = ("run.succeeded", "run.failed", "run.stopped", "run.preempted")
TYPES = (
    *("run.submitted", "run.started", "run.requeued", *ENDS),
    *("endpoint.switched", "endpoint.failed", "model.registered", "webhook.disabled"),
)
"""What can be told."""
FINISHED = "run.finished"
"""Stands for all ends of a run where events are chosen; what is told names the one that it was."""
TEST = "webhook.test"


class Outcome(StrEnum):
    """What has become of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up: after all attempts, or since the receiver wants no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A webhook to be put on record, with its key sealed."""

    tenant: str
    name: str
    project: str
    """Only what belongs to it is told; empty: all of the tenant."""
    url: str
    types: tuple[str, ...]
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord(NewWebhook):
    """A webhook on record. Its name is unique within a tenant."""

    sealed_before: str = field(default="", repr=False)
    """The key before the last rotation; it counts until `before_until`."""
    before_until: int = 0
    cursor: int
    """Events up to this one have been looked at: those that it tells of have their deliveries."""
    disabled: str = ""
    """Why nothing is sent any more; empty while something is."""
    failing_since: int = 0
    """When the first attempt since the last that arrived has failed; 0 where there is none."""
    failures: int = 0
    """How many have failed since then, in a row."""
    made_at: int
    made_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one webhook, by the number of the event."""

    tenant: str
    webhook: str
    seq: int
    type: str
    made_at: int
    attempts: int = 0
    next_at: int = 0
    """When it is due; 0: at once."""
    outcome: Outcome = Outcome.PENDING
    status: int = 0
    """Of the last answer; 0 where there was none."""
    detail: str = ""
    """What went wrong at the last attempt."""
    attempted_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of sending once. `status` 0: there was no answer, and `detail` says why."""

    at: int
    status: int = 0
    detail: str = ""
    jitter: float = 0.0
    """0 to 1: by how much of what is possible the next wait is longer."""

    @property
    def delivered(self) -> bool:
        """2xx is success and nothing else is: a redirect is none."""
        return 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more of anything."""
        return self.status == GONE


def chosen(types: Sequence[str]) -> tuple[str, ...]:
    """The types that are meant, in their order; `run.finished` written out."""
    wanted = {one for name in types for one in (ENDS if name == FINISHED else (name,))}
    return tuple(one for one in TYPES if one in wanted)


def attempted(delivery: Delivery, attempt: Attempt) -> Delivery:
    """The delivery after an attempt: done, given up, or due again."""
    made = delivery.attempts + 1
    outcome, next_at = Outcome.PENDING, 0
    if attempt.delivered:
        outcome = Outcome.DELIVERED
    elif attempt.gone or made > len(WAITS_SECONDS):
        outcome = Outcome.FAILED
    else:
        wait = WAITS_SECONDS[made - 1] * (1 + JITTER * attempt.jitter)
        next_at = attempt.at + round(wait * MICROSECONDS_PER_SECOND)
    return replace(
        delivery,
        attempts=made,
        next_at=next_at,
        outcome=outcome,
        status=attempt.status,
        detail="" if attempt.delivered else attempt.detail[:DETAIL_CHARACTERS_MAX],
        attempted_at=attempt.at,
    )


def is_given_up(*, failing_since: int, failures: int, now: int) -> bool:
    """Whether so much has failed for so long that the webhook is disabled."""
    long = now - failing_since >= DISABLED_AFTER_SECONDS * MICROSECONDS_PER_SECOND
    return failures >= DISABLED_AFTER_ATTEMPTS and failing_since > 0 and long


def message_id(system: str, webhook: WebhookRecord, what: int | str) -> str:
    """The idempotency key of a message: of this webhook, as it was added then, and this event. No dot is in it."""
    parts = (system, webhook.tenant, webhook.name, str(webhook.made_at), str(what))
    return "msg_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def secret_text(key: bytes) -> str:
    """A key as it is shown, once."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def headers_of(id_: str, body: bytes, keys: Sequence[bytes], *, now: int) -> dict[str, str]:
    """What the message is, when it is sent, and that it is from us: one signature for each key."""
    seconds = now // MICROSECONDS_PER_SECOND
    signed = f"{id_}.{seconds}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
        "content-type": "application/json",
    }
