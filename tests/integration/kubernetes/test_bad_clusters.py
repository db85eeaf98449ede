"""Clusters that cannot be used, on a real API server: each is marked with words that say what to do, and the others go on."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import trustme

from mainstay.app import SystemClock
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes import KubernetesConnector, chores, cluster, picture
from mainstay.clusters.kubernetes.permissions import PERMISSIONS
from mainstay.clusters.simulated import SimulatedConnector
from mainstay.clusters.simulated import connector as simulated
from mainstay.control import contact, runner
from mainstay.domain.fleet import ClusterKind, ClusterSettings, Credentials, NewCluster, NodeGroup
from mainstay.domain.plan import AddCluster, Plan
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase
from mainstay.operations.services import Services
from mainstay.store.engine import Sqlite
from mainstay.store.store import SqlStore
from testbed.control_plane import ControlPlane
from testbed.etcd import Etcd
from testbed.proxy import proxied
from testbed.puppets import Life, Machine, Puppets
from tests.arena import SOMEBODY, arena, services, submitted
from tests.drawer import Drawer
from tests.promises import workload_of

pytestmark = pytest.mark.xdist_group("api-server")

SMALL = Resources(cpu_milli=100, memory_bytes=BYTES_PER_GIB // 16)
GOOD = "good"
PATIENCE_SECONDS = 60.0


def kubeconfig(plane: ControlPlane, *, ca: str = "", name: str = "", **user: str) -> str:
    """A file that says this of its user, and what is right of all else."""
    authority = ca or plane.keys.authority.certificate.read_text()
    where: dict[str, str] = {
        "server": plane.url,
        "certificate-authority-data": base64.b64encode(authority.encode()).decode(),
    }
    if name:
        where["tls-server-name"] = name
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": where}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def certificate(plane: ControlPlane, user: str, group: str, *, days: int = 365) -> dict[str, str]:
    """A client that is known as this user; `days` below 0: it has expired so long ago."""
    now = datetime.now(UTC)
    made = plane.keys.authority._authority.issue_cert(
        user,
        common_name=user,
        organization_name=group,
        not_before=now - timedelta(days=abs(days) + 1),
        not_after=now + timedelta(days=days),
    )
    pems = {"certificate": made.cert_chain_pems[0], "key": made.private_key_pem}
    return {f"client-{name}-data": base64.b64encode(pem.bytes()).decode() for name, pem in pems.items()}


@pytest.fixture
def half(plane: ControlPlane) -> Iterator[dict[str, str]]:
    """Users who may do all that is needed but one thing: `blind` may not list nodes, `tied` may not make pods."""
    made = []
    for user, denied in (("blind", ("nodes", "list")), ("tied", ("pods", "create"))):
        rules = [
            {"apiGroups": [one.kind.group], "resources": [one.resource], "verbs": [verb]}
            for one in PERMISSIONS
            for verb in one.verbs
            if (one.resource, verb) != denied
        ]
        meta = {"metadata": {"name": f"half-{user}"}}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"half-{user}"}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        base = "/apis/rbac.authorization.k8s.io/v1"
        for kind, body in (
            ("clusterroles", {**meta, "rules": rules}),
            ("clusterrolebindings", {**meta, "roleRef": role, "subjects": [subject]}),
        ):
            plane.ask(f"{base}/{kind}", method="POST", body=body)
            made.append(f"{base}/{kind}/half-{user}")
    yield {user: kubeconfig(plane, **certificate(plane, user, "anybody")) for user in ("blind", "tied")}
    for path in made:
        plane.ask(path, method="DELETE")


class Fleet:
    """A platform whose clusters are added as they are, good or bad."""

    def __init__(self, folder: Path) -> None:
        self._database = Sqlite(folder / "platform.db", durable=False)
        self.store = SqlStore(self._database)
        clock, artifacts = SystemClock(), open_artifacts(str(folder / "artifacts"))
        self.services: Services = services(
            self.store,
            artifacts,
            clusters={},
            connectors={
                ClusterKind.KUBERNETES: KubernetesConnector(artifacts, Drawer(), clock, system=self.store.system()),
                ClusterKind.SIMULATED: SimulatedConnector(clock),
            },
            clock=clock,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(runner.run(runner.loops(self.services, holder="embedded"), self.services))

    async def close(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.services.offload.close()
        self._database.close()

    def add(self, name: str, credentials: str = "", **settings: Any) -> None:
        kind = ClusterKind.KUBERNETES if credentials else ClusterKind.SIMULATED
        new = NewCluster(
            name=name,
            kind=kind,
            settings=ClusterSettings(**settings),
            sealed=self.services.sealing.sealed(name, Credentials(kubeconfig=credentials)) if credentials else "",
        )
        reason = Reason(code=Code.CLUSTER_ADDED, object=name, numbers={"by": "admin"})
        result = self.store.commit(Plan(actor="admin", now=1, actions=(AddCluster(cluster=new, reason=reason),)))
        assert not result.refused

    def submit(self, cluster_: str) -> str:
        (made,) = submitted(self.services, 1, choices=(SMALL,), cluster=cluster_)
        return made

    async def until(self, true: Any, *, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, {row.name: (row.state, row.reason.sentence) for row in self.clusters()}
            await asyncio.sleep(0.05)

    async def seconds_of_a_job(self) -> float:
        """From its submission to its end, on the good cluster."""
        began = time.monotonic()
        job = self.submit(GOOD)
        await self.until(lambda: self.phase(job) is Phase.SUCCEEDED)
        return time.monotonic() - began

    def clusters(self) -> Any:
        return self.store.clusters()

    def phase(self, workload: str) -> Phase:
        return self.store.workload(workload, tenant=SOMEBODY.tenant).phase


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(contact, "STEADY_SECONDS", 1.0)
    monkeypatch.setattr(simulated, "JOB_SECONDS", 0.3)
    monkeypatch.setattr(picture, "SYNC_SECONDS_MAX", 3.0)
    made = Fleet(tmp_path)
    made.add(GOOD, nodes=(NodeGroup(count=2, capacity=Resources(cpu_milli=8_000, memory_bytes=8 * BYTES_PER_GIB)),))
    made.start()
    yield made
    await made.close()


async def test_each_bad_cluster_says_what_to_do_and_the_others_go_on(
    plane: ControlPlane, fleet: Fleet, half: dict[str, str]
) -> None:
    admin = plane.keys.token
    bad = {
        "expired": kubeconfig(plane, **certificate(plane, "late", "system:masters", days=-30)),
        "stranger": kubeconfig(plane, token="no-such-token"),
        "authority": kubeconfig(plane, token=admin, ca=trustme.CA().cert_pem.bytes().decode()),
        "names": kubeconfig(plane, token=admin, name="elsewhere.example.org"),
        "blind": half["blind"],
    }
    words = {
        "expired": ("refused", "renew the token or the certificate of this cluster"),
        "stranger": ("refused", "renew the token or the certificate of this cluster"),
        "authority": ("unreachable", "certificate-authority-data"),
        "names": ("unreachable", "for other names"),
        "blind": ("refused", "grant our account the verb list on nodes"),
    }
    for name, text in bad.items():
        fleet.add(name, text)

    def told() -> dict[str, tuple[str, str]]:
        return {row.name: (row.state, row.reason.sentence) for row in fleet.clusters() if row.name in bad}

    await fleet.until(lambda: all(told()[name][0] == state for name, (state, _) in words.items()))
    for name, (_, sentence) in words.items():
        assert sentence in told()[name][1], told()[name]
    jobs = [fleet.submit(GOOD) for _ in range(5)]
    waiting = fleet.submit("expired")
    await fleet.until(lambda: all(fleet.phase(job) is Phase.SUCCEEDED for job in jobs))
    await fleet.until(lambda: "renew the token" in fleet.store.workload(waiting, tenant="acme").reason.sentence)


async def test_a_cluster_that_lets_us_look_and_not_act_says_which_verb_is_missing(
    plane: ControlPlane, fleet: Fleet, half: dict[str, str]
) -> None:
    puppets = Puppets(plane, [Machine(name="half-1")], life=lambda _: Life())
    await puppets.start()
    try:
        fleet.add("tied", half["tied"])
        await fleet.until(lambda: fleet.store.cluster("tied").state == "ready")
        stuck, fine = fleet.submit("tied"), fleet.submit(GOOD)
        await fleet.until(lambda: fleet.store.cluster("tied").state == "refused")
        assert "the verb create on pods" in fleet.store.cluster("tied").reason.sentence
        await fleet.until(lambda: fleet.phase(fine) is Phase.SUCCEEDED)
        assert not fleet.phase(stuck).final
        role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/half-tied"
        granted = plane.ask(role)
        granted["rules"].append({"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]})
        plane.ask(role, method="PUT", body=granted)
        await fleet.until(lambda: fleet.store.cluster("tied").state == "ready")
        await fleet.until(lambda: fleet.phase(stuck) in {Phase.RUNNING, Phase.SUCCEEDED} or puppets.history)
    finally:
        await puppets.close()
        plane.ask("/api/v1/nodes/half-1", method="DELETE")


@pytest.mark.parametrize("how", ["refuse", "hang"])
async def test_a_cluster_that_is_cut_off_holds_up_no_other(
    plane: ControlPlane, fleet: Fleet, how: Literal["refuse", "hang"]
) -> None:
    """F14: jobs of the other cluster end as fast as without it, also while a request to this one hangs."""
    with proxied(plane) as proxy:
        fleet.add("far", kubeconfig(plane, token=plane.keys.token).replace(plane.url, proxy.url))
        await fleet.until(lambda: fleet.store.cluster("far").state == "ready")
        usual = await fleet.seconds_of_a_job()
        await asyncio.to_thread(proxy.partition, how)
        during = [await fleet.seconds_of_a_job() for _ in range(5)]
        await asyncio.to_thread(proxy.heal)
        # A request that hangs holds on for a minute: on a busy machine a job may still take twice its time.
        assert max(during) < 2 * usual + 5.0
        await fleet.until(lambda: fleet.store.cluster("far").state == "ready")


async def test_a_server_whose_certificate_expires_is_told_until_it_is_renewed(
    plane: ControlPlane, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that stays open is none the wiser; the next one is."""
    monkeypatch.setattr(cluster, "KNOWN_SECONDS", 0.5)
    with proxied(plane) as proxy:
        fleet.add("old", kubeconfig(plane, token=plane.keys.token).replace(plane.url, proxy.url))
        await fleet.until(lambda: fleet.store.cluster("old").state == "ready")
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        proxy.present(plane.keys.authority.server("expired", "127.0.0.1", until=hour_ago))
        await asyncio.to_thread(proxy.cut_connections)
        await fleet.until(lambda: fleet.store.cluster("old").state == "unreachable")
        sentence = fleet.store.cluster("old").reason.sentence
        assert "its certificate has expired; renew the serving certificate of the API server" in sentence
        await fleet.seconds_of_a_job()
        proxy.present(proxy.pair)
        await fleet.until(lambda: fleet.store.cluster("old").state == "ready")


