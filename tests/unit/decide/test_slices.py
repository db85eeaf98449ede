"""Slices of GPUs are counted by shape, apart from whole ones, and given to who asks for that shape and nobody else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Allocate
from mainstay.domain.reason import Code
from tests.worlds import allocation, node, workload, world

SMALL, LARGE = "1g.10gb", "3g.40gb"


def placed(snapshot) -> dict[int, tuple[int, ...]]:
    return {
        action.workload_key: tuple(slot.node_key for slot in action.slots)
        for action in schedule(snapshot)
        if isinstance(action, Allocate)
    }


def test_a_slice_is_given_where_there_is_one_of_its_shape_and_the_slot_says_which():
    nodes = [node("whole", gpus=8, gpu_model="H100"), node("cut", gpus=1, gpu_model="H100", shapes={SMALL: 7})]
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, gpus=2, gpu_model=SMALL)]))
    assert isinstance(action, Allocate)
    (slot,) = action.slots
    assert (slot.node_key, slot.resources.gpus, slot.resources.gpu_model) == (2, 2, SMALL)


def test_whoever_wants_any_gpu_gets_a_whole_one():
    nodes = [node("cut", shapes={SMALL: 7, "T4.shared": 4})]
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, gpus=1)]))
    assert action.reason.code is Code.NEVER_FITS


def test_what_is_used_of_one_shape_leaves_the_others_and_the_whole_ones():
    nodes = [node("cut", gpus=1, gpu_model="A100", shapes={SMALL: 1, LARGE: 1})]
    held = [allocation(9, gpus=1, gpu_model=SMALL)]
    wanted = [workload(1, gpus=1, gpu_model=SMALL), workload(2, gpus=1, gpu_model=LARGE), workload(3, gpus=1)]
    assert placed(world(nodes=nodes, workloads=wanted, allocations=held)) == {2: (1,), 3: (1,)}


def test_a_shape_that_no_node_has_never_fits_and_one_that_is_taken_waits():
    nodes = [node("cut", shapes={SMALL: 1}, used_shapes={SMALL: 1})]
    wanted = [workload(1, gpus=1, gpu_model=LARGE), workload(2, gpus=1, gpu_model=SMALL)]
    found = {action.workload_key: action.reason for action in schedule(world(nodes=nodes, workloads=wanted))}
    assert found[1].code is Code.NEVER_FITS
    assert found[2].code is Code.WAITS_FOR_CAPACITY
    assert found[2].numbers["needs"] == f"1 CPU, 1 GiB, 1 x {SMALL}"


def test_work_without_gpus_keeps_off_nodes_that_have_slices():
    nodes = [node("cut", shapes={SMALL: 7}), node("plain", cpus=64)]
    assert placed(world(nodes=nodes, workloads=[workload(1)])) == {1: (2,)}


@given(
    have=st.lists(st.dictionaries(st.sampled_from([SMALL, LARGE]), st.integers(0, 4)), min_size=1, max_size=4),
    asked=st.lists(st.tuples(st.sampled_from([SMALL, LARGE, ""]), st.integers(1, 3), st.integers(1, 2)), max_size=12),
)
def test_no_more_slices_are_given_than_there_are(have, asked):
    nodes = [node(shapes=shapes, gpus=1, gpu_model="H100") for shapes in have]
    wanted = [
        workload(key, gpus=count, gpu_model=shape, nodes=pods) for key, (shape, count, pods) in enumerate(asked, 1)
    ]
    snapshot = world(nodes=nodes, workloads=wanted)
    given_: dict[tuple[int, str], int] = {}
    for action in schedule(snapshot):
        if isinstance(action, Allocate):
            for slot in action.slots:
                kind = (slot.node_key, slot.resources.gpu_model)
                given_[kind] = given_.get(kind, 0) + slot.resources.gpus
    for (key, kind), count in given_.items():
        row = int(np.searchsorted(snapshot.nodes.key, key))
        assert count <= (have[row].get(kind, 0) if kind in {SMALL, LARGE} else 1)
