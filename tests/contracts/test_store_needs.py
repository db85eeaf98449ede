"""What every store promises about labels and taints of nodes, and about what workloads need of them, over both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from mainstay.decide.schedule import schedule
from mainstay.domain.affinity import NodeNeed, Preference, Requirement, Spot, Taint, Toleration, need, traits
from mainstay.domain.plan import Allocate, CordonNode, ObserveNodes, UncordonNode
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import NodeTable
from mainstay.domain.workload import Phase
from mainstay.store import SqlStore, needs, tables
from tests.contracts.test_store_nodes import act, report, seen
from tests.stores import WHY, Scene, scene, store

__all__ = ["scene", "store"]
ML = Taint(key="dedicated", value="ml", effect="NoSchedule")
SPOT = {"karpenter.sh/capacity-type": "spot"}
LABELS = {"disk": "ssd", "empty": "", "odd": "a=b:c,d"}
ON_SSD = NodeNeed(requirements=(Requirement(key="disk", operator="In", values=("ssd",)),))
WANTED = need(
    requirements=[*ON_SSD.requirements, Requirement(key="gone", operator="DoesNotExist")],
    preferences=[Preference(requirements=ON_SSD.requirements, weight=7)],
    tolerations=[Toleration(key="dedicated", operator="Equal", value="ml", effect="NoSchedule")],
    spot=Spot.NEVER,
)


def table(scene: Scene) -> NodeTable:
    return scene.store.snapshot(now=scene.now, seed=0).nodes


def test_labels_taints_and_what_is_spot_are_kept_as_they_were_reported(scene: Scene) -> None:
    found = traits({**LABELS, **SPOT}, [ML, Taint(key="other", effect="NoExecute")])
    report(scene, seen(ready=False, barred=True, traits=found))
    node = scene.store.node("", "local-0")
    assert (node.traits, node.barred, node.ready) == (found, True, False)
    assert table(scene).traits.of(0) == found


def test_what_a_workload_needs_is_kept_whole_and_shown_to_decisions(scene: Scene) -> None:
    scene.fleet()
    workload = scene.submit(need=WANTED)
    assert workload.spec.need == WANTED
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    assert snapshot.restrictions[int(snapshot.workloads.restriction[0])] == WANTED


def test_which_nodes_a_need_admits_follows_every_change_of_a_node(scene: Scene) -> None:
    plain, ssd = traits({}, ()), traits({"disk": "ssd"}, ())
    report(scene, seen("a", traits=plain), seen("b", traits=ssd))
    assert ON_SSD not in table(scene).admits
    workload = scene.submit(need=ON_SSD)
    assert table(scene).admits[ON_SSD].tolist() == [False, True]
    report(scene, seen("a", traits=ssd), seen("b", traits=plain), seen("c", traits=ssd))
    assert table(scene).admits[ON_SSD].tolist() == [True, False, True]
    scene.applied(act(CordonNode, "a"))
    assert table(scene).admits[ON_SSD].tolist() == [False, False, True]
    assert table(scene).meets[ON_SSD].tolist() == [True, False, True]
    scene.applied(act(UncordonNode, "a"))
    report(scene, seen("a", traits=ssd), seen("b", traits=plain))
    assert table(scene).admits[ON_SSD].tolist() == [True, False, False], "what is not reported any more takes nothing"
    scene.applied(scene.advance(workload, Phase.STOPPED))
    assert ON_SSD not in table(scene).admits


def test_a_tainted_node_is_for_those_that_tolerate_it(scene: Scene) -> None:
    tolerant = NodeNeed(tolerations=(Toleration(key="dedicated"),))
    scene.submit(need=tolerant)
    report(scene, seen(ready=False, barred=True, traits=traits({}, [ML])))
    assert (table(scene).ready.tolist(), table(scene).sound.tolist()) == ([False], [True])
    assert table(scene).admits[tolerant].tolist() == [True]
    report(scene)
    assert table(scene).sound.tolist() == [False], "not reported any more"


def test_a_commit_looks_at_the_labels_as_they_are_then(scene: Scene) -> None:
    report(scene, seen(traits=traits({"disk": "ssd"}, ())))
    scene.submit(need=ON_SSD)
    (action,) = schedule(scene.store.snapshot(now=scene.now, seed=0))
    assert isinstance(action, Allocate)
    report(scene, seen(traits=traits({"disk": "hdd"}, ())))
    (refused,) = scene.commit(action).refused
    assert refused.reason.code is Code.CAPACITY_TAKEN
    report(scene, seen(ready=False, barred=True, traits=traits({"disk": "ssd"}, [ML])))
    assert scene.commit(action).refused, "a taint that is not tolerated"
    report(scene, seen(traits=traits({"disk": "ssd"}, ())))
    scene.applied(action)


def test_nodes_that_say_the_same_as_before_are_not_written(scene: Scene) -> None:
    states = [seen(name, traits=traits(LABELS, [ML])) for name in "ab"]
    report(scene, *states)
    version = scene.store.version()
    scene.applied(ObserveNodes(cluster="local", nodes=tuple(states), reason=WHY))
    assert scene.store.version() == version
    scene.applied(
        ObserveNodes(cluster="local", nodes=(states[0], replace(states[1], traits=traits({}, ()))), reason=WHY)
    )
    assert scene.store.version() > version


def test_labels_that_change_for_years_are_let_go_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "TRAITS_SPARE", 3)
    scene.submit(need=ON_SSD)
    for beat in range(40):
        report(scene, seen("a", traits=traits({"beat": str(beat)}, ())), seen("b", traits=traits({"disk": "ssd"}, ())))
        nodes = table(scene)
        assert len(nodes.traits.each) <= 3 + 2 * 2
        assert [dict(nodes.traits.of(row).labels) for row in (0, 1)] == [{"beat": str(beat)}, {"disk": "ssd"}]
        assert nodes.admits[ON_SSD].tolist() == [False, True]


def test_what_no_node_says_any_more_is_not_kept(scene: Scene) -> None:
    """One row for all that say the same."""
    assert isinstance(scene.store, SqlStore)
    count = sa.select(sa.func.count()).select_from(tables.node_traits)
    for beat in range(5):
        found = traits({"beat": str(beat)}, ())
        report(scene, seen("a", traits=found), seen("b", traits=found), seen("c"))
        assert scene.store._database.read(lambda connection: connection.execute(count).scalar()) == 1
    assert [node.traits for node in scene.store.nodes()] == [found, found, traits({}, ())]