async def test_a_cluster_that_has_a_uid_twice_says_which_pods_have_it(plane: ControlPlane, fleet: Fleet) -> None:
    puppets = Puppets(plane, [Machine(name="twins-1")], life=lambda _: Life(starts_after=3_600))
    await puppets.start()
    try:
        fleet.add("twins", kubeconfig(plane, token=plane.keys.token))
        await fleet.until(lambda: fleet.store.cluster("twins").state == "ready")
        jobs = [fleet.submit("twins") for _ in range(2)]

        def metas_of_both() -> list[dict[str, Any]]:
            found = [pod["metadata"] for pod in puppets.pods()]
            return [meta for meta in found if workload_of(meta["name"]) in jobs]

        await fleet.until(lambda: len(metas_of_both()) == len(jobs))
        metas = metas_of_both()
        first, second = (f"{meta['namespace']}/{meta['name']}" for meta in metas)
        uids = [meta["uid"].encode() for meta in metas]
        with Etcd(plane.etcd_url) as etcd:
            etcd.put([(f"pods/{second}", etcd.get(f"pods/{second}").replace(uids[1], uids[0]))])
        await fleet.until(lambda: fleet.store.cluster("twins").state == "refused")
        sentence = fleet.store.cluster("twins").reason.sentence
        assert f"several of its pods have the UID {metas[0]['uid']}" in sentence
        assert {first, second} <= set(re.split("[ ,;]+", sentence)), sentence
        assert "delete all of them but one" in sentence
        await fleet.seconds_of_a_job()
        path = "/api/v1/namespaces/{}/pods/{}".format(*second.split("/"))
        released = plane.ask(path)
        released["metadata"]["finalizers"] = []
        plane.ask(path, method="PUT", body=released)
        plane.ask(path, method="DELETE", body={"gracePeriodSeconds": 0})
        await fleet.until(lambda: fleet.store.cluster("twins").state == "ready")
    finally:
        await puppets.close()
        plane.ask("/api/v1/nodes/twins-1", method="DELETE")


