"""What every store promises about nodes that are kept out and about slices of GPUs, over both databases."""

from __future__ import annotations

import pytest

from mainstay.decide.explain import explain
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import End, Seen
from mainstay.domain.capacity import Closure, Keeping, Node, NodeState
from mainstay.domain.errors import Conflict, NotFound
from mainstay.domain.plan import (
    Action,
    CapacityLeft,
    CordonNode,
    DrainNode,
    NodeAction,
    ObserveNodes,
    QuarantineNode,
    RedeployEndpoint,
    ReleaseNode,
    RemoveCluster,
    StopPod,
    SwitchEndpoint,
    UncordonNode,
)
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import NO_LIMIT, PODS
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.workload import Phase
from tests.stores import SECOND, TENANT, USER, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]
SHAPE = "1g.10gb"


def act(kind: type[NodeAction], name: str = "local-0", **values: object) -> NodeAction:
    reason = Reason(code=Code.NODE_CORDONED, object=name, numbers={"by": USER})
    return kind(**{"cluster": "local", "node": name, "reason": reason, **values})  # type: ignore[arg-type]


def closure(scene: Scene, name: str = "local-0") -> Closure | None:
    return scene.store.node("", name).closure


def ready(scene: Scene) -> list[bool]:
    return scene.store.snapshot(now=scene.now, seed=0).nodes.ready.tolist()


def report(scene: Scene, *states: NodeState) -> None:
    scene.applied(ObserveNodes(cluster="local", nodes=states, reason=WHY))


def seen(name: str = "local-0", **values: object) -> NodeState:
    size = Resources(cpu_milli=8_000, memory_bytes=8 * BYTES_PER_GIB)
    return NodeState(**{"name": name, "capacity": size, "ready": True, **values})  # type: ignore[arg-type]


def test_a_cordoned_node_takes_nothing_until_it_is_uncordoned(scene: Scene) -> None:
    first, _ = scene.fleet(nodes=2)
    scene.applied(act(CordonNode))
    assert ready(scene) == [False, True]
    assert closure(scene) == Closure(keeping=Keeping.CORDONED, reason=act(CordonNode).reason, since=scene.now)
    (refused,) = scene.commit(scene.allocate(scene.submit(), node=first)).refused
    assert refused.reason.code is Code.CAPACITY_TAKEN
    scene.applied(act(UncordonNode))
    assert (ready(scene), closure(scene)) == ([True, True], None)
    scene.applied(scene.allocate(scene.submit(), node=first))


def test_no_report_of_its_cluster_opens_a_node_that_somebody_keeps_out(scene: Scene) -> None:
    scene.fleet()
    scene.applied(act(CordonNode))
    report(scene, seen())
    assert ready(scene) == [False]
    report(scene)
    report(scene, seen())
    assert ready(scene) == [False]
    assert closure(scene) is not None


def test_a_guest_is_not_placed_on_a_node_that_is_kept_out_either(scene: Scene) -> None:
    report(scene, seen(admits=("r",)))
    guard = CapacityLeft(node_key=scene.store.nodes()[0].key, resources=one_cpu(), restriction="r")
    scene.applied(scene.advance(scene.submit(), Phase.QUEUED, guards=(guard,)))
    scene.applied(act(CordonNode))
    assert len(scene.commit(scene.advance(scene.submit(), Phase.QUEUED, guards=(guard,))).refused) == 1
    assert scene.store.snapshot(now=0, seed=0).nodes.admits["r"].tolist() == [False]


def test_said_twice_is_said_once(scene: Scene) -> None:
    scene.fleet()
    for action in (
        act(CordonNode),
        act(DrainNode, wait_seconds=60),
        act(QuarantineNode, until=scene.now + 90 * SECOND),
    ):
        scene.applied(action)
        version = scene.store.version()
        scene.applied(action)
        assert scene.store.version() == version
    scene.applied(act(ReleaseNode))
    version = scene.store.version()
    scene.applied(act(ReleaseNode), act(UncordonNode))
    assert scene.store.version() == version


def test_a_drain_is_a_cordon_that_moves_what_runs_and_uncordoning_ends_it(scene: Scene) -> None:
    scene.fleet()
    scene.applied(act(CordonNode))
    scene.applied(act(DrainNode, wait_seconds=60))
    found = closure(scene)
    assert found is not None
    assert (found.word, found.wait_seconds) == ("draining", 60)
    nodes = scene.store.snapshot(now=0, seed=0).nodes
    assert (nodes.drains.tolist(), nodes.wait_seconds.tolist(), nodes.closed_at.tolist()) == ([True], [60], [scene.now])
    scene.applied(act(UncordonNode))
    nodes = scene.store.snapshot(now=0, seed=0).nodes
    assert (nodes.drains.tolist(), nodes.closed_at.tolist(), nodes.ready.tolist()) == ([False], [0], [True])


