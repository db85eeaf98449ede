"""The API over a real store, asked without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from mainstay.api.app import create_api
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase, Workload
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from tests.stores import Scene
from tests.unit.web.site import LogCluster, Server, Site, services_of, size

PEOPLE = {
    "admin-token": Principal(name="root", tenant="physics", role="platform-admin"),
    "user-token": Principal(name="alice", tenant="physics", role="maintainer"),
    "carol-token": Principal(name="carol", tenant="physics", role="user"),
    "dora-token": Principal(name="dora", tenant="physics", role="tenant-admin"),
    "viewer-token": Principal(name="bob", tenant="physics", role="viewer"),
    "other-token": Principal(name="eve", tenant="chemistry", role="platform-admin"),
    "nobody-token": Principal(name="nobody", tenant="physics", role="none"),
}


@dataclass
class Api:
    """The app and how to ask it."""

    app: FastAPI
    services: Services
    http: httpx2.AsyncClient

    async def ask(self, method: str, path: str, *, token: str = "user-token", **options: Any) -> httpx2.Response:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **options)

    async def submit(self, *, key: str = "", token: str = "user-token", **job: Any) -> httpx2.Response:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"job": {"name": "train", "run": "true", **job}}
        return await self.ask("POST", "/v1/workloads", token=token, json=body, headers=headers)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    with services_of(tmp_path, url="http://platform.test") as given:
        async with api_over(replace(given, authenticate=PEOPLE.get)) as found:
            yield found


@asynccontextmanager
async def api_over(services: Services) -> AsyncIterator[Api]:
    """The API of these services."""
    app = create_api(services)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=services.url) as http:
        yield Api(app=app, services=services, http=http)


def site_of(services: Services, app: FastAPI) -> Site:
    """The words that fill a platform, for one without a socket."""
    cluster = services.clusters["local"]
    assert isinstance(cluster, LogCluster)
    scene = Scene(services.store, now=services.clock.now())
    return Site(scene=scene, cluster=cluster, services=services, app=app, model="", server=Server(port=0))


def made_a_model(site: Site, name: str = "maker") -> Workload:
    """A workload that has succeeded and left a model."""
    site.fleet()
    work = site.scene.submit(name=name, choices=(size(cpus=1, gib=1),))
    site.place(work, "atlas")
    site.running(work)
    site.ended(work, output=site.tree({"model/MLmodel": b"flavors: {}\n"}))
    return site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
