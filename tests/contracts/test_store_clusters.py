"""What every store promises about the clusters of the fleet, over both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mainstay.domain.errors import Conflict, NotFound
from mainstay.domain.fleet import (
    ClusterKind,
    ClusterRecord,
    ClusterSettings,
    Contact,
    NewCluster,
    NodeGroup,
    Stay,
    lease_of,
)
from mainstay.domain.plan import (
    AddCluster,
    CapacityLeft,
    DrainCluster,
    ObserveCluster,
    ObserveNodes,
    RemoveCluster,
    ResumeCluster,
)
from mainstay.domain.reason import Code, Reason
from tests.stores import NOON, SECOND, USER, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]
SEALED = "1.key.canary-of-the-credentials"
SETTINGS = ClusterSettings(
    server="https://10.0.0.1:6443",
    namespaces_per_project=4,
    nodes=(NodeGroup(count=2, capacity=one_cpu(gpus=8, gpu_model="H100")),),
)


def add(name: str = "east", **changes: object) -> AddCluster:
    new = NewCluster(
        name=name, kind=ClusterKind.KUBERNETES, settings=SETTINGS, sealed=SEALED, identity=f"uid-of-{name}"
    )
    reason = Reason(code=Code.CLUSTER_ADDED, object=name, numbers={"by": USER})
    return AddCluster(cluster=replace(new, **changes), reason=reason)


def drain(name: str = "east") -> DrainCluster:
    return DrainCluster(cluster=name, reason=Reason(code=Code.CLUSTER_DRAINED, object=name, numbers={"by": USER}))


def resume(name: str = "east") -> ResumeCluster:
    return ResumeCluster(cluster=name, reason=Reason(code=Code.CLUSTER_RESUMED, object=name, numbers={"by": USER}))


def remove(name: str = "east", *, lost: bool = False) -> RemoveCluster:
    reason = Reason(code=Code.CLUSTER_REMOVED, object=name, numbers={"by": USER})
    return RemoveCluster(cluster=name, lost=lost, reason=reason)


def see(seen: Contact, detail: str = "", name: str = "east") -> ObserveCluster:
    codes = {
        Contact.READY: Code.CLUSTER_READY,
        Contact.UNREACHABLE: Code.CLUSTER_UNREACHABLE,
        Contact.REFUSED: Code.CLUSTER_REFUSED,
    }
    return ObserveCluster(
        cluster=name, seen=seen, reason=Reason(code=codes[seen], object=name, numbers={"detail": detail})
    )


def ready_nodes(scene: Scene) -> list[bool]:
    return scene.store.snapshot(now=scene.now, seed=0).nodes.ready.tolist()


def east(scene: Scene) -> ClusterRecord:
    return scene.store.cluster("east")


def test_a_cluster_that_was_added_is_there_as_it_was_given(scene: Scene) -> None:
    scene.applied(add())
    row = east(scene)
    assert (row.kind, row.settings, row.sealed, row.identity) == (
        ClusterKind.KUBERNETES,
        SETTINGS,
        SEALED,
        "uid-of-east",
    )
    assert (row.state, row.reason.code, row.takes_work) == ("ready", Code.CLUSTER_READY, True)
    assert (row.added_at, row.added_by, row.observed_at) == (NOON + SECOND, USER, 0)
    assert row.version == scene.store.version()
    assert scene.store.clusters() == (row,)


def test_an_unknown_name_is_answered_with_the_nearest(scene: Scene) -> None:
    scene.applied(add())
    with pytest.raises(NotFound) as error:
        scene.store.cluster("eats")
    assert error.value.hint == "did you mean east?"


def test_each_change_leaves_an_event_and_an_audit_row_and_credentials_are_in_neither(scene: Scene) -> None:
    scene.applied(add())
    scene.applied(drain(), resume())
    scene.applied(remove())
    events = scene.store.events(tenant="", workload="", after=0, limit=99)
    assert [(event.kind, event.object, event.reason.code) for event in events] == [
        ("cluster", "east", Code.CLUSTER_ADDED),
        ("cluster", "east", Code.CLUSTER_DRAINED),
        ("cluster", "east", Code.CLUSTER_RESUMED),
        ("cluster", "east", Code.CLUSTER_REMOVED),
    ]
    audit = scene.store.audit(after=0, limit=99)
    assert [row.action for row in audit] == ["add_cluster", "drain_cluster", "resume_cluster", "remove_cluster"]
    assert {(row.actor, row.object) for row in audit} == {(USER, "east")}
    assert "canary" not in repr((events, audit, scene.store.clusters(), add()))


def test_one_cluster_has_one_name(scene: Scene) -> None:
    scene.applied(add())
    (refused,) = scene.commit(add("west", identity="uid-of-east")).refused
    assert refused.reason.sentence == "this cluster is in the fleet already, as east"
    with pytest.raises(Conflict, match="in the fleet already, as east"):
        scene.commit(add("west", identity="uid-of-east"), atomic=True)
    scene.applied(add("west"))


def test_clusters_without_an_identity_are_not_taken_for_each_other(scene: Scene) -> None:
    scene.applied(add("a", identity=""), add("b", identity=""))
    assert [row.name for row in scene.store.clusters()] == ["a", "b"]


@pytest.mark.parametrize("other", [{"identity": "another"}, {"kind": ClusterKind.SIMULATED}])
def test_one_name_has_one_cluster(scene: Scene, other: dict[str, object]) -> None:
    scene.applied(add())
    (refused,) = scene.commit(add(**other)).refused
    assert refused.reason.sentence == "the name east is taken by another cluster of the fleet"


def test_the_same_cluster_takes_new_settings_and_credentials_and_stays_what_it_was(scene: Scene) -> None:
    scene.applied(add())
    scene.applied(drain(), see(Contact.REFUSED, "expired"))
    before = east(scene)
    scene.applied(add(sealed="new", settings=replace(SETTINGS, image="python:3.13")))
    row = east(scene)
    assert (row.sealed, row.settings.image) == ("new", "python:3.13")
    assert (row.wanted, row.added_at, row.added_by) == (Stay.DRAINING, before.added_at, before.added_by)
    assert row.seen is Contact.READY
    assert row.version > before.version


def test_adding_what_is_there_without_any_change_writes_nothing(scene: Scene) -> None:
    scene.applied(add(sealed=""))
    version = scene.store.version()
    scene.applied(add(sealed=""))
    assert scene.store.version() == version


def test_nothing_is_placed_on_a_cluster_that_is_drained(scene: Scene) -> None:
    scene.applied(add())
    (node,) = scene.fleet(cluster="east")
    scene.applied(drain())
    assert (east(scene).state, east(scene).reason.sentence) == (
        "draining",
        "drained by ada: nothing new is placed here",
    )
    assert ready_nodes(scene) == [False]
    assert scene.store.snapshot(now=0, seed=0).closed_clusters["east"].code is Code.CLUSTER_DRAINED
    guard = CapacityLeft(node_key=node.key, resources=one_cpu())
    work = scene.submit()
    assert scene.commit(scene.allocate(work, node=node)).refused[0].reason.code is Code.CAPACITY_TAKEN
    assert scene.commit(scene.allocate(work, node=node, guards=(guard,))).refused
    scene.applied(resume())
    assert ready_nodes(scene) == [True]
    scene.applied(scene.allocate(work, node=node))


def test_a_drain_asked_for_twice_is_one_and_resuming_what_runs_changes_nothing(scene: Scene) -> None:
    scene.applied(add())
    scene.applied(resume())
    scene.applied(drain())
    version = scene.store.version()
    scene.applied(drain())
    assert scene.store.version() == version


@pytest.mark.parametrize("contact", [Contact.UNREACHABLE, Contact.REFUSED])
def test_nothing_is_placed_on_a_cluster_that_does_not_let_us_in(scene: Scene, contact: Contact) -> None:
    scene.applied(add())
    scene.fleet(cluster="east")
    scene.fleet(cluster="west")
    scene.applied(see(contact, "connection refused"))
    assert ready_nodes(scene) == [False, True]
    assert "connection refused" in east(scene).reason.sentence
    scene.applied(see(Contact.READY))
    assert ready_nodes(scene) == [True, True]
    assert east(scene).state == "ready"


def test_nodes_that_come_while_their_cluster_is_closed_are_closed_too(scene: Scene) -> None:
    scene.applied(add())
    scene.applied(drain())
    scene.fleet(cluster="east", nodes=2)
    assert ready_nodes(scene) == [False, False]


def test_what_is_said_of_a_cluster_again_is_not_written_again(scene: Scene) -> None:
    scene.applied(add())
    scene.applied(see(Contact.UNREACHABLE, "no route"))
    version = scene.store.version()
    scene.applied(see(Contact.UNREACHABLE, "no route"))
    assert scene.store.version() == version
    scene.applied(see(Contact.UNREACHABLE, "timed out"))
    assert scene.store.version() == version + 1
    scene.applied(see(Contact.READY))
    version = scene.store.version()
    scene.applied(see(Contact.READY, "whatever"))
    assert scene.store.version() == version


def test_a_drained_cluster_that_is_out_of_reach_says_both(scene: Scene) -> None:
    scene.applied(add())
    scene.applied(drain(), see(Contact.UNREACHABLE, "no route"))
    assert (east(scene).state, east(scene).reason.sentence) == ("draining", "the cluster does not answer: no route")
    scene.applied(see(Contact.READY))
    assert east(scene).reason.code is Code.CLUSTER_DRAINED


def test_whoever_leads_a_cluster_that_comes_back_has_an_epoch_that_no_cluster_has_seen(scene: Scene) -> None:
    """Under whatever name: the fence of a Kubernetes cluster knows no names of ours (clusters/kubernetes/fence.py)."""

    def lead(name: str, holder: str) -> int:
        epoch = scene.store.acquire(lease_of(name), holder=holder, now=scene.now, seconds=60)
        assert epoch is not None
        return epoch.number

    scene.applied(add("east"), add("west"))
    seen = [lead("east", "a"), lead("west", "agent")]
    scene.applied(remove("east"))
    assert lead("east", "a") == seen[0]  # it has not heard of that yet
    scene.applied(remove("west"))
    seen.append(lead("mine", "a"))
    scene.applied(add("east"))
    seen.append(lead("east", "a"))
    assert seen == sorted(set(seen))
    assert lead("east", "a") == seen[-1]


def test_a_cluster_that_holds_pods_is_not_removed_until_they_are_closed(scene: Scene) -> None:
    scene.applied(add())
    scene.fleet(cluster="east")
    work = scene.submit()
    pod = scene.run(work)
    (refused,) = scene.commit(remove()).refused
    assert refused.reason.sentence == "cluster east still holds 1 pod"
    scene.applied(drain())
    assert scene.commit(remove()).refused
    pod = scene.end(pod)
    scene.applied(scene.usage(pod, start=pod.started_at, end=pod.ended_at))
    scene.applied(scene.advance(scene.workload(work.id), scene.workload(work.id).phase.SUCCEEDED))
    scene.applied(scene.close(pod))
    scene.applied(remove())
    assert scene.store.clusters()[0].state == "removed"


def test_what_a_drained_cluster_holds_may_be_given_up_for_lost(scene: Scene) -> None:
    scene.applied(add())
    scene.fleet(cluster="east")
    scene.run(scene.submit())
    assert scene.commit(remove(lost=True)).refused
    scene.applied(drain())
    scene.applied(remove(lost=True))
    assert len(scene.store.wanted("east")) == 1
    assert scene.commit(add()).refused


def test_a_removed_cluster_is_gone_with_its_nodes_and_its_credentials(scene: Scene) -> None:
    scene.applied(add())
    scene.fleet(cluster="east", nodes=2)
    scene.fleet(cluster="west")
    scene.applied(remove())
    with pytest.raises(NotFound, match="no such cluster: east"):
        east(scene)
    (row,) = scene.store.clusters()
    assert (row.name, row.state, row.sealed) == ("east", "removed", "")
    assert [node.cluster for node in scene.store.nodes()] == ["west"]
    assert ready_nodes(scene) == [False, False, True]
    late = ObserveNodes(cluster="east", nodes=(), at=NOON * 2, reason=WHY)
    scene.applied(late)
    assert len(scene.commit(drain(), resume(), remove(), see(Contact.READY)).refused) == 4
    with pytest.raises(AssertionError):
        scene.fleet(cluster="east")


def test_a_removed_cluster_may_come_back_as_new_and_its_name_as_another(scene: Scene) -> None:
    scene.applied(add())
    scene.fleet(cluster="east")
    scene.applied(ObserveNodes(cluster="east", nodes=(), at=NOON * 2, reason=WHY))
    scene.applied(remove())
    scene.applied(add(identity="another"), add("west", identity="uid-of-east"))
    row = east(scene)
    assert (row.state, row.identity, row.observed_at) == ("ready", "another", 0)
    scene.fleet(cluster="east")
    assert ready_nodes(scene) == [True]


def test_a_machine_that_reports_without_having_been_added_is_local_and_takes_work(scene: Scene) -> None:
    scene.fleet()
    scene.applied(ObserveNodes(cluster="local", nodes=(), at=NOON, reason=WHY))
    (row,) = scene.store.clusters()
    assert (row.kind, row.state, row.observed_at) == (ClusterKind.LOCAL, "ready", NOON)


def test_a_report_up_to_when_a_cluster_was_seen_changes_nothing_else_of_it(scene: Scene) -> None:
    scene.applied(add())
    before = east(scene)
    scene.applied(ObserveNodes(cluster="east", nodes=(), at=NOON, reason=WHY))
    assert east(scene) == replace(before, observed_at=NOON)


def test_a_workload_is_bound_to_its_cluster_in_the_columns(scene: Scene) -> None:
    scene.submit()
    scene.submit(cluster="east")
    snapshot = scene.store.snapshot(now=0, seed=0)
    assert [snapshot.cluster_names[number] for number in snapshot.workloads.cluster.tolist()] == ["", "east"]
