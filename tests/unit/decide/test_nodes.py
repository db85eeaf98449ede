"""Nodes that are kept out: what moves away from one that is drained and in which order, marks, suspicions, and their end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mainstay.decide.keeping import QUARANTINE_SECONDS, marks, suspicions
from mainstay.decide.lifecycle import lifecycle
from mainstay.decide.nodes import tend, words_of
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import End, Seen, Wanted
from mainstay.domain.capacity import Closure, Keeping, NodeState
from mainstay.domain.plan import Advance, Allocate, RedeployEndpoint, ReleaseNode, RowVersion, StopPod
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Kind, Phase, PodRef, WorkloadSpec
from tests.unit.decide.test_delivery import endpoint
from tests.unit.decide.test_reconcile import wanted
from tests.worlds import NOON, SECOND, allocation, ended, node, workload, world

GUEST = 2
SERVICE = 1
DRAINED = {"closed_at": NOON - 10 * SECOND, "drains": True}


def running(key: int = 1, **values):
    return workload(key, phase=Phase.RUNNING, **values)


def up(key: int = 1, **values):
    return allocation(key, **{"started_at": NOON - 60 * SECOND, **values})


def stopped(snapshot) -> list[tuple[int, bool]]:
    actions = tend(snapshot)
    assert all(isinstance(action, StopPod) for action in actions)
    return [(action.allocation_key, action.moves) for action in actions]


def test_what_runs_on_a_drained_node_is_stopped_to_be_moved_and_nothing_else():
    nodes = [node("a", **DRAINED), node("b"), node("c", closed_at=NOON)]
    pods = [up(1, node_key=1), up(2, node_key=2), up(3, node_key=3)]
    snapshot = world(nodes=nodes, workloads=[running(key) for key in (1, 2, 3)], allocations=pods)
    (action,) = tend(snapshot)
    assert isinstance(action, StopPod)
    assert (action.allocation_key, action.moves) == (1, True)
    assert action.reason == Reason(code=Code.MOVED, object="a")
    assert action.guards == (
        RowVersion(kind="workload", key=1, version=1),
        RowVersion(kind="allocation", key=1, version=1),
    )


def test_gangs_move_whole():
    nodes = [node("a", **DRAINED), node("b")]
    pods = [up(rank=0, node_key=1), up(rank=1, node_key=2), up(rank=2, node_key=2)]
    snapshot = world(nodes=nodes, workloads=[running(nodes=3)], allocations=pods)
    assert stopped(snapshot) == [(1, True), (2, True), (3, True)]


def test_who_is_stopped_already_is_left_alone():
    pods = [up(1, stop=True), up(2), ended(3)]
    workloads = [running(1), running(2, stop_requested=True), running(3)]
    assert tend(world(nodes=[node("a", **DRAINED)], workloads=workloads, allocations=pods)) == ()


def test_one_that_was_placed_and_not_started_moves_too_and_so_does_one_whose_node_is_silent():
    pods = [allocation(1, seen=Seen.NOTHING), up(2, seen=Seen.UNKNOWN)]
    snapshot = world(nodes=[node("a", **DRAINED)], workloads=[running(1), running(2)], allocations=pods)
    assert stopped(snapshot) == [(1, True), (2, True)]


@pytest.mark.parametrize(
    ("max_duration", "wait", "since_start", "left"),
    [
        (100, 0, 60, False),
        (100, 60, 60, True),
        (100, 20, 60, False),
        (0, 3_600, 60, False),
        (3_600, 3_000, 60, False),
        (100, 60, 0, False),
    ],
)
def test_what_reaches_its_own_end_within_the_wait_is_left_to_it(max_duration, wait, since_start, left):
    started = NOON - since_start * SECOND if since_start else 0
    snapshot = world(
        nodes=[node("a", **DRAINED, wait_seconds=wait)],
        workloads=[running(max_duration_seconds=max_duration)],
        allocations=[allocation(1, started_at=started)],
    )
    assert (tend(snapshot) == ()) is left


def test_a_wait_is_never_longer_than_it_was_said_to_be_whatever_happens_to_the_end():
    nodes = [node("a", closed_at=NOON - 61 * SECOND, drains=True, wait_seconds=60)]
    snapshot = world(nodes=nodes, workloads=[running(max_duration_seconds=10)], allocations=[up()])
    assert stopped(snapshot) == [(1, True)]


def test_guests_leave_one_by_one_and_those_that_wait_for_their_binding_are_let_go_of_by_themselves():
    nodes = [node("a", **DRAINED), node("b")]
    pods = [up(rank=0), up(rank=1, node_key=2), allocation(1, rank=2, seen=Seen.NOTHING)]
    snapshot = world(nodes=nodes, workloads=[running(kind=GUEST, nodes=3)], allocations=pods)
    assert stopped(snapshot) == [(1, True)]


class TestEndpoints:
    """What serves comes up elsewhere first."""

    @staticmethod
    def drained(*, room: bool = True, candidate: Phase | None = None, updated_at: int = 0):
        serving = running(1, kind=SERVICE, retry_always=True)
        others = [] if candidate is None else [workload(2, kind=SERVICE, phase=candidate)]
        row = endpoint(serving="digits-1", serving_key=1, serving_version=3, address="h:1", updated_at=updated_at)
        if candidate is not None:
            row = replace(row, candidate="digits-2", candidate_key=2, candidate_version=3)
        return world(
            nodes=[node("a", **DRAINED), *([node("b")] if room else [])],
            workloads=[serving, *others],
            allocations=[up(ready=True, address="h:1")],
            endpoints=(row,),
            owners={1: ("acme", "vision", "digits-aaaaaaaa")},
        )

    def test_a_copy_of_it_becomes_the_candidate(self):
        (action,) = tend(self.drained())
        assert isinstance(action, RedeployEndpoint)
        assert action.guards == (RowVersion(kind="endpoint", key="digits", tenant="acme", version=5),)
        assert (action.endpoint, action.workload.rpartition("-")[0]) == ("digits", "digits")
        assert action.workload != "digits-aaaaaaaa"
        assert tend(self.drained()) == (action,)
        assert (action.reason.object, action.reason.code) == ("a", Code.ENDPOINT_MOVES)

    @pytest.mark.parametrize("phase", [Phase.PENDING, Phase.STARTING, Phase.RUNNING])
    def test_the_old_one_stays_while_the_new_one_starts(self, phase):
        assert tend(self.drained(candidate=phase)) == ()

    def test_without_room_for_both_it_just_moves(self):
        assert stopped(self.drained(room=False)) == [(1, True)]
        assert stopped(self.drained(candidate=Phase.QUEUED)) == [(1, True)]

    def test_a_copy_that_failed_is_not_tried_again_in_the_same_drain(self):
        assert stopped(self.drained(updated_at=NOON)) == [(1, True)]


def test_what_was_moved_waits_at_once_with_its_age_and_without_a_failure():
    pods = [
        ended(1, End.STOPPED, None, stop=True, moves=True),
        ended(1, End.STOPPED, None, rank=1, stop=True, moves=True),
    ]
    snapshot = world(nodes=[node()], workloads=[running(nodes=2, infrastructure_failures=1)], allocations=pods)
    (action,) = lifecycle(snapshot)
    assert isinstance(action, Advance)
    assert (action.phase, action.attempt, action.not_before) == (Phase.PENDING, 2, 0)
    assert (action.infrastructure_failures, action.user_failures) == (1, 0)
    assert action.reason.code is Code.WAITS_AFTER_MOVE


def test_what_failed_by_itself_before_it_was_moved_has_failed():
    pods = [ended(1, exit_code=3), ended(1, End.STOPPED, None, rank=1, stop=True, moves=True)]
    (action,) = lifecycle(world(nodes=[node()], workloads=[running(nodes=2)], allocations=pods))
    assert (action.phase, action.reason.code) == (Phase.FAILED, Code.USER_FAILURE)


def test_what_ended_well_although_it_was_to_move_has_succeeded():
    (action,) = lifecycle(world(workloads=[running()], allocations=[ended(1, stop=True, moves=True)]))
    assert action.phase is Phase.SUCCEEDED


def test_what_a_user_stopped_is_stopped_also_while_it_moves():
    pods = [ended(1, End.STOPPED, None, stop=True, moves=True)]
    (action,) = lifecycle(world(workloads=[running(stop_requested=True)], allocations=pods))
    assert action.phase is Phase.STOPPED


def test_a_guest_that_was_evicted_is_over_with_the_reason():
    pods = [ended(1, End.STOPPED, None, stop=True, moves=True)]
    (action,) = lifecycle(world(workloads=[running(kind=GUEST)], allocations=pods))
    assert (action.phase, action.reason.code) == (Phase.STOPPED, Code.EVICTED)


def test_nothing_is_placed_on_a_node_that_is_kept_out_and_what_waits_hears_which():
    closed = node("a", closed_at=NOON, why="cordoned by ada: new disks")
    (action,) = schedule(world(nodes=[closed], workloads=[workload(1)]))
    assert not isinstance(action, Allocate)
    assert action.reason.code is Code.WAITS_FOR_NODE
    assert action.reason.sentence == "waits for node a: cordoned by ada: new disks"


def test_what_fits_on_no_node_that_is_kept_out_waits_for_capacity_as_ever():
    nodes = [node("a", cpus=2, closed_at=NOON, why="cordoned"), node("b", cpus=8, used_cpus=8)]
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, cpus=4)]))
    assert action.reason.code is Code.WAITS_FOR_CAPACITY


def test_what_waits_for_others_to_end_is_not_told_of_a_node_that_is_kept_out():
    """The open node will hold it; that the closed one would hold it too is nobody's reason to wait."""
    nodes = [node("a", closed_at=NOON, why="cordoned"), node("b", cpus=4, used_cpus=4)]
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, cpus=4)]))
    assert action.reason.code is Code.WAITS_FOR_CAPACITY


