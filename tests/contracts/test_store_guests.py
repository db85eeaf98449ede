"""What every store promises about pods that others made."""

from __future__ import annotations

from dataclasses import replace

from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import (
    Advance,
    Allocate,
    CapacityLeft,
    Epoch,
    ObserveNodes,
    Plan,
    RemoveLocalQueue,
    RequestStop,
    SetLocalQueue,
    SetQueue,
    Submit,
)
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import LocalQueue, QueueSpec
from mainstay.domain.reason import Code
from mainstay.domain.workload import Kind, Phase, PodRef, Workload
from tests.stores import ALL, TENANT, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]

ROOM = Resources(cpu_milli=4_000, memory_bytes=16 * BYTES_PER_GIB)
POD = PodRef(namespace="ns", name="web", uid="uid-1")


def submitted(scene: Scene, **changes: object) -> Workload:
    given = {"kind": Kind.POD, "run": (), "guests": (POD,), "cluster": "k8s", "restriction": "r", **changes}
    return scene.submit(**given)


def observe(scene: Scene, *nodes: NodeState) -> None:
    scene.applied(ObserveNodes(cluster="k8s", nodes=nodes, reason=WHY))


def node(name: str, **changes: object) -> NodeState:
    return replace(NodeState(name=name, capacity=ROOM, ready=True), **changes)  # type: ignore[arg-type]


def placing(scene: Scene, work: Workload) -> Allocate:
    (found,) = scene.store.nodes()
    slot = Slot(rank=0, node_key=found.key, resources=one_cpu())
    return Allocate(workload_key=work.key, attempt=1, slots=(slot,), reason=WHY)


def test_open_workloads_of_guests_are_listed_by_cluster_until_they_are_final(scene: Scene) -> None:
    scene.submit()
    first, other = submitted(scene), submitted(scene, cluster="elsewhere")
    assert scene.store.guests("k8s") == (first,)
    assert scene.store.guests("elsewhere") == (other,)
    scene.applied(RequestStop(workload_key=first.key, reason=WHY))
    (stopping,) = scene.store.guests("k8s")
    assert stopping.stop_requested
    assert stopping.spec.guests == (POD,)
    final = Advance(
        workload_key=first.key, phase=Phase.STOPPED, attempt=1, infrastructure_failures=0, user_failures=0, reason=WHY
    )
    scene.applied(final)
    assert scene.store.guests("k8s") == ()


def test_a_submission_by_a_cluster_is_audited_although_a_leader_made_it(scene: Scene) -> None:
    epoch = scene.store.acquire("cluster/k8s", holder="a", now=scene.now, seconds=60)
    assert isinstance(epoch, Epoch)
    action = Submit(workload=scene.new(kind=Kind.POD, guests=(POD,), cluster="k8s"), reason=WHY)
    scene.store.commit(Plan(actor="cluster/k8s", now=scene.now, actions=(action,), epoch=epoch))
    row = scene.store.audit(after=0, limit=ALL)[-1]
    assert (row.actor, row.action, row.tenant, row.object) == ("cluster/k8s", "submit", TENANT, action.workload.id)


def named(queue: str, *, cluster: str = "", name: str = "user-queue") -> SetLocalQueue:
    return SetLocalQueue(local=LocalQueue(cluster=cluster, namespace="ns", name=name, queue=queue), reason=WHY)


def test_a_guest_waits_in_the_queue_that_its_namespace_has_the_name_for(scene: Scene) -> None:
    scene.applied(*(SetQueue(queue=QueueSpec(name=name), reason=WHY) for name in ("research", "night")))
    scene.applied(named("research"), named("night", cluster="k8s"))
    queues = [
        submitted(scene, id=f"web-{number}", **changes).queue
        for number, changes in enumerate(
            (
                {"queue": "ns/user-queue"},
                {"queue": "ns/user-queue", "cluster": "elsewhere"},
                {"queue": "ns/other"},
                {"queue": "other/user-queue"},
                {"queue": "research"},
            )
        )
    ]
    assert queues == ["night", "research", "default", "default", "research"]
    found = [(row.local.words, row.local.queue) for row in scene.store.local_queues()]
    assert found == [("ns/user-queue", "research"), ("ns/user-queue in k8s", "night")]
    gone = RemoveLocalQueue(cluster="k8s", namespace="ns", name="user-queue", reason=WHY)
    scene.applied(gone)
    assert submitted(scene, id="web-9", queue="ns/user-queue").queue == "research"
    (refused,) = scene.commit(gone).refused
    assert refused.reason.code is Code.NO_SUCH_LOCAL_QUEUE
    # A job of ours has no namespace to ask.
    assert scene.submit(queue="ns/user-queue").queue == "ns/user-queue"


def test_the_same_name_for_the_same_queue_once_more_writes_nothing(scene: Scene) -> None:
    scene.applied(named("default"))
    rows = scene.store.audit(after=0, limit=ALL)
    assert rows[-1].object == "default"
    scene.applied(named("default"))
    assert scene.store.audit(after=0, limit=ALL) == rows


def test_what_is_restricted_is_placed_where_a_node_admits_it_ready_or_not(scene: Scene) -> None:
    observe(scene, node("n", ready=False, admits=("r",)))
    work = submitted(scene)
    scene.applied(placing(scene, work))
    assert scene.store.allocations(work.key)[0].node == "n"


def test_a_ready_node_that_does_not_admit_it_refuses_what_is_restricted(scene: Scene) -> None:
    observe(scene, node("n", admits=("other",)))
    work = submitted(scene)
    (refused,) = scene.commit(placing(scene, work)).refused
    assert refused.reason.code is Code.CAPACITY_TAKEN
    (found,) = scene.store.nodes()
    guard = CapacityLeft(node_key=found.key, resources=one_cpu(), restriction="other")
    plain = submitted(scene, restriction="")
    assert scene.commit(replace(placing(scene, plain), guards=(guard,))).refused == ()


def test_the_snapshot_shows_who_admits_whom_and_follows_the_reports(scene: Scene) -> None:
    observe(scene, node("a", admits=("r",)), node("b", admits=("r", "s"), ready=False))
    submitted(scene)
    snapshot = scene.store.snapshot(now=0, seed=0)
    assert {name: mask.tolist() for name, mask in snapshot.nodes.admits.items()} == {
        "r": [True, True],
        "s": [False, True],
    }
    assert snapshot.restrictions[int(snapshot.workloads.restriction[0])] == "r"
    observe(scene, node("a"))
    snapshot = scene.store.snapshot(now=0, seed=0)
    assert snapshot.nodes.admits == {}
    assert snapshot.nodes.ready.tolist() == [True, False]


def test_that_a_node_admits_others_is_no_event_of_it(scene: Scene) -> None:
    observe(scene, node("a"))
    before = len(scene.store.events(tenant="", workload="", after=0, limit=ALL))
    observe(scene, node("a", admits=("r",)))
    assert len(scene.store.events(tenant="", workload="", after=0, limit=ALL)) == before