def test_a_quarantine_goes_before_a_cordon_and_only_a_release_ends_it(scene: Scene) -> None:
    scene.fleet()
    scene.applied(act(DrainNode))
    scene.applied(act(QuarantineNode))
    found = closure(scene)
    assert found is not None
    assert (found.word, found.drains, found.until) == ("quarantined", True, 0)
    (refused,) = scene.commit(act(UncordonNode)).refused
    assert refused.reason.sentence == "node local-0 is quarantined, not cordoned"
    scene.applied(act(CordonNode))
    assert closure(scene) == found
    scene.applied(act(ReleaseNode))
    assert closure(scene) is None


def test_a_cordon_is_not_released(scene: Scene) -> None:
    scene.fleet()
    scene.applied(act(CordonNode))
    (refused,) = scene.commit(act(ReleaseNode)).refused
    assert refused.reason.code is Code.NODE_CLOSED_OTHERWISE


def test_a_suspicion_does_not_go_before_the_word_of_a_person(scene: Scene) -> None:
    scene.fleet()
    suspicion = act(QuarantineNode, until=scene.now + 600 * SECOND, refused_at=scene.now + 30 * SECOND)
    scene.applied(act(CordonNode))
    scene.applied(suspicion)
    found = closure(scene)
    assert found is not None
    assert found.keeping is Keeping.CORDONED
    scene.now += 60 * SECOND
    scene.applied(act(UncordonNode))
    scene.applied(suspicion)
    assert closure(scene) is None, "what it refused before it was let in counts no more"
    scene.applied(act(QuarantineNode, until=scene.now + 600 * SECOND, refused_at=scene.now + 1))
    assert closure(scene) is not None


def test_a_quarantine_that_began_anew_is_not_ended_by_who_saw_the_last_one(scene: Scene) -> None:
    scene.fleet()
    scene.applied(act(QuarantineNode, until=scene.now + SECOND))
    before = closure(scene)
    assert before is not None
    scene.applied(act(QuarantineNode))
    assert len(scene.commit(act(ReleaseNode, since=before.since)).refused) == 1
    assert closure(scene) is not None


def test_each_change_is_an_event_and_an_audit_row_with_who_and_why(scene: Scene) -> None:
    scene.fleet()
    reason = Reason(code=Code.NODE_QUARANTINED, object="local-0", numbers={"by": USER, "detail": "XID 79"})
    scene.applied(act(QuarantineNode, reason=reason))
    event = scene.store.last_events(tenant="", workload="", limit=1)[0]
    assert (event.kind, event.object, event.reason.sentence) == ("node", "local-0", f"quarantined by {USER}: XID 79")
    row = scene.store.audit(after=0, limit=100)[-1]
    assert (row.actor, row.action, row.object) == (USER, "quarantine_node", "local-0")


def test_a_node_is_found_by_its_name_unless_several_clusters_have_it(scene: Scene) -> None:
    scene.fleet(nodes=2)
    assert scene.store.node("", "local-1").name == scene.store.node("local", "local-1").name == "local-1"
    with pytest.raises(NotFound, match="no such node: local-9") as refused:
        scene.store.node("", "local-9")
    assert "did you mean local-" in refused.value.hint
    with pytest.raises(NotFound, match="in cluster east"):
        scene.store.node("east", "local-1")
    scene.applied(ObserveNodes(cluster="east", nodes=(seen("local-1"),), reason=WHY))
    with pytest.raises(Conflict) as several:
        scene.store.node("", "local-1")
    assert several.value.hint == "name one of: east/local-1, local/local-1"


@pytest.mark.parametrize("kind", [CordonNode, DrainNode, QuarantineNode, UncordonNode, ReleaseNode])
def test_a_node_that_is_not_there_is_refused(scene: Scene, kind: type[NodeAction]) -> None:
    scene.fleet()
    (refused,) = scene.commit(act(kind, "nowhere")).refused
    assert refused.reason.code is Code.NO_SUCH_NODE


def test_a_node_of_a_cluster_that_has_left_is_not_there(scene: Scene) -> None:
    scene.fleet()
    report(scene, seen())
    scene.applied(ObserveNodes(cluster="local", nodes=(seen(),), at=1, reason=WHY))
    scene.applied(RemoveCluster(cluster="local", reason=WHY))
    (refused,) = scene.commit(act(CordonNode)).refused
    assert refused.reason.code is Code.NO_SUCH_NODE


