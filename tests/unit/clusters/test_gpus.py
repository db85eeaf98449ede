"""Which GPUs a machine hands out, by what NVML says of them."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.clusters.local.cluster import node_of_this_machine
from mainstay.clusters.local.gpus import NO_GPUS, Gpus, find_gpus, gpus_of, model_word
from mainstay.domain.affinity import NO_TRAITS
from mainstay.domain.gpu import memory_of


class NvmlError(Exception):
    """As the library raises it."""


def machine(
    names: list[str | bytes | None], *, driver: bool = True, memory: tuple[int | None, ...] = (80 << 30,) * 8
) -> Any:
    """An NVML that knows devices of these names, with so many bytes each; None is one that does not answer."""

    def init() -> None:
        if not driver:
            raise NvmlError

    def name(index: int) -> str | bytes:
        given = names[index]
        if given is None:
            raise NvmlError
        return given

    def memory_of(index: int) -> Any:
        total = memory[index]
        if total is None:
            raise NvmlError
        return SimpleNamespace(total=total)

    return SimpleNamespace(
        nvmlDeviceGetMemoryInfo=memory_of,
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=name,
    )


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA", ""),
        ("", ""),
    ],
)
def test_a_model_is_called_by_the_word_that_users_write(name, word):
    assert model_word(name) == word


def test_of_several_models_the_commonest_is_handed_out_with_its_indices():
    assert gpus_of(["NVIDIA T4", "NVIDIA L4", "", "NVIDIA L4"]) == Gpus(model="L4", indices=(1, 3))
    assert gpus_of(["NVIDIA T4", "NVIDIA L4"]) == Gpus(model="T4", indices=(0,))
    assert gpus_of([]) == NO_GPUS


def test_devices_are_found_and_one_that_does_not_answer_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", machine([b"NVIDIA H100 80GB HBM3", None, "NVIDIA H100 80GB HBM3"]))
    assert find_gpus() == Gpus(model="H100", indices=(0, 2), memory_bytes=80 << 30)


@pytest.mark.parametrize(("memory", "least"), [((80 << 30, 40 << 30), 40 << 30), ((80 << 30, None), 0)])
def test_the_memory_is_that_of_the_smallest_and_unknown_if_one_does_not_say_it(monkeypatch, memory, least):
    monkeypatch.setitem(sys.modules, "pynvml", machine(["NVIDIA A100"] * 2, memory=memory))
    assert find_gpus().memory_bytes == least


def test_the_node_of_this_machine_says_the_memory_of_its_gpus():
    with_it = node_of_this_machine(Gpus(model="A100", indices=(0,), memory_bytes=40_536 << 20))
    assert memory_of("A100", with_it.traits) == 40_536 << 20
    assert node_of_this_machine(NO_GPUS).traits == NO_TRAITS


def test_without_the_library_or_a_driver_there_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus() == NO_GPUS
    monkeypatch.setitem(sys.modules, "pynvml", machine(["NVIDIA H100"], driver=False))
    assert find_gpus() == NO_GPUS
