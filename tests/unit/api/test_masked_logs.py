"""A log of the API shows no secret of its run, whatever the cluster has let through and whichever replica is asked."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mainstay.clusters.kubernetes.logs import Logs
from mainstay.domain.allocation import Owner, Seen
from mainstay.domain.capacity import LogChunk
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase
from mainstay.operations.secrets import Handing
from mainstay.simulation.files import MemoryArtifacts
from tests.clock import ManualClock
from tests.unit.api.conftest import Api, api_over, site_of
from tests.unit.clusters.kubernetes.server import Server
from tests.unit.web.site import LogCluster, Site

CANARY = "canary-1f0e6d5c"
FIRST, SECOND = "canary-one-0d0d", "canary-two-1e1e"
OWNER = Owner(tenant="physics", project="default")
PATHS = ["logs?attempt=1&rank=0&offset=0", "logs/stream?attempt=1&rank=0"]


async def put(api: Api, value: str) -> None:
    answer = await api.ask("PUT", "/v1/secrets/key", json={"value": base64.b64encode(value.encode()).decode()})
    assert answer.is_success


@pytest.mark.parametrize("path", PATHS)
async def test_a_secret_that_a_run_prints_is_masked(api: Api, path: str):
    await put(api, CANARY)
    ref = (await api.submit(secrets=[{"name": "key", "env": "KEY"}])).json()["id"]
    site = site_of(api.services, api.app)
    site.fleet()
    work = api.services.store.workload(ref, tenant="physics")
    site.place(work, "atlas")
    site.running(work)
    value = base64.b64encode(CANARY.encode()).decode()
    site.cluster.logs[f"{ref}-1-0"] = f"the key is {CANARY}, or {value}\n".encode()
    site.ended(work)
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    answer = await api.ask("GET", f"/v1/workloads/{ref}/{path}")
    assert answer.status_code == 200, answer.text
    assert "the key is " + "*" * len(CANARY) in answer.text
    assert CANARY not in answer.text
    assert value not in answer.text


@dataclass
class Following(LogCluster):
    """The log of a pod on Kubernetes as one replica follows it, with what is on record of what that was handed."""

    replica: Any = None

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        logs: Logs = self.replica
        while not await logs.keep(pod, "ns"):
            task = logs.follow(pod, "ns", ended=True, wanted=True).task  # type: ignore[union-attr]
            if task is not None:
                await task
        return await logs.read(pod, "ns", offset=offset, limit=limit, ended=True)


def handing(api: Api) -> Handing:
    services = api.services
    return Handing(services.store, services.sealing, services.clock, services.offload)


def replica_of(api: Api, server: Server, kept: MemoryArtifacts, *, masks: bool) -> LogCluster:
    """One of several that follow the pods of one cluster; `masks`: by the record, as a cluster of ours does."""

    async def handed(pod: str) -> tuple[bytes, ...]:
        return await handing(api).handed(pod, owner=OWNER) if masks else ()

    logs = Logs(server, kept, ManualClock(), cluster="local", handed=handed)  # type: ignore[arg-type]
    return Following(replica=logs)


def run(site: Site, ref: str) -> Any:
    site.fleet()
    work = site.services.store.workload(ref, tenant="physics")
    site.place(work, "atlas")
    (pod,) = site.services.store.allocations(work.key)
    return work, pod


@pytest.mark.parametrize("masks", [True, False], ids=["the cluster masks", "only the API masks"])
@pytest.mark.parametrize("removed", [False, True], ids=["changed", "removed"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_value_that_was_changed_since_is_masked_by_every_replica(
    api: Api, path: str, *, masks: bool, removed: bool
):
    server, kept = Server(ManualClock()), MemoryArtifacts()
    await put(api, FIRST)
    ref = (await api.submit(secrets=[{"name": "key", "env": "KEY"}])).json()["id"]
    site = site_of(api.services, api.app)
    work, pod = run(site, ref)
    (handed,) = await handing(api).of(pod.pod, owner=OWNER)
    assert handed.value == FIRST.encode()
    site.running(work)
    if removed:
        assert (await api.ask("DELETE", "/v1/secrets/key")).is_success
    else:
        await put(api, SECOND)
    server.logs[pod.pod] = [f"mine is {FIRST[:8]}".encode(), f"{FIRST[8:]}, not {SECOND}\n".encode()]
    site.ended(work)
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    theirs = "*" * len(SECOND) if not removed else SECOND
    for _ in ("one that was there", "one that has started anew", "a new one"):
        cluster = replica_of(api, server, kept, masks=masks)
        async with api_over(replace(api.services, clusters={"local": cluster})) as other:
            answer = await other.ask("GET", f"/v1/workloads/{ref}/{path}")
            assert f"mine is {'*' * len(FIRST)}, not {theirs}" in answer.text
            assert FIRST not in answer.text
        await cluster.replica.close()  # type: ignore[attr-defined]


async def test_the_earlier_value_is_on_record_no_longer_than_its_pod_and_the_kept_log_shows_none(api: Api):
    server, kept = Server(ManualClock()), MemoryArtifacts()
    await put(api, FIRST)
    ref = (await api.submit(secrets=[{"name": "key"}])).json()["id"]
    site = site_of(api.services, api.app)
    work, pod = run(site, ref)
    await handing(api).of(pod.pod, owner=OWNER)
    await put(api, SECOND)
    assert sum(api.services.store.sealed_by_key().values()) == 2
    server.logs[pod.pod] = [f"mine is {FIRST}\n".encode()]
    cluster: Any = replica_of(api, server, kept, masks=True)
    await cluster.read_log(pod.pod, offset=0, limit=100)
    site.scene.applied(site.scene.see(pod, Seen.ENDED))
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    site.scene.applied(site.scene.close(pod))
    assert sum(api.services.store.sealed_by_key().values()) == 1
    chunk = await cluster.replica.read_kept(pod.pod, offset=0, limit=100)
    assert chunk.data == f"mine is {'*' * len(FIRST)}\n".encode()
    await cluster.replica.close()


async def test_who_waited_for_a_log_since_before_its_pod_was_handed_a_value_is_not_shown_it(api: Api):
    """The value was changed while the run waited in the queue, and the stream was open already."""
    await put(api, FIRST)
    ref = (await api.submit(secrets=[{"name": "key"}])).json()["id"]
    site = site_of(api.services, api.app)
    cluster = site.cluster
    work, _ = run(site, ref)
    asked = cluster.read_log

    async def speaks_late(name: str, *, offset: int, limit: int) -> LogChunk:
        if not cluster.logs:
            await put(api, SECOND)
            await handing(api).of(name, owner=OWNER)
            cluster.logs[name] = f"mine is {SECOND}\n".encode()
            site.running(work)
            site.ended(work)
            site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
        return await asked(name, offset=offset, limit=limit)

    cluster.read_log = speaks_late  # type: ignore[method-assign]
    answer = await api.ask("GET", f"/v1/workloads/{ref}/logs/stream?attempt=1&rank=0")
    assert f"mine is {'*' * len(SECOND)}" in answer.text
    assert SECOND not in answer.text