async def test_a_cluster_with_100000_events_runs_its_jobs_explains_them_and_is_told_of(
    plane: ControlPlane, fleet: Fleet, tmp_path: Path
) -> None:
    lives: dict[str, Life] = {}
    puppets = Puppets(
        plane, [Machine(name="crowded-1")], life=lambda pod: lives.get(workload_of(pod), Life(seconds=600))
    )
    await puppets.start()
    access = kubeconfig(plane, token=plane.keys.token)
    try:
        fleet.add("crowded", access)
        first = fleet.submit("crowded")
        await fleet.until(lambda: fleet.phase(first) is Phase.RUNNING)
        (namespace,) = {
            pod["metadata"]["namespace"] for pod in puppets.pods() if workload_of(pod["metadata"]["name"]) == first
        }
        with Etcd(plane.etcd_url) as etcd:
            await asyncio.to_thread(etcd.put, events_of(namespace, 100_000))
            facts = await KubernetesConnector(
                open_artifacts(str(tmp_path / "none")), Drawer(), SystemClock(), system="events"
            ).check(ClusterSettings(), Credentials(kubeconfig=access))
            (warning,) = facts.warnings
            assert re.search(r"it holds 100[0-9]{3} events.*--event-ttl", warning)
            waits = fleet.submit("crowded")
            lives[waits] = Life(starts_after=3_600)
            jobs = [fleet.submit("crowded") for _ in range(5)]
            await fleet.until(lambda: all(fleet.phase(job) is Phase.RUNNING for job in jobs))
            pod = f"{waits}-1-0"
            await fleet.until(lambda: any(known["metadata"]["name"] == pod for known in puppets.pods()))
            uid = next(known["metadata"]["uid"] for known in puppets.pods() if known["metadata"]["name"] == pod)
            said = event(namespace, "why", of=(pod, uid), reason="FailedMount", message="no such volume")
            await asyncio.to_thread(plane.ask, f"/api/v1/namespaces/{namespace}/events", method="POST", body=said)
            await fleet.seconds_of_a_job()
            await fleet.until(
                lambda: (
                    "FailedMount: no such volume"
                    in fleet.store.allocations(fleet.store.workload(waits, tenant="acme").key)[0].detail
                ),
                seconds=4 * PATIENCE_SECONDS,
            )
            assert fleet.store.cluster("crowded").state == "ready"
            etcd.remove("events/")
    finally:
        await puppets.close()
        plane.ask("/api/v1/nodes/crowded-1", method="DELETE")


