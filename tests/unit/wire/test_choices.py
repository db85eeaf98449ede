"""Choices of resources in the job file: which are equals, which come in order, and what stands beside them."""

from __future__ import annotations

import pytest

from mainstay.api.convert_jobs import job_request
from mainstay.domain.errors import Invalid
from mainstay.wire.job import Job


def choices(**resources: object) -> tuple[list[str], int]:
    """`2 CPUs, 1 x H100` in short, and how many of the first are equals."""
    spec = job_request(Job.model_validate({"run": "true", "resources": resources})).spec
    return [f"{one.cpu_milli // 1000} {one.gpu_model or '-'}:{one.gpus}" for one in spec.choices], spec.equals


@pytest.mark.parametrize(
    ("resources", "asked", "equals"),
    [
        ({"gpu": "H100"}, ["1 H100:1"], 1),
        ({"gpu": "H100:8", "any_of": [{"gpu": "A100:8"}]}, ["1 H100:8", "1 A100:8"], 2),
        ({"gpu": "H100", "ordered": [{"gpu": "A100"}, {"gpu": "L4"}]}, ["1 H100:1", "1 A100:1", "1 L4:1"], 1),
        (
            {"gpu": "H100", "any_of": [{"gpu": "A100"}], "ordered": [{"gpu": "L4", "cpu": 8}]},
            ["1 H100:1", "1 A100:1", "8 L4:1"],
            2,
        ),
        # What names no GPU beside alternatives that do only says what they leave out.
        ({"cpu": 2, "any_of": [{"gpu": "H100"}, {"gpu": "A100"}]}, ["2 H100:1", "2 A100:1"], 2),
        ({"cpu": 2, "ordered": [{"gpu": "H100"}, {"gpu": "A100"}]}, ["2 H100:1", "2 A100:1"], 1),
        ({"any_of": [{"gpu": "H100"}], "ordered": [{"gpu": "L4"}]}, ["1 H100:1", "1 L4:1"], 1),
        ({"cpu": 2, "any_of": [{"gpu": "H100"}], "ordered": [{"gpu": "0"}]}, ["2 H100:1", "2 -:0"], 1),
        # Without GPUs on either side it is one of them.
        ({"cpu": 2, "any_of": [{"cpu": 4}]}, ["2 -:0", "4 -:0"], 2),
    ],
)
def test_which_choices_are_equals_and_which_come_in_order(resources, asked, equals):
    assert choices(**resources) == (asked, equals)


def test_what_cannot_be_read_in_a_choice_is_refused_by_its_name():
    with pytest.raises((Invalid, ValueError), match=r"any_of\.0\.gpu|any_of.0.gpu"):
        choices(any_of=[{"gpu": "-3"}])
