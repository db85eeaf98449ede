"""What every store promises to agents and to those who listen for them, over both databases."""

from __future__ import annotations

from mainstay.domain.fleet import ClusterKind, ClusterSettings, Contact, NewCluster
from mainstay.domain.plan import (
    AddCluster,
    IdentifyCluster,
    ObserveCluster,
    RecordDenial,
    RemoveCluster,
    UseCredentials,
)
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Kind, Phase, PodRef
from mainstay.ports import Held, LineRecord
from tests.stores import SECOND, USER, WHY, Scene, scene, store

__all__ = ["scene", "store"]
FOUND = Reason(code=Code.CLUSTER_FOUND, object="edge")


def add(**settings: str) -> AddCluster:
    new = NewCluster(name="edge", kind=ClusterKind.AGENT, settings=ClusterSettings(**settings))
    return AddCluster(cluster=new, reason=WHY)


def test_changes_are_told_from_a_version_on_and_only_of_the_cluster_that_is_asked_about(scene: Scene) -> None:
    scene.fleet(cluster="edge")
    scene.fleet(cluster="other")
    edge, other = (node for node in scene.store.nodes() if node.name.endswith("-0"))
    first, second = scene.submit(), scene.submit()
    scene.applied(scene.allocate(first, node=edge), scene.allocate(second, node=other))
    told = scene.store.wanted_changes("edge", since=-1)
    assert told.whole
    assert [row.allocation.workload for row in told.rows] == [first.id]
    assert told.rows == scene.store.wanted("edge")
    quiet = scene.store.wanted_changes("edge", since=told.version)
    assert (quiet.whole, quiet.rows, quiet.closed) == (False, (), ())
    scene.applied(scene.advance(second, Phase.RUNNING))
    quiet = scene.store.wanted_changes("edge", since=told.version)
    assert (quiet.rows, quiet.closed) == ((), ())
    assert quiet.version > told.version