def test_the_nodes_of_a_cluster_that_are_kept_out_are_told_by_name(scene: Scene) -> None:
    scene.fleet(nodes=3)
    scene.applied(act(CordonNode, "local-2"))
    scene.applied(ObserveNodes(cluster="east", nodes=(seen(),), reason=WHY), act(CordonNode, cluster="east"))
    assert list(scene.store.closed_nodes("local")) == ["local-2"]
    assert scene.store.closed_nodes("local")["local-2"] == closure(scene, "local-2")


def test_why_a_node_is_not_ready_and_what_is_wrong_with_it_are_told_as_its_cluster_says(scene: Scene) -> None:
    report(
        scene,
        seen(
            ready=False,
            problem="not ready: disk\0full",
            complaints=("1 of 8 H100 unhealthy", "DiskPressure:\nfull"),
            unhealthy=(("H100", 1),),
            cordoned=True,
            strangers=("kube-system/proxy",),
        ),
    )
    node = scene.store.node("", "local-0")
    assert (node.state, node.problem.startswith("not ready: disk")) == ("cordoned", True)
    assert (node.complaints, node.unhealthy) == (("1 of 8 H100 unhealthy", "DiskPressure: full"), {"H100": 1})
    assert node.strangers == ("kube-system/proxy",)
    event = scene.store.last_events(tenant="", workload="", limit=1)[0]
    assert "disk" in event.reason.sentence
    assert "1 of 8 H100 unhealthy" in event.reason.sentence
    (reason,) = scene.store.snapshot(now=0, seed=0).closed_nodes.values()
    assert reason.sentence.startswith("not ready: disk")
    report(scene, seen())
    node = scene.store.node("", "local-0")
    assert (node.state, node.reason, node.complaints) == ("ready", None, ())
    assert scene.store.snapshot(now=0, seed=0).closed_nodes == {}


def test_what_others_use_and_what_is_broken_still_belongs_to_a_node(scene: Scene) -> None:
    size = Resources(cpu_milli=2_000, memory_bytes=BYTES_PER_GIB)
    whole = Resources(cpu_milli=8_000, memory_bytes=BYTES_PER_GIB, gpus=8, gpu_model="H100")
    report(scene, seen(capacity=size, whole=whole, whole_shapes=((SHAPE, 7),)), seen("local-1", shapes=((SHAPE, 1),)))
    nodes = scene.store.snapshot(now=0, seed=0).nodes
    assert (nodes.whole_cpu_milli.tolist(), nodes.whole_gpus.tolist()) == ([8_000, 8_000], [8, 0])
    assert (nodes.whole_shapes[SHAPE].tolist(), nodes.shapes[SHAPE].tolist()) == ([7, 1], [0, 1])
    report(scene, seen(capacity=size), seen("local-1"))
    assert scene.store.snapshot(now=0, seed=0).nodes.whole_cpu_milli.tolist() == [2_000, 8_000]


def test_a_snapshot_that_need_not_be_fresh_is_that_of_the_last_look(scene: Scene) -> None:
    assert scene.store.snapshot(now=7, seed=0, fresh=False).nodes.names == ()
    scene.fleet()
    assert scene.store.snapshot(now=8, seed=0, fresh=False).nodes.names == ()
    assert scene.store.snapshot(now=8, seed=0).nodes.names == ("local-0",)
    seen_last = scene.store.snapshot(now=9, seed=0, fresh=False)
    assert (seen_last.nodes.names, seen_last.now) == (("local-0",), 9)


def test_slices_are_held_and_given_back_by_shape(scene: Scene) -> None:
    report(
        scene,
        seen(shapes=((SHAPE, 2),), capacity=Resources(cpu_milli=8_000, memory_bytes=1 << 40, gpus=1, gpu_model="H100")),
    )
    slice_ = one_cpu(gpus=1, gpu_model=SHAPE)
    first, second, third = (scene.submit(choices=(slice_,)) for _ in range(3))
    pod = scene.place(first)
    scene.place(second)
    assert _shapes(scene) == ({SHAPE: 2}, {SHAPE: 2})
    assert len(scene.commit(scene.allocate(third)).refused) == 1
    whole = scene.submit(choices=(one_cpu(gpus=1),))
    scene.place(whole)
    assert scene.store.node("", "local-0").used.gpus == 1
    nodes = scene.store.snapshot(now=0, seed=0).nodes
    assert (nodes.shapes[SHAPE].tolist(), nodes.used_shapes[SHAPE].tolist()) == ([2], [2])
    scene.applied(scene.see(pod, Seen.ENDED, end=End.NEVER_STARTED))
    assert _shapes(scene) == ({SHAPE: 2}, {SHAPE: 1})
    scene.place(third)


