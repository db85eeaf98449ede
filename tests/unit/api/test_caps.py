"""Caps of a token through the API: what all its runs together may hold and cost, told with figures and what to do next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mainstay.domain.billing import Price
from mainstay.domain.caps import AtMost
from mainstay.domain.plan import Advance, CommitResult, Plan, SetPrice, Submit
from mainstay.domain.quantity import Money
from mainstay.domain.workload import Phase
from mainstay.operations import sessions, tokens
from mainstay.store import SqlStore
from tests.clock import ManualClock
from tests.stores import TENANT, WHY, Scene
from tests.unit.api.conftest import PEOPLE, Api, api_over, made_a_model, site_of
from tests.unit.api.test_access import made, member, token_of
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import services_of

ONCE = {"retry": {"infra": 0}, "stop_grace": "0s"}
"""One attempt, and no time for last words: it costs its time limit at most."""


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A core costs 1 an hour, memory nothing, a T4 2 and an H100 8."""
    with services_of(tmp_path, url="http://platform.test") as given:
        prices = {"cpu": 1, "gpu": 1, "gpu/T4": 2, "gpu/H100": 8}
        actions = tuple(
            SetPrice(price=Price(sku=sku, effective_from=0, per_hour=Money(micros=each * 1_000_000)), reason=WHY)
            for sku, each in prices.items()
        )
        assert not given.store.commit(Plan(actor="root", now=1, actions=actions)).refused
        async with api_over(replace(given, authenticate=PEOPLE.get, clock=ManualClock())) as found:
            yield found


def given(job: dict[str, Any]) -> dict[str, Any]:
    """A job of one core for an hour, but for what is said of it; None: not said at all."""
    said = {"resources": {"cpu": 1}, "max_duration": "1h", **ONCE, **job}
    return {name: value for name, value in said.items() if value is not None}


async def submitted(api: Api, token: str, **job: Any) -> Any:
    return await api.submit(token=token, **given(job))


async def planned(api: Api, token: str, **job: Any) -> Any:
    body = {"name": "train", "run": "true", **given(job)}
    return await api.ask("POST", "/v1/plan", token=token, json={"job": body})


async def refused(api: Api, token: str, **job: Any) -> dict[str, Any]:
    """By a submission and by a plan, in the same words."""
    of_plan, of_submission = (
        is_problem(await planned(api, token, **job), 403),
        is_problem(await submitted(api, token, **job), 403),
    )
    assert {**of_plan, "instance": ""} == {**of_submission, "instance": ""}
    return of_submission


async def used(api: Api, token: str) -> dict[str, Any]:
    id_ = token.split("_")[1]
    answer = await api.ask("GET", f"/v1/tokens/{id_}", token="dora-token")
    assert answer.status_code == 200, answer.text
    listed = (await api.ask("GET", "/v1/tokens", token="dora-token")).json()["items"]
    assert [one for one in listed if one["id"] == id_] == [answer.json()]
    found: dict[str, Any] = answer.json()["used"]
    return found


async def test_open_runs_together_ask_for_no_more_gpus_than_the_token_may_hold(api: Api):
    token = await token_of(api, "zed", "user", gpus=8)
    first = (await submitted(api, token, resources={"gpu": 4})).json()["id"]
    second = (await submitted(api, token, resources={"gpu": 4})).json()["id"]
    problem = await refused(api, token, resources={"gpu": 1})
    id_ = token.split("_")[1]
    assert problem["detail"] == (
        f"token {id_} may hold 8 GPUs at a time: its open runs ask for 8, and 1 more would be too many"
    )
    assert problem["numbers"] == {"cap": 8, "held": 8, "asked": 1}
    assert problem["hint"].startswith("train counts with all GPUs of its largest choice and size; ")
    assert f"stop what is not needed (mainstay stop): {second}, {first}" in problem["hint"]
    assert "a token with a larger cap" in problem["hint"]
    assert await used(api, token) == {"gpus": 8, "spent": "0", "reserved": "0"}
    assert (await submitted(api, token)).status_code == 201


