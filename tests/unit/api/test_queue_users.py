"""Whose work a queue takes: tenants, and projects of tenants."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem

JOB = {"name": "train", "run": "true", "resources": {"cpu": 1}}


async def set_queue(api: Api, name: str, *users: str) -> None:
    answer = await api.ask("PUT", f"/v1/queues/{name}", json={"users": [*users]}, token="admin-token")
    assert answer.status_code == 200, answer.text
    assert answer.json()["users"] == [*users]


async def submit(api: Api, queue: str, *, project: str = "default", token: str = "user-token"):
    return await api.ask(
        "POST", "/v1/workloads", json={"job": {**JOB, "queue": queue, "project": project}}, token=token
    )


async def test_a_queue_takes_work_of_its_users_and_is_not_there_for_others(api: Api):
    await set_queue(api, "ours", "physics")
    await set_queue(api, "theirs", "chemistry")
    assert (await submit(api, "ours")).status_code == 201
    refused = is_problem(await submit(api, "theirs"), 422)
    never = is_problem(await submit(api, "nowhere"), 422)
    assert refused["detail"] == never["detail"].replace("nowhere", "theirs")
    assert "theirs" not in refused["hint"]
    listed = (await api.ask("GET", "/v1/queues")).json()["items"]
    assert "ours" in {row["name"] for row in listed}
    assert "theirs" not in {row["name"] for row in listed}
    assert all(row["users"] == [] for row in listed)
    is_problem(await api.ask("GET", "/v1/queues/theirs"), 404)
    assert (await api.ask("GET", "/v1/queues/theirs", token="admin-token")).json()["users"] == ["chemistry"]


async def test_a_queue_may_be_for_one_project(api: Api):
    await api.ask("POST", "/v1/projects", json={"name": "vision"}, token="dora-token")
    await set_queue(api, "eyes", "physics/vision")
    is_problem(await submit(api, "eyes"), 422)
    assert (await submit(api, "eyes", project="vision")).status_code == 201


async def test_what_is_planned_is_refused_as_it_would_be(api: Api):
    await set_queue(api, "theirs", "chemistry")
    job = {**JOB, "queue": "theirs"}
    is_problem(await api.ask("POST", "/v1/plan", json={"job": job}), 422)


@pytest.mark.parametrize("users", [["Physics"], ["a/b/c"], ["/x"], [""], ["a b"]])
async def test_who_cannot_be_a_user_is_refused(api: Api, users: list[str]):
    is_problem(await api.ask("PUT", "/v1/queues/q", json={"users": users}, token="admin-token"), 422)


async def test_the_default_queue_and_cohorts_are_for_everybody(api: Api):
    for name, body in (("default", {"users": ["physics"]}), ("all", {"cohort": True, "users": ["physics"]})):
        is_problem(await api.ask("PUT", f"/v1/queues/{name}", json=body, token="admin-token"), 422)


async def test_who_uses_a_queue_stays_as_it_is_until_it_is_said_anew(api: Api):
    await set_queue(api, "ours", "physics", "chemistry/lab")
    answer = await api.ask("PUT", "/v1/queues/ours", json={"weight": 2}, token="admin-token")
    assert answer.json()["users"] == ["physics", "chemistry/lab"]
    await set_queue(api, "ours")
    assert (await submit(api, "ours", token="other-token")).status_code == 201