def test_a_shape_that_goes_under_its_work_is_given_back_all_the_same(scene: Scene) -> None:
    report(scene, seen(shapes=((SHAPE, 1),)))
    pod = scene.place(scene.submit(choices=(one_cpu(gpus=1, gpu_model=SHAPE),)))
    report(scene, seen())
    assert len(scene.commit(scene.allocate(scene.submit(choices=(one_cpu(gpus=1, gpu_model=SHAPE),)))).refused) == 1
    scene.applied(scene.see(pod, Seen.ENDED, end=End.NEVER_STARTED))
    assert _shapes(scene) == ({}, {})
    assert scene.store.node("", "local-0").used == Resources()


def _shapes(scene: Scene) -> tuple[dict[str, int], dict[str, int]]:
    node: Node = scene.store.node("", "local-0")
    return dict(node.shapes), dict(node.used_shapes)


def test_a_pod_that_is_stopped_to_be_moved_is_known_as_that(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    scene.applied(StopPod(allocation_key=pod.key, moves=True, reason=WHY))
    assert (scene.pod(pod).stop, scene.pod(pod).moves) == (True, True)
    assert scene.store.snapshot(now=0, seed=0).allocations.moves.tolist() == [True]
    assert [row.key for row in scene.store.allocations_on(scene.store.nodes()[0].key)] == [pod.key]
    scene.end(pod, end=End.STOPPED, exit_code=None)
    assert scene.store.allocations_on(scene.store.nodes()[0].key) == ()


def test_a_copy_of_what_serves_takes_over_once_it_is_healthy(scene: Scene) -> None:
    scene.fleet()
    service = scene.deploy()
    scene.run(service)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY))
    redeploy = RedeployEndpoint(tenant=TENANT, endpoint="digits", workload="digits-copy", reason=WHY)
    scene.applied(redeploy)
    copy, served = scene.workload("digits-copy"), scene.workload(service.id)
    assert (copy.spec, copy.phase, copy.submitted_by) == (served.spec, Phase.PENDING, served.submitted_by)
    row = scene.store.endpoint("digits", tenant=copy.tenant)
    assert (row.serving, row.candidate, row.candidate_version) == (service.id, "digits-copy", row.serving_version)
    assert len(scene.commit(redeploy).refused) == 1, "it has a candidate already"
    scene.run(copy)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY))
    assert scene.store.endpoint("digits", tenant=copy.tenant).serving == "digits-copy"
    assert scene.workload(service.id).stop_requested


def test_an_atomic_plan_with_a_word_that_does_not_hold_is_refused_whole(scene: Scene) -> None:
    scene.fleet(nodes=2)
    actions: tuple[Action, ...] = (act(CordonNode, "local-1"), act(CordonNode, "nowhere"))
    with pytest.raises(Conflict, match="no such node: nowhere"):
        scene.commit(*actions, atomic=True)
    assert ready(scene) == [True, True]
    assert scene.store.node("", "local-1").closure is None


def test_a_node_takes_so_many_pods_and_no_more(scene: Scene) -> None:
    report(scene, seen(pods_max=3))
    (node,) = scene.store.nodes()
    pod = scene.run(scene.submit())
    (refused,) = scene.commit(scene.allocate(scene.submit(nodes=3))).refused
    assert refused.reason.code is Code.CAPACITY_TAKEN
    guard = CapacityLeft(node_key=node.key, resources=one_cpu(cpu_milli=300), pods=3)
    assert scene.commit(scene.advance(scene.submit(), Phase.QUEUED, guards=(guard,))).refused
    both = scene.allocate(scene.submit(nodes=2))
    scene.applied(both)
    (node,) = scene.store.nodes()
    assert (node.used_pods, node.pods_max) == (3, 3)
    waits = scene.submit()
    assert scene.commit(scene.allocate(waits)).refused
    scene.end(pod)
    assert scene.store.nodes()[0].used_pods == 2
    scene.applied(scene.allocate(waits))
    assert scene.store.nodes()[0].used_pods == 3


