"""GPUs in the job file: how many, of which model, with how much memory, or which part of one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mainstay.api.convert_jobs import job_request
from mainstay.cli import show
from mainstay.wire import quantities
from mainstay.wire.job import Job
from mainstay.wire.quantities import Gpus
from mainstay.wire.views import ResourcesView

GB = 10**9


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (8, Gpus(model="", count=8)),
        ("h100:8", Gpus(model="H100", count=8)),
        ("80GB", Gpus(model="", count=1, memory_bytes=80 * GB)),
        ("80GB:2", Gpus(model="", count=2, memory_bytes=80 * GB)),
        ("A100:80GB:8", Gpus(model="A100", count=8, memory_bytes=80 * GB)),
        ("A100:8:80GB", Gpus(model="A100", count=8, memory_bytes=80 * GB)),
        ("A100:40Gi", Gpus(model="A100", count=1, memory_bytes=40 << 30)),
        (0.5, Gpus(model="", count=1, part_permille=500)),
        ("T4:.25", Gpus(model="T4", count=1, part_permille=250)),
        ("10GB:0.142857", Gpus(model="", count=1, memory_bytes=10 * GB, part_permille=142)),
        ({"memory": "40GB"}, Gpus(model="", count=1, memory_bytes=40 * GB)),
        ({"memory": 40, "count": 2, "model": "a100"}, Gpus(model="A100", count=2, memory_bytes=40 * GB)),
        ({"count": 0.5, "model": "T4"}, Gpus(model="T4", count=1, part_permille=500)),
        ("1g.10gb:2", Gpus(model="1g.10gb", count=2)),
        ("T4.shared:2", Gpus(model="T4.shared", count=2)),
    ],
)
def test_what_is_asked_for(given, asked):
    job = Job.model_validate({"run": "true", "resources": {"gpu": given}})
    assert quantities.gpu(job.resources.gpu) == asked
    (choice,) = job_request(job).spec.choices
    assert (choice.gpus, choice.gpu_model) == (asked.count, asked.model)
    assert (choice.gpu_memory_bytes, choice.gpu_part_permille) == (asked.memory_bytes, asked.part_permille)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("1.5", "nor a part of one such as 0.5"),
        ("0.0001", "at least a thousandth"),
        ("0GB", "with more than no memory"),
        ("H100:80GB:40GB", "not a number of GPUs"),
        ("1g.10gb:0.5", "part of a GPU already"),
        ("T4.shared:0.5", "part of a GPU already"),
        ("amd.com/gpu:0.5", "ask for a number"),
        ("amd.com/gpu:80GB", "ask for a number"),
        (":", "not a number of GPUs"),
        ("H100::8", "not a number of GPUs"),
        ({"modell": "H100"}, "modell: a GPU has `model`, `memory` and `count`"),
        ({"memory": "much"}, "not a size such as 50GB"),
        ({"count": [1]}, "not a number of GPUs"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(given, words):
    with pytest.raises(ValidationError, match="gpu") as caught:
        Job.model_validate({"run": "true", "resources": {"gpu": given}})
    assert words in str(caught.value)


def test_no_gpu_has_no_size():
    job = Job.model_validate({"run": "true", "resources": {"gpu": "80GB:0"}})
    (choice,) = job_request(job).spec.choices
    assert choice.is_plain


@pytest.mark.parametrize("text", ["80GB", "0.5", "A100:80GB"])
def test_a_flavor_of_a_quota_has_no_size(text):
    with pytest.raises(ValueError, match="not a flavor"):
        quantities.flavor(text)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus": 2, "gpu_memory_bytes": 80 * GB}, "1 CPU, 1 GB, GPU:80GB:2"),
        ({"gpus": 1, "gpu_model": "T4", "gpu_part": 0.25}, "1 CPU, 1 GB, T4:0.25"),
        ({"gpus": 8, "gpu_model": "H100"}, "1 CPU, 1 GB, H100:8"),
    ],
)
def test_it_is_shown_as_it_is_written(asked, words):
    assert show.resources(ResourcesView(cpu=1, memory_bytes=GB, **asked)) == words
