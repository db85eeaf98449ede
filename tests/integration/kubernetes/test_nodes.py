"""Nodes that are kept out and drained, on a real API server: cordons that others see, disruption budgets, slices of GPUs, and a
job on a real node that goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mainstay.clusters.kubernetes import chores, names, picture
from mainstay.domain import affinity
from mainstay.domain.affinity import NodeNeed, Requirement, Toleration
from mainstay.domain.capacity import Node
from mainstay.domain.errors import Invalid
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import OTHER_FLAVOR, Quota, Resource
from mainstay.domain.workload import Kind, Phase, RetryPolicy, WorkloadSpec
from mainstay.operations import flavors, nodes, queues, submit
from mainstay.operations.principal import Principal
from mainstay.operations.waiting import WaitingReasons
from testbed import hollow
from testbed.control_plane import ControlPlane
from testbed.fixtures import until
from testbed.hollow import HollowNode
from testbed.images import BUSYBOX
from testbed.puppets import Life
from tests.arena import CLUSTER, Arena, arena
from tests.integration.kubernetes.guests import Platform, container, platform

pytestmark = pytest.mark.xdist_group("api-server")
ADA = Principal(name="ada", tenant="acme", role="platform-admin")


@pytest.fixture
async def ours(
    control_plane: ControlPlane, hollow_nodes: tuple[str, ...], namespace: str, tmp_path: Path
) -> AsyncIterator[Platform]:
    async with platform(control_plane, namespace, tmp_path) as made:
        yield made
        for name in hollow_nodes:
            cordoned_by_others(control_plane, name, cordoned=False)


def say(store: Any, verb: Any, name: str, *, now: int, **more: Any) -> None:
    verb(store, ADA, (CLUSTER, name), now=now, request=None, reply=lambda _: "", **more)


def say_of(ours: Platform, verb: Any, name: str, **more: Any) -> None:
    say(ours.store, verb, name, now=ours.clock.now(), **more)


def shown(control_plane: ControlPlane, name: str) -> tuple[bool, dict[str, str]]:
    found = control_plane.ask(f"/api/v1/nodes/{name}")
    return found["spec"].get("unschedulable", False), found["metadata"].get("annotations", {})


def cordoned_by_others(control_plane: ControlPlane, name: str, *, cordoned: bool) -> None:
    """As `kubectl cordon` and `uncordon` do it."""
    while True:
        found = control_plane.ask(f"/api/v1/nodes/{name}")
        found["spec"]["unschedulable"] = cordoned
        try:
            control_plane.ask(f"/api/v1/nodes/{name}", method="PUT", body=found)
        except httpx2.HTTPStatusError as error:
            if error.response.status_code != 409:
                raise
        else:
            return


def node(ours: Platform, name: str) -> Node:
    return ours.store.node(CLUSTER, name)


async def test_a_node_is_cordoned_for_others_too_and_only_our_cordon_is_taken_back(
    ours: Platform, control_plane: ControlPlane, hollow_nodes: tuple[str, ...]
) -> None:
    name, other = hollow_nodes[:2]
    await ours.until(lambda: any(row.name == name for row in ours.store.nodes()))
    say_of(ours, nodes.cordon, name, why="new disks")
    await ours.until(lambda: shown(control_plane, name)[0])
    _, annotations = shown(control_plane, name)
    assert annotations[names.CORDON_REASON] == "cordoned: cordoned by ada: new disks"
    say_of(ours, nodes.uncordon, name)
    await ours.until(lambda: not shown(control_plane, name)[0])
    assert names.CORDONED not in shown(control_plane, name)[1]
    cordoned_by_others(control_plane, other, cordoned=True)
    await ours.until(lambda: node(ours, other).state == "cordoned")
    assert node(ours, other).problem == "cordoned in its cluster"
    say_of(ours, nodes.cordon, other, why="")
    for _ in range(5):
        await ours.step()
    say_of(ours, nodes.uncordon, other)
    for _ in range(5):
        await ours.step()
    assert shown(control_plane, other)[0], "it was cordoned by somebody else"


async def test_a_drain_respects_disruption_budgets_says_which_and_leaves_strangers_alone(
    ours: Platform, control_plane: ControlPlane
) -> None:
    """What its Deployment makes anew is placed elsewhere."""
    labels = {"matchLabels": {"app": "test"}}
    ours.make(
        "apps/v1/deployments", {"metadata": {"name": "web"}, "spec": {"template": ours.template(), "selector": labels}}
    )
    await ours.until(lambda: [w.phase for w in ours.workloads()] == [Phase.RUNNING])
    (first,) = ours.pods()
    name = first["spec"]["nodeName"]
    stranger = {"metadata": {"name": "agent"}, "spec": {"nodeName": name, "containers": [container()]}}
    ours.make("pods", stranger)
    budget = ours.path("policy/v1/poddisruptionbudgets", "all")
    ours.make(
        "policy/v1/poddisruptionbudgets", {"metadata": {"name": "all"}, "spec": {"minAvailable": 1, "selector": labels}}
    )
    await ours.until(lambda: control_plane.ask(budget).get("status", {}).get("currentHealthy") == 1)
    say_of(ours, nodes.drain, name, why="", wait_seconds=0)

    def words() -> str:
        return "; ".join(one.words for one in nodes.residents(ours.store, node(ours, name)))

    await ours.until(lambda: "disruption budget all needs 1 healthy pods and has 1" in words())
    assert words().startswith("is being evicted: its eviction is refused: ")
    found = ours.pod(first["metadata"]["name"])
    assert found is not None
    assert "deletionTimestamp" not in found["metadata"]
    control_plane.ask(budget, method="DELETE")
    await ours.until(lambda: [w.phase for w in ours.workloads()] == [Phase.STOPPED, Phase.RUNNING])
    assert nodes.residents(ours.store, node(ours, name)) == ()
    assert ours.workloads()[0].reason.sentence == "its pod was evicted: its node was drained"
    second = next(pod for pod in ours.pods() if pod["metadata"]["name"] not in {"agent", first["metadata"]["name"]})
    assert second["spec"]["nodeName"] != name
    await ours.until(lambda: f"{ours.namespace}/agent" in node(ours, name).strangers)
    assert ours.pod("agent") is not None


async def test_slices_of_gpus_are_counted_by_shape_and_asked_for_by_their_resource(
    ours: Platform, control_plane: ControlPlane
) -> None:
    """Taken by strangers, guests and jobs of ours alike."""
    cut = HollowNode(name=f"hollow-cut-{ours.namespace}", labels={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"})
    document = cut.document()
    for amounts in (document["status"]["capacity"], document["status"]["allocatable"]):
        amounts["nvidia.com/mig-1g.10gb"] = "4"
    document["status"]["capacity"] = {**document["status"]["capacity"], "nvidia.com/mig-1g.10gb": "5"}
    control_plane.ask("/api/v1/nodes", method="POST", body=document)
    try:
        until(lambda: hollow.are_ready(control_plane, [cut.name]))
        slices = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/mig-1g.10gb": "1"}}
        one = [container(resources=slices)]
        ours.make("pods", {"metadata": {"name": "theirs"}, "spec": {"nodeName": cut.name, "containers": one}})
        await ours.until(
            lambda: any(row.name == cut.name and row.shapes == {"1g.10gb": 3} for row in ours.store.nodes())
        )
        assert node(ours, cut.name).complaints == ("1 of 5 1g.10gb unhealthy",)
        assert node(ours, cut.name).capacity.gpus == 0
        ours.make_pod("guest", containers=one)
        await ours.until(lambda: ours.phases().get("guest") is Phase.RUNNING)
        submitted(ours, Resources(cpu_milli=100, memory_bytes=1 << 26, gpus=2, gpu_model="1g.10gb"), run=("true",))
        await ours.until(lambda: ours.allocations("job") != ())
        await ours.until(lambda: _our_pod(control_plane, cut.name) is not None)
        made = _our_pod(control_plane, cut.name)
        assert made["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "2"
        assert "nvidia.com/gpu" not in made["spec"]["containers"][0]["resources"]["limits"]
        assert node(ours, cut.name).used_shapes == {"1g.10gb": 3}
        ours.make_pod("too-much", containers=one)
        await ours.until(lambda: ours.phases().get("too-much") is Phase.QUEUED)
        _remove(control_plane, made)  # nobody ends what only seems to run
    finally:
        with contextlib.suppress(Exception):
            control_plane.ask(f"/api/v1/nodes/{cut.name}", method="DELETE")


async def test_a_job_lies_where_the_label_that_it_needs_is_and_the_taint_that_it_tolerates(
    ours: Platform, control_plane: ControlPlane
) -> None:
    """The pod says so too, for whatever else in the cluster looks at that; a job that says nothing stays off the taint."""
    special = HollowNode(name=f"hollow-special-{ours.namespace}", labels={"disk": "ssd"})
    document = special.document()
    document["spec"] = {"taints": [{"key": "dedicated", "value": "ml", "effect": "NoSchedule"}]}
    control_plane.ask("/api/v1/nodes", method="POST", body=document)
    small = Resources(cpu_milli=100, memory_bytes=1 << 26)
    need = affinity.need(
        requirements=[Requirement(key="disk", operator="In", values=("ssd",))],
        tolerations=[Toleration(key="dedicated", operator="Equal", value="ml")],
    )
    try:
        await ours.until(lambda: any(row.name == special.name for row in ours.store.nodes()))
        await ours.until(lambda: node(ours, special.name).state == "tainted")
        submitted(ours, small, run=("true",), need=need)
        await ours.until(lambda: _our_pod(control_plane, special.name) is not None)
        made = _our_pod(control_plane, special.name)
        assert {"key": "dedicated", "operator": "Equal", "value": "ml"}.items() <= made["spec"]["tolerations"][
            -1
        ].items()
        (term,) = made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        assert term["matchExpressions"] == [{"key": "disk", "operator": "In", "values": ["ssd"]}]
        _remove(control_plane, made)
        control_plane.ask(
            f"/api/v1/nodes/{special.name}", method="PATCH", body={"metadata": {"labels": {"disk": "hdd"}}}
        )
        await ours.until(lambda: node(ours, special.name).traits.value("disk") == "hdd")
        with pytest.raises(Invalid, match="no node has disk=ssd: disk is hdd"):
            submitted(ours, small, run=("true",), need=need)
    finally:
        with contextlib.suppress(Exception):
            control_plane.ask(f"/api/v1/nodes/{special.name}", method="DELETE")


async def test_quotas_count_by_the_flavor_that_the_labels_of_real_nodes_say(
    ours: Platform, control_plane: ControlPlane
) -> None:
    """A job takes the flavor of which its queue has quota, though other nodes are free, and the next one waits for that quota."""
    spot = HollowNode(name=f"hollow-spot-{ours.namespace}", labels={"lifecycle": "preemptible"})
    control_plane.ask("/api/v1/nodes", method="POST", body=spot.document())
    small = Resources(cpu_milli=600, memory_bytes=1 << 26)
    named = flavors.FlavorChange(
        name="cheap", requirements=(Requirement(key="lifecycle", operator="In", values=("preemptible",)),)
    )
    own = {("cheap", Resource.CPU): Quota(nominal=1_000), (OTHER_FLAVOR, Resource.CPU): Quota(nominal=0)}
    try:
        await ours.until(lambda: any(row.name == spot.name for row in ours.store.nodes()))
        flavors.put(ours.store, ADA, [named], now=ours.clock.now())
        queues.put(ours.store, ADA, [queues.QueueChange(name="default", quotas=own)], now=ours.clock.now())
        for _ in range(2):
            submitted(ours, small, run=("true",))
        await ours.until(lambda: _our_pod(control_plane, spot.name) is not None)
        made = _our_pod(control_plane, spot.name)
        # What is on record is why it was queued: perhaps that nothing was known of the node yet.
        told = WaitingReasons(ours.store, later=lambda look: look(), seconds=itertools.count(step=60).__next__)

        def waits() -> str:
            now = ours.clock.now()
            return " ".join(w.reason.sentence for w in told.told(ours.workloads(), now=now) if w.phase is Phase.QUEUED)

        await ours.until(lambda: "quota" in waits())
        assert "tried cheap: 0.4 CPUs more of cpu; other nodes: 0 CPUs more of cpu" in waits()
        (state,) = flavors.states(ours.store, ADA, now=ours.clock.now())
        assert (state.nodes, state.queues) == (1, ("default",))
        _remove(control_plane, made)
    finally:
        with contextlib.suppress(Exception):
            control_plane.ask(f"/api/v1/nodes/{spot.name}", method="DELETE")


def _our_pod(control_plane: ControlPlane, on: str) -> Any:
    items = control_plane.ask(f"/api/v1/pods?fieldSelector=spec.nodeName={on}")["items"]
    return next((pod for pod in items if names.IDENTITY in pod["metadata"].get("annotations", {})), None)


def _remove(control_plane: ControlPlane, pod: Any) -> None:
    """Whatever its finalizers say."""
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
    control_plane.ask(f"{path}?gracePeriodSeconds=0", method="DELETE")
    found = control_plane.ask(path)
    control_plane.ask(path, method="PUT", body={**found, "metadata": {**found["metadata"], "finalizers": []}})


def submitted(
    ours: Platform, asked: Resources, *, run: tuple[str, ...], grace: int = 30, need: NodeNeed | None = None
) -> None:
    spec = WorkloadSpec(
        kind=Kind.JOB, name="job", run=run, choices=(asked,), image=BUSYBOX, stop_grace_seconds=grace, need=need
    )
    request = submit.JobRequest(spec=spec, project="default", queue="default", priority=50)
    submit.submit(
        ours.store, ADA, [request], now=ours.clock.now(), draw=secrets.choice, request=None, reply=lambda _: ""
    )


@pytest.fixture
async def world(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Arena]:
    monkeypatch.setattr(picture, "ORPHAN_SECONDS", 4)
    monkeypatch.setattr(picture, "REPORT_SECONDS", 2)
    monkeypatch.setattr(chores, "BURIAL_SECONDS", 1.0)
    async with arena(control_plane, tmp_path, seed=3) as made:
        yield made


async def test_what_runs_on_a_drained_node_moves_without_a_failure_also_if_the_control_plane_crashes_meanwhile(
    world: Arena,
) -> None:
    """Nothing runs twice, and no orphan stays."""
    jobs = world.submit(*(Life(seconds=6) for _ in range(6)), retry=RetryPolicy(infrastructure_max=0))
    await world.until_running(*jobs)
    drained = world.pod_of(jobs[0])[1]
    there = [job for job in jobs if world.pod_of(job)[1] == drained]
    services = world.replica.services
    say(world.replica.store, nodes.drain, drained, now=services.clock.now(), why="", wait_seconds=0)
    services.pulse.beat()
    await world.restart()

    def moved() -> bool:
        return all(len(world.attempts(job)) == 2 for job in there)

    await world.until(moved)
    assert not [one for one in world.puppets.running() if one.node == drained]
    assert await world.settle()
    assert await world.violations(settled=True) == []
    for job in there:
        found = world.workloads()[job]
        assert (found.phase, found.infrastructure_failures, found.user_failures) == (Phase.SUCCEEDED, 0, 0)
        assert world.replica.store.allocations(found.key)[1].node != drained