def test_a_node_of_which_no_limit_is_known_takes_any_number_of_pods(scene: Scene) -> None:
    report(scene, seen())
    scene.applied(scene.allocate(scene.submit(nodes=8)))
    (node,) = scene.store.nodes()
    assert (node.used_pods, node.pods_max) == (8, None)
    nodes = scene.store.snapshot(now=0, seed=0).nodes
    assert (nodes.others, nodes.used_others) == ({}, {})


def test_a_snapshot_shows_places_for_pods_as_soon_as_one_node_has_a_limit(scene: Scene) -> None:
    report(scene, seen(), seen("local-1", pods_max=0))
    nodes = scene.store.snapshot(now=0, seed=0).nodes
    assert {name: column.tolist() for name, column in nodes.others.items()} == {PODS: [NO_LIMIT, 0]}
    assert nodes.used_others[PODS].tolist() == [0, 0]
    scene.applied(scene.allocate(scene.submit(nodes=2), node=scene.store.node("", "local-0")))
    assert scene.store.snapshot(now=0, seed=0).nodes.used_others[PODS].tolist() == [2, 0]
    report(scene, seen(), seen("local-1"))
    assert scene.store.snapshot(now=0, seed=0).nodes.others == {}


def test_pods_of_others_that_come_and_go_are_no_event_of_the_node(scene: Scene) -> None:
    report(scene, seen(pods_max=110))
    before = len(scene.store.events(tenant="", workload="", after=0, limit=99))
    report(scene, seen(pods_max=109))
    assert scene.store.nodes()[0].pods_max == 109
    assert len(scene.store.events(tenant="", workload="", after=0, limit=99)) == before


def test_what_the_scheduler_places_on_a_node_with_a_limit_is_not_refused(scene: Scene) -> None:
    report(scene, seen(pods_max=2), seen("local-1", pods_max=1))
    for _ in range(5):
        scene.submit(choices=(one_cpu(cpu_milli=100),))
    assert scene.commit(*schedule(scene.store.snapshot(now=scene.now, seed=0))).refused == ()
    assert [node.used_pods for node in scene.store.nodes()] == [2, 1]
    waits = next(work for work in scene.all() if work.phase is Phase.QUEUED)
    assert explain(scene.store.snapshot(now=scene.now, seed=0), waits.key).reason.sentence.endswith(
        "but no node has room for one more pod (local-0 has 2 of 2)"
    )


def levels(scene: Scene) -> dict[str, list[str]]:
    """Level -> the domain of each node, in words; `?`: it is not known."""
    found = scene.store.snapshot(now=scene.now, seed=0).nodes.levels
    return {
        name: [level.names[number] if number < len(level.names) else "?" for number in level.number.tolist()]
        for name, level in found.items()
    }


def test_a_snapshot_shows_in_which_domain_each_node_is(scene: Scene) -> None:
    assert levels(scene) == {}
    report(
        scene, seen("a", topology=(("block", "b1"), ("rack", "r1"))), seen("b", topology=(("block", "b2"),)), seen("c")
    )
    assert levels(scene) == {"block": ["b1", "b2", "?"], "rack": ["b1/r1", "?", "?"]}
    scene.fleet(cluster="other")
    assert levels(scene) == {"block": ["b1", "b2", "?", "?"], "rack": ["b1/r1", "?", "?", "?"]}
    report(scene, seen("a"), seen("b", topology=(("block", "b1"), ("rack", "r1"))), seen("c"))
    assert levels(scene) == {"block": ["?", "b1", "?", "?"], "rack": ["?", "b1/r1", "?", "?"]}


def test_a_node_that_is_used_is_still_where_it_was(scene: Scene) -> None:
    report(scene, seen(topology=(("rack", "r1"),)))
    before = scene.store.snapshot(now=scene.now, seed=0)
    scene.place(scene.submit())
    after = scene.store.snapshot(now=scene.now, seed=0)
    assert after.nodes.used_cpu_milli.tolist() != before.nodes.used_cpu_milli.tolist()
    assert after.nodes.levels is before.nodes.levels


def test_a_snapshot_shows_how_near_and_how_far_apart_pods_are_to_lie(scene: Scene) -> None:
    hosts, zones = Spread(level="host", at_most=2), Spread(level="zone")
    needs = (
        *(TopologyNeed(level="rack", required=True), None, TopologyNeed(level="block"), TopologyNeed(spread=zones)),
        *(TopologyNeed(spread=hosts), TopologyNeed(level="rack", spread=hosts)),
    )
    works = [scene.submit(nodes=2, topology=need) for need in needs]
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    assert [snapshot.topologies[number] for number in snapshot.workloads.topology.tolist()] == list(needs)
    assert [work.spec.topology for work in works] == list(needs)
