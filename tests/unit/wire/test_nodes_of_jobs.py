"""Policies for partitions and slices of GPUs in the job file."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mainstay.api.convert_jobs import job_request
from mainstay.domain.workload import OnPartition
from mainstay.wire import quantities
from mainstay.wire.job import Job


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, (OnPartition.WAIT, 0)),
        ({"on_partition": "wait"}, (OnPartition.WAIT, 0)),
        ({"on_partition": {"requeue_after": "10m"}}, (OnPartition.REQUEUE_AFTER, 600)),
        ({"on_partition": {"allow_duplicates": "90s"}}, (OnPartition.ALLOW_DUPLICATES, 90)),
    ],
)
def test_what_is_done_for_a_node_that_is_not_heard_of_is_for_the_job_to_say(given, policy):
    spec = job_request(Job.model_validate({"run": "true", **given})).spec
    assert (spec.on_partition, spec.partition_seconds) == policy


@pytest.mark.parametrize(
    "given",
    [
        "hope",
        {"requeue_after": "5s"},
        {"requeue_after": "10m", "allow_duplicates": "10m"},
        {"after": "10m"},
        {"allow_duplicates": "0s"},
        7,
    ],
)
def test_a_policy_that_is_none_is_refused(given):
    with pytest.raises(ValidationError, match="on_partition"):
        Job.model_validate({"run": "true", "on_partition": given})


@pytest.mark.parametrize(
    ("text", "model", "count"),
    [
        ("1g.10gb", "1g.10gb", 1),
        ("1g.10gb:7", "1g.10gb", 7),
        ("1g.10gb+me:1", "1g.10gb.me", 1),
        ("t4.shared:2", "T4.shared", 2),
        ("1g.10gb.shared:2", "1g.10gb.shared", 2),
        ("h100:8", "H100", 8),
        ("8", "", 8),
        ("amd.com/gpu", "amd.com/gpu", 1),
        ("aws.amazon.com/neuroncore:16", "aws.amazon.com/neuroncore", 16),
        ("huawei.com/Ascend910:8", "huawei.com/Ascend910", 8),
    ],
)
def test_slices_of_gpus_are_written_by_shape(text, model, count):
    found = quantities.gpu(text)
    assert (found.model, found.count) == (model, count)


@pytest.mark.parametrize(
    "text",
    [
        "1g.10gb:",
        "1g.10",
        "g.10gb",
        "1g..10gb",
        "T4.half",
        "T4.shared.shared",
        "../1g.10gb",
        "amd/gpu",
        "/gpu",
        "amd.com/",
        "AMD.com/gpu",
        "a..b/c",
    ],
)
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ValueError, match=r"such as 1g\.10gb:2"):
        quantities.gpu(text)
