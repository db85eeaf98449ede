"""Nodes that are kept out are cordoned for others too: once, with our mark, and only that is ever taken back."""

from __future__ import annotations

import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.cluster import MARK_AGAIN_SECONDS
from mainstay.clusters.kubernetes.errors import Forbidden
from mainstay.clusters.kubernetes.trust import REFUSALS_MAX
from mainstay.domain.allocation import MarkNode
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import Denied, Unavailable
from tests.unit.clusters.kubernetes.objects import SYSTEM
from tests.unit.clusters.kubernetes.test_cluster_faults import bed, creation

__all__ = ["bed"]
NODE = "n1"


def mark(*, closed: bool = True) -> MarkNode:
    return MarkNode(name=NODE, closed=closed, words="cordoned by ada: disks" if closed else "", at=1)


async def seen(bed) -> NodeState:
    await bed.settle()
    (node,) = (await bed.cluster.observe()).nodes
    return node


def shown(bed) -> tuple[bool, dict[str, str]]:
    node = bed.server.objects["nodes", "", NODE]
    return node.get("spec", {}).get("unschedulable", False), node["metadata"].get("annotations", {})


def patched(bed) -> int:
    return sum(asked[:2] == ("patch", "nodes") for asked in bed.server.asked)


async def test_a_node_that_is_kept_out_is_cordoned_with_our_mark_and_why(bed):
    assert (await seen(bed)).marked is False
    await bed.act(mark())
    cordoned, annotations = shown(bed)
    assert cordoned
    assert annotations[names.CORDONED] == names.short(SYSTEM)
    assert annotations[names.CORDON_REASON] == "cordoned by ada: disks"
    node = await seen(bed)
    assert (node.marked, node.mark_undone, node.cordoned, node.ready) == (True, False, False, True)


async def test_what_was_placed_before_still_starts_there(bed):
    await bed.act(mark())
    await bed.settle()
    await bed.act(creation())


async def test_marking_twice_asks_once_also_if_nobody_heard_of_the_first(bed):
    bed.server.deaf["patch", "nodes"] = 1
    with pytest.raises(Unavailable):
        await bed.act(mark())
    await bed.settle()
    await bed.act(mark())
    assert patched(bed) == 1
    await bed.act(mark(closed=False))
    await bed.act(mark(closed=False))
    assert patched(bed) == 2


async def test_only_what_we_have_set_is_taken_back(bed):
    bed.server._change("nodes", "", {**bed.server.objects["nodes", "", NODE], "spec": {"unschedulable": True}})
    node = await seen(bed)
    assert (node.marked, node.cordoned, node.ready, node.problem) == (False, True, False, "cordoned in its cluster")
    await bed.act(mark())
    await bed.act(mark(closed=False))
    assert shown(bed) == (True, {})
    assert patched(bed) == 0


async def test_what_is_taken_back_leaves_nothing_but_when(bed):
    await bed.act(mark())
    await bed.act(mark(closed=False))
    cordoned, annotations = shown(bed)
    assert (cordoned, set(annotations)) == (False, {names.LET_IN})
    assert (await seen(bed)).marked is False


async def test_a_mark_that_somebody_undid_is_set_again(bed):
    await bed.act(mark())
    changed = {**bed.server.objects["nodes", "", NODE], "spec": {}}
    bed.server._change("nodes", "", changed)
    node = await seen(bed)
    assert (node.marked, node.mark_undone) == (True, True)
    await bed.later(MARK_AGAIN_SECONDS)
    await bed.act(mark())
    assert shown(bed)[0]


async def test_the_mark_of_another_platform_is_somebody_elses_cordon(bed):
    node = bed.server.objects["nodes", "", NODE]
    meta = {**node["metadata"], "annotations": {names.CORDONED: "another"}}
    bed.server._change("nodes", "", {**node, "metadata": meta, "spec": {"unschedulable": True}})
    assert (await seen(bed)).cordoned
    await bed.act(mark(closed=False))
    assert shown(bed)[0]


async def test_whoever_changes_the_node_meanwhile_is_heard_first(bed):
    await seen(bed)
    bed.server.unseen.add(NODE)
    bed.server.node(NODE, labels={"new": "label"})
    await bed.act(mark())
    assert not shown(bed)[0], "it was changed since we saw it"
    bed.server.unseen.clear()
    bed.server.node(NODE)
    await bed.settle()
    await bed.act(mark())
    assert shown(bed)[0]


async def test_who_may_not_mark_is_told(bed):
    bed.server.failing["patch", "nodes"] = Forbidden("nodes is forbidden")
    with pytest.raises(Denied):
        await bed.act(mark())


async def test_a_node_that_is_not_there_needs_no_mark(bed):
    await bed.act(MarkNode(name="gone", closed=True, words="", at=1))
    assert patched(bed) == 0


async def test_a_node_that_refuses_says_so_and_is_forgiven_by_who_lets_it_in(bed):
    for number in range(REFUSALS_MAX):
        await bed.act(creation(f"w{number}-1-0"))
        bed.server.refuse(f"w{number}-1-0")
    node = await seen(bed)
    assert (node.ready, node.refused_at > 0) == (False, True)
    assert node.refusal == node.problem
    assert "refused 10 pods" in node.refusal
    await bed.act(mark())
    await bed.later(2)
    await bed.act(mark(closed=False))
    node = await seen(bed)
    assert (node.ready, node.refused_at, node.refusal) == (True, 0, "")
    assert (await bed.fresh().observe()).nodes[0].ready


async def test_pods_of_others_on_a_marked_node_are_told_by_name(bed):
    others = {"spec": {"nodeName": NODE, "containers": [{}]}, "status": {"phase": "Running"}}
    bed.server.put("pods", "kube-system", {"metadata": {"name": "proxy"}, **others})
    assert (await seen(bed)).strangers == ()
    await bed.act(mark())
    assert (await seen(bed)).strangers == ("kube-system/proxy",)
    bed.server.put("pods", "kube-system", {"metadata": {"name": "agent"}, **others})
    assert (await seen(bed)).strangers == ("kube-system/agent", "kube-system/proxy")
    bed.server.vanish("pods", "agent")
    assert (await seen(bed)).strangers == ("kube-system/proxy",)
