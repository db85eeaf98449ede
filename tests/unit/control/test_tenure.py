"""Leases: who leads, when it is asked again, and that a clock that jumps harms nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mainstay.control.tenure import LEASE_SECONDS, Tenure
from mainstay.domain.errors import Fenced
from mainstay.domain.plan import Plan
from mainstay.store.store import SqlStore
from tests.clock import ManualClock
from tests.databases import empty_sqlite


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield store
    store.close()


def tenure(store: SqlStore, clock: ManualClock, holder: str) -> Tenure:
    return Tenure(store, clock, lease="decisions", holder=holder)


def test_only_one_holder_leads(store: SqlStore) -> None:
    clock = ManualClock()
    first, second = tenure(store, clock, "one"), tenure(store, clock, "two")
    assert first.epoch() is not None
    assert second.epoch() is None


def test_a_tenure_is_renewed_without_a_new_epoch(store: SqlStore) -> None:
    clock = ManualClock()
    ours = tenure(store, clock, "one")
    before = ours.epoch()
    for _ in range(10):
        clock.advance(LEASE_SECONDS * 0.6)
        assert ours.epoch() == before
    assert tenure(store, clock, "two").epoch() is None


def test_a_lease_that_ran_out_goes_to_the_next_with_a_higher_epoch(store: SqlStore) -> None:
    clock = ManualClock()
    old, new = tenure(store, clock, "one"), tenure(store, clock, "two")
    before = old.epoch()
    clock.advance(LEASE_SECONDS + 1)
    after = new.epoch()
    assert before is not None
    assert after is not None
    assert after.number > before.number


def test_a_leader_that_slept_past_its_lease_cannot_commit(store: SqlStore) -> None:
    clock = ManualClock()
    sleeper = tenure(store, clock, "one")
    stale = sleeper.epoch()
    clock.advance(LEASE_SECONDS + 1)
    tenure(store, clock, "two").epoch()
    with pytest.raises(Fenced):
        store.commit(Plan(actor="schedule", now=clock.now(), actions=(), epoch=stale))
    sleeper.lost()
    assert sleeper.epoch() is None


@pytest.mark.parametrize("jump", [-86_400, -3_600, 3_600, 86_400])
def test_a_clock_that_jumps_never_makes_two_leaders(store: SqlStore, jump: int) -> None:
    """It may end a lease early or keep it long; the epoch still belongs to one at a time."""
    clock = ManualClock()
    first, second = tenure(store, clock, "one"), tenure(store, clock, "two")
    first.epoch()
    clock.jump(jump)
    clock.advance(LEASE_SECONDS * 0.6)
    epochs = {"one": first.epoch(), "two": second.epoch()}
    leading = [holder for holder, epoch in epochs.items() if epoch and _may_commit(store, clock, epoch)]
    assert len(leading) == 1


def test_after_a_jump_back_the_holder_still_renews(store: SqlStore) -> None:
    clock = ManualClock()
    ours = tenure(store, clock, "one")
    before = ours.epoch()
    clock.jump(-86_400)
    clock.advance(LEASE_SECONDS)
    assert ours.epoch() == before


def _may_commit(store: SqlStore, clock: ManualClock, epoch: object) -> bool:
    try:
        store.commit(Plan(actor="schedule", now=clock.now(), actions=(), epoch=epoch))  # type: ignore[arg-type]
    except Fenced:
        return False
    return True
