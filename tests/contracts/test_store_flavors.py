"""What every store promises about flavors of nodes, over both databases."""

from __future__ import annotations

import pytest

from mainstay.domain.affinity import Requirement, traits
from mainstay.domain.errors import Conflict
from mainstay.domain.flavor import NODE_FLAVORS_MAX, NodeFlavor
from mainstay.domain.plan import RemoveNodeFlavor, SetNodeFlavor
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code, Reason
from mainstay.store import needs
from mainstay.store.snapshot import SnapshotCache
from tests.contracts.test_store_nodes import report, seen
from tests.contracts.test_store_queues import put
from tests.stores import ALL, USER, Scene, scene, store

__all__ = ["scene", "store"]
LARGER = Resources(cpu_milli=9_000, memory_bytes=8 * BYTES_PER_GIB)


def flavor(name: str, pool: str = "") -> NodeFlavor:
    line = Requirement(key="pool", operator="In", values=(pool or name,))
    return NodeFlavor(name=name, requirements=(line, Requirement(key="gone", operator="DoesNotExist")))


def set_(name: str, before: str = "", *, pool: str = "") -> SetNodeFlavor:
    given = flavor(name, pool)
    numbers = {"by": USER, "detail": given.words}
    reason = Reason(code=Code.NODE_FLAVOR_SET, object=name, numbers=numbers)
    return SetNodeFlavor(flavor=given, before=before, reason=reason)


def drop(name: str) -> RemoveNodeFlavor:
    return RemoveNodeFlavor(name=name, reason=Reason(code=Code.NODE_FLAVOR_REMOVED, object=name, numbers={"by": USER}))


def order(scene: Scene) -> list[str]:
    return [row.flavor.name for row in scene.store.node_flavors()]


def of_nodes(scene: Scene) -> list[str] | None:
    """The flavor of each node, as decisions see it."""
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    numbers = snapshot.nodes.flavor
    return None if numbers is None else [snapshot.flavors[number] for number in numbers.tolist()]


def test_a_flavor_is_there_as_it_was_set_until_it_is_removed(scene: Scene) -> None:
    scene.applied(set_("spot"))
    (row,) = scene.store.node_flavors()
    assert (row.flavor, row.set_by, row.set_at) == (flavor("spot"), USER, scene.now)
    scene.applied(set_("spot", pool="other"))
    assert [row.flavor for row in scene.store.node_flavors()] == [flavor("spot", "other")]
    scene.applied(drop("spot"))
    assert scene.store.node_flavors() == ()


def test_flavors_have_an_order_that_is_kept(scene: Scene) -> None:
    scene.applied(set_("a"), set_("b"), set_("c"))
    assert order(scene) == ["a", "b", "c"]
    scene.applied(set_("c", "a"))
    assert order(scene) == ["c", "a", "b"]
    scene.applied(set_("c", pool="x"))
    assert order(scene) == ["c", "a", "b"], "it stays where it is"
    scene.applied(drop("a"), set_("d"), set_("a"))
    assert order(scene) == ["c", "b", "d", "a"], "a new one comes last, where one has gone too"
    scene.applied(set_("a", "c"), set_("d", "b"))
    assert order(scene) == ["a", "c", "d", "b"]


def test_each_node_is_of_the_first_flavor_that_it_meets_and_follows_every_change(scene: Scene) -> None:
    spot, plain = traits({"pool": "spot"}, ()), traits({}, ())
    report(scene, seen("a", traits=plain), seen("b", traits=spot))
    assert of_nodes(scene) is None
    scene.applied(set_("spot"))
    assert of_nodes(scene) == ["", "spot"]
    report(scene, seen("a", traits=spot), seen("b", traits=plain), seen("c", traits=spot))
    assert of_nodes(scene) == ["spot", "", "spot"]
    scene.applied(set_("also", "spot", pool="spot"))
    assert of_nodes(scene) == ["also", "", "also"]
    scene.applied(drop("also"))
    assert of_nodes(scene) == ["spot", "", "spot"]
    scene.applied(drop("spot"))
    assert of_nodes(scene) is None


