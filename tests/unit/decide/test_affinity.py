"""Nodes that a workload needs or prefers: nobody is on one that its need refuses, and what would do instead is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain, preview
from mainstay.decide.growth import grow
from mainstay.decide.placement import POLICIES
from mainstay.decide.possible import impossible
from mainstay.decide.schedule import schedule
from mainstay.domain.affinity import NodeNeed, Preference, Requirement, Spot, Toleration, admits, liking, need
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, WorkloadSpec
from tests.unit.decide.test_growth import EARLIER
from tests.unit.decide.test_kernel import a_world
from tests.worlds import allocation, gang_of, node, pods, workload, world

SSD = {"disk": "ssd"}
HDD = {"disk": "hdd"}
SPOT = {"karpenter.sh/capacity-type": "spot"}
ML = "dedicated=ml:NoSchedule"


def label(key: str, *values: str, operator: str = "In") -> Requirement:
    return Requirement(key=key, operator=operator, values=values)


def needs(*lines: Requirement, **values: object) -> NodeNeed:
    found = need(requirements=lines, **values)  # type: ignore[arg-type]
    assert found is not None
    return found


def prefers(key: str, value: str, weight: int = 1, **values: object) -> NodeNeed:
    return needs(preferences=[Preference(requirements=(label(key, value),), weight=weight)], **values)


TOLERANT = needs(tolerations=[Toleration(key="dedicated")])
ON_SSD = needs(label("disk", "ssd"))


def places(snapshot: Snapshot) -> dict[int, list[int]]:
    """Keys of the nodes of each workload that starts."""
    return {
        action.workload_key: [slot.node_key for slot in action.slots]
        for action in schedule(snapshot)
        if isinstance(action, Allocate)
    }


def job(**values: object) -> WorkloadSpec:
    size = Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB)
    return WorkloadSpec(**{"kind": Kind.JOB, "name": "job", "run": ("true",), "choices": (size,), **values})  # type: ignore[arg-type]


def test_a_job_runs_where_the_labels_are_as_it_needs_them():
    snapshot = world(
        nodes=[node(labels=HDD), node(labels=SSD), node()],
        workloads=[
            workload(7, restriction=ON_SSD),
            workload(8, restriction=needs(label("disk", operator="DoesNotExist"))),
        ],
    )
    assert places(snapshot) == {7: [2], 8: [3]}


def test_a_tainted_node_takes_only_who_tolerates_it():
    snapshot = world(nodes=[node(taints=(ML,))], workloads=[workload(7), workload(8, restriction=TOLERANT)])
    assert places(snapshot) == {8: [1]}


def test_spot_nodes_are_for_those_that_allow_them():
    snapshot = world(
        nodes=[node(labels=SPOT, cpus=3), node(cpus=1)],
        workloads=[
            workload(7, restriction=needs(spot=Spot.NEVER)),
            workload(8, restriction=needs(spot=Spot.ONLY)),
            workload(9, restriction=needs(spot=Spot.ONLY), cpus=3),
            workload(10),
        ],
    )
    assert places(snapshot) == {7: [2], 8: [1], 10: [1]}


def test_a_closed_node_takes_nobody_whatever_it_tolerates():
    snapshot = world(
        nodes=[node(taints=(ML,), ready=False), node(taints=(ML,), closed_at=1)],
        workloads=[workload(8, restriction=TOLERANT)],
    )
    assert places(snapshot) == {}


@pytest.mark.parametrize("values", [{}, {"topology": "preferred rack"}, {"topology": "/host 2"}])
def test_a_gang_lies_on_nodes_that_its_need_admits(values):
    fleet = [node(labels=labels, cpus=2, topology={"rack": rack}) for rack in "ab" for labels in (SSD, HDD, SSD)]
    snapshot = world(nodes=fleet, workloads=[workload(7, nodes=4, restriction=ON_SSD, **values)])
    assert set(places(snapshot)[7]) <= {1, 3, 4, 6}


def test_the_need_is_that_of_all_pod_sets():
    fleet = [node(labels=HDD), node(labels=SSD, gpus=2), node(labels=SSD), node(labels=HDD, gpus=8)]
    gang = gang_of(7, pods("head", 1, cpus=12), pods("worker", 2, gpus=1), restriction=ON_SSD)
    assert set(places(world(nodes=fleet, workloads=[gang]))[7]) <= {2, 3}


def test_an_elastic_run_grows_on_nodes_that_its_need_admits():
    snapshot = world(
        nodes=[node(labels=SSD, cpus=1), node(labels=HDD), node(labels=SSD, cpus=1)],
        workloads=[workload(7, phase=Phase.RUNNING, nodes=1, nodes_min=1, nodes_max=8, restriction=ON_SSD)],
        allocations=[allocation(7, node_key=1, created_at=EARLIER, started_at=EARLIER)],
    )
    assert [slot.node_key for action in grow(snapshot) for slot in action.slots] == [3]


def test_preferred_nodes_go_first_and_others_will_do():
    fleet = [node(cpus=2), node(cpus=16, labels=SSD), node(cpus=16, labels={"disk": "nvme"})]
    wanted = needs(
        preferences=[
            Preference(requirements=(label("disk", "ssd"),), weight=1),
            Preference(requirements=(label("disk", "nvme"),), weight=5),
        ]
    )
    snapshot = world(nodes=fleet, workloads=[workload(key, cpus=10, restriction=wanted) for key in (7, 8, 9)])
    assert places(snapshot) == {7: [3], 8: [2]}
    small = workload(9, cpus=1, restriction=prefers("disk", "none has it"))
    assert places(world(nodes=fleet, workloads=[small])) == {9: [1]}, "of equals the fullest"


def test_a_gang_goes_to_the_cluster_with_the_nodes_that_it_prefers():
    fleet = [node(cluster="a", cpus=4), *(node(cluster="b", cpus=8, labels=labels) for labels in (SSD, {}, SSD))]
    gang = workload(7, nodes=3, cpus=1, restriction=prefers("disk", "ssd"))
    assert places(world(nodes=fleet, workloads=[gang])) == {7: [2, 2, 2]}
    assert places(world(nodes=fleet, workloads=[replace(gang, restriction="")])) == {7: [1, 1, 1]}


def test_a_rack_goes_before_preferred_nodes_and_the_rack_that_has_them_before_another():
    fleet = [
        *(node(cpus=1, topology={"rack": "a"}) for _ in range(2)),
        *(node(cpus=1, topology={"rack": "b"}, labels=labels) for labels in ({}, SSD, {})),
        node(cpus=4, topology={"rack": "c"}, labels=HDD),
    ]
    gang = workload(7, nodes=2, topology="required rack", restriction=prefers("disk", "ssd"))
    assert set(places(world(nodes=fleet, workloads=[gang]))[7]) <= {3, 4, 5}
    three = replace(gang, nodes=4, topology="preferred rack")
    assert places(world(nodes=fleet, workloads=[three])) == {7: [6] * 4}


LABELS = st.dictionaries(st.sampled_from(("disk", "zone")), st.sampled_from("ab"), max_size=2)
LINES = st.builds(
    Requirement,
    key=st.sampled_from(("disk", "zone")),
    operator=st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")),
    values=st.just(("a",)),
)
NEEDS = st.builds(
    need,
    requirements=st.lists(LINES, max_size=2),
    preferences=st.lists(st.builds(Preference, requirements=st.tuples(LINES), weight=st.integers(1, 3)), max_size=2),
    tolerations=st.sampled_from(([], [Toleration(key="dedicated")])),
    spot=st.sampled_from(Spot),
)


def labelled(snapshot: Snapshot, labels: list[dict[str, str]], wanted: list[NodeNeed | None]) -> Snapshot:
    """The same world with labels on its nodes, some of them tainted or spot, and needs instead of restrictions."""
    nodes, table = snapshot.nodes, snapshot.workloads
    each = world(
        nodes=[
            node(
                labels={**labels[row % len(labels)], **(SPOT if row % 5 == 0 else {})},
                taints=(ML,) if row % 7 == 3 else (),
                ready=bool(nodes.ready[row]),
            )
            for row in range(nodes.key.size)
        ]
    ).nodes
    return replace(
        snapshot,
        nodes=replace(nodes, ready=each.ready, traits=each.traits),
        workloads=replace(table, restriction=table.key % (len(wanted) + 1)),
        restrictions=("", *(one or "" for one in wanted)),
    )


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.lists(LABELS, min_size=1, max_size=4),
    st.lists(NEEDS, min_size=1, max_size=3),
    st.sampled_from(sorted(POLICIES)),
)
def test_nobody_is_on_a_node_that_its_need_refuses_and_numpy_agrees(seed, labels, wanted, policy):
    snapshot = labelled(a_world(seed, nodes=60, jobs=30), labels, wanted)
    chosen = POLICIES[policy]
    found = []
    for one in (chosen, replace(chosen, sign=0)):
        cycle = Cycle(snapshot, one)
        found.append(
            sorted(
                (int(row), tuple(nodes))
                for placed in cycle.placements()
                for row, nodes in zip(placed.rows.tolist(), placed.nodes.tolist(), strict=True)
            )
        )
    assert found[0] == found[1]
    for row, nodes in found[0]:
        asked = snapshot.restrictions[int(snapshot.workloads.restriction[row])]
        for at in nodes:
            there = snapshot.nodes.traits.of(at)
            assert snapshot.nodes.ready[at] if isinstance(asked, str) else admits(there, asked)
            assert snapshot.nodes.sound[at]


@settings(max_examples=60)
@given(st.lists(LABELS, min_size=1, max_size=6), NEEDS.filter(bool), st.integers(1, 3))
def test_of_nodes_that_will_do_a_single_pod_has_one_that_it_prefers_most(labels, wanted, cpus):
    snapshot = world(
        nodes=[node(labels=one, cpus=1 + at % 3) for at, one in enumerate(labels)],
        workloads=[workload(7, restriction=wanted, cpus=cpus)],
    )
    traits = snapshot.nodes.traits
    fits = [
        row
        for row in range(len(labels))
        if admits(traits.of(row), wanted) and snapshot.nodes.cpu_milli[row] >= cpus * 1_000
    ]
    found = places(snapshot).get(7)
    assert bool(found) == bool(fits)
    if found:
        assert liking(traits.of(found[0] - 1), wanted) == max(liking(traits.of(row), wanted) for row in fits)


@pytest.mark.parametrize(
    ("wanted", "field", "said"),
    [
        (ON_SSD, "node_labels", "no node has disk=ssd: disk is hdd, nvme"),
        (needs(label("dsk", operator="Exists")), "node_labels", "no node has dsk: did you mean disk?"),
        (needs(label("zone", "z")), "node_labels", "no node has zone=z: did you mean topology.kubernetes.io/zone?"),
        (needs(label("who", "me")), "node_labels", "no node has who=me: none has a label who"),
        (needs(label("disk", "hdd"), label("gpu", operator="Exists")), "node_labels", "no node has all of it at once"),
        (needs(spot=Spot.ONLY), "resources.spot", "no node is spot"),
    ],
)
def test_what_no_node_of_the_fleet_has_is_refused_with_the_nearest(wanted, field, said):
    snapshot = world(
        nodes=[
            node(labels={"disk": "hdd", "topology.kubernetes.io/zone": "z"}),
            node(labels={"disk": "nvme", "gpu": "yes"}, ready=False),
        ]
    )
    found = impossible(snapshot, spec=job(need=wanted), queue="default")
    assert found is not None
    assert found.reason.code is Code.NO_SUCH_NODES
    assert said in found.reason.sentence
    assert found.reason.numbers["field"] == field


def test_what_only_a_tainted_node_could_hold_is_accepted_and_waits_with_the_taint_named():
    """Many taints are put on a node for a while."""
    fleet = [node(labels=SSD, taints=(ML,)), node(labels=HDD)]
    assert impossible(world(nodes=fleet), spec=job(need=ON_SSD), queue="default") is None
    snapshot = world(nodes=fleet, workloads=[workload(7, restriction=ON_SSD)])
    found = explain(snapshot, 7)
    assert (
        "the nodes that have it are tainted, and it does not tolerate dedicated=ml:NoSchedule" in found.reason.sentence
    )
    assert ("tolerations", "none", "dedicated=ml") in {
        (one.change, one.before, one.after) for one in found.alternatives
    }
    (told,) = [action for action in schedule(snapshot) if isinstance(action, Advance)]
    assert told.reason.code is Code.NO_SUCH_NODES


def test_a_need_that_waits_for_room_names_it_and_what_else_would_start_now():
    snapshot = world(
        nodes=[node(labels=SSD, cpus=1), node(labels=HDD), node(labels={**SSD, **SPOT})],
        workloads=[
            workload(6, phase=Phase.RUNNING),
            workload(7, cpus=2, restriction=needs(label("disk", "ssd"), spot=Spot.NEVER)),
        ],
        allocations=[allocation(6)],
    )
    found = explain(snapshot, 7)
    assert "on nodes with disk=ssd and that are not spot" in found.reason.sentence
    changes = {(one.change, one.before, one.after) for one in found.alternatives}
    assert {("node_labels", "disk=ssd", "disk=hdd"), ("spot", "never", "auto")} <= changes


def test_where_only_a_node_without_the_label_has_room_the_label_is_what_could_be_left_out():
    snapshot = world(
        nodes=[node(labels=SSD, cpus=1), node(labels={})],
        workloads=[workload(7, cpus=2, restriction=needs(label("disk", "ssd")))],
    )
    assert {(one.change, one.before, one.after) for one in explain(snapshot, 7).alternatives} == {
        ("node_labels", "disk=ssd", "none"),
        ("cpus", "2", "1"),
    }


def test_a_plan_goes_by_the_need_that_is_not_submitted_yet():
    snapshot = world(nodes=[node("a", labels=HDD), node("b", labels=SSD)])
    assert preview(snapshot, spec=job(need=ON_SSD), priority=0).nodes == ("b",)
    none = preview(snapshot, spec=job(need=needs(label("disk", "tape"))), priority=0)
    assert (none.starts_now, none.starts_never) == (False, True)


def test_what_asks_for_nothing_of_its_nodes_goes_the_fast_way():
    snapshot = world(nodes=[node(labels=SSD)], workloads=[workload(7), workload(8, restriction=ON_SSD)])
    asked = Cycle(snapshot, POLICIES["least-waste"])._asked.requests
    assert not np.any(asked.asks), "a need without preferences is a mask of the loop"
    with_preference = world(nodes=[node()], workloads=[workload(7), workload(8, restriction=prefers("disk", "ssd"))])
    assert np.count_nonzero(Cycle(with_preference, POLICIES["least-waste"])._asked.requests.asks) == 1
