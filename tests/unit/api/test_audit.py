"""The audit through the API: denials are in it, administrators alone read it, and its rows verify."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mainstay.chain import Verifier
from mainstay.chain.anchors import read, signed
from mainstay.domain.errors import Unavailable
from mainstay.operations import sessions, tokens
from mainstay.operations.agents import Agents
from mainstay.operations.denials import EVERY_SECONDS, NOBODY
from mainstay.operations.principal import Principal
from mainstay.operations.sessions import cookie_name
from mainstay.wire.audit import AuditRowView
from tests.clock import ManualClock
from tests.stores import put_on_record
from tests.unit.api.conftest import PEOPLE, Api, api_over
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import services_of


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


def denials(api: Api) -> list[tuple[str, str, str]]:
    rows = api.services.store.audit(after=0, limit=999)
    return [(row.actor, row.object, row.detail) for row in rows if row.action == "deny"]


async def used_after(api: Api, end: Callable[[str], Awaitable[None]]) -> tuple[str, str]:
    """The token of a member, used once more after `end` has done something about it: its public id, and itself."""
    member = await api.ask("PUT", "/v1/members/vera", token="admin-token", json={"role": "user"})
    made = await api.ask("POST", "/v1/tokens", token="admin-token", json={"name": "t", "member": "vera"})
    assert (member.status_code, made.status_code) == (200, 201)
    await end(made.json()["id"])
    is_problem(await api.ask("GET", "/v1/workloads?why=secret", token=made.json()["token"]), 401)
    return made.json()["id"], made.json()["token"]


async def test_a_revoked_token_that_is_used_names_its_member_and_never_shows_itself(api: Api) -> None:
    async def revoke(id_: str) -> None:
        assert (await api.ask("DELETE", f"/v1/tokens/{id_}", token="admin-token")).status_code == 204

    id_, token = await used_after(api, revoke)
    detail = f"not let in: this token was revoked: {id_}; from 127.0.0.1"
    assert denials(api) == [("vera", "GET /v1/workloads", detail)]
    assert token[17:] not in repr(api.services.store.audit(after=0, limit=999))


async def test_what_never_let_anybody_in_is_on_record_as_of_nobody(api: Api) -> None:
    id_, wrong = tokens.new_token()
    is_problem(await api.ask("DELETE", "/v1/workloads/x", token=wrong), 401)
    detail = f"not let in: this token is not valid: {id_}; from 127.0.0.1"
    assert denials(api) == [(NOBODY, "DELETE /v1/workloads/x", detail)]
    assert wrong not in repr(denials(api))


async def test_a_request_that_shows_nothing_leaves_nothing(api: Api) -> None:
    is_problem(await api.ask("GET", "/v1/workloads", token=""), 401)
    assert denials(api) == []


async def test_a_session_that_has_ended_is_on_record_where_its_cookie_is_used(api: Api) -> None:
    services, clock = api.services, api.services.clock
    vera = put_on_record(services.store, Principal(name="vera", tenant="physics", role="user"), now=clock.now())
    cookie = sessions.begin(services.store, vera, now=clock.now())
    name = cookie_name(services.system, secure=False)
    known = sessions.session(services.store, cookie, now=clock.now())
    assert known is not None
    sessions.end(services.store, known.principal, now=clock.now())
    is_problem(await api.ask("GET", "/v1/workloads", token="", headers={"Cookie": f"{name}={cookie}"}), 401)
    ((actor, _, detail),) = denials(api)
    assert (actor, detail.split(";")[0]) == ("vera", f"not let in: this token was revoked: {cookie.split('_')[1]}")


async def test_a_flood_of_strangers_is_a_row_a_second_that_says_how_many_it_stands_for(tmp_path: Path) -> None:
    clock = ManualClock()
    with services_of(tmp_path, url="http://platform.test") as given:
        services = replace(given, authenticate=PEOPLE.get, clock=clock, agents=Agents(clock))
        async with api_over(services) as api:
            for _ in range(3):
                for number in range(50):
                    is_problem(await api.ask("GET", "/v1/workloads", token=f"stranger-{number}"), 401)
                clock.advance(EVERY_SECONDS)
            # Whoever they are, what is done with the tokens of a member is not lost among them.
            await used_after(api, lambda _: api.services.offload(clock.advance, 91 * 86_400))
            said = [detail.partition("127.0.0.1")[2] for _, _, detail in denials(api)]
            others = "; and 49 more since the row before"
            assert said == ["", others, others, ""]


async def test_a_stranger_is_not_refused_unseen_and_a_row_that_failed_is_counted_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()

    def fails(_: object) -> None:
        msg = "the disk is busy"
        raise Unavailable(msg)

    with services_of(tmp_path, url="http://platform.test") as given:
        services = replace(given, clock=clock, agents=Agents(clock))
        async with api_over(services) as api:
            with monkeypatch.context() as broken:
                broken.setattr(services.store, "commit", fails)
                is_problem(await api.ask("GET", "/v1/workloads", token="wrong"), 503)
                is_problem(await api.ask("GET", "/v1/workloads", token="wrong"), 401)
            clock.advance(EVERY_SECONDS)
            is_problem(await api.ask("GET", "/v1/workloads", token="wrong"), 401)
            ((_, _, detail),) = denials(api)
            assert detail.endswith("; and 2 more since the row before")
