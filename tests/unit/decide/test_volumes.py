"""Where the volumes of a workload lie decides where it runs, and what it waits for is told in words."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.decide.explain import explain, preview
from mainstay.decide.removals import drops
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import Owner
from mainstay.domain.capacity import ClusterState
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import VolumeNeed, VolumeRef, VolumeState
from tests.stores import spec
from tests.worlds import OWNER, lies, node, workload, world

EAST, WEST = {"cluster": "east"}, {"cluster": "west"}
AWAY = {"east": Reason(code=Code.CLUSTER_UNREACHABLE, numbers={"detail": "no answer"})}


def nodes(**of_east: Any) -> list[Any]:
    return [node(name="e", **EAST, **of_east), node(name="w1", **WEST), node(name="w2", **WEST, reaches=("volume/w2",))]


def places(snapshot: Snapshot) -> list[str]:
    (action,) = schedule(snapshot)
    assert isinstance(action, Allocate), action
    return [snapshot.nodes.names[slot.node_key - 1] for slot in action.slots]


def why(snapshot: Snapshot) -> Reason:
    (action,) = schedule(snapshot)
    assert isinstance(action, Advance), action
    return action.reason


@pytest.mark.parametrize("cluster", ["east", "west"])
def test_a_workload_runs_in_the_cluster_where_its_volume_lies(cluster: str) -> None:
    snapshot = world(nodes=nodes(), workloads=[workload(1, volumes=("data",))], volumes=[lies("data", cluster)])
    assert places(snapshot)[0].startswith(cluster[0])


def test_a_workload_runs_on_the_node_that_reaches_its_volume() -> None:
    data = lies("data", "west", reach="volume/w2", place="on node w2")
    assert places(world(nodes=nodes(), workloads=[workload(1, volumes=("data",))], volumes=[data])) == ["w2"]
    # A gang likewise: whole there, or not at all.
    several = [workload(1, volumes=("data",), nodes=2, cpus=10)]
    reason = why(world(nodes=nodes(), workloads=several, volumes=[data]))
    assert (reason.code, reason.object) == (Code.WAITS_FOR_VOLUME, "data")


def test_a_place_that_is_full_is_told_with_what_is_free_there() -> None:
    data = lies("data", "west", reach="volume/w2", place="on node w2")
    full = [node(name="e", **EAST), node(name="w2", **WEST, reaches=("volume/w2",), used_cpus=15)]
    reason = why(world(nodes=full, workloads=[workload(1, volumes=("data",), cpus=4)], volumes=[data]))
    assert reason.sentence == (
        "waits for volume data: it lies in cluster west, on node w2; waits for capacity: needs 4 CPUs, 1 GiB, "
        "the most that is free on one node is 1 CPUs, 64 GiB"
    )


def test_a_place_that_is_away_is_told_with_why_though_there_is_room_elsewhere() -> None:
    snapshot = world(
        nodes=nodes(ready=False), workloads=[workload(1, volumes=("d",))], volumes=[lies("d", "east")], closed=AWAY
    )
    sentence = why(snapshot).sentence
    assert "waits for volume d: it lies in cluster east; waits for cluster east" in sentence
    assert "no answer" in sentence


def test_a_node_that_is_kept_out_is_named() -> None:
    data = lies("data", "west", reach="volume/w", place="on node w")
    shut = [node(name="e", **EAST), node(name="w", **WEST, reaches=("volume/w",), ready=False, why="cordoned by ada")]
    sentence = why(world(nodes=shut, workloads=[workload(1, volumes=("data",))], volumes=[data])).sentence
    assert "on node w; waits for node w: cordoned by ada" in sentence


def test_a_volume_whose_node_is_gone_and_volumes_that_lie_apart_are_told() -> None:
    gone = lies("data", "west", reach="volume/none", place="on node w9")
    asked = [workload(1, volumes=("data",))]
    assert "and no node reaches it there" in why(world(nodes=nodes(), workloads=asked, volumes=[gone])).sentence
    apart = [lies("a", "east"), lies("b", "west")]
    sentence = why(world(nodes=nodes(), workloads=[workload(1, volumes=("a", "b"))], volumes=apart)).sentence
    assert "a: it lies in cluster east; b: it lies in cluster west; no node reaches all of them" in sentence


def test_a_volume_that_could_be_any_of_several_is_no_guess() -> None:
    both = [lies("data", "east"), lies("data", "west")]
    asked = [workload(1, volumes=("data",))]
    assert (
        "there is one of that name in each of east, west"
        in why(world(nodes=nodes(), workloads=asked, volumes=both)).sentence
    )
    assert "on record in none of the clusters" in why(world(nodes=nodes(), workloads=asked)).sentence
    bound = [workload(1, volumes=("data",), cluster="east")]
    assert places(world(nodes=nodes(), workloads=bound, volumes=both)) == ["e"]
    assert places(world(nodes=nodes(), workloads=bound)) == ["e"]
    # Where there is one cluster, that is where it will be made.
    assert places(world(nodes=[node()], workloads=asked)) == ["node-1"]


def test_nothing_is_placed_on_a_volume_that_is_to_go() -> None:
    snapshot = world(
        nodes=[node()], workloads=[workload(1, volumes=("data",))], volumes=[lies("data", "local", removed=True)]
    )
    assert "is being removed" in why(snapshot).sentence


def test_who_names_no_volume_is_not_held_up_by_one_who_does() -> None:
    works = [workload(1, volumes=("data",), priority=9), workload(2)]
    actions = schedule(world(nodes=nodes(), workloads=works, volumes=[lies("data", "east", removed=True)]))
    assert {type(action).__name__: action.workload_key for action in actions} == {"Allocate": 2, "Advance": 1}


def test_explain_and_preview_say_the_same_and_never_advise_another_cluster() -> None:
    volumes = [lies("data", "east")]
    snapshot = world(nodes=nodes(used_cpus=16), workloads=[workload(1, volumes=("data",))], volumes=volumes)
    found = explain(snapshot, 1)
    assert "it lies in cluster east" in found.reason.sentence
    assert "infra" not in {one.change for one in found.alternatives}
    need = VolumeNeed(owner=OWNER, names=("data",))
    asked = preview(world(nodes=nodes(used_cpus=16), volumes=volumes), spec=spec(), priority=0, volumes=need)
    assert (asked.starts_now, asked.reason.code) == (False, Code.WAITS_FOR_VOLUME)


def test_only_what_is_there_and_not_going_yet_is_dropped() -> None:
    owner = Owner(tenant="t", project="p")
    seen = ClusterState(
        nodes=(),
        pods=(),
        volumes=(
            VolumeState(owner=owner, name="kept"),
            VolumeState(owner=owner, name="gone"),
            VolumeState(owner=owner, name="going", leaving=True),
        ),
    )
    removals = [VolumeRef(owner=owner, name=name) for name in ("gone", "going", "never")]
    assert [(action.owner, action.name) for action in drops(seen, removals)] == [(owner, "gone")]
    assert not list(drops(ClusterState(nodes=(), pods=()), removals))
