"""Where the volumes of a workload lie decides where it runs, and what it waits for is told in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.explain import explain, preview
from mainstay.decide.removals import drops
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import Owner, Seen
from mainstay.domain.capacity import ClusterState
from mainstay.domain.plan import Advance, Allocate, DropNomination
from mainstay.domain.preemption import Nomination, Slot
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import VolumeNeed, VolumeRecord, VolumeRef, VolumeState
from mainstay.domain.workload import Phase
from tests.stores import spec
from tests.worlds import NOON, OWNER, SECOND, allocation, lies, node, workload, world

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
        "the most that is free on one node is 1 CPU, 64 GiB"
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


RWO, ALONE, SHARED = ("ReadWriteOnce",), ("ReadWriteOncePod",), ("ReadWriteOnce", "ReadWriteMany")
THREE = [node(name=name, used_cpus=used, **WEST) for name, used in (("a", 2), ("b", 0), ("c", 0))]
"""The first one is the fullest, and taken first where any will do."""


def used(volume: VolumeRecord, *more: Any, node: int = 2, **values: Any) -> Snapshot:
    """Run 1 uses the volume on a node, and these wait."""
    first = workload(1, phase=Phase.RUNNING, volumes=("data",))
    return world(
        nodes=THREE, workloads=[first, *more], allocations=[allocation(1, node_key=node, **values)], volumes=[volume]
    )


def asks(key: int, **values: Any) -> Any:
    return workload(key, **{"volumes": ("data",), **values})


def test_who_shares_a_volume_of_one_node_goes_where_it_is_in_use() -> None:
    assert places(used(lies("data", "west", access=RWO), asks(2))) == ["b"]
    assert places(used(lies("data", "west", access=SHARED), asks(2))) == ["a"]
    assert places(used(lies("data", "west"), asks(2))) == ["a"]
    assert places(used(lies("data", "west", access=RWO), asks(2, volumes=()))) == ["a"]
    # One that has ended uses it no more, and one that is only asked to stop does.
    assert places(used(lies("data", "west", access=RWO), asks(2), seen=Seen.ENDED)) == ["a"]
    assert places(used(lies("data", "west", access=RWO), asks(2), stop=True)) == ["b"]


def test_who_finds_no_room_where_a_volume_is_in_use_hears_where_that_is_and_by_whom() -> None:
    reason = why(used(lies("data", "west", access=RWO), asks(2, cpus=16)))
    assert (reason.code, reason.object) == (Code.WAITS_FOR_VOLUME, "data")
    assert "in use on node b by run " in reason.sentence
    assert "others may use it only there (ReadWriteOnce); waits for capacity: needs 16 CPUs" in reason.sentence
    assert "15 CPUs" in reason.sentence


def test_a_volume_for_one_pod_lets_nobody_in_while_it_has_one() -> None:
    alone = lies("data", "west", access=ALONE)
    reason = why(used(alone, asks(2)))
    assert "one pod at a time may use it (ReadWriteOncePod), and run " in reason.sentence
    assert "waits for capacity" not in reason.sentence
    assert len(schedule(used(alone, asks(2), seen=Seen.ENDED))) == 1
    gang = world(nodes=THREE, workloads=[asks(2, nodes=2)], volumes=[alone])
    assert "and 2 are asked for" in why(gang).sentence
    both = schedule(world(nodes=THREE, workloads=[asks(2), asks(3)], volumes=[alone]))
    assert [type(action) for action in both] == [Allocate, Advance]
    assert "and another one does" in both[1].reason.sentence


@pytest.mark.parametrize("cpus", [(6, 6, 6, 6), (4, 5, 6, 7)])
def test_those_that_start_together_start_on_one_node(cpus: tuple[int, ...]) -> None:
    waiting = [asks(key, cpus=count) for key, count in enumerate(cpus, 2)]
    actions = schedule(world(nodes=THREE, workloads=waiting, volumes=[lies("data", "west", access=RWO)]))
    placed = [action for action in actions if isinstance(action, Allocate)]
    assert len(placed) >= 2
    assert len({slot.node_key for action in placed for slot in action.slots}) == 1
    for action in actions[len(placed) :]:
        assert "in use on node " in action.reason.sentence
        assert "may use it only there" in action.reason.sentence


def test_a_gang_that_shares_a_volume_of_one_node_is_whole_there_or_waits() -> None:
    volume = lies("data", "west", access=RWO)
    assert places(world(nodes=THREE, workloads=[asks(2, nodes=4, cpus=4)], volumes=[volume])) == ["b"] * 4
    sentence = why(world(nodes=THREE, workloads=[asks(2, nodes=4, cpus=5)], volumes=[volume])).sentence
    assert "all pods that use it must be on one node (ReadWriteOnce)" in sentence


def test_what_must_be_on_one_node_and_apart_waits_and_hears_both() -> None:
    volume = lies("data", "west", access=RWO)
    apart = world(nodes=THREE, workloads=[asks(2, nodes=2, topology="/host 1")], volumes=[volume])
    sentence = why(apart).sentence
    assert "all pods that use it must be on one node (ReadWriteOnce)" in sentence
    assert "at most 1 per host" in sentence
    assert places(world(nodes=THREE, workloads=[asks(2, nodes=2, topology="/host 2")], volumes=[volume])) == ["a", "a"]


@given(
    asked=st.lists(
        st.tuples(st.integers(1, 16), st.integers(1, 3), st.sampled_from(["", "data", "more"])), max_size=12
    ),
    taken=st.sampled_from([0, 1, 2, 3]),
)
def test_whatever_waits_a_volume_of_one_node_is_never_on_two(asked: list[tuple[int, int, str]], taken: int) -> None:
    waiting = [
        workload(key, cpus=cpus, nodes=nodes, volumes=(name,) if name else ())
        for key, (cpus, nodes, name) in enumerate(asked, 2)
    ]
    running = [workload(1, phase=Phase.RUNNING, volumes=("data",))] if taken else []
    snapshot = world(
        nodes=THREE, workloads=[*running, *waiting], allocations=[allocation(1, node_key=taken)] if taken else [],
        volumes=[lies("data", "west", access=RWO), lies("more", "west", access=RWO)],
    )  # fmt: skip
    on: dict[str, set[int]] = {"data": {taken} - {0}, "more": set(), "": set()}
    for action in schedule(snapshot):
        if isinstance(action, Allocate):
            on[asked[action.workload_key - 2][2]] |= {slot.node_key for slot in action.slots}
    assert len(on["data"]) <= 1
    assert len(on["more"]) <= 1


def kept(*, node_key: int = 1, until: int = NOON + 60 * SECOND) -> Snapshot:
    """A place is kept for run 2, which uses `data`; run 3 wants `data` too, and run 4 another volume of one node."""
    slot = Slot(rank=0, node_key=node_key, resources=Resources(cpu_milli=16_000, memory_bytes=BYTES_PER_GIB))
    return world(
        nodes=[node(name="n1"), node(name="n2")],
        workloads=[
            workload(1, phase=Phase.RUNNING, cpus=16),
            *(workload(2, phase=Phase.QUEUED, cpus=16, volumes=("data",)), workload(3, volumes=("data",))),
            workload(4, volumes=("more",)),
        ],
        allocations=[allocation(1, cpus=16, stop=True)],
        volumes=[lies("data", "local", access=RWO), lies("more", "local", access=RWO)],
        nominations={2: Nomination(slots=(slot,), until=until)},
    )


def test_for_whom_a_place_is_kept_uses_its_volumes_there_already() -> None:
    told = {action.workload_key: action for action in schedule(kept()) if isinstance(action, Advance | Allocate)}
    assert isinstance(told[4], Allocate)
    assert "in use on node n1, and others may use it only there" in told[3].reason.sentence
    assert "in use on node n1" in explain(kept(), 3).reason.sentence
    assert explain(kept(), 2).reason.code is Code.PREEMPTS
    assert explain(kept(), 4).reason.code is Code.PLACED


def test_a_place_that_is_kept_on_a_node_that_is_gone_is_dropped_and_stops_nobody_else() -> None:
    actions = {action.workload_key: action for action in schedule(kept(node_key=7))}  # type: ignore[attr-defined]
    assert isinstance(actions[2], DropNomination)
    assert isinstance(actions[4], Allocate)


def test_a_place_whose_time_is_over_is_dropped_before_anybody_is_placed() -> None:
    first, *others = schedule(kept(until=NOON))
    assert isinstance(first, DropNomination)
    assert first.workload_key == 2
    assert [one.workload_key for one in others if isinstance(one, Allocate)] == [4]


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
