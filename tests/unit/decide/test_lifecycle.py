"""What the pods make of a workload: every case that we know, and that no case is left without an answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide import attempt
from mainstay.decide.lifecycle import _next_step, lifecycle
from mainstay.decide.retry import backoff_us
from mainstay.domain.allocation import End, Seen
from mainstay.domain.plan import Advance, RowVersion, Shrink, StopPod
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import ACTIVE, LEGAL_TRANSITIONS, WAITING, Phase
from tests.worlds import NOON, SECOND, AnAllocation, allocation, ended, workload, world


def running(**values):
    return workload(1, phase=Phase.RUNNING, **values)


def up(rank: int = 0, **values) -> AnAllocation:
    return allocation(1, rank=rank, **{"started_at": NOON - 60 * SECOND, **values})


def stopped_by_us(rank: int, **values) -> AnAllocation:
    return ended(1, End.STOPPED, None, rank=rank, stop=True, **values)


def only_advance(snapshot: Snapshot) -> Advance:
    (action,) = lifecycle(snapshot)
    assert isinstance(action, Advance)
    return action


def stopped_pods(snapshot: Snapshot) -> list[int]:
    actions = lifecycle(snapshot)
    assert all(isinstance(action, StopPod) for action in actions)
    return [action.allocation_key for action in actions]


@pytest.mark.parametrize(
    ("before", "seen", "after"),
    [
        (Phase.STARTING, [Seen.NOTHING], None),
        (Phase.STARTING, [Seen.PULLING], Phase.PULLING),
        (Phase.PULLING, [Seen.STARTING], Phase.STARTING),
        (Phase.STARTING, [Seen.RUNNING], Phase.RUNNING),
        (Phase.STARTING, [Seen.RUNNING, Seen.PULLING], Phase.PULLING),
        (Phase.PULLING, [Seen.RUNNING, Seen.NOTHING], Phase.STARTING),
        (Phase.RUNNING, [Seen.RUNNING, Seen.RUNNING], None),
        (Phase.RUNNING, [Seen.RUNNING, Seen.UNKNOWN], Phase.UNKNOWN),
        (Phase.UNKNOWN, [Seen.RUNNING, Seen.RUNNING], Phase.RUNNING),
    ],
)
def test_the_phase_is_that_of_the_least_advanced_rank(before, seen, after):
    pods = [allocation(1, rank=rank, seen=state) for rank, state in enumerate(seen)]
    actions = lifecycle(world(workloads=[workload(1, phase=before)], allocations=pods))
    assert [action.phase for action in actions] == ([] if after is None else [after])


def test_a_rank_that_has_ended_well_does_not_hold_the_phase_back():
    assert lifecycle(world(workloads=[running()], allocations=[up(0), ended(1, rank=1)])) == ()


def test_all_ranks_with_exit_code_0_are_a_success():
    step = only_advance(world(workloads=[running()], allocations=[ended(1), ended(1, rank=1)]))
    assert (step.phase, step.reason.code) == (Phase.SUCCEEDED, Code.COMPLETED)


@pytest.mark.parametrize(
    ("end", "exit_code", "code"),
    [
        (End.EXITED, 3, Code.USER_FAILURE),
        (End.EXITED, None, Code.USER_FAILURE),
        (End.OUT_OF_MEMORY, None, Code.OUT_OF_MEMORY),
        (End.START_FAILED, None, Code.START_FAILED),
    ],
)
def test_a_failure_of_the_user_is_final_by_default_and_says_what_it_was(end, exit_code, code):
    step = only_advance(world(workloads=[running()], allocations=[ended(1, end, exit_code)]))
    assert (step.phase, step.reason.code, step.user_failures) == (Phase.FAILED, code, 1)


@pytest.mark.parametrize("end", [End.LOST, End.MACHINE_RESTARTED, End.NEVER_STARTED, End.STOPPED])
def test_what_the_infrastructure_ended_is_tried_again(end):
    step = only_advance(world(workloads=[running()], allocations=[ended(1, end)]))
    assert (step.phase, step.attempt, step.infrastructure_failures) == (Phase.PENDING, 2, 1)
    assert NOON + 5 * SECOND <= step.not_before <= NOON + 10 * SECOND
    assert step.reason.code is Code.BACKING_OFF


def test_an_exhausted_budget_ends_it_and_names_the_last_failure():
    step = only_advance(
        world(workloads=[running(infrastructure_failures=3, attempt=4)], allocations=[ended(1, End.LOST, attempt=4)])
    )
    assert (step.phase, step.reason.code, step.attempt) == (Phase.FAILED, Code.RETRIES_EXHAUSTED, 4)
    assert step.reason.sentence.startswith("gave up after 4 attempts; the last: rank 0 was lost")


def test_a_budget_for_failures_of_the_user_is_its_own():
    snapshot = world(workloads=[running(user_max=1, infrastructure_failures=3)], allocations=[ended(1, exit_code=1)])
    assert only_advance(snapshot).phase is Phase.PENDING
    snapshot = world(workloads=[running(user_max=1, user_failures=1)], allocations=[ended(1, exit_code=1)])
    assert only_advance(snapshot).reason.code is Code.RETRIES_EXHAUSTED


def test_a_failed_rank_stops_its_gang():
    pods = [up(0), ended(1, exit_code=1, rank=1), up(2), up(3, stop=True)]
    snapshot = world(workloads=[running()], allocations=pods)
    assert stopped_pods(snapshot) == [1, 3]
    assert {action.reason.code for action in lifecycle(snapshot)} == {Code.GANG_MEMBER_ENDED}


def test_a_gang_that_is_being_stopped_is_waited_for():
    assert lifecycle(world(workloads=[running()], allocations=[up(0, stop=True), ended(1, exit_code=1, rank=1)])) == ()


def test_the_first_cause_in_time_decides_and_what_we_stopped_is_none():
    pods = [
        ended(1, exit_code=1, rank=0, ended_at=NOON - 2 * SECOND),
        ended(1, End.LOST, rank=1, ended_at=NOON - 3 * SECOND),
        stopped_by_us(2, ended_at=NOON - 4 * SECOND),
    ]
    step = only_advance(world(workloads=[running()], allocations=pods))
    assert (step.phase, step.infrastructure_failures, step.user_failures) == (Phase.PENDING, 1, 0)


def test_a_rank_that_dies_of_our_stop_does_not_turn_the_cause_into_the_users():
    pods = [ended(1, End.LOST, rank=0), ended(1, exit_code=143, rank=1, stop=True, ended_at=NOON - 9 * SECOND)]
    assert only_advance(world(workloads=[running()], allocations=pods)).infrastructure_failures == 1


@pytest.mark.parametrize("phase", WAITING)
def test_a_stop_ends_what_waits_at_once(phase):
    step = only_advance(world(workloads=[workload(1, phase=phase, stop_requested=True)]))
    assert (step.phase, step.reason.code) == (Phase.STOPPED, Code.STOPPED)


def test_a_stop_stops_every_pod_that_lives_and_then_ends():
    asked = running(stop_requested=True)
    assert stopped_pods(world(workloads=[asked], allocations=[up(0), up(1), ended(1, rank=2)])) == [1, 2]
    assert lifecycle(world(workloads=[asked], allocations=[up(0, stop=True)])) == ()
    assert only_advance(world(workloads=[asked], allocations=[stopped_by_us(0)])).phase is Phase.STOPPED


def test_a_pod_that_is_unknown_is_stopped_too_and_waited_for():
    asked = replace(running(stop_requested=True), phase=Phase.UNKNOWN)
    assert stopped_pods(world(workloads=[asked], allocations=[up(0, seen=Seen.UNKNOWN)])) == [1]
    assert lifecycle(world(workloads=[asked], allocations=[up(0, seen=Seen.UNKNOWN, stop=True)])) == ()


def test_a_job_that_had_succeeded_before_its_stop_arrived_has_succeeded():
    assert (
        only_advance(world(workloads=[running(stop_requested=True)], allocations=[ended(1)])).phase is Phase.SUCCEEDED
    )


def test_a_stop_wins_over_a_failure():
    asked = running(stop_requested=True)
    assert only_advance(world(workloads=[asked], allocations=[ended(1, End.LOST)])).phase is Phase.STOPPED


def test_no_clock_of_ours_ends_a_pod_for_its_duration():
    limited = running(max_duration_seconds=60)
    assert lifecycle(world(workloads=[limited], allocations=[up(0, started_at=NOON - 86_400 * SECOND)])) == ()


@pytest.mark.parametrize("always", [False, True])
def test_a_deadline_that_the_cluster_kept_is_final_without_a_retry(always):
    limited = running(max_duration_seconds=60, retry_always=always)
    step = only_advance(world(workloads=[limited], allocations=[ended(1, End.DEADLINE)]))
    assert (step.phase, step.reason.code) == (Phase.FAILED, Code.MAX_DURATION_REACHED)


def test_a_pod_without_a_start_of_its_own_has_no_duration():
    limited = running(max_duration_seconds=60)
    pods = [allocation(1, created_at=0, seen=Seen.STARTING)]
    assert [action.phase for action in lifecycle(world(workloads=[limited], allocations=pods))] == [Phase.STARTING]


@pytest.mark.parametrize("pod", [ended(1), ended(1, exit_code=1), ended(1, End.LOST), ended(1, End.OUT_OF_MEMORY)])
def test_a_service_starts_again_whatever_its_end(pod):
    service = running(retry_always=True, infrastructure_failures=50, user_failures=50)
    step = only_advance(world(workloads=[service], allocations=[pod]))
    assert (step.phase, step.attempt) == (Phase.PENDING, 2)
    assert step.not_before <= NOON + 360 * SECOND


def test_a_service_that_ran_long_enough_counts_its_failures_anew():
    service = running(retry_always=True, user_failures=9)
    pod = ended(1, exit_code=1, started_at=NOON - 3_600 * SECOND)
    assert only_advance(world(workloads=[service], allocations=[pod])).user_failures == 1


def test_a_service_stops_when_asked():
    service = running(retry_always=True, stop_requested=True)
    assert only_advance(world(workloads=[service], allocations=[ended(1)])).phase is Phase.STOPPED


def test_pods_of_an_earlier_attempt_are_history():
    snapshot = world(workloads=[running(attempt=2)], allocations=[ended(1, exit_code=1, attempt=1), up(0, attempt=2)])
    assert lifecycle(snapshot) == ()


def test_pods_whose_rows_are_closed_have_ended():
    assert only_advance(world(workloads=[running()])).phase is Phase.PENDING


def test_an_end_without_a_word_counts_as_lost():
    pod = allocation(1, seen=Seen.ENDED, ended_at=NOON)
    assert only_advance(world(workloads=[running()], allocations=[pod])).infrastructure_failures == 1


def test_an_advance_states_all_that_it_read():
    step = only_advance(world(workloads=[running(version=4)], allocations=[ended(1, version=5), ended(1, rank=1)]))
    assert step.guards == (
        RowVersion(kind="workload", key=1, version=4),
        RowVersion(kind="allocation", key=1, version=5),
        RowVersion(kind="allocation", key=2, version=1),
    )


def test_a_cycle_is_bounded_and_goes_on_with_the_rest():
    jobs = [workload(key, stop_requested=True) for key in range(1, 11)]
    assert [action.workload_key for action in lifecycle(world(workloads=jobs), changes_max=4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 5, 10), (2, 10, 20), (3, 20, 40), (7, 180, 360), (99, 180, 360)]
)
def test_the_back_off_doubles_up_to_its_maximum(failures, least, most):
    waits = [backoff_us(seconds=10, seconds_max=360, failures=failures, draw=draw * 7919) for draw in range(1_000)]
    assert least * SECOND <= min(waits)
    assert max(waits) <= most * SECOND


def test_retries_of_a_herd_spread():
    jobs = [workload(key, phase=Phase.RUNNING) for key in range(1, 101)]
    steps = lifecycle(world(workloads=jobs, allocations=[ended(key, End.LOST) for key in range(1, 101)]))
    assert len({step.not_before for step in steps}) == 100


def pods_of(workload_key: int) -> st.SearchStrategy[AnAllocation]:
    return st.builds(
        allocation,
        st.just(workload_key),
        attempt=st.sampled_from([1, 2]),
        rank=st.integers(0, 3),
        stop=st.booleans(),
        surplus=st.sampled_from([False, False, True]),
        created_at=st.sampled_from([NOON - 3_600 * SECOND, NOON]),
        seen=st.sampled_from(Seen),
        started_at=st.sampled_from([0, NOON - 3_600 * SECOND, NOON - SECOND, NOON + 3_600 * SECOND]),
        ended_at=st.sampled_from([NOON - SECOND, NOON, NOON + SECOND]),
        end=st.sampled_from([None, *End]),
        exit_code=st.sampled_from([None, 0, 1]),
    )


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    jobs = [
        workload(
            key,
            phase=draw(st.sampled_from([*WAITING, *ACTIVE])),
            attempt=draw(st.sampled_from([1, 2])),
            stop_requested=draw(st.booleans()),
            nodes=4,
            nodes_min=draw(st.sampled_from([0, 1, 2])),
            max_duration_seconds=draw(st.sampled_from([0, 60])),
            infrastructure_failures=draw(st.integers(0, 4)),
            user_failures=draw(st.integers(0, 2)),
            user_max=draw(st.integers(0, 1)),
            backoff_seconds=draw(st.integers(0, 20)),
            backoff_seconds_max=draw(st.integers(0, 20)),
            retry_always=draw(st.booleans()),
        )
        for key in (1, 2)
    ]
    pods = draw(st.lists(st.sampled_from([1, 2, 3]).flatmap(pods_of), max_size=6))
    return world(workloads=jobs, allocations=pods, now=NOON, seed=draw(st.integers(0, 5)))


@given(worlds())
def test_every_step_is_legal_and_never_waits_a_negative_time(snapshot):
    phase = {
        int(key): Phase(int(value)) for key, value in zip(snapshot.workloads.key, snapshot.workloads.phase, strict=True)
    }
    for action in lifecycle(snapshot):
        if isinstance(action, Advance):
            assert (phase[action.workload_key], action.phase) in LEGAL_TRANSITIONS
            assert action.phase is not Phase.PENDING or action.not_before >= snapshot.now


@given(worlds())
def test_a_workload_advances_once_or_stops_pods_but_not_both(snapshot):
    owner = dict(zip(snapshot.allocations.key.tolist(), snapshot.allocations.workload_key.tolist(), strict=True))
    advanced = [action.workload_key for action in lifecycle(snapshot) if isinstance(action, Advance)]
    stopped = {owner[action.allocation_key] for action in lifecycle(snapshot) if isinstance(action, StopPod)}
    assert len(advanced) == len(set(advanced))
    assert not stopped & set(advanced)


@given(worlds())
def test_a_new_attempt_starts_only_when_no_pod_of_the_old_one_lives(snapshot):
    table = snapshot.allocations
    for action in lifecycle(snapshot):
        if isinstance(action, Advance) and (action.phase is Phase.PENDING or action.phase.final):
            row = snapshot.workloads.key.tolist().index(action.workload_key)
            current = table.attempt == snapshot.workloads.attempt[row]
            mine = (table.workload_key == action.workload_key) & current
            assert (table.seen[mine] == Seen.ENDED).all()


@given(worlds())
def test_the_columns_overlook_nothing_that_the_rule_would_do(snapshot):
    """The shortcut of `lifecycle` is exact: asking the rule about every workload gives the same actions."""
    table, pods = snapshot.workloads, snapshot.allocations
    expected = []
    for row, key in enumerate(table.key.tolist()):
        run = attempt.run_of(snapshot, row)
        matters = pods.attempt == run.attempt
        if run.phase in WAITING:
            matters |= pods.seen != Seen.ENDED
        rows = [pod for pod in range(pods.key.size) if pods.workload_key[pod] == key and matters[pod]]
        rows.sort(key=lambda pod: int(pods.rank[pod]))
        expected.extend(_next_step(run, [attempt.pod_of(snapshot, pod) for pod in rows], snapshot))
    assert list(lifecycle(snapshot)) == expected


@given(worlds())
def test_an_attempt_goes_on_without_ranks_only_if_its_first_one_and_enough_are_left(snapshot):
    """And by the action alone: nothing else happens to that workload in the same turn."""
    table, pods = snapshot.workloads, snapshot.allocations
    actions = lifecycle(snapshot)
    for action in actions:
        if isinstance(action, Shrink):
            row = table.key.tolist().index(action.workload_key)
            mine = (pods.workload_key == action.workload_key) & (pods.attempt == table.attempt[row]) & ~pods.surplus
            left = mine & ~np.isin(pods.key, action.allocation_keys)
            assert pods.rank[left].min() == 0
            assert left.sum() >= table.nodes_min[row]
            assert not pods.stop[left].any()
            assert not table.stop_requested[row]
            assert sum(getattr(other, "workload_key", 0) == action.workload_key for other in actions) == 1


@given(worlds())
def test_what_gets_no_step_waits_for_something_that_is_named(snapshot):
    """Total: without a step a workload waits for a place, for a report of a live pod, or for a stopped pod to end."""
    table, pods = snapshot.workloads, snapshot.allocations
    owner = dict(zip(pods.key.tolist(), pods.workload_key.tolist(), strict=True))
    stepped = {getattr(a, "workload_key", None) or owner[a.allocation_key] for a in lifecycle(snapshot)}
    for row, key in enumerate(table.key.tolist()):
        if key not in stepped:
            alive = (pods.workload_key == key) & (pods.seen != Seen.ENDED)
            waits_for_a_place = Phase(int(table.phase[row])) in WAITING and not table.stop_requested[row]
            assert waits_for_a_place or alive.any()


GUEST = 2
"""The number of the kind `pod`."""


def moved_by_us(**values):
    return stopped_by_us(0, moves=True, **values)


def test_under_a_spend_cap_an_attempt_that_yields_counts_and_after_the_last_one_it_is_over():
    again = only_advance(world(workloads=[running(attempt=1, attempts_max=2)], allocations=[moved_by_us(attempt=1)]))
    assert (again.phase, again.attempt) == (Phase.PENDING, 2)
    over = only_advance(world(workloads=[running(attempt=2, attempts_max=2)], allocations=[moved_by_us(attempt=2)]))
    assert (over.phase, over.attempt, over.reason.code) == (Phase.FAILED, 2, Code.ATTEMPTS_USED_UP)
    assert over.reason.sentence == (
        "has made 2 attempts, and the spend cap of its token counts no more; the last: its node was drained"
    )


def test_without_a_cap_it_yields_however_often():
    found = only_advance(world(workloads=[running(attempt=70)], allocations=[moved_by_us(attempt=70)]))
    assert (found.phase, found.attempt) == (Phase.PENDING, 71)


def test_failures_after_the_last_attempt_that_is_counted_are_told_as_they_were():
    lost = ended(1, End.LOST, attempt=4)
    over = only_advance(world(workloads=[running(attempt=4, attempts_max=4)], allocations=[lost]))
    assert (over.phase, over.reason.code) == (Phase.FAILED, Code.ATTEMPTS_USED_UP)
    assert over.reason.numbers["last"] == "rank 0 was lost to the infrastructure: lost"


def verdict_of(*pods: AnAllocation, **values) -> Advance:
    return only_advance(world(workloads=[running(kind=GUEST, **values)], allocations=list(pods)))


def test_guests_are_never_made_anew():
    failed = verdict_of(ended(1, exit_code=1), infrastructure_max=3, user_max=3)
    lost = verdict_of(ended(1, End.LOST), infrastructure_max=3, user_max=3)
    assert (failed.phase, failed.reason.code) == (Phase.FAILED, Code.USER_FAILURE)
    assert (lost.phase, lost.reason.code) == (Phase.FAILED, Code.INFRASTRUCTURE_FAILURE)


def test_a_guest_whose_owner_has_deleted_it_is_stopped():
    found = verdict_of(ended(1, End.STOPPED))
    assert (found.phase, found.reason.code) == (Phase.STOPPED, Code.WITHDRAWN)


def test_guests_that_got_no_place_wait_for_another_one_however_often():
    found = verdict_of(ended(1, End.NEVER_STARTED, started_at=0), infrastructure_failures=9)
    assert (found.phase, found.attempt, found.infrastructure_failures) == (Phase.PENDING, 2, 10)
    assert found.not_before > NOON


def test_one_of_a_group_that_got_no_place_does_not_count_where_others_ran():
    found = verdict_of(ended(1), ended(1, End.NEVER_STARTED, rank=1, started_at=0), nodes=2)
    assert found.phase is Phase.SUCCEEDED


def test_guests_of_a_group_that_has_lost_one_run_on():
    snapshot = world(workloads=[running(kind=GUEST, nodes=2)], allocations=[ended(1, exit_code=1), up(rank=1)])
    assert lifecycle(snapshot) == ()


def test_a_guest_whose_stop_was_asked_for_is_stopped():
    found = verdict_of(stopped_by_us(0), stop_requested=True)
    assert (found.phase, found.reason.code) == (Phase.STOPPED, Code.STOPPED)