@pytest.mark.parametrize(
    "job",
    [
        {"nodes": {"min": 1, "desired": 1, "max": 3}, "resources": {"gpu": 1}},
        {"nodes": 3, "resources": {"gpu": 1}},
        {"resources": {"any_of": [{"gpu": 1}, {"gpu": 3}]}},
        {"resources": {"ordered": [{"gpu": 3}, {"gpu": 1}]}},
        {"sets": [{"name": "head"}, {"name": "worker", "nodes": 3, "resources": {"gpu": 1}}], "resources": None},
        {"devices": ["gpu.example.com:3"]},
    ],
    ids=["elastic", "gang", "any of", "ordered", "sets", "claims"],
)
async def test_a_run_counts_with_the_most_that_it_may_hold(api: Api, job: dict[str, Any]):
    token = await token_of(api, "zed", "user", gpus=2)
    assert is_problem(await submitted(api, token, **job), 403)["numbers"] == {"cap": 2, "held": 0, "asked": 3}


async def test_devices_of_which_nobody_can_say_how_many_they_are_are_refused_under_a_cap_of_gpus(api: Api):
    token = await token_of(api, "zed", "user", gpus=2)
    assert "claims devices by a template" in (await refused(api, token, devices=["one-link"]))["detail"]


async def test_jobs_that_are_sent_together_count_together(api: Api):
    token = await token_of(api, "zed", "user", gpus=3)
    job = {"job": {"name": "train", "run": "true", "resources": {"gpu": 1}}}
    answer = await api.ask("POST", "/v1/workloads/bulk", token=token, json={"jobs": [job] * 4})
    assert is_problem(answer, 403)["numbers"] == {"cap": 3, "held": 0, "asked": 4}
    assert (await used(api, token))["gpus"] == 0
    answer = await api.ask("POST", "/v1/workloads/bulk", token=token, json={"jobs": [job] * 3})
    assert (answer.status_code, (await used(api, token))["gpus"]) == (201, 3)


async def test_all_runs_of_a_token_together_cost_no_more_than_it_may_spend(api: Api):
    token = await token_of(api, "zed", "user", spend=2.5)
    assert (await submitted(api, token, max_duration="2h")).status_code == 201
    problem = await refused(api, token)
    assert problem["numbers"] == {"cap": "2.5", "spent": "0", "reserved": "2", "asked": "1"}
    assert (
        "train counts with 1 attempt (retry) of 1h (max_duration and stop_grace): ask for less of these"
        in problem["hint"]
    )
    assert (await submitted(api, token, max_duration="30m")).status_code == 201
    assert await used(api, token) == {"gpus": 0, "spent": "0", "reserved": "2.5"}


@pytest.mark.parametrize(
    ("job", "asked"),
    [
        ({"retry": {"infra": 2, "user": 1}}, "4"),
        ({"stop_grace": "30m"}, "1.5"),
        ({"nodes": 3}, "3"),
        ({"resources": {"ordered": [{"cpu": 1}, {"cpu": 4}]}}, "4"),
        ({"resources": {"cpu": 1, "gpu": "T4:1"}}, "3"),
        ({"resources": {"cpu": 1, "gpu": 1}}, "9"),
        ({"resources": {"cpu": 1, "gpu": "A100:1"}}, "2"),
    ],
    ids=[
        "every attempt",
        "last words",
        "a gang",
        "the dearest choice",
        "a model",
        "any GPU",
        "a model without a price",
    ],
)
async def test_a_run_counts_with_the_most_that_it_can_cost(api: Api, job: dict[str, Any], asked: str):
    token = await token_of(api, "zed", "user", spend=0.1)
    assert (await refused(api, token, **job))["numbers"]["asked"] == asked


async def test_under_a_cap_of_cost_what_has_no_end_is_refused_with_what_to_do(api: Api):
    token = await token_of(api, "zed", "maintainer", spend=100)
    problem = await refused(api, token, max_duration=None)
    assert problem["detail"] == "train has no end, and this token may spend 100"
    assert problem["hint"].startswith("set max_duration")
    service = await refused(api, token, type="service")
    assert (service["detail"], "max_duration" in service["hint"]) == (problem["detail"], False)


async def test_under_a_cap_of_cost_no_model_is_deployed_and_an_endpoint_remembers_its_token(api: Api):
    site = site_of(api.services, api.app)
    work = made_a_model(site)
    capped = await token_of(api, "zed", "maintainer", spend=100)
    problem = is_problem(await api.ask("POST", "/v1/endpoints", token=capped, json={"workload": work.id}), 403)
    assert (problem["detail"], problem["hint"]) == (
        f"{work.spec.name} has no end, and this token may spend 100",
        "use a token without such a cap",
    )
    allowed = await token_of(api, "yan", "maintainer", gpus=0)
    made_now = await api.ask("POST", "/v1/endpoints", token=allowed, json={"workload": work.id})
    assert made_now.status_code == 202, made_now.text
    assert api.services.store.workload(made_now.json()["candidate"], tenant=TENANT).token == allowed.split("_")[1]