def test_a_guest_whose_nodes_are_kept_out_hears_that_and_not_that_it_can_never_run():
    nodes = [node("a", cpus=32, closed_at=NOON, why="cordoned by ada"), node("b", cpus=2, admits=("guest",))]
    snapshot = world(nodes=nodes, workloads=[workload(1, cpus=20, restriction="guest")])
    met = {"guest": np.ones(2, dtype=np.bool_)}
    (action,) = schedule(replace(snapshot, nodes=replace(snapshot.nodes, meets=met)))
    assert action.reason.sentence == "waits for node a: cordoned by ada"


def test_a_quarantine_whose_time_is_over_ends_and_no_other_does():
    nodes = [
        node("over", closed_at=NOON - 9 * SECOND, closed_until=NOON),
        node("not-yet", closed_at=NOON - 9 * SECOND, closed_until=NOON + 1),
        node("by-hand", closed_at=NOON - 9 * SECOND),
        node("open", closed_until=NOON - 1),
    ]
    (action,) = tend(world(nodes=nodes))
    assert isinstance(action, ReleaseNode)
    assert (action.cluster, action.node, action.since) == ("local", "over", NOON - 9 * SECOND)


CLOSURE = Closure(
    keeping=Keeping.CORDONED,
    reason=Reason(code=Code.NODE_CORDONED, object="n", numbers={"by": "ada", "detail": "disks"}),
    since=NOON,
)


