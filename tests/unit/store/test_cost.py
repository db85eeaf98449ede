"""What reading and writing cost: the rows that changed, found by an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mainstay.domain.allocation import Seen
from mainstay.domain.plan import Submit
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import ACTIVE, WAITING, Phase
from mainstay.ports import WorkloadFilter
from mainstay.store import SqlStore
from tests.databases import empty_sqlite
from tests.stores import TENANT, WHY, Scene, idempotency, one_cpu


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A platform with 1,000 workloads waiting, some running and some done."""
    store = empty_sqlite(tmp_path / "mainstay.db")
    scene = Scene(store)
    scene.fleet(cpus=64)
    for _ in range(4):
        scene.run(scene.submit())
        scene.applied(scene.advance(scene.submit(), Phase.STOPPED))
    scene.applied(*(Submit(workload=scene.new(), reason=Reason(code=Code.SUBMITTED)) for _ in range(1_000)))
    yield scene
    store.close()


def rows_read(store: SqlStore) -> int:
    before = store._snapshots.rows_read
    store.snapshot(now=0, seed=0)
    return store._snapshots.rows_read - before


def test_a_snapshot_reads_what_is_open_first_and_then_what_changed(scene: Scene) -> None:
    store = scene.store
    assert rows_read(store) == 1 + 1_004 + 4
    assert rows_read(store) == 0
    work = scene.submit()
    assert rows_read(store) == 1
    pod = scene.place(work)
    assert rows_read(store) == 3
    scene.applied(scene.see(pod, Seen.STARTING))
    assert rows_read(store) == 1
    scene.applied(scene.price(3))
    assert rows_read(store) == 0


def test_a_submission_does_not_copy_the_columns(scene: Scene) -> None:
    scene.store.snapshot(now=0, seed=0)
    scene.submit()
    before = scene.store.snapshot(now=0, seed=0).workloads
    scene.submit()
    after = scene.store.snapshot(now=0, seed=0).workloads
    assert after.key.base is before.key.base
    assert (before.key.size, after.key.size) == (1_005, 1_006)


def test_no_statement_walks_a_table(scene: Scene) -> None:
    """On the paths that run all the time. `head` and `history_policy` have one row; the others of these are small."""
    store, small = scene.store, {"head", "nodes", "clusters", "endpoints", "prices", "history_policy"}
    store.snapshot(now=0, seed=0)
    store.wanted("local")
    with statements() as seen:
        work = scene.submit(choices=(one_cpu(), one_cpu(cpu_milli=9)))
        store.snapshot(now=0, seed=0)
        pod = scene.run(work)
        scene.end(pod)
        scene.applied(scene.usage(pod, start=pod.started_at, end=pod.started_at + 1))
        scene.applied(scene.advance(work, Phase.SUCCEEDED))
        scene.commit(scene.close(pod), idempotency=idempotency("k"))
        store.snapshot(now=0, seed=0)
        store.wanted("local")
        store.usage(tenant=TENANT, since=scene.now, until=scene.now + 9)
        store.events(tenant=TENANT, workload=work.id, after=3, limit=10)
        store.events(tenant=TENANT, workload="", after=3, limit=10)
        for group_by in ("workload", "project", "day"):
            store.ledger(tenant=TENANT, group_by=group_by, since=scene.now, until=scene.now + 9)
        store.workloads(WorkloadFilter(tenant=TENANT, phases=(*WAITING, *ACTIVE)), before=0, limit=10)
    assert len(seen) > 60
    walks = {
        (step.split()[1], statement)
        for statement, parameters in seen
        for step in explained(store, statement, parameters)
        if step.startswith("SCAN") and "INDEX" not in step and step.split()[1] not in small
    }
    assert walks == set()


def test_a_plan_of_many_actions_costs_a_few_statements(scene: Scene) -> None:
    works = scene.all()[:50]
    plan = [scene.allocate(work) for work in works]
    with statements() as seen:
        assert scene.commit(*plan).applied == 50
    assert len(seen) < 16


def test_a_refused_action_among_many_writes_nothing_of_its_own(scene: Scene) -> None:
    works = scene.all()[:2]
    result = scene.commit(scene.allocate(works[0]), scene.allocate(works[0]), scene.allocate(works[1]))
    assert (result.applied, [row.index for row in result.refused]) == (2, [1])
    assert [len(scene.store.allocations(work.key)) for work in works] == [1, 1]
    assert scene.workload(works[0].id).reason == WHY


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def explained(store: SqlStore, statement: str, parameters: Any) -> list[str]:
    if statement.split(maxsplit=1)[0] not in {"SELECT", "UPDATE"}:
        return []
    one = parameters[0] if isinstance(parameters, list) else parameters

    def explain(connection: sa.Connection) -> list[str]:
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", one)]

    work: Callable[[sa.Connection], list[str]] = explain
    return store._database.read(work)
