"""A platform over a test cluster, in which pods of others are placed: the real loops, by hand."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2

from mainstay.agent.artifacts import RemoteArtifactStore
from mainstay.agent.connection import Connection as ConnectionToPlatform
from mainstay.agent.connection import Way
from mainstay.agent.store import RemoteStore
from mainstay.api.app import create_api
from mainstay.app import SystemClock
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.sources import Fixed
from mainstay.control import decisions
from mainstay.control.decisions import DECISIONS
from mainstay.control.effects import EffectLoop
from mainstay.control.tenure import Tenure
from mainstay.decide.billing import default_price_book
from mainstay.domain.allocation import Allocation
from mainstay.domain.errors import MainstayError
from mainstay.domain.fleet import ClusterKind, ClusterSettings, NewCluster
from mainstay.domain.plan import AddCluster, IdentifyCluster, Plan, RequestStop, SetPrice
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase, Workload
from mainstay.operations.agents import Agents, new_token
from mainstay.ports import WorkloadFilter
from mainstay.store import SqlStore, open_sqlite
from testbed.control_plane import ControlPlane
from tests.agents import URL, Network
from tests.drawer import Drawer
from tests.unit.web.site import services_of

CLUSTER = "k8s"
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.05
_numbers = itertools.count(1)


@dataclass(slots=True)
class Platform:
    """Store, decisions and one effect loop; `step` is one turn of all."""

    control_plane: ControlPlane
    namespace: str
    scheduler: str
    store: SqlStore
    cluster: KubernetesCluster
    loop: EffectLoop
    tenure: Tenure
    clock: SystemClock = field(default_factory=SystemClock)

    async def step(self) -> None:
        """Look, record, act, decide. What the cluster refuses is tried again in the next step."""
        epoch = self.tenure.epoch()
        assert epoch is not None
        with contextlib.suppress(MainstayError):
            await self.loop.turn(epoch)
        for decision in DECISIONS:
            decisions.turn(self.store, self.clock, self._decider, decision)
        await asyncio.sleep(PAUSE_SECONDS)

    @property
    def _decider(self) -> Tenure:
        return Tenure(self.store, self.clock, lease=decisions.LEASE, holder="test")

    async def until(self, true: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
        """Turn until that is true; what it answers."""
        deadline = time.monotonic() + seconds
        while not (answer := true()):
            assert time.monotonic() < deadline, [(w.id, w.phase, w.reason.sentence) for w in self.workloads()]
            await self.step()
        return answer

    def workloads(self) -> list[Workload]:
        """All, oldest first."""
        return list(reversed(self.store.workloads(WorkloadFilter(), before=0, limit=1_000)))

    def phases(self) -> dict[str, Phase]:
        """By name; the newest of a name."""
        return {workload.spec.name: workload.phase for workload in self.workloads()}

    def allocations(self, name: str) -> tuple[Allocation, ...]:
        """Of the newest workload of a name."""
        return self.store.allocations(next(w.key for w in reversed(self.workloads()) if w.spec.name == name))

    def stop(self, name: str) -> None:
        """As `mainstay stop` does."""
        found = next(w for w in reversed(self.workloads()) if w.spec.name == name)
        reason = Reason(code=Code.STOP_REQUESTED, object=found.id, numbers={"by": "test"})
        self.store.commit(
            Plan(
                actor="test", now=self.clock.now(), actions=(RequestStop(workload_key=found.key, reason=reason),),
                atomic=True,
            )
        )  # fmt: skip

    def make(self, kind: str, document: dict[str, Any]) -> dict[str, Any]:
        """Create an object in our namespace."""
        found: dict[str, Any] = self.control_plane.ask(self.path(kind), method="POST", body=document)
        return found

    def path(self, kind: str, name: str = "") -> str:
        """Of a kind of object (`pods`, `apps/v1/deployments`) in our namespace."""
        group, _, plural = kind.rpartition("/")
        prefix = f"/apis/{group}" if group else "/api/v1"
        tail = f"/{name}" if name else ""
        return f"{prefix}/namespaces/{self.namespace}/{plural}{tail}"

    def pods(self) -> list[dict[str, Any]]:
        """All of our namespace, by name."""
        items: list[dict[str, Any]] = self.control_plane.ask(self.path("pods"))["items"]
        return sorted(items, key=lambda pod: pod["metadata"]["name"])

    def pod(self, name: str) -> dict[str, Any] | None:
        """One of them."""
        try:
            found: dict[str, Any] = self.control_plane.ask(self.path("pods", name))
        except httpx2.HTTPStatusError as error:
            if error.response.status_code == 404:
                return None
            raise
        return found

    def template(self, **changes: Any) -> dict[str, Any]:
        """What a pod of ours is like: 1 CPU and 1 GiB, for hollow nodes."""
        spec = {
            "schedulerName": self.scheduler,
            "containers": [container()],
            "terminationGracePeriodSeconds": 1,
            **changes,
        }
        return {"metadata": {"labels": {"app": "test"}}, "spec": spec}

    def make_pod(self, name: str, *, labels: Any = None, annotations: Any = None, **changes: Any) -> dict[str, Any]:
        """A bare pod."""
        document = self.template(**changes)
        document["metadata"] |= {"name": name, "annotations": annotations or {}}
        document["metadata"]["labels"] |= labels or {}
        return self.make("pods", document)

    def told(self, name: str) -> list[str]:
        """What the events of a pod say, as `kubectl describe` shows them."""
        events = self.control_plane.ask(self.path("events"))["items"]
        return [event["message"] for event in events if event["involvedObject"]["name"] == name]

    def label_namespace(self, **labels: str) -> None:
        """As the administrator of the cluster does."""
        path = f"/api/v1/namespaces/{self.namespace}"
        found = self.control_plane.ask(path)
        found["metadata"].setdefault("labels", {}).update(labels)
        self.control_plane.ask(path, method="PUT", body=found)

    async def until_gone(self, name: str) -> None:
        """Until its object is no longer there, while we do not look."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.pod(name) is not None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Let go."""
        await self.loop.close()
        await self.cluster.close()
        self.store.close()


