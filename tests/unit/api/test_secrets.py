"""Secrets through the API: a value goes in and never comes out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem

CANARY = b"canary-7d1f\xff"
PATH = "/v1/secrets/hf-token"


async def put(api: Api, value: bytes = CANARY, *, path: str = PATH, token: str = "user-token", **options: Any) -> Any:
    body = {"value": base64.b64encode(value).decode()}
    return await api.ask("PUT", path, token=token, json=body, **options)


async def names(api: Api, token: str = "user-token") -> list[str]:
    return [one["name"] for one in (await api.ask("GET", "/v1/secrets", token=token)).json()["items"]]


async def test_a_secret_is_set_listed_and_removed_and_its_value_is_nowhere(api: Api, tmp_path: Path):
    answers = [await put(api, headers={"Idempotency-Key": "k"})]
    answers += [await api.submit(secrets=[{"name": "hf-token", "env": "HF_TOKEN"}])]
    ref = answers[-1].json()["id"]
    answers += [await api.ask("GET", f"/v1/workloads/{ref}"), await api.ask("GET", "/v1/events")]
    assert await names(api) == ["hf-token"]
    answers += [await api.ask("DELETE", PATH)]
    assert await names(api) == []
    api.services.store.close()
    found = [path for path in tmp_path.rglob("*") if path.is_file() and CANARY[:-1] in path.read_bytes()]
    assert found == []
    encoded = base64.b64encode(CANARY)
    for answer in answers:
        assert answer.is_success, answer.text
        assert CANARY[:-1] not in answer.content
        assert encoded not in answer.content
    assert encoded[:-4] not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_who_set_and_removed_it_is_audited(api: Api):
    await put(api)
    await put(api, b"newer")
    await api.ask("DELETE", PATH)
    rows = [row for row in api.services.store.audit(after=0, limit=99) if row.object == "hf-token"]
    assert [(row.action, row.actor, row.tenant) for row in rows] == [
        ("set_secret", "alice", "physics"),
        ("set_secret", "alice", "physics"),
        ("remove_secret", "alice", "physics"),
    ]
    assert rows[0].detail == "secret hf-token set by alice"


async def test_a_secret_of_another_tenant_is_not_there(api: Api):
    await put(api)
    assert await names(api, "other-token") == []
    is_problem(await api.ask("DELETE", PATH, token="other-token"), 404)
    job = {"job": {"name": "a", "run": "true", "secrets": ["hf-token"]}}
    is_problem(await api.ask("POST", "/v1/workloads", json=job, token="other-token"), 422)
    assert await names(api) == ["hf-token"]


async def test_a_job_that_asks_for_a_secret_that_is_not_there_is_refused_with_the_nearest_name(api: Api):
    await put(api)
    problem = is_problem(await api.submit(secrets=["hf-tokn"]), 422)
    assert "there is no secret 'hf-tokn'" in problem["detail"]
    assert problem["hint"] == "did you mean hf-token?"
    assert (await api.ask("GET", "/v1/workloads")).json()["items"] == []


async def test_removing_what_is_not_there_is_refused_with_the_nearest_name(api: Api):
    await put(api)
    problem = is_problem(await api.ask("DELETE", "/v1/secrets/hf-tokn"), 404)
    assert problem["hint"] == "did you mean hf-token?"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("/v1/secrets/.environment", b"x", "name"),
        ("/v1/secrets/a b", b"x", "name"),
        ("/v1/secrets/" + "a" * 64, b"x", "name"),
        (PATH, b"", "value"),
        (PATH, b"x" * 65_537, "value"),
    ],
)
async def test_what_cannot_be_a_secret_is_refused_and_not_repeated(api: Api, path: str, value: bytes, said: str):
    problem = is_problem(await put(api, value, path=path), 422)
    assert problem["object"] == said
    assert "xx" not in problem["detail"]
    assert await names(api) == []


async def test_a_value_that_is_no_base_64_is_refused_and_not_repeated(api: Api):
    for value in ("canary!", 7, None, ["canary"]):
        answer = await api.ask("PUT", PATH, json={"value": value})
        is_problem(answer, 422)
        assert "canary" not in answer.text


async def test_pages_of_secrets_follow_each_other(api: Api):
    for number in range(5):
        await put(api, path=f"/v1/secrets/s{number}")
    first = (await api.ask("GET", "/v1/secrets?limit=3")).json()
    rest = (await api.ask("GET", f"/v1/secrets?limit=3&cursor={first['next']}")).json()
    assert [one["name"] for one in first["items"] + rest["items"]] == [f"s{number}" for number in range(5)]
    assert rest["next"] == ""


@pytest.mark.parametrize("value", ["my-token!", "hf_ab", "a", "YQ==YQ==", "\u00e9"])
async def test_a_value_that_is_no_base_64_is_refused_and_not_shown(api: Api, value: str):
    answer = await api.ask("PUT", PATH, json={"value": value})
    assert is_problem(answer, 422)["detail"] == "value: not base 64; encode the value, as `base64 FILE` does"
    assert await names(api) == []


async def test_line_breaks_in_base_64_are_none_of_the_value(api: Api):
    assert (await api.ask("PUT", PATH, json={"value": "Y2FuYXJ5LTdk\nMWY=\n"})).is_success


async def test_planning_refuses_what_submitting_would(api: Api):
    answer = await api.ask("POST", "/v1/plan", json={"job": {"name": "a", "run": "true", "secrets": ["hf-token"]}})
    assert is_problem(answer, 422)["detail"] == "secrets: there is no secret 'hf-token'"
