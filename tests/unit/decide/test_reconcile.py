"""Wanted against seen: each case that we know, and what must hold for whatever a cluster reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.reconcile import (
    MISSING_GRACE_SECONDS,
    ORPHAN_GRACE_SECONDS,
    WORDS_SECONDS,
    Calm,
    Reconciliation,
    output_awaited,
    reconcile,
)
from mainstay.domain.allocation import (
    Allocation,
    CreatePod,
    DeletePod,
    End,
    ForgetPod,
    Owner,
    PodState,
    Rows,
    Seen,
    Wanted,
)
from mainstay.domain.capacity import ClusterState, NodeState
from mainstay.domain.plan import Action, ClosePod, ObserveNodes, ObservePod, RowVersion
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import Kind, WorkloadSpec
from tests.worlds import NOON, SECOND

START = NOON - 60 * SECOND
OWNER = Owner(tenant="t", project="p")
SPEC = WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(Resources(),), stop_grace_seconds=7)


def wanted(name: str = "w", *, settled: bool = False, **values) -> Wanted:
    row = {
        "key": 1, "workload_key": 1, "workload": name, "tenant": "t", "project": "p", "attempt": 1,
        "rank": 0, "ranks": 1, "node": "n", "cluster": "c",
        "resources": Resources(), "stop": False, "seen": Seen.NOTHING, "ready": False, "address": "",
        "created_at": START, "started_at": 0, "ended_at": 0, "metered_until": 0, "end": None, "exit_code": None,
        "detail": "", "closed": False, "version": 1, **values,
    }  # fmt: skip
    return Wanted(allocation=Allocation(**row), spec=SPEC, settled=settled)


def running(**values) -> Wanted:
    return wanted(**{"seen": Seen.RUNNING, "started_at": START, **values})


def over(**values) -> Wanted:
    return running(**{"seen": Seen.ENDED, "ended_at": NOON, "end": End.EXITED, "exit_code": 0, **values})


def pod(seen: Seen, name: str = "w-1-0", **values) -> PodState:
    return PodState(name=name, node="n", seen=seen, **values)


def compare(
    rows: Sequence[Wanted] | Mapping[str, Wanted],
    pods: Sequence[PodState],
    *,
    now: int = NOON,
    tick: int = NOON,
    since: Mapping[str, int] | None = None,
    told_at: Mapping[str, int] | None = None,
    before: Reconciliation | None = None,
    calm: Calm | None = None,
) -> Reconciliation:
    """`before`: the last round, of which all but `calm` is taken over."""
    return reconcile(
        "c",
        rows if isinstance(rows, Mapping) else Rows.of(rows).ours,
        ClusterState(nodes=(), pods=tuple(pods)),
        now=now,
        tick=tick,
        unmatched_since=(before.unmatched if before else since) or {},
        told_at=(before.told if before else told_at) or {},
        unheard_since=before.unheard if before else {},
        calm=calm or Calm(),
    )


def told(found: Reconciliation) -> list[Action]:
    """The observations, without that of the nodes."""
    return [action for action in found.observations if not isinstance(action, ObserveNodes)]


def test_nodes_are_always_reported():
    nodes = (NodeState(name="n", capacity=Resources(cpu_milli=1), ready=True),)
    found = reconcile("c", {}, ClusterState(nodes=nodes, pods=()), now=NOON, tick=0, unmatched_since={})
    (action,) = found.observations
    assert (action.cluster, action.nodes) == ("c", nodes)


def test_what_was_made_and_is_gone_before_it_was_seen_is_missing_and_not_made_again():
    def looked(since: Mapping[str, int], tick: int) -> Reconciliation:
        nothing = ClusterState(nodes=(), pods=())
        return reconcile(
            "c",
            Rows.of([wanted()]).ours,
            nothing,
            now=NOON,
            tick=tick,
            unmatched_since=since,
            made=frozenset({"w-1-0"}),
        )

    first = looked({}, 0)
    assert (told(first), first.effects, first.unmatched) == ([], (), {"w-1-0": 0})
    (action,) = told(looked(first.unmatched, MISSING_GRACE_SECONDS * SECOND))
    assert (action.state.seen, action.state.node) == (Seen.UNKNOWN, "n")


def test_what_is_wanted_and_was_never_seen_is_created():
    found = compare([wanted()], [])
    (create,) = found.effects
    assert isinstance(create, CreatePod)
    assert (create.name, create.node, create.spec.argv) == ("w-1-0", "n", ("true",))
    assert told(found) == []


@pytest.mark.parametrize("seen", [Seen.PULLING, Seen.STARTING, Seen.RUNNING])
def test_what_goes_missing_is_first_only_unknown(seen):
    found = compare([wanted(seen=seen)], [])
    (action,) = told(found)
    assert action.state.seen is Seen.UNKNOWN
    assert found.effects == ()


def test_what_stays_missing_has_its_name_closed_and_no_end_is_made_up():
    row = running(seen=Seen.UNKNOWN)
    early = compare([row], [], since={"w-1-0": NOON - MISSING_GRACE_SECONDS * SECOND + 1})
    late = compare([row], [], since={"w-1-0": NOON - MISSING_GRACE_SECONDS * SECOND})
    assert early.effects == ()
    assert late.effects == (DeletePod(name="w-1-0", grace_seconds=7, owner=OWNER, node="n"),)
    assert told(late) == []


def test_the_tombstone_of_a_lost_pod_is_the_proof_of_its_death():
    report = pod(Seen.ENDED, end=End.LOST, forgotten=True)
    (action,) = told(compare([running(seen=Seen.UNKNOWN)], [report]))
    assert (action.state.seen, action.state.end) == (Seen.ENDED, End.LOST)
    assert (action.state.started_at, action.state.ended_at) == (START, NOON)


@pytest.mark.parametrize("reported", [(), (pod(Seen.RUNNING, started_at=START),), (pod(Seen.PULLING),)])
def test_what_is_no_longer_wanted_is_deleted_whether_it_is_there_or_not(reported):
    found = compare([wanted(stop=True)], reported)
    assert found.effects == (DeletePod(name="w-1-0", grace_seconds=7, owner=OWNER),)


@pytest.mark.parametrize("reported", [pod(Seen.RUNNING, started_at=START), pod(Seen.UNKNOWN)])
def test_what_lives_although_its_end_is_on_record_is_ended_again(reported):
    found = compare([over()], [reported])
    assert found.effects == (DeletePod(name="w-1-0", grace_seconds=7, owner=OWNER, node="n"),)
    assert told(found) == []


def test_a_change_is_recorded_with_what_it_was_read_from():
    (action,) = told(compare([wanted(version=4)], [pod(Seen.RUNNING, started_at=START)]))
    assert action.guards == (RowVersion(kind="allocation", key=1, version=4),)
    assert action.state == pod(Seen.RUNNING, started_at=START)


@pytest.mark.parametrize("change", [{"ready": True}, {"address": "10.0.0.1:80"}])
def test_readiness_and_address_are_news(change):
    assert len(told(compare([running()], [pod(Seen.RUNNING, started_at=START, **change)]))) == 1
    assert told(compare([running(**change)], [pod(Seen.RUNNING, started_at=START, **change)])) == []


def test_what_a_waiting_pod_is_said_to_wait_for_is_news_at_once():
    row, report = wanted(seen=Seen.STARTING), pod(Seen.STARTING, detail="no network")
    (action,) = told(compare([row], [report]))
    assert action.state == report
    assert action.reason.sentence == "pods are starting: no network"
    assert told(compare([wanted(seen=Seen.STARTING, detail="no network")], [report])) == []


def test_other_words_of_a_waiting_pod_are_news_only_after_a_while():
    row, report = wanted(seen=Seen.PULLING, detail="refused"), pod(Seen.PULLING, detail="backs off")
    first = compare([row], [report])
    assert first.told == {"w-1-0": NOON}
    early = compare([row], [report], told_at={"w-1-0": NOON - WORDS_SECONDS * SECOND + 1})
    late = compare([row], [report], told_at={"w-1-0": NOON - WORDS_SECONDS * SECOND})
    assert (told(early), early.told) == ([], {"w-1-0": NOON - WORDS_SECONDS * SECOND + 1})
    assert len(told(late)) == 1
    started = compare([row], [pod(Seen.RUNNING, started_at=START)], told_at=first.told)
    assert len(told(started)) == 1
    assert compare([], [], told_at=first.told).told == {}


def test_a_pod_that_starts_may_turn_to_pull_another_image_but_not_one_that_runs():
    assert len(told(compare([wanted(seen=Seen.STARTING)], [pod(Seen.PULLING)]))) == 1
    assert told(compare([running()], [pod(Seen.PULLING, detail="late")])) == []


def test_what_is_wrong_while_a_pod_runs_is_news_and_so_is_that_it_is_mended():
    troubled = pod(Seen.RUNNING, started_at=START, detail="its helper does not start")
    (action,) = told(compare([running()], [troubled]))
    assert action.reason.sentence == "runs: its helper does not start"
    assert told(compare([running(detail="its helper does not start")], [troubled])) == []
    (mended,) = told(compare([running(detail="its helper does not start")], [pod(Seen.RUNNING, started_at=START)]))
    assert mended.state.detail == ""


def test_an_end_whose_output_is_awaited_is_told_as_no_end():
    ended = pod(Seen.ENDED, end=End.EXITED, exit_code=0, started_at=START, ended_at=NOON)
    row = running(address="10.0.0.1:80")
    (end,) = told(compare([row], [ended]))
    waits = output_awaited(end, row.allocation, "the artifacts are away")
    assert waits.guards == end.guards
    words = "it has ended, and its output is not fetched yet: the artifacts are away"
    assert waits.state == pod(Seen.RUNNING, started_at=START, address="10.0.0.1:80", detail=words)
    assert waits.reason.sentence == f"runs: {words}"


def test_an_end_that_was_never_seen_to_begin_is_recorded():
    report = pod(Seen.ENDED, end=End.EXITED, exit_code=1, started_at=START, ended_at=NOON - 1)
    (action,) = told(compare([wanted()], [report]))
    assert action.state == report


def test_an_end_is_never_before_what_is_already_paid():
    report = pod(Seen.ENDED, end=End.EXITED, exit_code=0, ended_at=START - 5)
    (action,) = told(compare([running(metered_until=NOON - 9)], [report]))
    assert action.state.ended_at == NOON - 9


def test_a_pod_that_ran_and_vanished_is_lost_and_charged_up_to_when_it_was_witnessed():
    tombstone = pod(Seen.ENDED, end=End.NEVER_STARTED, detail="it vanished from the cluster", ended_at=NOON)
    (action,) = told(compare([running(seen=Seen.UNKNOWN, witnessed_at=NOON - 9)], [tombstone]))
    assert (action.state.end, action.state.ended_at) == (End.LOST, NOON - 9)
    assert "it vanished from the cluster" in action.reason.sentence


def test_a_pod_that_vanished_and_was_not_witnessed_is_charged_up_to_its_last_record():
    tombstone = pod(Seen.ENDED, end=End.NEVER_STARTED)
    (action,) = told(compare([running(seen=Seen.UNKNOWN, metered_until=NOON - 9)], [tombstone]))
    assert (action.state.end, action.state.ended_at) == (End.LOST, NOON - 9)


def test_a_pod_that_vanished_before_it_ran_never_started():
    (action,) = told(compare([wanted(seen=Seen.UNKNOWN)], [pod(Seen.ENDED, end=End.NEVER_STARTED)]))
    assert (action.state.end, action.state.started_at) == (End.NEVER_STARTED, 0)


@pytest.mark.parametrize(
    ("recorded", "reported"),
    [
        (running(), pod(Seen.PULLING)),
        (running(), pod(Seen.NOTHING)),
        (running(seen=Seen.UNKNOWN), pod(Seen.STARTING)),
    ],
)
def test_a_report_older_than_the_record_changes_nothing(recorded, reported):
    found = compare([recorded], [reported])
    assert told(found) == []
    assert found.effects == ()


def test_a_pod_comes_back_in_sight():
    (action,) = told(compare([running(seen=Seen.UNKNOWN)], [pod(Seen.RUNNING, started_at=START)]))
    assert action.state.seen is Seen.RUNNING


def test_an_end_on_record_is_forgotten_by_its_cluster():
    found = compare([over()], [pod(Seen.ENDED)])
    assert found.effects == (ForgetPod(name="w-1-0"),)
    assert told(found) == []


@pytest.mark.parametrize("reported", [(), (pod(Seen.ENDED, forgotten=True),)])
def test_a_row_is_closed_when_it_is_forgotten_metered_and_judged(reported):
    (action,) = told(compare([over(metered_until=NOON, settled=True)], reported))
    assert isinstance(action, ClosePod)


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        (over(metered_until=NOON), [pod(Seen.ENDED, forgotten=True)]),
        (over(metered_until=NOON - 1, settled=True), [pod(Seen.ENDED, forgotten=True)]),
        (over(metered_until=NOON, settled=True), [pod(Seen.ENDED)]),
    ],
)
def test_a_row_is_kept_while_anybody_still_needs_it(row, reported):
    assert told(compare([row], reported)) == []


def test_what_never_started_needs_no_metering_to_be_closed():
    (action,) = told(compare([over(started_at=0, settled=True)], []))
    assert isinstance(action, ClosePod)


def test_what_ended_in_the_instant_of_its_start_needs_no_metering_to_be_closed():
    (action,) = told(compare([over(started_at=NOON, ended_at=NOON, metered_until=0, settled=True)], []))
    assert isinstance(action, ClosePod)


def test_an_orphan_is_left_alone_for_its_grace_then_deleted():
    orphan = pod(Seen.RUNNING, name="stray-1-0")
    first = compare([], [orphan])
    assert (first.effects, first.unmatched) == ((), {"stray-1-0": NOON})
    later = NOON + ORPHAN_GRACE_SECONDS * SECOND
    assert compare([], [orphan], tick=later - 1, since=first.unmatched).effects == ()
    assert compare([], [orphan], tick=later, since=first.unmatched).effects == (
        DeletePod(name="stray-1-0", grace_seconds=30),
    )


def test_an_orphan_that_has_ended_is_let_go_of():
    found = compare([], [pod(Seen.ENDED, name="stray-1-0")], since={"stray-1-0": 0})
    assert found.effects == (ForgetPod(name="stray-1-0"),)


def test_a_tombstone_is_no_orphan():
    assert compare([], [pod(Seen.ENDED, name="stray-1-0", forgotten=True)]).unmatched == {}


def test_a_pod_that_finds_its_row_is_no_orphan_any_more():
    found = compare([running()], [pod(Seen.RUNNING, started_at=START)], since={"w-1-0": 0})
    assert (found.unmatched, found.effects) == ({}, ())


def test_a_database_restored_from_a_backup_does_not_kill_the_fleet():
    pods = [pod(Seen.RUNNING, name=f"stray-{number:03}-0") for number in range(200)]
    since: Mapping[str, int] = {}
    killed: list[int] = []
    for second in range(181):
        found = compare([], pods, tick=NOON + second * SECOND, since=since)
        since = found.unmatched
        killed.append(len(found.effects))
    assert {second: count for second, count in enumerate(killed) if count} == {60: 10, 120: 10, 180: 10}


def test_a_jump_of_the_wall_clock_shortens_no_wait():
    orphan, row = pod(Seen.RUNNING, name="s-1-0"), running(seen=Seen.UNKNOWN)
    first = compare([row], [orphan])
    assert set(first.unmatched) == {"s-1-0", "w-1-0"}
    jumped = compare([row], [orphan], now=NOON + 86_400 * SECOND, tick=NOON + SECOND, since=first.unmatched)
    assert (jumped.effects, jumped.unmatched) == ((), first.unmatched)


NAMES = ["a", "b", "c", "d"]


@st.composite
def rows(draw: st.DrawFn) -> list[Wanted]:
    found = []
    for key, name in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True)), 1):
        seen = draw(st.sampled_from(Seen))
        started_at = START if seen is Seen.RUNNING else draw(st.sampled_from([0, START]))
        ended = {"ended_at": NOON, "end": End.EXITED, "exit_code": 0} if seen is Seen.ENDED else {}
        found.append(
            wanted(
                name,
                key=key,
                seen=seen,
                stop=draw(st.booleans()),
                started_at=0 if seen in {Seen.NOTHING, Seen.PULLING, Seen.STARTING} else started_at,
                metered_until=draw(st.sampled_from([0, NOON])),
                ready=draw(st.booleans()),
                settled=draw(st.booleans()),
                **ended,
            )
        )
    return found


@st.composite
def reports(draw: st.DrawFn) -> list[PodState]:
    found = []
    for name in draw(st.lists(st.sampled_from([*NAMES, "x", "y"]), unique=True)):
        seen = draw(st.sampled_from(Seen))
        ended = {"end": draw(st.sampled_from(End)), "forgotten": draw(st.booleans())} if seen is Seen.ENDED else {}
        started_at = START if seen is Seen.RUNNING else draw(st.sampled_from([0, START]))
        found.append(pod(seen, name=f"{name}-1-0", started_at=started_at, ready=draw(st.booleans()), **ended))
    return found


SINCE = st.dictionaries(st.sampled_from([f"{name}-1-0" for name in [*NAMES, "x", "y"]]), st.integers(0, NOON))


def recorded(row: Wanted, found: Reconciliation) -> Wanted | None:
    """The row after a commit of the observations; None once it is closed."""
    for action in found.observations:
        if isinstance(action, ClosePod) and action.allocation_key == row.allocation.key:
            return None
        if isinstance(action, ObservePod) and action.allocation_key == row.allocation.key:
            state = action.state
            changes = {
                "seen": state.seen, "started_at": state.started_at, "ended_at": state.ended_at, "end": state.end,
                "exit_code": state.exit_code, "ready": state.ready, "address": state.address,
                "version": row.allocation.version + 1,
            }  # fmt: skip
            return replace(row, allocation=replace(row.allocation, **changes))
    return row


def after(before: Sequence[Wanted], found: Reconciliation) -> list[Wanted]:
    return [row for row in (recorded(row, found) for row in before) if row is not None]


@given(rows(), reports(), SINCE)
def test_what_has_been_recorded_is_not_recorded_again(before, pods, since):
    once = compare(before, pods, since=since)
    twice = compare(after(before, once), pods, since=once.unmatched)
    closing = [action for action in told(twice) if isinstance(action, ClosePod)]
    # An end that was recorded in the first round may be closed in the second, if it needed no metering.
    assert told(twice) == closing
    assert told(compare(after(after(before, once), twice), pods, since=twice.unmatched)) == []


@given(rows(), reports(), SINCE)
def test_only_what_is_wanted_and_was_never_seen_is_ever_created(before, pods, since):
    rows_by_pod = {row.allocation.pod: row.allocation for row in before}
    for effect in compare(before, pods, since=since).effects:
        if isinstance(effect, CreatePod):
            allocation = rows_by_pod[effect.name]
            assert allocation.seen is Seen.NOTHING
            assert not allocation.stop
            assert effect.name not in {report.name for report in pods}


@given(rows(), reports(), SINCE)
def test_the_record_never_moves_back_and_an_end_is_final(before, pods, since):
    found = compare(before, pods, since=since)
    for old, new in ((row, recorded(row, found)) for row in before):
        if new is None:
            continue
        was, now = old.allocation, new.allocation
        if was.seen is Seen.ENDED:
            assert now == was
        if was.seen is not Seen.UNKNOWN and now.seen is not Seen.UNKNOWN:
            assert now.seen >= was.seen or (was.seen, now.seen) == (Seen.STARTING, Seen.PULLING)
        assert was.seen is Seen.NOTHING or now.seen is not Seen.NOTHING
        assert not was.started_at or now.started_at == was.started_at


@given(rows(), reports(), SINCE)
def test_an_end_is_concluded_only_from_a_report_of_it(before, pods, since):
    ended = {report.name for report in pods if report.seen is Seen.ENDED}
    for action in compare(before, pods, since=since).observations:
        if isinstance(action, ObservePod) and action.state.seen is Seen.ENDED:
            assert action.state.name in ended


@given(rows(), reports(), SINCE)
def test_nothing_that_runs_and_is_wanted_is_ever_deleted(before, pods, since):
    alive = {report.name for report in pods if report.seen in {Seen.PULLING, Seen.STARTING, Seen.RUNNING}}
    kept = {row.allocation.pod for row in before if not row.allocation.stop and row.allocation.seen is not Seen.ENDED}
    for effect in compare(before, pods, since=since).effects:
        assert not (isinstance(effect, DeletePod) and effect.name in alive & kept)


@given(rows(), reports(), SINCE, st.randoms(use_true_random=False))
def test_the_order_of_a_report_does_not_matter(before, pods, since, random):
    shuffled = list(pods)
    random.shuffle(shuffled)
    assert compare(before, pods, since=since) == compare(before, shuffled, since=since)


@given(rows(), reports(), reports(), SINCE, st.tuples(st.integers(0, 100), st.sets(st.sampled_from(NAMES))))
def test_what_is_calm_need_not_be_compared_again(before, pods, others, since, later_on):
    seconds, changed = later_on
    first = compare(before, pods, since=since)
    names = {f"{name}-1-0" for name in changed}
    reported = [one for one in pods if one.name not in names] + [one for one in others if one.name in names]
    later = {"tick": NOON + seconds * SECOND, "now": NOON + seconds * SECOND}
    rows_now = after(before, first)
    assert compare(rows_now, reported, before=first, calm=first.calm, **later) == compare(
        rows_now, reported, before=first, **later
    )


def test_of_pods_that_run_nothing_is_compared_again():
    row, report = running(), pod(Seen.RUNNING, started_at=START)
    found = compare([row], [report])
    assert found.calm.pairs == {"w-1-0": (row, report)}
    assert compare([row], [pod(Seen.UNKNOWN)], before=found, calm=found.calm).calm.pairs == {}


@given(rows(), reports(), SINCE, st.integers(0, 100))
def test_where_all_is_calm_nothing_need_be_compared_again(before, pods, since, seconds):
    rows_by_pod, reported = Rows.of(before).ours, tuple(pods)
    first = compare(rows_by_pod, reported, since=since)
    second = compare(rows_by_pod, reported, before=first, tick=NOON + 50 * SECOND)
    for found in (first, second):
        later = {"tick": NOON + (50 + seconds) * SECOND, "now": NOON + (50 + seconds) * SECOND}
        with_memory = compare(rows_by_pod, reported, before=found, calm=found.calm, **later)
        assert with_memory == compare(rows_by_pod, reported, before=found, **later)


def test_the_very_same_rows_and_reports_are_known_to_be_calm():
    rows_by_pod, report = Rows.of([running()]).ours, pod(Seen.RUNNING, started_at=START)
    calm = compare(rows_by_pod, [report]).calm
    assert calm.is_all(rows_by_pod, (report,))
    assert not calm.is_all(dict(rows_by_pod), (report,))
    assert not calm.is_all(rows_by_pod, (pod(Seen.RUNNING, started_at=START),))
    assert not calm.is_all(rows_by_pod, ())
    assert not compare(rows_by_pod, []).calm.is_all(rows_by_pod, ())