def events_of(namespace: str, count: int) -> Iterator[tuple[str, bytes]]:
    """As a broken controller leaves them, by their keys in etcd."""
    for number in range(count):
        name = f"flood-{number}"
        made = event(namespace, name, of=("somebody", "no-such-uid"), reason="Flood", message="again")
        made["metadata"] |= {"uid": f"flood-{number}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        yield f"events/{namespace}/{name}", json.dumps(made).encode()


def event(namespace: str, name: str, *, of: tuple[str, str], reason: str, message: str) -> dict[str, Any]:
    pod, uid = of
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": uid, "apiVersion": "v1"},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": "test"},
    }


class Ahead(SystemClock):
    """A clock that is wrong by so many seconds."""

    def __init__(self, seconds: int) -> None:
        self._us = seconds * 1_000_000

    def now(self) -> int:
        return super().now() + self._us


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_an_hour_off_is_followed(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(picture, "REPORT_SECONDS", 2)
    monkeypatch.setattr(chores, "BURIAL_SECONDS", 1.0)
    async with arena(plane, tmp_path, seed=1, clock=Ahead(-hours * 3_600)) as world:
        jobs = world.submit(*[Life(seconds=2.5)] * 3)
        settled = await world.settle(seconds=30)
        assert await world.violations(settled=settled) == []
        assert [world.attempts(job) for job in jobs] == [["exited"]] * 3


async def test_a_clock_that_is_days_off_takes_no_work_and_says_why(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "KNOWN_SECONDS", 0.5)
    async with arena(plane, tmp_path, seed=1, clock=Ahead(-49 * 3_600)) as world:
        (job,) = world.submit(Life())
        store = world.replica.store
        await world.until(lambda: store.cluster("k8s").state == "refused")
        assert re.search("4[89] hours apart; set both by NTP", store.cluster("k8s").reason.sentence)
        assert world.runs(job) == []
