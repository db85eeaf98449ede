"""Webhooks through the API: a secret that is shown once, addresses that are refused, and what became of deliveries."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook

from mainstay.api.app import create_api
from mainstay.control.webhooks import Teller
from mainstay.outbound import Outbound
from tests.receivers import Receiver, receiving
from tests.unit.api.conftest import PEOPLE, Api, made_a_model, site_of
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import services_of


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """As everywhere; and its operator allows receivers on this machine."""
    with services_of(tmp_path, url="http://platform.test") as given:
        here = (ip_network("127.0.0.0/8"), ip_network("::1"))
        services = replace(given, authenticate=PEOPLE.get, outbound=Outbound(allowed=here))
        app = create_api(services)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=services.url) as http:
            yield Api(app=app, services=services, http=http)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def add(api: Api, url: str, *, key: str = "", token: str = "user-token", **body: Any) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await api.ask("POST", "/v1/webhooks", token=token, json={"url": url, **body}, headers=headers)


async def told(api: Api) -> None:
    """One turn of the loop, and all that it began."""
    teller = Teller(api.services, holder="one")
    await teller.turn()
    await asyncio.gather(*teller._rounds.values())
    await teller.close()


async def test_a_webhook_is_added_told_listed_and_removed(api: Api, receiver: Receiver):
    answer = await add(api, receiver.url, events=["run.submitted"])
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["name"], made["events"], made["url"]) == ("localhost", ["run.submitted"], receiver.url)
    assert len(b64decode(made["secret"].removeprefix("whsec_"), validate=True)) == 32
    ref = (await api.submit()).json()["id"]
    await told(api)
    (got,) = receiver.got
    body = Webhook(made["secret"]).verify(got.body, got.headers)
    assert (body["type"], body["data"]["run"], body["data"]["submitted_by"]) == ("run.submitted", ref, "alice")
    assert got.headers["content-type"] == "application/json"
    (one,) = (await api.ask("GET", "/v1/webhooks/localhost/deliveries")).json()["items"]
    assert (one["id"], one["outcome"], one["attempts"], one["status"]) == (
        got.headers["webhook-id"],
        "delivered",
        1,
        204,
    )
    assert (await api.ask("DELETE", "/v1/webhooks/localhost")).status_code == 204
    assert (await api.ask("GET", "/v1/webhooks")).json()["items"] == []


async def test_a_secret_is_shown_once_and_is_nowhere_after_that(api: Api, receiver: Receiver, tmp_path: Path):
    first = await add(api, receiver.url, key="k", name="hook")
    again = await add(api, receiver.url, key="k", name="hook")
    assert (again.status_code, again.json()) == (201, {**first.json(), "secret": ""})
    new = await api.ask("POST", "/v1/webhooks/hook/rotate", headers={"Idempotency-Key": "r"})
    repeated = await api.ask("POST", "/v1/webhooks/hook/rotate", headers={"Idempotency-Key": "r"})
    secrets = [first.json()["secret"], new.json()["secret"]]
    assert all(secrets)
    assert secrets[0] != secrets[1]
    assert (repeated.status_code, repeated.json()["secret"]) == (201, "")
    await api.submit()
    await told(api)
    answers = [await api.ask("GET", path, token="admin-token") for path in ("/v1/webhooks", "/v1/events", "/v1/audit")]
    answers.append(await api.ask("GET", "/v1/webhooks/hook/deliveries"))
    api.services.store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    seen = b"".join(answer.content for answer in answers) + b"".join(got.body for got in receiver.got)
    for secret in secrets:
        words = secret.removeprefix("whsec_").encode()
        for form in (words, b64decode(words)):
            assert form not in stored
            assert form not in seen


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://8.8.8.8/", "https"),
        ("https://10.0.0.1/", "it is private"),
        ("https://169.254.169.254/latest/meta-data/", "link-local"),
        ("https://[::ffff:10.0.0.1]/", "it is private"),
        ("https://user:canary@example.com/", "user name"),
        ("https://2130706433/", "neither a name nor an address"),
    ],
)
async def test_an_address_to_which_nothing_may_be_sent_is_refused_when_it_is_added(api: Api, url: str, said: str):
    problem = is_problem(await add(api, url), 422)
    assert said in problem["detail"]
    assert problem["hint"]
    assert (await api.ask("GET", "/v1/webhooks")).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"events": ["run.finish"]}, "did you mean run.finished?"),
        ({"events": ["x"]}, "there are: run.finished, run.submitted"),
        ({"events": ["endpoint.switched"], "project": "vision"}, "events of runs only"),
        ({"name": "No Name"}, "lower-case letters"),
    ],
)
async def test_a_wish_that_is_none_is_refused_with_what_there_is(api: Api, body: dict[str, Any], said: str):
    problem = is_problem(await add(api, "https://8.8.8.8/", **body), 422)
    assert said in problem["hint"]


async def test_a_name_that_is_taken_and_one_too_many_are_refused_with_what_to_do(api: Api):
    for number in range(20):
        assert (await add(api, "https://8.8.8.8/", name=f"hook-{number}")).status_code == 201
    for name in ("hook-1", "more"):
        problem = is_problem(await add(api, "https://8.8.8.8/", name=name), 409)
        assert "mainstay webhook list" in problem["hint"]


async def test_a_test_sends_one_message_now_and_tells_the_answer_without_what_steers_a_terminal(
    api: Api, receiver: Receiver
):
    secret = (await add(api, receiver.url, name="hook")).json()["secret"]
    receiver.status, receiver.text = 200, "thank you\x1b[31m\x07"
    answer = (await api.ask("POST", "/v1/webhooks/hook/test")).json()
    assert answer == {"delivered": True, "status": 200, "detail": "", "answer": "thank you"}
    receiver.status = 500
    answer = (await api.ask("POST", "/v1/webhooks/hook/test")).json()
    assert (answer["delivered"], answer["status"], answer["detail"]) == (False, 500, "it answered 500")
    first, second = receiver.got
    assert Webhook(secret).verify(first.body, first.headers)["type"] == "webhook.test"
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    assert (await api.ask("GET", "/v1/webhooks/hook/deliveries")).json()["items"] == []


async def test_another_tenant_sees_and_changes_nothing_of_it(api: Api, receiver: Receiver):
    await add(api, receiver.url, name="hook")
    for method, path in (
        ("DELETE", "/v1/webhooks/hook"),
        ("POST", "/v1/webhooks/hook/rotate"),
        ("POST", "/v1/webhooks/hook/test"),
        ("PUT", "/v1/webhooks/hook/enabled"),
        ("GET", "/v1/webhooks/hook/deliveries"),
    ):
        is_problem(await api.ask(method, path, token="other-token"), 404)
    assert (await api.ask("GET", "/v1/webhooks", token="other-token")).json()["items"] == []
    await api.submit(token="other-token")
    await told(api)
    assert receiver.got == []


async def test_who_may_only_read_sees_of_an_address_the_host_alone(api: Api):
    await add(api, "https://8.8.8.8/services/canary?token=canary", name="hook")
    seen = await api.ask("GET", "/v1/webhooks", token="viewer-token")
    assert seen.json()["items"][0]["url"] == "https://8.8.8.8/…"
    assert "canary" not in seen.text
    assert "canary" not in (await api.ask("GET", "/v1/events", token="viewer-token")).text


async def test_deliveries_and_webhooks_are_paged(api: Api, receiver: Receiver):
    for name in ("a", "b", "c"):
        await add(api, receiver.url, name=name, events=["run.submitted"])
    page = (await api.ask("GET", "/v1/webhooks?limit=2")).json()
    assert [one["name"] for one in page["items"]] == ["a", "b"]
    rest = (await api.ask("GET", f"/v1/webhooks?limit=2&cursor={page['next']}")).json()
    assert ([one["name"] for one in rest["items"]], rest["next"]) == (["c"], "")
    for _ in range(3):
        await api.submit()
    await told(api)
    page = (await api.ask("GET", "/v1/webhooks/a/deliveries?limit=2")).json()
    rest = (await api.ask("GET", f"/v1/webhooks/a/deliveries?limit=2&cursor={page['next']}")).json()
    seqs = [one["seq"] for one in page["items"] + rest["items"]]
    assert (len(seqs), seqs, rest["next"]) == (3, sorted(seqs, reverse=True), "")


async def test_what_is_registered_and_served_is_told_too(api: Api, receiver: Receiver):
    await add(api, receiver.url, events=["model.registered", "run.succeeded"])
    site = site_of(api.services, api.app)
    work = made_a_model(site)
    assert (await api.ask("POST", "/v1/endpoints", json={"workload": work.id})).status_code == 202
    await told(api)
    bodies = {body["type"]: body["data"] for body in (json.loads(got.body) for got in receiver.got)}
    assert set(bodies) == {"model.registered", "run.succeeded"}
    assert "registered" in bodies["model.registered"]["reason"]


async def test_who_did_what_is_audited(api: Api, receiver: Receiver):
    await add(api, receiver.url, name="hook")
    await api.ask("POST", "/v1/webhooks/hook/rotate")
    await api.ask("DELETE", "/v1/webhooks/hook")
    rows = [row for row in api.services.store.audit(after=0, limit=99) if row.object == "hook"]
    assert [(row.action, row.actor) for row in rows] == [
        ("add_webhook", "alice"),
        ("rotate_webhook", "alice"),
        ("remove_webhook", "alice"),
    ]
    assert rows[0].detail == "webhook hook to localhost added by alice"
