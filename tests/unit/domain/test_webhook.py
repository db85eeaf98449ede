"""Signatures as the reference library of Standard Webhooks has them, and the schedule."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from mainstay.decide.telling import body_of, type_of
from mainstay.domain.plan import Event
from mainstay.domain.reason import Code, Reason
from mainstay.domain.webhook import (
    DISABLED_AFTER_ATTEMPTS,
    DISABLED_AFTER_SECONDS,
    ENDS,
    TYPES,
    WAITS_SECONDS,
    Attempt,
    Delivery,
    Outcome,
    WebhookRecord,
    attempted,
    chosen,
    headers_of,
    is_given_up,
    message_id,
    secret_text,
)
from mainstay.domain.workload import LEGAL_TRANSITIONS, Phase

SECOND = 1_000_000
HOOK = WebhookRecord(
    tenant="physics", name="hook", project="", url="", types=TYPES, sealed="", cursor=0, made_at=1, made_by="ada"
)
DELIVERY = Delivery(tenant="physics", webhook="hook", seq=7, type="run.failed", made_at=1)


def event(before: Phase | None, after: Phase | None, *, kind: str = "workload", code: Code = Code.PLACED) -> Event:
    return Event(
        seq=7,
        at=1_700_000_000_123_456,
        actor="a",
        kind=kind,  # type: ignore[arg-type]
        object="train-1",
        tenant="physics",
        workload="train-1",
        reason=Reason(code=code, numbers={}),
        phase_before=before,
        phase_after=after,
    )


def test_the_vector_of_the_reference_libraries() -> None:
    key = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', [key], now=1_614_265_330 * SECOND)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@given(st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=2), st.text(max_size=50))
def test_the_reference_library_accepts_what_is_signed_with_any_of_the_keys_and_nothing_else(
    keys: list[bytes], text: str
) -> None:
    body = json.dumps({"data": text}).encode()
    headers = headers_of(message_id("system", HOOK, 7), body, keys, now=time.time_ns() // 1_000)
    for key in keys:
        assert Webhook(secret_text(key)).verify(body, headers) == {"data": text}
        for forged in (body + b" ", b"{}"):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret_text(key)).verify(forged, headers)
        for changed in ({"webhook-id": "msg_other"}, {"webhook-timestamp": str(int(time.time()) - 1)}):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret_text(key)).verify(body, {**headers, **changed})
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_text(b"x" * 23)).verify(body, headers)


def test_a_message_that_is_played_again_later_is_refused_by_its_time() -> None:
    key, late = b"k" * 32, (time.time_ns() // 1_000) - 301 * SECOND
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret_text(key)).verify(b"{}", headers_of("msg_a", b"{}", [key], now=late))


def test_an_id_is_of_one_event_of_one_webhook_of_one_platform() -> None:
    ids = {
        message_id(system, webhook, seq)
        for system in ("a", "b")
        for webhook in (HOOK, WebhookRecord(**{**vars_of(HOOK), "made_at": 2}))
        for seq in (1, 2)
    }
    assert len(ids) == 8
    assert message_id("a", HOOK, 1) == message_id("a", HOOK, 1)
    assert not any("." in one for one in ids)


def vars_of(record: WebhookRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_success(status: int) -> None:
    done = attempted(DELIVERY, Attempt(at=5, status=status, detail="ignored"))
    assert (done.outcome, done.attempts, done.detail, done.next_at) == (Outcome.DELIVERED, 1, "", 0)


@pytest.mark.parametrize("status", [0, 100, 199, 300, 302, 400, 404, 429, 500, 503])
def test_anything_else_is_tried_again(status: int) -> None:
    done = attempted(DELIVERY, Attempt(at=5, status=status, detail="why"))
    assert (done.outcome, done.detail, done.next_at) == (Outcome.PENDING, "why", 5 + 5 * SECOND)


def test_gone_ends_it_at_once() -> None:
    assert attempted(DELIVERY, Attempt(at=5, status=410)).outcome is Outcome.FAILED


@given(st.floats(0, 1))
def test_waits_grow_by_the_schedule_with_jitter_and_end_after_ten_attempts(jitter: float) -> None:
    delivery, waits = DELIVERY, []
    while delivery.outcome is Outcome.PENDING:
        delivery = attempted(delivery, Attempt(at=0, status=500, jitter=jitter))
        waits.append(delivery.next_at / SECOND)
    assert len(waits) == 10
    assert waits == [*sorted(waits[:-1]), 0]
    for wait, least in zip(waits[:-1], WAITS_SECONDS, strict=True):
        assert least <= wait <= 1.2 * least + 1


def test_a_webhook_is_given_up_after_days_and_many_attempts_never_after_one_of_both() -> None:
    long, many = DISABLED_AFTER_SECONDS * SECOND, DISABLED_AFTER_ATTEMPTS
    assert is_given_up(failing_since=1, failures=many, now=1 + long)
    assert not is_given_up(failing_since=1, failures=many - 1, now=1 + long)
    assert not is_given_up(failing_since=1, failures=many, now=long)
    assert not is_given_up(failing_since=2 * long, failures=many, now=1)


def test_finished_is_every_end_and_the_order_is_ours() -> None:
    assert chosen(["webhook.disabled", "run.finished", "run.failed"]) == (*ENDS, "webhook.disabled")


def test_every_end_of_a_run_is_told_and_every_type_is_one_that_may_be_chosen() -> None:
    told = {(before, after): type_of(event(before, after)) for before, after in LEGAL_TRANSITIONS}
    for (_, after), type_ in told.items():
        assert not after.final or type_ == f"run.{after.word}"
    assert {one for one in told.values() if one} | {type_of(event(None, Phase.PENDING))} == {
        one for one in TYPES if one.startswith("run.")
    }
    assert type_of(event(Phase.UNKNOWN, Phase.RUNNING)) == ""
    assert type_of(event(Phase.RUNNING, Phase.QUEUED)) == "run.requeued"
    assert type_of(event(None, None, kind="endpoint", code=Code.ENDPOINT_SWITCHED)) == "endpoint.switched"
    assert type_of(event(None, None, kind="node", code=Code.ENDPOINT_SWITCHED)) == ""


def test_a_body_has_the_three_fields_and_the_instant_of_the_event() -> None:
    body = json.loads(body_of(event(Phase.RUNNING, Phase.FAILED), "run.failed", None))
    assert list(body) == ["type", "timestamp", "data"]
    assert datetime.fromisoformat(body["timestamp"]) == datetime(2023, 11, 14, 22, 13, 20, 123_456, tzinfo=UTC)
    assert (body["data"]["phase"], body["data"]["code"]) == ("failed", "Placed")
