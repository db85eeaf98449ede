"""What becomes of a pod that is not heard of any more, by the policy of its job: by monotonic time alone, whatever clocks do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mainstay.decide.kinds import pod_spec
from mainstay.decide.reconcile import DEAD_MAN_SLACK_SECONDS, Reconciliation, reconcile
from mainstay.domain.allocation import DeletePod, End, PodState, RevokePod, Seen, Wanted
from mainstay.domain.capacity import ClusterState
from mainstay.domain.plan import ObservePod
from mainstay.domain.workload import OnPartition
from tests.unit.decide.test_reconcile import wanted

AFTER = 100
US = 1_000_000
GRACE = 30


def row(policy: OnPartition, **values) -> Wanted:
    made = wanted(**{"seen": Seen.UNKNOWN, "started_at": 5 * US, **values})
    spec = replace(made.spec, on_partition=policy, partition_seconds=AFTER, stop_grace_seconds=GRACE)
    return replace(made, spec=spec)


class Rounds:
    """Looks one after the other, as one leader has them."""

    def __init__(self, wanted_row: Wanted) -> None:
        self.row = wanted_row
        self.memory: Reconciliation | None = None

    def look(
        self, at: float, seen: Seen | None = Seen.UNKNOWN, *, revoked: bool = False, now: int = 10**15
    ) -> Reconciliation:
        name = self.row.allocation.pod
        pods = () if seen is None else (PodState(name=name, node="n", seen=seen, started_at=5 * US, revoked=revoked),)
        before = self.memory
        self.memory = reconcile(
            "c",
            {name: self.row},
            ClusterState(nodes=(), pods=pods),
            now=now,
            tick=round(at * US),
            unmatched_since=before.unmatched if before else {},
            unheard_since=before.unheard if before else {},
        )
        return self.memory


def ended(found: Reconciliation) -> list[PodState]:
    return [one.state for one in found.observations if isinstance(one, ObservePod) and one.state.seen is Seen.ENDED]


def revoked(found: Reconciliation) -> list[str]:
    return [one.name for one in found.effects if isinstance(one, RevokePod)]


def test_who_waits_waits_for_ever():
    rounds = Rounds(row(OnPartition.WAIT))
    for at in (0, AFTER, 10 * AFTER, 10**6):
        found = rounds.look(at)
        assert (ended(found), found.effects) == ([], ())


def test_who_allows_duplicates_is_given_up_after_that_time_and_not_before():
    rounds = Rounds(row(OnPartition.ALLOW_DUPLICATES, metered_until=7 * US))
    assert ended(rounds.look(0)) == ended(rounds.look(AFTER - 0.001)) == []
    (state,) = ended(rounds.look(AFTER))
    assert (state.end, state.started_at, state.ended_at) == (End.LOST, 5 * US, 7 * US)
    assert "may run on" in state.detail


def test_a_pod_that_is_heard_of_in_between_is_waited_for_anew():
    rounds = Rounds(row(OnPartition.ALLOW_DUPLICATES))
    rounds.look(0)
    rounds.look(AFTER - 1, Seen.RUNNING)
    assert ended(rounds.look(AFTER)) == []
    assert ended(rounds.look(2 * AFTER - 1)) == []
    assert len(ended(rounds.look(2 * AFTER))) == 1


def test_a_new_leader_counts_anew_and_no_jump_of_a_wall_clock_counts():
    rounds = Rounds(row(OnPartition.ALLOW_DUPLICATES))
    rounds.look(0, now=1)
    assert ended(rounds.look(1, now=10**17)) == []
    rounds.memory = None
    assert ended(rounds.look(AFTER)) == []


def test_one_that_is_not_even_reported_is_sought_and_not_given_up():
    """An absence may be a lost event."""
    rounds = Rounds(row(OnPartition.ALLOW_DUPLICATES))
    rounds.look(0, None)
    found = rounds.look(10 * AFTER, None)
    assert ended(found) == []
    assert [type(one) for one in found.effects] == [DeletePod]


class TestRequeueAfter:
    """Its pods end themselves. It is never renewed again before it is given up, so that no late word makes it go on."""

    def test_it_is_revoked_once_its_time_is_over_by_the_slowest_clock(self):
        rounds = Rounds(row(OnPartition.REQUEUE_AFTER))
        assert revoked(rounds.look(0)) == revoked(rounds.look(AFTER * 1.05 - 0.001)) == []
        assert revoked(rounds.look(AFTER * 1.05)) == [rounds.row.allocation.pod]
        assert revoked(rounds.look(AFTER * 1.05 + 1)) == [rounds.row.allocation.pod], "the first may have been lost"
        assert revoked(rounds.look(AFTER * 1.05 + 2, revoked=True)) == []

    def test_without_the_word_that_it_is_revoked_it_is_never_given_up(self):
        rounds = Rounds(row(OnPartition.REQUEUE_AFTER))
        rounds.look(0)
        assert ended(rounds.look(100 * AFTER)) == []

    def test_once_revoked_it_has_its_grace_and_the_time_to_notice(self):
        rounds = Rounds(row(OnPartition.REQUEUE_AFTER))
        rounds.look(0)
        rounds.look(200, revoked=True)
        whole = 200 + GRACE + DEAD_MAN_SLACK_SECONDS
        assert ended(rounds.look(whole - 0.001, revoked=True)) == []
        (state,) = ended(rounds.look(whole, revoked=True))
        assert state.end is End.LOST
        assert f"{AFTER} s without being renewed" in state.detail

    def test_one_that_comes_back_before_goes_on(self):
        rounds = Rounds(row(OnPartition.REQUEUE_AFTER))
        rounds.look(0)
        rounds.look(AFTER)
        assert ended(rounds.look(AFTER + 1, Seen.RUNNING)) == []
        assert revoked(rounds.look(AFTER + 2)) == []

    def test_a_new_leader_waits_the_whole_time_again(self):
        rounds = Rounds(row(OnPartition.REQUEUE_AFTER))
        rounds.look(0)
        rounds.look(200, revoked=True)
        rounds.memory = None
        assert ended(rounds.look(10**4, revoked=True)) == []
        assert len(ended(rounds.look(10**4 + GRACE + DEAD_MAN_SLACK_SECONDS, revoked=True))) == 1


def test_what_was_given_up_and_comes_back_is_ended_at_once():
    rounds = Rounds(row(OnPartition.ALLOW_DUPLICATES, seen=Seen.ENDED, end=End.LOST))
    for seen in (Seen.UNKNOWN, Seen.RUNNING):
        assert [type(one) for one in rounds.look(0, seen).effects] == [DeletePod]


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [(OnPartition.WAIT, 0), (OnPartition.ALLOW_DUPLICATES, 0), (OnPartition.REQUEUE_AFTER, AFTER)],
)
def test_only_pods_of_those_who_requeue_end_themselves(policy, seconds):
    made = row(policy)
    assert pod_spec(made.allocation, made.spec).dead_man_seconds == seconds