def test_a_snapshot_that_was_handed_out_keeps_its_flavors(scene: Scene) -> None:
    report(scene, seen("a", traits=traits({"pool": "spot"}, ())))
    scene.applied(set_("spot"))
    before = scene.store.snapshot(now=scene.now, seed=0)
    scene.applied(drop("spot"))
    of_nodes(scene)
    assert before.flavors == ("", "spot")
    assert before.nodes.flavor is not None
    assert before.nodes.flavor.tolist() == [1]


def test_flavors_are_worked_out_only_when_traits_or_flavors_change(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(scene, seen("a", traits=traits({"pool": "spot"}, ())))
    scene.applied(set_("spot"))
    of_nodes(scene)
    known = needs.flavor_numbers
    asked: list[int] = []
    monkeypatch.setattr(needs, "flavor_numbers", lambda *given: asked.append(1) or known(*given))
    scene.submit()
    report(scene, seen("a", capacity=LARGER, traits=traits({"pool": "spot"}, ())))
    scene.applied(put(QueueSpec(name="research")))
    assert (of_nodes(scene), asked) == (["spot"], [])
    report(scene, seen("a", traits=traits({"pool": "other"}, ())))
    assert (of_nodes(scene), asked) == ([""], [1])


def test_a_flavor_of_which_there_is_a_quota_stays_and_says_whose(scene: Scene) -> None:
    quotas = {("spot", "cpu"): Quota(nominal=1)}
    scene.applied(set_("spot"), put(QueueSpec(name="b", quotas=quotas)), put(QueueSpec(name="a", quotas=quotas)))
    (refused,) = scene.commit(drop("spot")).refused
    assert refused.reason.sentence == "flavor spot is in use: these have a quota of it: a, b"
    scene.applied(put(QueueSpec(name="b")), put(QueueSpec(name="a")))
    scene.applied(drop("spot"))


def test_what_is_not_there_is_not_removed_and_nothing_comes_before_it(scene: Scene) -> None:
    refused = scene.commit(drop("none"), set_("a", "none"), set_("b", "b")).refused
    assert [row.reason.code for row in refused] == [Code.NO_SUCH_NODE_FLAVOR] * 3
    assert order(scene) == []


def test_there_are_no_more_than_so_many(scene: Scene) -> None:
    scene.applied(*(set_(f"f{number}") for number in range(NODE_FLAVORS_MAX)))
    (refused,) = scene.commit(set_("one-more")).refused
    assert refused.reason.code is Code.TOO_MANY_NODE_FLAVORS
    scene.applied(set_("f3", "f1"))


def test_the_same_once_more_writes_nothing(scene: Scene) -> None:
    version = scene.applied(set_("a"), set_("b", "a")).version
    assert scene.applied(set_("a"), set_("b", "a")).version == version


def test_flavors_are_told_in_events_and_audit(scene: Scene) -> None:
    scene.applied(set_("a"), set_("b", "a"), drop("a"))
    events = scene.store.events(tenant="", workload="", after=0, limit=ALL)
    assert [(event.kind, event.object, event.reason.sentence) for event in events] == [
        ("flavor", "a", "flavor a set by ada: nodes with pool=a, !gone"),
        ("flavor", "b", "flavor b set by ada: nodes with pool=b, !gone"),
        ("flavor", "a", "flavor a removed by ada"),
    ]
    assert [(row.action, row.object) for row in scene.store.audit(after=0, limit=ALL)] == [
        ("set_node_flavor", "a"),
        ("set_node_flavor", "b"),
        ("remove_node_flavor", "a"),
    ]


def test_a_plan_that_is_refused_in_part_changes_nothing_if_it_is_atomic(scene: Scene) -> None:
    with pytest.raises(Conflict, match="no such flavor of nodes: none"):
        scene.commit(set_("a"), set_("b", "none"), atomic=True)
    assert order(scene) == []


def test_a_store_that_is_looked_at_for_the_first_time_has_them(scene: Scene) -> None:
    report(scene, seen("a", traits=traits({"pool": "spot"}, ())))
    scene.applied(set_("spot"), set_("first", "spot"))
    snapshot = SnapshotCache(scene.store._database).snapshot(now=scene.now, seed=0)
    assert snapshot.flavors == ("", "first", "spot")
    assert snapshot.nodes.flavor is not None
    assert snapshot.nodes.flavor.tolist() == [2]
