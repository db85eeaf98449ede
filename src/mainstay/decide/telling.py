"""What is told of an event to those outside who have asked for it: its type and its words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from mainstay.domain.plan import Event
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code
from mainstay.domain.webhook import TEST
from mainstay.domain.workload import ACTIVE, WAITING, Phase, Workload


def type_of(event: Event) -> str:
    """What the event is told as; empty if it is not."""
    before, after = event.phase_before, event.phase_after
    if event.kind != "workload" or after is None:
        return _BY_CODE.get((event.kind, event.reason.code), "")
    if after.final:
        return f"run.{after.word}"
    if before in ACTIVE and after in WAITING:
        return "run.requeued"
    if after is Phase.RUNNING and before is not Phase.UNKNOWN:
        return "run.started"
    return "run.submitted" if before is None and after is Phase.PENDING else ""


_BY_CODE = {
    ("endpoint", Code.ENDPOINT_SWITCHED): "endpoint.switched",
    ("endpoint", Code.DEPLOY_FAILED): "endpoint.failed",
    ("model", Code.MODEL_REGISTERED): "model.registered",
    ("webhook", Code.WEBHOOK_DISABLED): "webhook.disabled",
}


def body_of(event: Event, type_: str, workload: Workload | None) -> bytes:
    """What is sent of an event: the same at every attempt, byte for byte, and nothing that the event log does not show.

    `workload`: the one that the event is about, if it is about one.
    """
    said: dict[str, str | int] = {"seq": event.seq, "kind": event.kind, "object": event.object}
    if workload is not None:
        said |= {"run": workload.id, "name": workload.spec.name, "project": workload.project}
        said |= {"submitted_by": workload.submitted_by}
    if event.phase_after is not None:
        said["phase"] = event.phase_after.word
    said |= {"code": event.reason.code.value, "reason": event.reason.sentence}
    return _json(type_, event.at, said)


def test_body(name: str, *, now: int) -> bytes:
    """What is sent to try a webhook out."""
    return _json(TEST, now, {"webhook": name})


def _json(type_: str, at: int, said: Mapping[str, str | int]) -> bytes:
    moment = datetime.fromtimestamp(at // MICROSECONDS_PER_SECOND, UTC)
    timestamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{at % MICROSECONDS_PER_SECOND:06}Z"
    return json.dumps({"type": type_, "timestamp": timestamp, "data": dict(said)}, separators=(",", ":")).encode()