def container(**changes: Any) -> dict[str, Any]:
    """One that a hollow node takes."""
    return {
        "name": "main",
        "image": "busybox:1.36",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
        **changes,
    }


@contextlib.asynccontextmanager
async def platform(
    control_plane: ControlPlane,
    namespace: str,
    folder: Path,
    *,
    system: str = "",
    scheduler: str = "",
    agent: bool = False,
    credentials: Credentials | None = None,
) -> AsyncIterator[Platform]:
    """A platform to which a scheduler name belongs: those of other tests do not see our pods. `agent`: one carries the loop.
    `credentials`: other ones than those of the administrator.
    """
    folder.mkdir(exist_ok=True)
    store = open_sqlite(folder / "mainstay.db", durable=False)
    clock, artifacts = SystemClock(), open_artifacts(str(folder / "artifacts"))
    prices = tuple(
        SetPrice(price=price, reason=Reason(code=Code.PRICE_SET, object=price.sku)) for price in default_price_book()
    )
    if not store.prices():
        store.commit(Plan(actor="test", now=1, actions=prices, atomic=True))
    keys = control_plane.keys
    administrator = Credentials(server=control_plane.url, ca=keys.authority.certificate.read_text(), token=keys.token)
    scheduler = scheduler or f"mainstay-{namespace}"
    cluster = KubernetesCluster(
        name=CLUSTER,
        api=Connection(Fixed(credentials or administrator), clock=clock),
        artifacts=artifacts,
        secrets=Drawer(),
        clock=clock,
        settings=Settings(system=system or namespace, scheduler_name=scheduler),
    )

    async def offload(call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)

    with seen_by_an_agent(store, folder, clock) if agent else contextlib.nullcontext((store, artifacts)) as beside:
        made = Platform(
            control_plane=control_plane,
            namespace=namespace,
            scheduler=scheduler,
            store=store,
            cluster=cluster,
            loop=EffectLoop(beside[0], cluster, beside[1], clock, offload),  # type: ignore[arg-type]
            tenure=Tenure(beside[0], clock, lease=f"cluster/{CLUSTER}", holder="test"),
        )
        try:
            yield made
        finally:
            await made.close()


@contextlib.contextmanager
def seen_by_an_agent(
    store: SqlStore, folder: Path, clock: SystemClock
) -> Iterator[tuple[RemoteStore, RemoteArtifactStore]]:
    """Store and artifacts as an agent of the cluster has them, over the routes of a control plane."""
    (folder / "api").mkdir()
    with services_of(folder / "api", url=URL) as given:
        agents = Agents(clock)
        services = replace(given, store=store, clock=clock, agents=agents, clusters={})
        app = create_api(services)
        token, digest = new_token()
        new = NewCluster(name=CLUSTER, kind=ClusterKind.AGENT, settings=ClusterSettings(agent_token=digest))
        reason = Reason(code=Code.CLUSTER_ADDED, object=CLUSTER)
        found = IdentifyCluster(cluster=CLUSTER, identity="", reason=Reason(code=Code.CLUSTER_FOUND, object=CLUSTER))
        store.commit(Plan(actor="test", now=1, actions=(AddCluster(cluster=new, reason=reason), found), atomic=True))
        network = Network(app)
        connection = ConnectionToPlatform(Way(url=URL, token=lambda: token), transport=network, async_transport=network)
        yield RemoteStore(connection, clock, cluster=CLUSTER), RemoteArtifactStore(connection)