async def test_a_repetition_of_a_request_gets_its_answer_though_the_cap_is_used_up(api: Api):
    token = await token_of(api, "zed", "user", gpus=1)
    first = await submitted(api, token, resources={"gpu": 1}, key="once")
    again = await submitted(api, token, resources={"gpu": 1}, key="once")
    assert (again.status_code, again.json()) == (201, first.json())
    assert (await used(api, token))["gpus"] == 1


async def test_what_somebody_else_submits_meanwhile_with_the_same_token_counts(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    token = await token_of(api, "zed", "user", gpus=1)
    store, commit = api.services.store, SqlStore.commit
    rival = Scene(store).new(token=token.split("_")[1], at_most=AtMost(gpus=1))

    def after_another(self: SqlStore, plan: Plan) -> CommitResult:
        if not isinstance(plan.actions[0], Submit):
            return commit(self, plan)
        monkeypatch.undo()
        commit(self, replace(plan, actions=(Submit(workload=rival, reason=WHY),), idempotency=None))
        return commit(self, plan)

    monkeypatch.setattr(SqlStore, "commit", after_another)
    problem = is_problem(await submitted(api, token, resources={"gpu": 1}), 403)
    assert problem["numbers"] == {"cap": 1, "held": 1, "asked": 1}
    assert rival.id in problem["hint"]


async def test_a_browser_that_is_signed_in_with_a_token_shares_its_caps(api: Api):
    token = await token_of(api, "zed", "user", gpus=1)
    store, now = api.services.store, api.services.clock.now()
    who = tokens.authenticated(store, token, now=now)
    cookie = sessions.exchange(store, sessions.link(store, who, now=now), now=now)
    session = sessions.session(store, cookie, now=now)
    assert session is not None
    PEOPLE["session-token"] = session.principal
    try:
        made_by = (await submitted(api, "session-token", resources={"gpu": 1})).json()
        assert made_by["token"] == token.split("_")[1]
        await refused(api, token, resources={"gpu": 1})
        await refused(api, "session-token", resources={"gpu": 1})
    finally:
        del PEOPLE["session-token"]
    listed = (await api.ask("GET", "/v1/tokens", token="dora-token")).json()["items"]
    kinds = {one["kind"]: one["used"] for one in listed if one["member"] == "zed"}
    assert {kind: use["gpus"] for kind, use in kinds.items()} == {"token": 1, "link": 1, "session": 1}


async def test_a_run_that_is_over_makes_room_for_the_next(api: Api):
    token = await token_of(api, "zed", "user", gpus=1, spend=8)
    run = (await submitted(api, token, resources={"cpu": 0.5, "gpu": "T4:1"}, max_duration="3h")).json()["id"]
    await refused(api, token, resources={"gpu": "T4:1"})
    key = api.services.store.workload(run, tenant=TENANT).key
    end = Advance(
        workload_key=key, phase=Phase.STOPPED, attempt=1, infrastructure_failures=0, user_failures=0, reason=WHY
    )
    api.services.store.commit(Plan(actor="test", now=api.services.clock.now(), actions=(end,)))
    assert await used(api, token) == {"gpus": 0, "spent": "0", "reserved": "0"}
    assert (await submitted(api, token, resources={"gpu": "T4:1"})).status_code == 201


async def test_a_token_without_caps_of_runs_shows_none_and_one_of_somebody_else_is_not_there(api: Api):
    await member(api, "zed", "user", token="admin-token")
    plain = await made(api, token="admin-token", member="zed", may=["read", "submit"])
    assert plain.json()["used"] is None
    capped = (await made(api, token="admin-token", member="zed", gpus=2)).json()
    assert capped["used"] == {"gpus": 0, "spent": "0", "reserved": "0"}
    other = await token_of(api, "yan", "user")
    is_problem(await api.ask("GET", f"/v1/tokens/{capped['id']}", token=other), 404)


async def test_a_submission_without_caps_asks_the_database_nothing_more(api: Api, monkeypatch: pytest.MonkeyPatch):
    def asked(*_: object) -> Any:
        raise AssertionError

    monkeypatch.setattr("mainstay.store.caps.of_tokens", asked)
    monkeypatch.setattr("mainstay.operations.caps.most.gpus", asked)
    token = await token_of(api, "zed", "user")
    run = (await submitted(api, token, resources={"gpu": 1})).json()
    assert run["token"] == token.split("_")[1]
