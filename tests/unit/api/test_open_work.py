"""A tenant has no more open runs than it may, and is told so before and when it submits more."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest

from mainstay.api.app import create_api
from tests.unit.api.conftest import PEOPLE, Api
from tests.unit.api.test_routes import is_problem

JOB = {"name": "train", "run": "true"}


@pytest.fixture
async def few(api: Api) -> Api:
    """The same platform, with at most three."""
    services = replace(api.services, authenticate=PEOPLE.get, open_max=3)
    app = create_api(services)
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=services.url)
    return Api(app=app, services=services, http=http)


async def test_one_more_is_refused_with_the_figures_and_what_to_do(few: Api):
    for number in range(3):
        assert (await few.submit(key=f"k{number}")).status_code == 201
    answer = await few.submit(key="k3")
    problem = is_problem(answer, 429)
    assert (problem["code"], problem["numbers"]) == ("too_many", {"open": 3, "most": 3})
    assert "3 workloads that are not over" in problem["detail"]
    assert "mainstay stop" in problem["hint"]
    assert "retry-after" not in answer.headers
    assert (await few.submit(key="k2")).status_code == 201, "a repetition is answered as the first time"
    assert (await few.submit(token="other-token")).status_code == 201
    is_problem(await few.ask("POST", "/v1/plan", json={"job": JOB}), 429)


async def test_of_many_at_once_all_are_refused_or_none(few: Api):
    many = {"jobs": [{"job": JOB}] * 4}
    is_problem(await few.ask("POST", "/v1/workloads/bulk", json=many), 429)
    assert few.services.store.open_workloads("physics") == 0
    many["jobs"].pop()
    assert (await few.ask("POST", "/v1/workloads/bulk", json=many)).status_code == 201
