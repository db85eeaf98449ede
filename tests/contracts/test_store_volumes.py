"""What every store promises of volumes, over both databases."""

from __future__ import annotations

from mainstay.domain.allocation import Owner
from mainstay.domain.fleet import ClusterKind, NewCluster
from mainstay.domain.plan import AddCluster, ObserveVolumes, RemoveCluster, RemoveVolume
from mainstay.domain.reason import Code
from mainstay.domain.volume import VolumeNeed, VolumeRef, VolumeState
from mainstay.domain.workload import Phase, Volume
from tests.stores import TENANT, WHY, Scene, scene, store

__all__ = ["scene", "store"]
OWNER = Owner(tenant=TENANT, project="default")
DATA = VolumeState(owner=OWNER, name="data", size_bytes=10**12, access=("ReadWriteOnce",), storage_class="fast")
REF = VolumeRef(owner=OWNER, name="data")


def see(scene: Scene, *volumes: VolumeState, cluster: str = "local") -> None:
    scene.applied(ObserveVolumes(cluster=cluster, volumes=volumes, reason=WHY))


def names(scene: Scene) -> list[tuple[str, str]]:
    return [(one.cluster, one.state.name) for one in scene.store.volumes(tenant=TENANT)]


def uses(*given: str) -> tuple[Volume, ...]:
    return tuple(Volume(path=name, name=name) for name in given)


def events(scene: Scene) -> list[Code]:
    found = scene.store.events(tenant=TENANT, workload="", after=0, limit=1_000)
    return [event.reason.code for event in found if event.kind == "volume"]


def test_what_a_cluster_reports_is_on_record_and_what_it_no_longer_reports_is_gone(scene: Scene) -> None:
    see(scene, DATA)
    (record,) = scene.store.volumes(tenant=TENANT)
    assert (record.cluster, record.state, record.removed, record.used_by) == ("local", DATA, False, ())
    version = scene.store.version()
    see(scene, DATA)
    assert scene.store.version() == version
    other = VolumeState(owner=Owner(tenant=TENANT, project="other"), name="data", reach="volume/x", place="on node n")
    see(scene, other, cluster="east")
    assert names(scene) == [("east", "data"), ("local", "data")]
    assert scene.store.volumes(tenant=TENANT, after=("east", "other", "data"), limit=1)[0].state == DATA
    assert scene.store.volumes(tenant="somebody") == ()
    see(scene)
    assert names(scene) == [("east", "data")]
    assert events(scene) == [Code.VOLUME_FOUND, Code.VOLUME_FOUND, Code.VOLUME_GONE]


def test_a_snapshot_shows_where_volumes_lie_and_who_needs_them(scene: Scene) -> None:
    scene.fleet()
    work, plain = scene.submit(volumes=uses("data", "more")), scene.submit()
    see(scene, DATA)
    snapshot = scene.store.snapshot(now=0, seed=0)
    need = VolumeNeed(owner=Owner(tenant=work.tenant, project=work.project), names=("data", "more"))
    rows = dict(zip(snapshot.workloads.key.tolist(), snapshot.workloads.volumes.tolist(), strict=True))
    assert snapshot.volume_needs[rows[work.key]] == need
    assert snapshot.volume_needs[rows[plain.key]] is None
    assert [record.state for record in snapshot.volumes[REF]] == [DATA]
    see(scene)
    assert scene.store.snapshot(now=0, seed=0).volumes == {}


def test_nodes_say_which_volumes_they_reach_also_while_they_take_nothing(scene: Scene) -> None:
    from mainstay.domain.capacity import NodeState
    from mainstay.domain.plan import CordonNode, ObserveNodes
    from tests.stores import one_cpu

    state = NodeState(name="n", capacity=one_cpu(), ready=False, admits=("guests", "volume/x"))
    scene.applied(ObserveNodes(cluster="local", nodes=(state,), reason=WHY))
    scene.applied(CordonNode(cluster="local", node="n", reason=WHY))
    nodes = scene.store.snapshot(now=0, seed=0).nodes
    assert {reach: mask.tolist() for reach, mask in nodes.reaches.items()} == {"volume/x": [True]}
    assert {name: mask.tolist() for name, mask in nodes.admits.items()} == {"guests": [False]}


def remove(scene: Scene, *, cluster: str = "local") -> list[Code]:
    result = scene.commit(RemoveVolume(cluster=cluster, volume=REF, reason=WHY))
    return [refused.reason.code for refused in result.refused]


def test_a_volume_is_not_removed_while_a_workload_waits_for_it_runs_with_it_or_still_ends(scene: Scene) -> None:
    scene.fleet()
    see(scene, DATA)
    work = scene.submit(volumes=uses("data"))
    assert scene.store.volumes(tenant=TENANT)[0].used_by == (work.id,)
    assert remove(scene) == [Code.VOLUME_IN_USE]
    pod = scene.run(work)
    assert remove(scene) == [Code.VOLUME_IN_USE]
    # Judged, while its pod goes on.
    scene.applied(scene.advance(scene.workload(work.id), Phase.STOPPED))
    assert remove(scene) == [Code.VOLUME_IN_USE]
    scene.end(pod)
    assert remove(scene) == []
    assert scene.store.removals("local") == (REF,)
    assert scene.store.volumes(tenant=TENANT)[0].word == "removing"


def test_what_is_bound_to_another_cluster_or_project_uses_another_volume(scene: Scene) -> None:
    see(scene, DATA)
    scene.submit(volumes=uses("data"), cluster="east")
    scene.submit(volumes=uses("data-2"))
    assert remove(scene) == []


def test_a_removal_lasts_until_the_volume_is_gone_and_not_longer(scene: Scene) -> None:
    assert remove(scene) == [Code.NO_SUCH_VOLUME]
    see(scene, DATA)
    before = scene.store.wanted_changes("local", since=-1)
    assert before.removals == ()
    assert (remove(scene), remove(scene)) == ([], [])
    told = scene.store.wanted_changes("local", since=before.version)
    assert (told.removals, told.any) == ((REF,), True)
    assert scene.store.wanted_changes("local", since=told.version).removals is None
    assert scene.store.wanted_changes("east", since=-1).removals == ()
    see(scene, DATA)
    assert scene.store.removals("local") == (REF,)
    see(scene)
    # Another one of that name is not taken for the one that was to go, whoever follows by changes.
    assert scene.store.wanted_changes("local", since=told.version).removals == ()
    see(scene, DATA)
    assert scene.store.removals("local") == ()
    assert events(scene) == [Code.VOLUME_FOUND, WHY.code, Code.VOLUME_GONE, Code.VOLUME_FOUND]


def test_a_cluster_that_leaves_takes_its_volumes_along_and_a_late_report_brings_none_back(scene: Scene) -> None:
    scene.applied(AddCluster(cluster=NewCluster(name="east", kind=ClusterKind.SIMULATED), reason=WHY))
    see(scene, DATA, cluster="east")
    scene.applied(RemoveCluster(cluster="east", reason=WHY))
    assert names(scene) == []
    assert scene.commit(ObserveVolumes(cluster="east", volumes=(DATA,), reason=WHY)).refused
