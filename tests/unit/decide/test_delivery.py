"""Endpoints: a switch only to what is healthy, and an address that follows its pod."""

from __future__ import annotations

import pytest

from mainstay.decide.delivery import deliver
from mainstay.domain.allocation import Seen
from mainstay.domain.plan import DropCandidate, MoveEndpoint, RowVersion, SwitchEndpoint
from mainstay.domain.registry import Endpoint
from mainstay.domain.workload import Phase
from tests.worlds import AnAllocation, allocation, workload, world

OLD, NEW = 1, 2


def endpoint(**values) -> Endpoint:
    given = {
        "name": "digits", "tenant": "acme", "project": "vision", "model": "digits", "serving_version": 0,
        "serving": "", "serving_key": 0, "candidate_version": 0, "candidate": "", "candidate_key": 0, "address": "",
        "removed": False, "updated_at": 0, "version": 5, **values,
    }  # fmt: skip
    return Endpoint(**given)


def candidate(**values) -> Endpoint:
    return endpoint(candidate="w-2", candidate_key=NEW, candidate_version=2, **values)


def serving(address: str, **values) -> Endpoint:
    return endpoint(serving="w-1", serving_key=OLD, serving_version=1, address=address, **values)


def steps(one: Endpoint, *pods: AnAllocation, failures: int = 0, gone: bool = False, stopped: bool = False):
    jobs = [workload(OLD, phase=Phase.RUNNING)]
    if not gone:
        jobs.append(workload(NEW, phase=Phase.RUNNING, user_failures=failures, stop_requested=stopped))
    return deliver(world(workloads=jobs, allocations=pods, endpoints=(one,)))


def test_a_healthy_candidate_takes_over():
    (step,) = steps(candidate(), allocation(NEW, ready=True, address="h:2", version=8))
    assert isinstance(step, SwitchEndpoint)
    assert step.guards == (
        RowVersion(kind="endpoint", key="digits", tenant="acme", version=5),
        RowVersion(kind="allocation", key=1, version=8),
    )


@pytest.mark.parametrize(
    "pod",
    [
        allocation(NEW, ready=False),
        allocation(NEW, ready=True, stop=True),
        allocation(NEW, ready=True, seen=Seen.UNKNOWN),
        allocation(NEW, ready=True, seen=Seen.ENDED),
        allocation(OLD, ready=True),
    ],
)
def test_a_candidate_that_is_not_healthy_changes_nothing(pod):
    assert steps(candidate(), pod) == ()


def test_a_candidate_that_is_gone_is_dropped():
    (step,) = steps(candidate(), gone=True)
    assert isinstance(step, DropCandidate)
    assert "its workload has ended" in step.reason.sentence


def test_a_candidate_that_was_told_to_stop_never_takes_over():
    (step,) = steps(candidate(), allocation(NEW, ready=True, address="h:2"), stopped=True)
    assert isinstance(step, DropCandidate)
    assert "it was stopped" in step.reason.sentence


def test_a_candidate_that_fails_again_and_again_is_dropped():
    assert steps(candidate(), failures=2) == ()
    (step,) = steps(candidate(), failures=3)
    assert isinstance(step, DropCandidate)


def test_the_endpoint_follows_what_serves_to_its_new_address():
    (step,) = steps(serving("h:1"), allocation(OLD, ready=True, address="h:9"))
    assert isinstance(step, MoveEndpoint)
    assert step.address == "h:9"


def test_an_endpoint_whose_pod_is_gone_has_no_address():
    (step,) = steps(serving("h:1"))
    assert step.address == ""
    assert steps(serving("")) == ()


@pytest.mark.parametrize("seen", [Seen.RUNNING, Seen.UNKNOWN])
def test_a_pod_that_blinks_keeps_its_address(seen):
    assert steps(serving("h:1"), allocation(OLD, seen=seen, ready=False, address="h:1")) == ()


def test_what_serves_stays_while_a_candidate_starts():
    both = serving("h:1", candidate="w-2", candidate_key=NEW, candidate_version=2)
    pods = (allocation(OLD, ready=True, address="h:1"), allocation(NEW, ready=False, address="h:2"))
    assert steps(both, *pods) == ()


def test_a_removed_endpoint_is_left_alone():
    assert steps(candidate(removed=True), allocation(NEW, ready=True, address="h:2")) == ()


def test_an_endpoint_never_takes_two_steps_at_once():
    moving = serving("h:0", candidate="w-2", candidate_key=NEW, candidate_version=2)
    pods = (allocation(OLD, ready=True, address="h:1"), allocation(NEW, ready=True, address="h:2"))
    assert [type(step) for step in steps(moving, *pods)] == [SwitchEndpoint]