def seen(**values) -> NodeState:
    return NodeState(**{"name": "n", "capacity": Resources(), "ready": True, "marked": False, **values})


def test_other_schedulers_are_told_once_of_what_is_kept_out_and_of_what_is_not_any_more():
    (mark,) = marks([seen()], {"n": CLOSURE}, now=NOON)
    assert (mark.name, mark.closed, mark.words) == ("n", True, "cordoned: cordoned by ada: disks")
    assert list(marks([seen(marked=True)], {"n": CLOSURE}, now=NOON)) == []
    (mark,) = marks([seen(marked=True)], {}, now=NOON)
    assert not mark.closed
    assert list(marks([seen()], {}, now=NOON)) == []


def test_a_mark_that_somebody_undid_is_set_again_and_a_cordon_of_others_is_let_be():
    (mark,) = marks([seen(marked=True, mark_undone=True)], {"n": CLOSURE}, now=NOON)
    assert mark.closed
    assert list(marks([seen(cordoned=True)], {"n": CLOSURE}, now=NOON)) == []
    assert list(marks([seen(cordoned=True)], {}, now=NOON)) == []
    assert list(marks([seen(marked=None)], {"n": CLOSURE}, now=NOON)) == []


def test_a_node_that_refuses_pods_is_suspected_once_for_each_time_that_it_does_so_anew():
    refusing = seen(refusal="no device", refused_at=NOON - 5)
    (action,) = suspicions("east", [refusing], {}, {}, now=NOON)
    assert (action.node, action.until, action.refused_at) == ("n", NOON + QUARANTINE_SECONDS * SECOND, NOON - 5)
    assert action.reason.sentence == "quarantined for 600 s: no device"
    assert list(suspicions("east", [refusing], {"n": CLOSURE}, {}, now=NOON)) == []
    assert list(suspicions("east", [refusing], {}, {"n": NOON - 5}, now=NOON)) == []
    assert len(list(suspicions("east", [refusing], {}, {"n": NOON - 6}, now=NOON))) == 1
    assert list(suspicions("east", [seen()], {}, {}, now=NOON)) == []


@pytest.mark.parametrize(
    ("spec", "values", "words"),
    [
        ({}, {}, "is about to be stopped"),
        ({}, {"stop": True}, "has up to 30 s to end"),
        ({"guests": (PodRef(namespace="a", name="b", uid="u"),)}, {"stop": True, "detail": "a budget protects it"},
         "is being evicted: a budget protects it"),
        ({"max_duration_seconds": 50}, {}, "is left to its end, which comes 50 s after its start at the latest"),
        ({"max_duration_seconds": 5_000}, {}, "is about to be stopped"),
        ({}, {"seen": Seen.UNKNOWN}, "is not known to have ended"),
    ],
)  # fmt: skip
def test_what_becomes_of_each_pod_is_said_in_words(spec, values, words):
    what = WorkloadSpec(kind=Kind.JOB, name="w", run=("x",), choices=(Resources(),), **spec)
    given = {"seen": Seen.RUNNING, "started_at": NOON - 10 * SECOND, **values}
    row = Wanted(allocation=replace(wanted().allocation, **given), spec=what)
    closure = replace(CLOSURE, drains=True, wait_seconds=60)
    assert words_of(row, closure, serves=False) == words
    assert words_of(row, CLOSURE, serves=False) == words_of(row, None, serves=False) == ""
