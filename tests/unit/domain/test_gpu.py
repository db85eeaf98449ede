"""How much memory a GPU has and which part of a card a slice or a share is, as nodes say it."""

from __future__ import annotations

import pytest

from mainstay.domain.affinity import traits
from mainstay.domain.gpu import is_enough, is_of_card, memory_of, part_of_card

T4, A100 = {"nvidia.com/gpu.memory": "15360"}, {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}


@pytest.mark.parametrize(
    ("kind", "labels", "gib"),
    [
        ("T4", T4, 15),
        ("T4.shared", {**T4, "nvidia.com/gpu.replicas": "4"}, 3.75),
        ("T4", {}, 16),
        ("A100", {}, 40),
        ("X7", {}, 0),
        ("", T4, 15),
        ("H100", {"nvidia.com/gpu.memory": "lots"}, 80),
        ("H100", {"nvidia.com/gpu.memory": "9" * 30}, 80),
        ("amd.com/gpu", T4, 0),
    ],
)
def test_the_memory_of_a_gpu_is_what_its_node_says_else_what_its_model_has(kind, labels, gib):
    assert memory_of(kind, traits(labels, ())) == gib * (1 << 30)


def test_a_slice_has_the_memory_in_its_name_and_its_shares_a_part_of_that():
    assert memory_of("3g.40gb", traits(T4, ())) == 40 * 10**9
    assert memory_of("1g.10gb.me", traits({}, ())) == 10**10
    shared = traits({"nvidia.com/mig-1g.10gb.replicas": "2"}, ())
    assert memory_of("1g.10gb.shared", shared) == 5 * 10**9


@pytest.mark.parametrize(
    ("sold_gb", "reported_mib"), [(16, 15_109), (24, 22_731), (40, 40_536), (48, 46_068), (80, 81_559), (141, 143_771)]
)
def test_a_card_is_of_the_size_that_it_is_sold_with(sold_gb, reported_mib):
    assert is_enough(reported_mib << 20, sold_gb * 10**9)
    assert not is_enough(reported_mib << 20, sold_gb * 10**9 * 9 // 8)


@pytest.mark.parametrize(
    ("kind", "labels", "permille"),
    [
        ("1g.10gb", {}, 142),
        ("3g.40gb", {}, 428),
        ("7g.80gb", {}, 1_000),
        ("2g.12gb", {}, 500),
        ("T4.shared", {"nvidia.com/gpu.replicas": "4"}, 250),
        ("T4.shared", {}, 0),
        ("1g.10gb.shared", {"nvidia.com/mig-1g.10gb.replicas": "2"}, 71),
        ("1g.10gb.shared", {"nvidia.com/gpu.replicas": "2"}, 0),
        ("amd.com/gpu", {}, 0),
        ("T4.shared", {"nvidia.com/gpu.replicas": "0"}, 1_000),
    ],
)
def test_which_part_of_a_card_it_is(kind, labels, permille):
    assert part_of_card(kind, traits(labels, ())) == permille


def test_of_which_card_a_slice_is_says_the_product_of_its_node():
    assert is_of_card("T4.shared", "T4", traits({}, ()))
    assert not is_of_card("T4.shared", "L4", traits({}, ()))
    assert is_of_card("1g.5gb", "A100", traits(A100, ()))
    assert not is_of_card("1g.5gb", "A10", traits(A100, ()))
    assert not is_of_card("1g.5gb", "A100", traits({}, ()))
