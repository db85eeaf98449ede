"""What every store promises about the chain of the audit, over both databases: whatever is done to its rows is found."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainstay import chain
from mainstay.chain import GENESIS, START, Fault, Head, Kind, Verifier
from mainstay.domain.plan import AuditRow, Plan, RecordDenial, RedactAudit
from mainstay.domain.reason import Code, Reason
from mainstay.store import SqlStore, open_postgresql, tables
from mainstay.store.engine import Database
from tests.databases import empty_sqlite
from tests.stores import ALL, NOON, USER, Scene, scene, store

__all__ = ["scene", "store"]
ROWS = 12
AUDIT = tables.audit


def denial(number: int) -> RecordDenial:
    reason = Reason(code=Code.FORBIDDEN, object=f"thing-{number}", numbers={"detail": f"no {number}"})
    return RecordDenial(object=f"thing-{number}", reason=reason)


def redaction(seq: int) -> RedactAudit:
    return RedactAudit(seq=seq, reason=Reason(code=Code.AUDIT_REDACTED, object=str(seq), numbers={"why": "a name"}))


def fault_in(store: SqlStore, *, anchors: tuple[Head, ...] = (), head: bool = True) -> Fault | None:
    verifier = Verifier(anchors)
    for row in store.audit(after=0, limit=ALL):
        verifier.take(row)
    return verifier.end(store.audit_head() if head else None)


def database_of(store: SqlStore) -> Database:
    return store._database


def tamper(store: SqlStore, *statements: sa.Executable) -> None:
    def work(connection: sa.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    database_of(store).write(work)


def filled(scene: Scene) -> tuple[AuditRow, ...]:
    for number in range(ROWS):
        scene.applied(denial(number))
    return tuple(scene.store.audit(after=0, limit=ALL))


def test_an_empty_audit_holds_and_begins_with_the_genesis(store: SqlStore) -> None:
    assert store.audit_head() == START == Head(seq=0, hash=GENESIS)
    assert fault_in(store) is None


def test_each_row_follows_from_the_one_before_and_the_head_is_the_newest(scene: Scene) -> None:
    rows = filled(scene)
    assert fault_in(scene.store) is None
    assert scene.store.audit_head() == Head(seq=ROWS, hash=rows[-1].hash)
    assert len({row.salt for row in rows}) == ROWS


def test_several_rows_of_one_plan_are_chained_in_their_order(scene: Scene) -> None:
    scene.applied(*(denial(number) for number in range(5)))
    assert [row.object for row in scene.store.audit(after=0, limit=ALL)] == [f"thing-{n}" for n in range(5)]
    assert fault_in(scene.store) is None


def test_a_commit_that_fails_leaves_no_row_and_no_hash(scene: Scene) -> None:
    filled(scene)
    before = scene.store.audit_head()
    with pytest.raises(Exception, match="no row 99"):
        scene.commit(denial(1), redaction(99), atomic=True)
    assert scene.store.audit_head() == before
    assert fault_in(scene.store) is None


def test_a_crash_between_rows_and_commit_leaves_the_chain_as_it_was(scene: Scene, monkeypatch) -> None:
    class Crash(Exception):
        pass

    def crash(*_: object) -> None:
        raise Crash

    filled(scene)
    before = scene.store.audit_head()
    with monkeypatch.context() as patch:
        patch.setattr("mainstay.store.write._write_head", crash)
        with pytest.raises(Crash):
            scene.commit(denial(1))
    assert scene.store.audit_head() == before
    scene.applied(denial(2))
    assert fault_in(scene.store) is None


def test_a_redacted_detail_is_gone_and_the_chain_holds(scene: Scene) -> None:
    filled(scene)
    scene.applied(redaction(3))
    row = scene.store.audit(after=2, limit=1)[0]
    assert (row.detail, row.salt, row.object) == ("", "", "thing-2")
    newest = scene.store.audit(after=ROWS, limit=1)[0]
    assert (newest.action, newest.object) == ("redact_audit", "3")
    assert fault_in(scene.store) is None


def test_a_row_that_is_not_there_cannot_be_redacted(scene: Scene) -> None:
    filled(scene)
    (refused,) = scene.commit(redaction(ROWS + 1)).refused
    assert refused.reason.sentence == f"the audit has no row {ROWS + 1}"
    assert scene.store.audit_head().seq == ROWS


def test_a_detail_that_is_taken_out_without_a_row_that_says_so_is_found(scene: Scene) -> None:
    filled(scene)
    tamper(scene.store, sa.update(AUDIT).where(AUDIT.c.seq == 4).values(detail="", salt=""))
    assert fault_in(scene.store) == Fault(seq=4, kind=Kind.REDACTED)


@dataclass(frozen=True)
class Harm:
    """What is done to the rows, by a number; the kinds of fault that may be said of it."""

    do: Callable[[SqlStore, random.Random], None]
    kinds: frozenset[Kind]


def hash_of(row: AuditRow, *, before: str) -> str:
    """As the chain has it."""
    return chain.link(
        before,
        seq=row.seq,
        at=row.at,
        actor=row.actor,
        tenant=row.tenant,
        action=row.action,
        object_=row.object,
        payload=row.payload,
    )


def change(store: SqlStore, chance: random.Random) -> None:
    column = chance.choice(["at", "actor", "tenant", "action", "object", "detail", "salt", "payload", "hash"])
    value = {"at": AUDIT.c.at + 1}.get(column, AUDIT.c[column] + "x")
    tamper(store, sa.update(AUDIT).where(AUDIT.c.seq == chance.randint(1, ROWS)).values({column: value}))


def delete(store: SqlStore, chance: random.Random) -> None:
    tamper(store, sa.delete(AUDIT).where(AUDIT.c.seq == chance.randint(1, ROWS)))


def delete_and_renumber(store: SqlStore, chance: random.Random) -> None:
    seq = chance.randint(1, ROWS - 1)
    moved = [sa.update(AUDIT).where(AUDIT.c.seq == n).values(seq=n - 1) for n in range(seq + 1, ROWS + 1)]
    tamper(store, sa.delete(AUDIT).where(AUDIT.c.seq == seq), *moved)


def insert(store: SqlStore, chance: random.Random) -> None:
    seq = chance.randint(1, ROWS)
    row = database_of(store).read(
        lambda connection: dict(connection.execute(sa.select(AUDIT).where(AUDIT.c.seq == seq)).mappings().one())
    )
    moved = [sa.update(AUDIT).where(AUDIT.c.seq == n).values(seq=n + 1) for n in range(ROWS, seq - 1, -1)]
    tamper(store, *moved, sa.insert(AUDIT).values({**row, "actor": "mallory"}))


def swap(store: SqlStore, chance: random.Random) -> None:
    one, other = chance.sample(range(1, ROWS + 1), 2)
    steps = ((one, 1_000), (other, one), (1_000, other))
    tamper(store, *(sa.update(AUDIT).where(AUDIT.c.seq == old).values(seq=new) for old, new in steps))


def forge(store: SqlStore, chance: random.Random) -> None:
    """Another actor in one row, and its hash made anew as if no other row hung on it."""
    rows = store.audit(after=0, limit=ALL)
    at = chance.randrange(ROWS)
    changed = replace(rows[at], actor="mallory")
    hash_ = hash_of(changed, before=rows[at - 1].hash if at else GENESIS)
    tamper(store, sa.update(AUDIT).where(AUDIT.c.seq == changed.seq).values(actor="mallory", hash=hash_))


WITHOUT_ANCHOR = {
    "change": Harm(change, frozenset({Kind.CHANGED, Kind.DETAIL})),
    "delete": Harm(delete, frozenset({Kind.MISSING, Kind.TRUNCATED})),
    "delete and renumber": Harm(delete_and_renumber, frozenset({Kind.CHANGED})),
    "insert": Harm(insert, frozenset({Kind.CHANGED, Kind.ORDER})),
    "swap": Harm(swap, frozenset({Kind.CHANGED})),
    "forge": Harm(forge, frozenset({Kind.CHANGED})),
}


@pytest.mark.parametrize("harm", WITHOUT_ANCHOR.values(), ids=WITHOUT_ANCHOR)
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_done_to_any_row_is_found_by_the_chain_alone(store: SqlStore, harm: Harm, seed: int) -> None:
    tamper(store, sa.delete(AUDIT), sa.update(tables.head).values(audit_seq=0, audit_hash=GENESIS))
    filled(Scene(store))
    assert fault_in(store) is None
    harm.do(store, random.Random(seed))
    fault = fault_in(store)
    assert fault is not None
    assert fault.kind in harm.kinds


def truncate(store: SqlStore, *, left: int) -> None:
    """As whoever owns the database would: with its head."""
    last = store.audit(after=left - 1, limit=1)[0].hash if left else GENESIS
    tamper(
        store,
        sa.delete(AUDIT).where(AUDIT.c.seq > left),
        sa.update(tables.head).values(audit_seq=left, audit_hash=last),
    )


def rewrite(store: SqlStore, *, first: int) -> None:
    """Another actor from a row on, and every hash after it made anew: the chain holds again."""
    rows = list(store.audit(after=0, limit=ALL))
    before = rows[first - 2].hash if first > 1 else GENESIS
    statements: list[sa.Executable] = []
    for row in rows[first - 1 :]:
        before = hash_of(replace(row, actor="mallory"), before=before)
        statements.append(sa.update(AUDIT).where(AUDIT.c.seq == row.seq).values(actor="mallory", hash=before))
    tamper(store, *statements, sa.update(tables.head).values(audit_hash=before))


@pytest.mark.parametrize("left", [0, 1, ROWS // 2, ROWS - 1])
def test_a_truncation_is_found_by_the_anchor_and_only_by_it(scene: Scene, left: int) -> None:
    filled(scene)
    anchor = scene.store.audit_head()
    truncate(scene.store, left=left)
    assert fault_in(scene.store) is None
    assert fault_in(scene.store, anchors=(anchor,)) == Fault(seq=left + 1, kind=Kind.TRUNCATED)


def test_a_truncation_is_found_also_when_as_many_rows_were_written_after_it(scene: Scene) -> None:
    filled(scene)
    anchor = scene.store.audit_head()
    truncate(scene.store, left=ROWS - 3)
    scene.applied(*(denial(number) for number in range(9)))
    assert fault_in(scene.store) is None
    assert fault_in(scene.store, anchors=(anchor,)) == Fault(seq=ROWS, kind=Kind.REWRITTEN)


@pytest.mark.parametrize("first", [1, ROWS // 2, ROWS])
def test_a_full_rewrite_is_found_by_the_anchor_and_only_by_it(scene: Scene, first: int) -> None:
    filled(scene)
    anchor = scene.store.audit_head()
    rewrite(scene.store, first=first)
    assert fault_in(scene.store) is None
    assert fault_in(scene.store, anchors=(anchor,)) == Fault(seq=ROWS, kind=Kind.REWRITTEN)


def test_a_truncation_that_forgets_the_head_is_found_without_an_anchor(scene: Scene) -> None:
    filled(scene)
    tamper(scene.store, sa.delete(AUDIT).where(AUDIT.c.seq > 3))
    assert fault_in(scene.store) == Fault(seq=4, kind=Kind.TRUNCATED)


def test_an_anchor_of_a_part_holds_while_rows_are_added(scene: Scene) -> None:
    filled(scene)
    anchors = (scene.store.audit_head(),)
    scene.applied(denial(100))
    assert fault_in(scene.store, anchors=(START, *anchors, scene.store.audit_head())) is None


def test_a_part_is_verified_from_a_row_on(scene: Scene) -> None:
    rows = filled(scene)
    verifier = Verifier((scene.store.audit_head(),), start=Head(seq=5, hash=rows[4].hash))
    for row in rows[5:]:
        assert verifier.take(row) is None
    assert verifier.end() is None


def test_two_replicas_that_write_at_once_make_one_chain(request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_schema_url")
    replicas = [open_postgresql(url) for _ in range(2)]
    ready = threading.Barrier(4)

    def write_some(store: SqlStore, name: str) -> None:
        ready.wait()
        for number in range(25):
            store.commit(Plan(actor=name, now=NOON, actions=(denial(number), denial(number))))

    writers = [
        threading.Thread(target=write_some, args=(replicas[number % 2], f"writer-{number}")) for number in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert replicas[0].audit_head().seq == 4 * 25 * 2
    assert fault_in(replicas[1]) is None
    for one in replicas:
        one.close()


def test_what_was_written_under_one_database_is_not_taken_for_anothers(tmp_path) -> None:
    one, other = empty_sqlite(tmp_path / "one.db"), empty_sqlite(tmp_path / "other.db")
    for opened in (one, other):
        opened.commit(Plan(actor=USER, now=NOON, actions=(denial(1),)))
    assert fault_in(one, anchors=(other.audit_head(),)) == Fault(seq=1, kind=Kind.REWRITTEN)
    one.close()
    other.close()
