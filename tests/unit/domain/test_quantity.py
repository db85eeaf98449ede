"""Amounts of compute."""

from __future__ import annotations

from mainstay.domain.quantity import Resources, total


def test_a_total_is_one_amount_where_one_kind_of_devices_is_among_it():
    cpu = Resources(cpu_milli=500, memory_bytes=10, others=(("disk", 2),))
    gpu = Resources(cpu_milli=1_000, memory_bytes=20, gpus=2, gpu_model="H100", others=(("disk", 1), ("nic", 1)))
    whole = Resources(cpu_milli=2_500, memory_bytes=50, gpus=4, gpu_model="H100", others=(("disk", 4), ("nic", 2)))
    assert total([cpu, gpu, gpu]) == (whole,)
    assert total([]) == (Resources(),)


def test_of_each_other_kind_of_devices_a_total_has_an_amount_more():
    whole, slices = (
        Resources(cpu_milli=1, gpus=1, gpu_model="H100"),
        Resources(cpu_milli=1, gpus=3, gpu_model="1g.10gb"),
    )
    assert total([whole, slices, whole]) == (
        Resources(cpu_milli=3, gpus=2, gpu_model="H100"),
        Resources(gpus=3, gpu_model="1g.10gb"),
    )
