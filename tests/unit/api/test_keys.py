"""Every write under an Idempotency-Key: done once, and answered the same way each time it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mainstay.api.app import TOPICS, openapi
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import Site, size

MODEL = {"model/MLmodel": b"flavors: {}\n"}


@dataclass(frozen=True)
class Write:
    """A write, the same under its key with another body, and how to count what it has made."""

    method: str
    path: str
    route: str
    body: Any
    other: Any
    counted: str
    made: dict[str, int] = field(default_factory=dict)


JOB = {"job": {"name": "new", "run": "true"}}
OTHER = {"job": {"name": "new", "run": "false"}}
WRITES = [
    Write("POST", "/v1/workloads", "/v1/workloads", JOB, OTHER, "/v1/workloads?all=true"),
    Write(
        "POST",
        "/v1/workloads/bulk",
        "/v1/workloads/bulk",
        {"jobs": [JOB, JOB]},
        {"jobs": [JOB, OTHER]},
        "/v1/workloads?all=true",
    ),
    Write("POST", "/v1/workloads/train/stop", "/v1/workloads/{ref}/stop", None, {"force": True}, "/v1/events"),
    Write(
        "POST",
        "/v1/endpoints",
        "/v1/endpoints",
        {"workload": "maker"},
        {"workload": "maker", "endpoint": "b"},
        "/v1/events",
    ),
    Write("DELETE", "/v1/endpoints/digits", "/v1/endpoints/{name}", None, {"force": True}, "/v1/events"),
]
BY_CONTENT = {"POST /v1/plan", "POST /v1/sign-in", "POST /v1/trees", "PUT /v1/blobs/{digest}"} | {
    "PUT /v1/workloads/{ref}/slots/{slot}"
}
"""They change nothing, or what they make is named by its content or attempt, or (a sign-in) is worthless when doubled."""


def named(write: Write) -> str:
    return f"{write.method} {write.route}"


@pytest.fixture
async def furnished(api: Api, tmp_path: Path) -> Api:
    """A job that may be stopped, one that made a model, and an endpoint."""
    site = Site.of(api.services, app=api.app)
    site.scene.submit(name="train")
    site.fleet()
    maker = site.scene.submit(name="maker", choices=(size(cpus=1, gib=1),))
    site.place(maker, "atlas")
    site.ended(maker, output=site.tree(MODEL))
    site.succeeded(maker)
    answer = await api.ask("POST", "/v1/endpoints", json={"workload": "maker", "endpoint": "digits"})
    assert answer.status_code == 202, answer.text
    return api


async def sent(api: Api, write: Write, body: Any, key: str, token: str = "user-token") -> httpx2.Response:
    options = {} if body is None else {"json": body}
    return await api.ask(write.method, write.path, headers={"Idempotency-Key": key}, token=token, **options)
