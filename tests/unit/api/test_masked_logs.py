"""A log of the API shows no secret of its run, whatever the cluster has let through."""

from __future__ import annotations

import base64

import pytest

from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase
from tests.unit.api.conftest import Api, site_of

CANARY = "canary-1f0e6d5c"


@pytest.mark.parametrize("path", ["logs?attempt=1&rank=0&offset=0", "logs/stream?attempt=1&rank=0"])
async def test_a_secret_that_a_run_prints_is_masked(api: Api, path: str):
    value = base64.b64encode(CANARY.encode()).decode()
    assert (await api.ask("PUT", "/v1/secrets/key", json={"value": value})).is_success
    ref = (await api.submit(secrets=[{"name": "key", "env": "KEY"}])).json()["id"]
    site = site_of(api.services, api.app)
    site.fleet()
    work = api.services.store.workload(ref, tenant="physics")
    site.place(work, "atlas")
    site.running(work)
    site.cluster.logs[f"{ref}-1-0"] = f"the key is {CANARY}, or {value}\n".encode()
    site.ended(work)
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    answer = await api.ask("GET", f"/v1/workloads/{ref}/{path}")
    assert answer.status_code == 200, answer.text
    assert "the key is " + "*" * len(CANARY) in answer.text
    assert CANARY not in answer.text
    assert value not in answer.text
