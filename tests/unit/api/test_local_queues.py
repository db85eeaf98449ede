"""Local queues over the API: set together, seen and removed by those who may, refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.conftest import Api
from tests.unit.api.test_queues import put as put_queue
from tests.unit.api.test_routes import is_problem

USERS = {"namespace": "team-a", "name": "user-queue", "queue": "research"}


async def put(api: Api, *wanted: dict[str, Any], token: str = "admin-token") -> Any:
    return await api.ask("PUT", "/v1/local-queues", token=token, json={"local_queues": list(wanted)})


async def names(api: Api) -> list[tuple[str, ...]]:
    items = (await api.ask("GET", "/v1/local-queues", token="admin-token")).json()["items"]
    return [(one["cluster"], one["namespace"], one["name"], one["queue"]) for one in items]


async def test_who_may_not_manage_the_platform_sees_no_namespaces_of_others(api: Api):
    is_problem(await api.ask("GET", "/v1/local-queues"), 403)


async def test_they_are_set_together_changed_shown_and_removed(api: Api):
    await put_queue(api, "research", {})
    assert await names(api) == []
    answer = await put(api, USERS, {**USERS, "name": "other", "queue": "default"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"][0]["set_by"] == "root"
    assert await names(api) == [("", "team-a", "other", "default"), ("", "team-a", "user-queue", "research")]
    await put(api, {**USERS, "queue": "default"})
    assert await names(api) == [("", "team-a", "other", "default"), ("", "team-a", "user-queue", "default")]
    path = "/v1/local-queues/team-a/other"
    assert (await api.ask("DELETE", path, token="admin-token")).status_code == 204
    assert await names(api) == [("", "team-a", "user-queue", "default")]
    problem = is_problem(await api.ask("DELETE", f"{path}?cluster=east", token="admin-token"), 404)
    assert problem["detail"] == "no such local queue: team-a/other in east"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queue": "reserch"}, "there is no queue 'reserch'"),
        ({"queue": "ml"}, "ml is a cohort"),
        ({"cluster": "nowhere"}, "nowhere"),
        ({"namespace": "Team_A"}, "namespace: 'Team_A' is not allowed"),
        ({"name": "a/b"}, "name: 'a/b' is not allowed"),
    ],
)
async def test_what_cannot_be_one_is_refused_and_sets_none_of_them(api: Api, change: dict[str, str], words: str):
    await put_queue(api, "research", {"parent": "ml"})
    problem = is_problem(await put(api, USERS, {**USERS, **change}), 422)
    assert words in problem["detail"]
    assert await names(api) == []


async def test_only_administrators_set_and_remove_them(api: Api):
    is_problem(await put(api, USERS, token="user-token"), 403)
    is_problem(await api.ask("DELETE", "/v1/local-queues/team-a/user-queue"), 403)
