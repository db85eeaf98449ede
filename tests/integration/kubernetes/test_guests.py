"""Pods of others, placed by us on a real API server with hollow nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mainstay.domain.allocation import End, Seen
from mainstay.domain.plan import NewWorkload, Plan, SetQueue, Submit
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.workload import WAITING, Kind, Phase, WorkloadSpec
from testbed.control_plane import ControlPlane
from tests.integration.kubernetes.guests import Platform, container, platform
from tests.stores import WHY, one_cpu

pytestmark = pytest.mark.xdist_group("api-server")


@pytest.fixture
async def ours(
    control_plane: ControlPlane, hollow_nodes: tuple[str, ...], namespace: str, tmp_path: Path
) -> AsyncIterator[Platform]:
    async with platform(control_plane, namespace, tmp_path) as made:
        yield made


@pytest.fixture(params=["reached by us", "behind an agent"])
async def either(
    request: pytest.FixtureRequest,
    control_plane: ControlPlane,
    hollow_nodes: tuple[str, ...],
    namespace: str,
    tmp_path: Path,
) -> AsyncIterator[Platform]:
    async with platform(control_plane, namespace, tmp_path, agent=request.param == "behind an agent") as made:
        yield made


async def test_a_pod_that_names_us_is_placed_runs_and_is_billed(either: Platform) -> None:
    either.make_pod("web")
    await either.until(lambda: either.phases().get("web") is Phase.RUNNING)
    (held,) = either.allocations("web")
    found = either.pod("web")
    assert found is not None
    assert (held.seen, held.node, held.resources.cpu_milli) == (Seen.RUNNING, found["spec"]["nodeName"], 1_000)
    await asyncio.sleep(2.0)  # times of pods are whole seconds
    either.stop("web")
    await either.until(lambda: either.pod("web") is None and either.phases()["web"] is Phase.STOPPED)
    await either.until(lambda: either.allocations("web")[0].closed)
    (usage, charges), *rest = either.store.usage(tenant="default", since=0, until=1 << 60)
    assert rest == []
    assert (usage.project, usage.resources.cpu_milli) == (either.namespace[:40], 1_000)
    assert sum(line.cost.micros for line in charges) > 0


async def test_a_job_a_deployment_and_a_stateful_set_work_unchanged(ours: Platform) -> None:
    selector = {"selector": {"matchLabels": {"app": "test"}}}
    ours.make(
        "batch/v1/jobs",
        {
            "metadata": {"name": "once"},
            "spec": {"completions": 3, "parallelism": 2, "template": ours.template(restartPolicy="Never")},
        },
    )
    ours.make(
        "apps/v1/deployments",
        {"metadata": {"name": "web"}, "spec": {"replicas": 2, "template": ours.template(), **selector}},
    )
    ours.make(
        "apps/v1/statefulsets",
        {
            "metadata": {"name": "db"},
            "spec": {"replicas": 2, "serviceName": "db", "template": ours.template(), **selector},
        },
    )

    def status(kind: str, name: str) -> dict[str, int]:
        found: dict[str, int] = ours.control_plane.ask(ours.path(kind, name))["status"]
        return found

    await ours.until(lambda: status("batch/v1/jobs", "once").get("succeeded") == 3)
    await ours.until(lambda: status("apps/v1/deployments", "web").get("readyReplicas") == 2)
    await ours.until(lambda: status("apps/v1/statefulsets", "db").get("readyReplicas") == 2)
    await ours.until(
        lambda: sorted(workload.phase.word for workload in ours.workloads()) == ["running"] * 4 + ["succeeded"] * 3
    )
    assert {workload.queue for workload in ours.workloads()} == {"default"}


async def test_who_is_deleted_by_its_owner_is_stopped_and_the_next_one_is_another_workload(either: Platform) -> None:
    either.make(
        "apps/v1/statefulsets",
        {
            "metadata": {"name": "db"},
            "spec": {
                "replicas": 1,
                "serviceName": "db",
                "template": either.template(),
                "selector": {"matchLabels": {"app": "test"}},
            },
        },
    )
    await either.until(lambda: either.phases().get("db-0") is Phase.RUNNING)
    either.control_plane.ask(either.path("pods", "db-0"), method="DELETE")
    await either.until(lambda: [w.phase for w in either.workloads()] == [Phase.STOPPED, Phase.RUNNING])
    first, second = either.workloads()
    assert first.id != second.id
    assert first.reason.sentence == "its pod was deleted in its cluster"


async def test_a_gated_pod_waits_for_its_gate_and_nothing_is_made_of_it_before(ours: Platform) -> None:
    """As Kueue makes them: the label of its queue, and a gate that Kueue takes away once it has admitted the pod."""
    ours.make_pod(
        "gated",
        labels={"kueue.x-k8s.io/queue-name": "team", "kueue.x-k8s.io/managed": "true"},
        schedulingGates=[{"name": "kueue.x-k8s.io/admission"}],
    )
    ours.make_pod("free")
    await ours.until(lambda: ours.phases().get("free") is Phase.RUNNING)
    assert "gated" not in ours.phases()
    ungated = ours.pod("gated")
    assert ungated is not None
    del ungated["spec"]["schedulingGates"]
    ours.control_plane.ask(ours.path("pods", "gated"), method="PUT", body=ungated)
    await ours.until(lambda: ours.phases().get("gated") is Phase.RUNNING)


async def test_a_group_is_placed_together_once_all_of_it_is_there(either: Platform) -> None:
    """As the training operator makes pods for Volcano, without its PodGroup: the annotation says how many there are. What asks
    for another amount than the rest is a pod set of its own.
    """
    annotations = {"scheduling.k8s.io/group-name": "bert", "mainstay.dev/group-size": "3"}
    for name in ("bert-worker-0", "bert-worker-1"):
        either.make_pod(name, annotations=annotations, labels={"training.kubeflow.org/job-name": "bert"})
    await either.until(lambda: either.told("bert-worker-0"))
    assert either.told("bert-worker-0") == ["mainstay: waits for its group bert: 2 of 3 pods are there"]
    assert either.workloads() == []
    master = [container(resources={"requests": {"cpu": "2", "memory": "1Gi"}})]
    either.make_pod("bert-master-0", annotations=annotations, containers=master)
    await either.until(lambda: either.phases().get("bert") is Phase.RUNNING)
    (workload,) = either.workloads()
    assert [pod.name for pod in workload.spec.guests] == ["bert-master-0", "bert-worker-0", "bert-worker-1"]
    assert [(one.name, one.nodes) for one in workload.spec.sets] == [("bert-master-0", 1), ("bert-worker-0", 2)]
    assert [held.resources.cpu_milli for held in either.allocations("bert")] == [2_000, 1_000, 1_000]


async def test_a_group_that_does_not_fit_whole_is_not_placed_at_all_and_is_told_why(either: Platform) -> None:
    annotations = {"scheduling.k8s.io/group-name": "huge", "mainstay.dev/group-size": "2"}
    big = [container(resources={"requests": {"cpu": "1", "nvidia.com/gpu": "5"}, "limits": {"nvidia.com/gpu": "5"}})]
    for name in ("huge-0", "huge-1"):
        either.make_pod(name, annotations=annotations, containers=big)
    await either.until(lambda: either.told("huge-0") and either.told("huge-1"))
    (said,) = either.told("huge-0")
    assert said.startswith("mainstay: cannot run on this fleet: needs 2 x (1 CPU,")
    assert not any(pod["spec"].get("nodeName") for pod in either.pods())
    either.control_plane.ask(either.path("pods", "huge-1"), method="DELETE")
    await either.until(lambda: either.phases()["huge"] is Phase.STOPPED)
    assert either.pod("huge-0") is not None


async def test_selector_affinity_and_taints_are_respected_and_what_is_not_understood_waits(ours: Platform) -> None:
    hostname = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["hollow-1"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}
    ours.make_pod("chosen", nodeSelector={"kubernetes.io/hostname": "hollow-2"})
    ours.make_pod("drawn", affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
    ours.make_pod("nowhere", nodeSelector={"kubernetes.io/hostname": "elsewhere"})
    ours.make_pod("bound-volume", volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])
    await ours.until(lambda: ours.phases().get("chosen") is ours.phases().get("drawn") is Phase.RUNNING)
    assert [held.node for name in ("chosen", "drawn") for held in ours.allocations(name)] == ["hollow-2", "hollow-1"]
    await ours.until(lambda: ours.told("nowhere") and ours.told("bound-volume"))
    (said,) = ours.told("nowhere")
    assert (
        said == "mainstay: no node meets what the pod requires: its selector, affinity, tolerations and kind of devices"
    )
    assert ours.told("bound-volume") == [
        "mainstay: cannot be placed by mainstay: it has a volume that must be bound first (persistentVolumeClaim)"
    ]
    assert "bound-volume" not in ours.phases()


async def test_tenant_and_project_are_those_of_the_namespace_and_never_of_the_pod(ours: Platform) -> None:
    labels = {"mainstay.dev/tenant": "acme", "mainstay.dev/project": "nlp"}
    ours.label_namespace(**labels)
    ours.make_pod("web", labels={"mainstay.dev/tenant": "rich", "mainstay.dev/queue": "night"})
    await ours.until(lambda: ours.phases().get("web") is Phase.RUNNING)
    (workload,) = ours.workloads()
    assert (workload.tenant, workload.project, workload.queue) == ("acme", "nlp", "night")
    assert ours.store.audit(after=0, limit=99)[-1].actor == "cluster/k8s"


async def test_stopping_evicts_and_a_disruption_budget_is_respected(ours: Platform) -> None:
    ours.make(
        "policy/v1/poddisruptionbudgets",
        {"metadata": {"name": "all"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "test"}}}},
    )
    ours.make_pod("web")
    await ours.until(lambda: ours.phases().get("web") is Phase.RUNNING)
    budget = ours.path("policy/v1/poddisruptionbudgets", "all")
    await ours.until(lambda: ours.control_plane.ask(budget).get("status", {}).get("currentHealthy") == 1)
    ours.stop("web")
    for _ in range(20):
        await ours.step()
    found = ours.pod("web")
    assert found is not None
    assert "deletionTimestamp" not in found["metadata"]
    ours.control_plane.ask(budget, method="DELETE")
    await ours.until(lambda: ours.phases()["web"] is Phase.STOPPED and ours.pod("web") is None)


async def test_a_pod_of_others_yields_to_urgent_work_by_its_eviction(ours: Platform) -> None:
    """One pod at a time in the queue: the guest is evicted, is over as preempted, and the job has its place."""
    ours.make_pod("web")
    await ours.until(lambda: ours.phases().get("web") is Phase.RUNNING)
    queue = QueueSpec(
        name="default",
        quotas={("default", "pods"): Quota(nominal=1)},
        preemption=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY),
    )
    spec = WorkloadSpec(kind=Kind.JOB, name="urgent", run=("true",), choices=(one_cpu(),), cluster="k8s")
    job = NewWorkload(
        id="urgent-1",
        tenant="default",
        project="default",
        queue="default",
        submitted_by="test",
        priority=100,
        spec=spec,
    )
    actions = (SetQueue(queue=queue, reason=WHY), Submit(workload=job, reason=WHY))
    ours.store.commit(Plan(actor="test", now=ours.clock.now(), actions=actions, atomic=True))
    await ours.until(lambda: ours.phases()["web"] is Phase.PREEMPTED and ours.pod("web") is None)
    await ours.until(lambda: ours.phases()["urgent"] not in WAITING)
    (held,) = ours.allocations("web")
    assert (held.stop, held.moves, held.seen) == (True, True, Seen.ENDED)


async def test_stopping_what_waits_deletes_its_pod(ours: Platform) -> None:
    ours.make_pod("nowhere", nodeSelector={"kubernetes.io/hostname": "elsewhere"})
    await ours.until(lambda: ours.phases().get("nowhere") is Phase.QUEUED)
    ours.stop("nowhere")
    await ours.until(lambda: ours.phases()["nowhere"] is Phase.STOPPED and ours.pod("nowhere") is None)


async def test_what_it_holds_is_counted_once(ours: Platform) -> None:
    ours.make_pod("web", nodeSelector={"kubernetes.io/hostname": "hollow-0"})
    await ours.until(lambda: ours.phases().get("web") is Phase.RUNNING)
    (node,) = [node for node in ours.store.nodes() if node.name == "hollow-0"]
    free = node.capacity.cpu_milli - node.used.cpu_milli
    (reported,) = [node for node in (await ours.cluster.observe()).nodes if node.name == "hollow-0"]
    assert node.used.cpu_milli == 1_000
    assert reported.capacity.cpu_milli - free == 1_000


async def test_another_process_goes_on_where_this_one_ended(
    ours: Platform, control_plane: ControlPlane, tmp_path: Path
) -> None:
    ours.make_pod("web")
    await ours.until(lambda: ours.phases().get("web") is Phase.RUNNING)
    ours.make_pod("late")
    async with platform(
        control_plane, ours.namespace, tmp_path, system=ours.namespace, scheduler=ours.scheduler
    ) as other:
        await other.until(lambda: other.phases().get("late") is Phase.RUNNING)
        (held,) = other.allocations("web")
        assert (held.seen, held.attempt, len(other.workloads())) == (Seen.RUNNING, 1, 2)
        control_plane.ask(ours.path("pods", "web"), method="DELETE")
        await other.until(lambda: other.phases()["web"] is Phase.STOPPED)


async def test_what_went_while_nobody_looked_is_lost_and_charged_as_witnessed(
    ours: Platform, control_plane: ControlPlane, tmp_path: Path
) -> None:
    ours.make_pod("web")
    await ours.until(lambda: ours.phases().get("web") is Phase.RUNNING)
    control_plane.ask(ours.path("pods", "web"), method="DELETE")
    await ours.until_gone("web")
    async with platform(
        control_plane, ours.namespace, tmp_path, system=ours.namespace, scheduler=ours.scheduler
    ) as other:
        await other.until(lambda: other.phases()["web"] is Phase.FAILED)
        await other.until(lambda: other.allocations("web")[0].closed)
        (held,) = other.allocations("web")
        assert held.end is End.LOST
        assert held.ended_at == max(held.started_at, held.metered_until)


async def test_who_is_placed_by_somebody_else_is_left_alone(ours: Platform) -> None:
    ours.make_pod("web", nodeSelector={"kubernetes.io/hostname": "elsewhere"})
    await ours.until(lambda: ours.phases().get("web") is Phase.QUEUED)
    binding = {"metadata": {"name": "web"}, "target": {"apiVersion": "v1", "kind": "Node", "name": "hollow-0"}}
    ours.control_plane.ask(f"{ours.path('pods', 'web')}/binding", method="POST", body=binding)
    await ours.until(lambda: ours.phases()["web"] is Phase.STOPPED)
    found = ours.pod("web")
    assert found is not None
    assert found["spec"]["nodeName"] == "hollow-0"
    assert ours.allocations("web") == ()


GROUP_DEFINITION = {
    "metadata": {"name": "podgroups.scheduling.x-k8s.io"},
    "spec": {
        "group": "scheduling.x-k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "podgroups", "singular": "podgroup", "kind": "PodGroup", "listKind": "PodGroupList"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}
"""As scheduler-plugins installs it, without its validation."""
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def test_the_size_of_a_group_is_that_of_its_pod_group(ours: Platform) -> None:
    """As Kubeflow Trainer makes pods for the coscheduling plugin: a PodGroup, and the label on each pod."""
    ours.control_plane.ask(DEFINITIONS, method="POST", body=GROUP_DEFINITION)
    try:
        for number in range(2):
            ours.make_pod(f"train-node-{number}", labels={"scheduling.x-k8s.io/pod-group": "train"})
        await ours.until(lambda: ours.told("train-node-0"))
        (said,) = ours.told("train-node-0")
        assert said.endswith("its group train is not there, and no annotation says how many pods it has")
        group = {"apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": {"name": "train"}}
        ours.make("scheduling.x-k8s.io/v1alpha1/podgroups", {**group, "spec": {"minMember": 2}})
        await ours.until(lambda: ours.phases().get("train") is Phase.RUNNING)
        assert [workload.spec.nodes for workload in ours.workloads()] == [2]
    finally:
        ours.control_plane.ask(f"{DEFINITIONS}/podgroups.scheduling.x-k8s.io", method="DELETE")


THIRD_PARTY = {
    "pytorch": {
        "name": "bert-master-0",
        "labels": {
            "training.kubeflow.org/job-name": "bert",
            "training.kubeflow.org/operator-name": "pytorchjob-controller",
            "training.kubeflow.org/replica-index": "0",
            "training.kubeflow.org/replica-type": "master",
        },
        "spec": {"restartPolicy": "OnFailure"},
    },
    "spark": {
        "name": "pi-driver",
        "labels": {"spark-role": "driver", "spark-app-selector": "spark-0f3a", "spark-app-name": "pi"},
        "spec": {"restartPolicy": "Never"},
    },
    "ray": {
        "name": "ray-head-x7k2p",
        "labels": {
            "app.kubernetes.io/created-by": "kuberay-operator",
            "ray.io/cluster": "ray",
            "ray.io/group": "headgroup",
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": "head",
        },
        "spec": {"restartPolicy": "Always", "volumes": [{"name": "shared-mem", "emptyDir": {"medium": "Memory"}}]},
    },
}
"""Pods with the labels and policies of those that operators make; the operators themselves do not run here."""


@pytest.mark.parametrize("kind", THIRD_PARTY)
async def test_pods_like_those_of_operators_are_placed_and_only_marked(ours: Platform, kind: str) -> None:
    like: dict[str, Any] = THIRD_PARTY[kind]
    ours.make("pods", {**ours.template(**like["spec"]), "metadata": {"name": like["name"], "labels": like["labels"]}})
    await ours.until(lambda: ours.phases().get(like["name"]) is Phase.RUNNING)
    found = ours.pod(like["name"])
    assert found is not None
    assert found["metadata"]["labels"] == like["labels"]
    assert found["metadata"]["annotations"]["mainstay.dev/workload"] == ours.allocations(like["name"])[0].pod
    assert "finalizers" not in found["metadata"]