def test_what_is_closed_is_told_once_and_a_verdict_on_its_workload_is_a_change(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    pod = scene.end(scene.run(work))
    before = scene.store.wanted_changes("local", since=-1)
    assert [row.settled for row in before.rows] == [False]
    scene.applied(scene.advance(scene.workload(work.id), Phase.SUCCEEDED))
    judged = scene.store.wanted_changes("local", since=before.version)
    assert [row.settled for row in judged.rows] == [True]
    scene.applied(scene.usage(pod, start=pod.started_at, end=pod.ended_at))
    scene.applied(scene.close(pod))
    closed = scene.store.wanted_changes("local", since=judged.version)
    assert (closed.rows, closed.closed) == ((), (pod.key,))
    assert scene.store.wanted_changes("local", since=-1).rows == ()


def test_workloads_of_guests_are_told_until_they_are_final_and_only_of_the_cluster_that_is_asked_about(
    scene: Scene,
) -> None:
    pod = PodRef(namespace="team", name="web", uid="uid-1")
    given = {"kind": Kind.POD, "run": (), "guests": (pod,)}
    work, _, _ = scene.submit(cluster="edge", **given), scene.submit(cluster="west", **given), scene.submit()
    told = scene.store.wanted_changes("edge", since=-1)
    assert (told.guests, told.finished) == ((work,), ())
    assert told.guests == scene.store.guests("edge")
    assert not scene.store.wanted_changes("edge", since=told.version).any
    scene.applied(scene.stop(work))
    stopping = scene.store.wanted_changes("edge", since=told.version)
    assert [row.stop_requested for row in stopping.guests] == [True]
    scene.applied(scene.advance(scene.workload(work.id), Phase.STOPPED))
    final = scene.store.wanted_changes("edge", since=stopping.version)
    assert (final.guests, final.finished) == ((), (work.key,))
    assert scene.store.wanted_changes("edge", since=-1).guests == ()


def test_whoever_is_ahead_of_a_database_that_was_set_back_is_told_all_of_it(scene: Scene) -> None:
    scene.fleet()
    scene.place(scene.submit())
    told = scene.store.wanted_changes("local", since=scene.store.version() + 1)
    assert told.whole
    assert len(told.rows) == 1


def test_a_lease_is_seen_as_it_was_taken_last(scene: Scene) -> None:
    assert scene.store.held("decisions") is None
    scene.lead("a", seconds=10)
    until = scene.now + 10 * SECOND
    assert scene.store.held("decisions") == Held(holder="a", epoch=1, until=until)
    scene.lead("b", after_seconds=20, seconds=10)
    assert scene.store.held("decisions") == Held(holder="b", epoch=2, until=until + 20 * SECOND)


def test_a_cluster_with_an_agent_takes_no_work_until_that_has_found_it(scene: Scene) -> None:
    scene.applied(add())
    row = scene.store.cluster("edge")
    assert (row.state, row.takes_work) == ("connecting", False)
    scene.applied(IdentifyCluster(cluster="edge", identity="uid", server="https://10.0.0.1", reason=FOUND))
    row = scene.store.cluster("edge")
    assert (row.state, row.identity, row.settings.server) == ("ready", "uid", "https://10.0.0.1")
    events = scene.store.events(tenant="", workload="", after=0, limit=10)
    assert events[-1].reason == FOUND
    version = scene.store.version()
    scene.applied(IdentifyCluster(cluster="edge", identity="uid", server="https://10.0.0.1", reason=FOUND))
    assert scene.store.version() == version


def test_finding_a_cluster_again_says_nothing_of_whether_it_answers(scene: Scene) -> None:
    scene.applied(add(), IdentifyCluster(cluster="edge", identity="uid", reason=FOUND))
    scene.applied(ObserveCluster(cluster="edge", seen=Contact.REFUSED, reason=WHY))
    scene.applied(IdentifyCluster(cluster="edge", identity="uid", server="elsewhere", reason=FOUND))
    assert scene.store.cluster("edge").seen is Contact.REFUSED


def test_new_settings_and_a_new_token_leave_what_was_seen_of_a_cluster_with_an_agent(scene: Scene) -> None:
    scene.applied(add(agent_token="old"), IdentifyCluster(cluster="edge", identity="uid", reason=FOUND))
    new = NewCluster(name="edge", kind=ClusterKind.AGENT, settings=ClusterSettings(agent_token="new"), identity="uid")
    scene.applied(AddCluster(cluster=new, reason=WHY))
    row = scene.store.cluster("edge")
    assert (row.state, row.settings.agent_token, row.identity) == ("ready", "new", "uid")


def test_a_cluster_that_was_removed_is_found_by_nobody(scene: Scene) -> None:
    scene.applied(add(), RemoveCluster(cluster="edge", reason=WHY))
    assert scene.commit(IdentifyCluster(cluster="edge", identity="uid", reason=FOUND)).refused


def test_a_denial_is_an_audit_row_and_no_event(scene: Scene) -> None:
    before = len(scene.store.events(tenant="", workload="", after=0, limit=100))
    reason = Reason(code=Code.FORBIDDEN, object="slot", numbers={"detail": "none of its own"})
    scene.applied(RecordDenial(object="slot", reason=reason))
    (row,) = [row for row in scene.store.audit(after=0, limit=100) if row.action == "deny"]
    assert (row.actor, row.object, row.detail) == (USER, "slot", "refused, it may not do that: none of its own")
    assert len(scene.store.events(tenant="", workload="", after=0, limit=100)) == before


def test_that_credentials_are_opened_is_an_audit_row_and_no_event_and_refused_where_there_are_none(
    scene: Scene,
) -> None:
    for name, sealed in (("east", "sealed"), ("west", "")):
        scene.applied(AddCluster(cluster=NewCluster(name=name, kind=ClusterKind.KUBERNETES, sealed=sealed), reason=WHY))
    events = len(scene.store.events(tenant="", workload="", after=0, limit=100))
    reason = Reason(code=Code.CREDENTIALS_USED, object="east", numbers={"by": "a replica"})
    scene.applied(UseCredentials(cluster="east", reason=reason))
    row = scene.store.audit(after=0, limit=100)[-1]
    assert (row.action, row.object) == ("use_credentials", "east")
    assert row.detail == "the credentials of cluster east opened by a replica, to connect to it"
    assert len(scene.store.events(tenant="", workload="", after=0, limit=100)) == events
    for name in ("west", "nowhere"):
        assert scene.commit(UseCredentials(cluster=name, reason=reason)).refused
    scene.applied(RemoveCluster(cluster="east", reason=WHY))
    assert scene.commit(UseCredentials(cluster="east", reason=reason)).refused


def test_the_newest_line_of_an_agent_comes_first_and_what_dead_replicas_left_goes(scene: Scene) -> None:
    def line(replica: str, cluster: str = "edge") -> LineRecord:
        return LineRecord(cluster=cluster, replica=replica, address=f"{replica}:8651")

    store = scene.store
    for replica in ("a", "b"):
        store.open_line(line(replica))
    store.open_line(line("a", cluster="west"))
    assert store.lines("edge") == (line("b"), line("a"))
    store.open_line(line("a"))
    assert store.lines("edge") == (line("a"), line("b"))
    store.end_line("edge", replica="a")
    store.end_line("edge", replica="a")
    assert store.lines("edge") == (line("b"),)
    for replica in ("c", "d", "e", "f"):
        store.open_line(line(replica))
    assert store.lines("edge") == tuple(map(line, "fedc"))
    assert store.lines("west") == (line("a", cluster="west"),)
