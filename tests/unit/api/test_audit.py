"""The audit through the API: denials are in it, administrators alone read it, and its rows verify."""

from __future__ import annotations

import pytest

from mainstay.chain import Verifier
from mainstay.chain.anchors import read, signed
from mainstay.domain.errors import Unavailable
from mainstay.wire.audit import AuditRowView
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem


async def test_what_a_person_may_not_do_is_refused_and_on_record(api: Api) -> None:
    is_problem(await api.ask("PUT", "/v1/secrets/hf", token="viewer-token", json={"value": "YQ=="}), 403)
    (row,) = api.services.store.audit(after=0, limit=9)
    assert (row.action, row.actor, row.object) == ("deny", "bob", "PUT /v1/secrets/hf")
    assert row.detail == "refused, it may not do that: the role viewer may not secrets"


async def test_many_denials_of_one_person_in_a_second_are_one_row(api: Api) -> None:
    for _ in range(20):
        is_problem(await api.ask("GET", "/v1/audit", token="viewer-token"), 403)
        is_problem(await api.ask("GET", "/v1/audit", token="user-token"), 403)
    denied = {row.actor for row in api.services.store.audit(after=0, limit=99)}
    assert denied == {"alice", "bob"}
    assert len(api.services.store.audit(after=0, limit=99)) < 10


async def test_a_denial_that_cannot_be_put_on_record_is_no_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        msg = "the disk is busy"
        raise Unavailable(msg)

    monkeypatch.setattr(api.services.store, "commit", fails)
    is_problem(await api.ask("GET", "/v1/audit", token="viewer-token"), 503)


async def test_the_rows_that_the_api_gives_verify(api: Api) -> None:
    for _ in range(3):
        await api.submit()
    answer = (await api.ask("GET", "/v1/audit/rows?limit=2", token="admin-token")).json()
    rest = (await api.ask("GET", "/v1/audit/rows?after=2", token="admin-token")).json()
    assert ([row["seq"] for row in answer["rows"]], [row["seq"] for row in rest["rows"]]) == ([1, 2], [3])
    chain = Verifier()
    for row in [*answer["rows"], *rest["rows"]]:
        assert chain.take(AuditRowView.model_validate(row)) is None
    assert (chain.head.seq, chain.head.hash) == (answer["head"]["seq"], answer["head"]["hash"])


async def test_a_redaction_needs_a_reason_happens_once_and_is_on_record(api: Api) -> None:
    await api.submit()
    ask = {"token": "admin-token", "headers": {"Idempotency-Key": "k"}}
    is_problem(await api.ask("POST", "/v1/audit/1/redact", json={"why": ""}, **ask), 422)
    for _ in range(2):
        assert (await api.ask("POST", "/v1/audit/1/redact", json={"why": "a name"}, **ask)).status_code == 204
    rows = api.services.store.audit(after=0, limit=9)
    assert [(row.action, row.detail) for row in rows] == [
        ("submit", ""),
        ("redact_audit", "the detail of row 1 was taken out: a name"),
    ]
    is_problem(await api.ask("POST", "/v1/audit/9/redact", token="admin-token", json={"why": "a name"}), 404)
    is_problem(await api.ask("POST", "/v1/audit/1/redact", token="user-token", json={"why": "a name"}), 403)


async def test_without_a_place_for_anchors_there_are_none_and_the_key_is_shown(api: Api) -> None:
    answer = (await api.ask("GET", "/v1/audit/anchors", token="admin-token")).json()
    assert (answer["anchors"], answer["system"]) == ([], api.services.system)
    keys = api.services.sealing.signing_keys()
    anchor = signed(api.services.system, api.services.store.audit_head(), at=1, keys=keys)
    assert read(anchor.text()).signed_by(answer["keys"])
