"""The loop that anchors the audit, among faults: crashes, places that do not answer, a database that was rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from obstore.store import LocalStore
from structlog.testing import capture_logs

from mainstay.artifacts.anchors import ObjectAnchors, open_anchors
from mainstay.chain import Head
from mainstay.chain.anchors import Anchor, read, signed
from mainstay.control.anchoring import PERIOD_SECONDS, Anchoring
from mainstay.domain.errors import Conflict, Unavailable
from mainstay.domain.plan import Plan, RecordDenial
from mainstay.operations.pulse import NOTHING
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.store import SqlStore, tables
from tests.clock import ManualClock
from tests.databases import empty_sqlite
from tests.stores import WHY

SEALING, OTHER = Sealing(key=b"a" * KEY_BYTES), Sealing(key=b"b" * KEY_BYTES)
SYSTEM = "5" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield store
    store.close()


@pytest.fixture
def place(tmp_path: Path) -> ObjectAnchors:
    return open_anchors(str(tmp_path / "outside"), system=SYSTEM)


class Cut(ObjectAnchors):
    """Keeps, but the answer is lost; or does not even keep."""

    kept, answers = True, False

    async def keep(self, anchor: Anchor) -> None:
        if self.kept:
            await super().keep(anchor)
        if not self.answers:
            msg = "cut off"
            raise Unavailable(msg)


def deny(store: SqlStore, count: int = 1) -> None:
    for number in range(count):
        action = RecordDenial(object=f"thing-{number}", reason=WHY)
        store.commit(Plan(actor="ada", now=1, actions=(action,)))


def loop(store: SqlStore, anchors: Any, clock: ManualClock | None = None, holder: str = "a") -> Anchoring:
    async def here(function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    services: Any = SimpleNamespace(
        store=store, clock=clock or ManualClock(), offload=here, sealing=SEALING, system=SYSTEM
    )
    return Anchoring(services, anchors, holder=holder)


async def heads(place: ObjectAnchors) -> list[int]:
    return [anchor.head.seq for anchor in await place.newest(99)]


async def test_the_head_is_signed_and_kept_whenever_it_has_moved_on(store: SqlStore, place: ObjectAnchors) -> None:
    anchoring = loop(store, place)
    await anchoring.turn()
    assert await heads(place) == []
    deny(store, 3)
    due = await anchoring.turn()
    await anchoring.turn()
    assert (due.wait, anchoring.loop().woken_by, await heads(place)) == (PERIOD_SECONDS, NOTHING, [3])
    deny(store)
    await anchoring.turn()
    anchors = await place.newest(99)
    assert [anchor.head for anchor in anchors][-1] == store.audit_head()
    assert all(anchor.signed_by({anchor.signatures[0][0]}) for anchor in anchors)


async def test_a_crash_before_it_is_kept_or_before_the_answer_loses_and_doubles_nothing(
    store: SqlStore, tmp_path: Path
) -> None:
    place = Cut(LocalStore(prefix=tmp_path / "outside", mkdir=True), system=SYSTEM)
    deny(store, 2)
    for kept in (False, True):
        place.kept = kept
        with pytest.raises(Unavailable):
            await loop(store, place).turn()
    place.answers = True
    await loop(store, place).turn()
    assert await heads(place) == [2]


async def test_two_that_lead_at_once_keep_the_same(store: SqlStore, place: ObjectAnchors) -> None:
    clock = ManualClock()
    deny(store)
    one, other = loop(store, place, clock), loop(store, place, clock, holder="b")
    await one.turn()
    await other.turn()
    assert await heads(place) == [1]
    one._last = None
    await one.turn()
    assert await heads(place) == [1]


async def test_a_shortened_or_rewritten_audit_is_not_anchored_again_and_it_is_said(
    store: SqlStore, place: ObjectAnchors
) -> None:
    deny(store, 5)
    await loop(store, place).turn()
    before = store.audit(after=1, limit=1)[0].hash

    def cut(connection: sa.Connection) -> None:
        connection.execute(sa.delete(tables.audit).where(tables.audit.c.seq > 2))
        connection.execute(sa.update(tables.head).values(audit_seq=2, audit_hash=before))

    store._database.write(cut)
    for _ in range(2):
        with capture_logs() as logs:
            await loop(store, place).turn()
        assert [entry["event"] for entry in logs] == ["audit_contradicts_its_anchor"]
        assert await heads(place) == [5]
        deny(store, 6)


async def test_the_anchors_of_others_prove_nothing_to_the_loop(store: SqlStore, place: ObjectAnchors) -> None:
    deny(store)
    foreign = signed(SYSTEM, Head(seq=99, hash="f" * 64), at=1, keys=OTHER.signing_keys())
    await place.keep(foreign)
    await loop(store, place).turn()
    assert await heads(place) == [1, 99]


async def test_a_clock_that_jumps_changes_nothing_but_the_stamp(store: SqlStore, place: ObjectAnchors) -> None:
    clock = ManualClock()
    anchoring = loop(store, place, clock)
    deny(store)
    await anchoring.turn()
    clock.wall_us -= 10**12
    deny(store)
    await anchoring.turn()
    assert await heads(place) == [1, 2]


async def test_an_anchor_is_never_written_over(place: ObjectAnchors) -> None:
    key = SEALING.signing_keys()
    first = signed(SYSTEM, Head(seq=7, hash="a" * 64), at=1, keys=key)
    await place.keep(first)
    await place.keep(signed(SYSTEM, first.head, at=2, keys=key))
    with pytest.raises(Conflict, match="row 7 of the audit was anchored as another one before"):
        await place.keep(signed(SYSTEM, Head(seq=7, hash="b" * 64), at=1, keys=key))
    assert await place.newest(9) == (first,)


async def test_only_the_newest_are_read_and_what_is_no_anchor_is_left_out(place: ObjectAnchors, tmp_path: Path) -> None:
    for seq in range(1, 13):
        await place.keep(signed(SYSTEM, Head(seq=seq, hash="a" * 64), at=1, keys=SEALING.signing_keys()))
    assert [anchor.head.seq for anchor in await place.newest(3)] == [10, 11, 12]
    (tmp_path / "outside" / "anchors" / SYSTEM / f"{13:020d}.json").write_text("{}")
    assert [anchor.head.seq for anchor in await place.newest(3)] == [11, 12]


def test_a_changed_anchor_is_signed_by_nobody() -> None:
    made = signed(SYSTEM, Head(seq=7, hash="a" * 64), at=1, keys=[*SEALING.signing_keys(), *OTHER.signing_keys()])
    keys = [key for key, _ in made.signatures]
    assert read(made.text()) == made
    assert all(made.signed_by({key}) for key in keys)
    assert not made.signed_by({"00" * 32})
    assert not read(made.text().replace('"seq": 7', '"seq": 6')).signed_by(keys)
    assert not read(made.text().replace(SYSTEM, "6" * 32)).signed_by(keys)
