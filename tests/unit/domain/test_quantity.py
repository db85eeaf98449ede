"""Amounts of compute."""

from __future__ import annotations

import pytest

from mainstay.domain.quantity import BYTES_PER_GIB, Resources, memory_words, total, written
from mainstay.wire import quantities


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


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (391, "6m31s"), (28_800, "8h"), (190_861, "2d5h1m1s")])
def test_a_duration_is_written_as_a_job_file_says_it(seconds: int, text: str) -> None:
    assert written(seconds) == text
    assert quantities.duration(text) == seconds


def test_amounts_of_memory_beside_each_other_are_told_in_one_kind_of_units() -> None:
    asked, free = 16 * 10**9, 15 * BYTES_PER_GIB
    assert (memory_words(asked), memory_words(free)) == ("16 GB", "15 GiB")
    assert memory_words(free, like=asked) == "16.11 GB"
    assert memory_words(asked, like=free) == "14.9 GiB"
    assert memory_words(512 * 2**20, like=free) == "512 MiB"
    assert memory_words(512 * 10**6, like=asked) == "512 MB"
