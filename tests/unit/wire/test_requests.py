"""What the API takes is what its description says, and nothing that merely looks like it."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from mainstay.wire.job_values import Cpu, Duration, Memory
from mainstay.wire.node_labels import Lines
from mainstay.wire.requests import FlavorRequest, PriorityClassRequest, QueueRequest, SecretRequest


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (QueueRequest, {"weight": "1"}),
        (QueueRequest, {"weight": True}),
        (QueueRequest, {"cohort": 1}),
        (QueueRequest, {"cohort": "yes"}),
        (QueueRequest, {"preemption": {"borrow_priority_max": "5"}}),
        (QueueRequest, {"quotas": [{"resource": "cpu", "nominal": True}]}),
        (PriorityClassRequest, {"priority": "5"}),
        (PriorityClassRequest, {"priority": 5, "preemptible": "no"}),
        (FlavorRequest, {"node_labels": {"k": None}}),
        (FlavorRequest, {"node_labels": {"k": {"a": 1}}}),
        (FlavorRequest, {"node_labels": {"k": ["a", None]}}),
    ],
)
def test_what_has_another_type_than_described_is_refused(request_, body):
    with pytest.raises(ValidationError):
        request_.model_validate(body)


def test_labels_may_be_numbers_and_words_that_yaml_reads_as_something_else():
    found = FlavorRequest.model_validate({"node_labels": {"cores": 16, "spot": True, "zone": ["a", 2]}})
    assert found.node_labels == ["cores=16", "spot=true", "zone in (a, 2)"]


def test_the_value_of_a_secret_comes_as_text():
    assert SecretRequest.model_validate({"value": "aGk="}).value == b"hi"


@pytest.mark.parametrize(("value", "kinds"), [(Cpu, 2), (Memory, 2), (Duration, 2), (Lines, 3)])
def test_the_description_names_each_type_that_is_taken(value, kinds):
    assert len(TypeAdapter(value).json_schema()["anyOf"]) == kinds
