"""Nodes that have the image of a pod go before nodes that are about as good, and before no better ones."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.decide.cycle import Cycle
from mainstay.decide.placement import POLICIES, images
from mainstay.decide.placement.images import worth_of_images
from mainstay.decide.rows import only_nodes
from mainstay.domain.image import LARGE_MIB, SMALL_MIB, worth_of_size
from mainstay.domain.workload import Phase
from tests.unit.decide.test_headroom import placed
from tests.worlds import allocation, node, workload, world

TORCH = {"torch": 5_000}


@pytest.mark.parametrize("policy", POLICIES)
def test_of_equal_nodes_the_one_that_has_the_image_is_taken(policy):
    nodes = [node(), node(images=TORCH), node(images={"other": 5_000})]
    assert placed(world(nodes=nodes, workloads=[workload(1, image="torch")]), policy) == {1: [2]}
    assert placed(world(nodes=nodes, workloads=[workload(1)]), policy) == {1: [1]}
    assert placed(world(nodes=nodes, workloads=[workload(1, image="nobody has it")]), policy) == {1: [1]}


@pytest.mark.parametrize("policy", POLICIES)
def test_with_gpus_likewise(policy):
    nodes = [node(gpus=8, gpu_model="H100"), node(gpus=8, gpu_model="H100", images=TORCH)]
    assert placed(world(nodes=nodes, workloads=[workload(1, gpus=1, image="torch")]), policy) == {1: [2]}


def test_the_larger_the_image_the_more_it_counts_between_two_bounds():
    assert [worth_of_size(mib) for mib in (0, SMALL_MIB, LARGE_MIB, 10**6)] == [0, 0, 1, 1]
    assert 0 < worth_of_size(100) < worth_of_size(500) < 1
    nodes = [node(images={"both": 300}), node(images={"both": 900})]
    assert placed(world(nodes=nodes, workloads=[workload(1, image="both")])) == {1: [2]}
    nodes = [node(), node(images={"tiny": 20})]
    assert placed(world(nodes=nodes, workloads=[workload(1, image="tiny")])) == {1: [1]}


def test_a_node_that_is_clearly_fuller_is_filled_first_wherever_the_image_is():
    """Of 16 cores, one is a sixteenth part, and an image weighs as much as a twentieth of them."""
    for used, taken in ((1, 1), (0.5, 2)):
        nodes = [node(used_cpus=used), node(images=TORCH)]
        assert placed(world(nodes=nodes, workloads=[workload(1, image="torch")])) == {1: [taken]}


def test_a_node_with_idle_gpus_is_not_broken_into_for_an_image():
    """One GPU less that lies idle outweighs it."""
    held = [allocation(2, gpus=1, cpus=1, gpu_model="H100")]
    running = workload(2, gpus=1, phase=Phase.RUNNING)
    nodes = [node(gpus=8, gpu_model="H100"), node(gpus=8, gpu_model="H100", images=TORCH)]
    asked = workload(1, gpus=1, image="torch")
    assert placed(world(nodes=nodes, workloads=[asked, running], allocations=held)) == {1: [1]}


def test_it_goes_behind_what_must_hold_and_behind_gpu_nodes_that_are_left_alone():
    nodes = [node(), node(gpus=8, gpu_model="H100", images=TORCH), node(ready=False, images=TORCH)]
    assert placed(world(nodes=nodes, workloads=[workload(1, image="torch")])) == {1: [1]}


def test_ranks_of_a_gang_go_to_nodes_that_have_it():
    nodes = [node(cpus=4), node(cpus=4, images=TORCH), node(cpus=4), node(cpus=4, images=TORCH)]
    assert placed(world(nodes=nodes, workloads=[workload(1, nodes=2, cpus=4, image="torch")])) == {1: [2, 4]}


def test_work_alike_but_for_its_image_has_another_shape_only_where_a_node_has_one_of_them():
    jobs = [workload(key, image=name) for key, name in enumerate(("torch", "jax", "rust"), 1)]
    for nodes, shapes in (([node()], 1), ([node(images=TORCH)], 2)):
        assert np.unique(Cycle(world(nodes=nodes, workloads=jobs), POLICIES["best-fit"]).numbers).size == shapes


def test_only_the_images_that_most_work_asks_for_are_heeded(monkeypatch):
    monkeypatch.setattr(images, "IMAGES_MAX", 2)
    many = [workload(key, image=f"i{key % 5}") for key in range(1, 8)]
    snapshot = world(nodes=[node(images={f"i{at}": 500 for at in range(5)})], workloads=many)
    assert [snapshot.images[one] for one in worth_of_images(snapshot, np.arange(7))] == ["i1", "i2"]
    monkeypatch.setattr(images, "TRIED_MAX", 1)
    assert [snapshot.images[one] for one in worth_of_images(snapshot, np.arange(7))] == ["i1"]


def test_a_part_of_a_fleet_has_the_images_of_its_nodes():
    snapshot = world(nodes=[node(), node(images=TORCH)], workloads=[workload(1, image="torch")])
    part = only_nodes(snapshot.nodes, np.array([1]))
    assert part.images is not None
    assert part.images.worth("torch").tolist() == [1.0]
