"""Several stores on one PostgreSQL: what replicas may do to each other (I5, I11)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa

from mainstay.domain.errors import Fenced, StateUnusable, Unavailable
from mainstay.domain.plan import RowVersion, Submit
from mainstay.domain.workload import Phase
from mainstay.store import SqlStore, engine, open_postgresql
from tests.stores import ALL, TENANT, WHY, Scene, idempotency


@pytest.fixture
def replicas(postgres_url: str) -> Iterator[tuple[SqlStore, SqlStore]]:
    """Two of them."""
    one, other = open_postgresql(postgres_url), open_postgresql(postgres_url)
    yield one, other
    one.close()
    other.close()


def libpq(url: str) -> str:
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_of_two_replicas_that_want_the_last_slot_exactly_one_gets_it(replicas: tuple[SqlStore, SqlStore]) -> None:
    scene = Scene(replicas[0])
    slots, wanted = 5, 40
    scene.fleet(cpus=slots)
    plans = [scene.allocate(scene.submit()) for _ in range(wanted)]

    def place(number: int) -> int:
        return Scene(replicas[number % 2]).commit(plans[number]).applied

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(place, range(wanted))) == slots
    assert scene.store.nodes()[0].used.cpu_milli == slots * 1_000
    assert sum(work.phase is Phase.STARTING for work in scene.all()) == slots


def test_of_two_replicas_that_place_the_same_workload_exactly_one_does(replicas: tuple[SqlStore, SqlStore]) -> None:
    scene = Scene(replicas[0])
    scene.fleet(cpus=64)
    works = [scene.submit() for _ in range(20)]
    plans = [
        scene.allocate(work, guards=(RowVersion(kind="workload", key=work.key, version=work.version),))
        for work in works
    ]
    start = threading.Barrier(2)

    def place(store: SqlStore) -> int:
        start.wait()
        return sum(Scene(store).commit(plan).applied for plan in plans)

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(place, replicas)) == len(works)
    assert all(len(scene.store.allocations(work.key)) == 1 for work in works)


def test_a_version_is_never_seen_before_an_earlier_one(replicas: tuple[SqlStore, SqlStore]) -> None:
    """A cursor by version misses nothing, however the commits of the replicas interleave."""
    writer, reader = replicas
    writing = [Submit(workload=Scene(writer).new(id=f"w-{number}"), reason=WHY) for number in range(120)]
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(reader.snapshot(now=0, seed=0).workloads.key.size)

    watching = threading.Thread(target=read)
    watching.start()
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda number: Scene(replicas[number % 2]).commit(writing[number]), range(120)))
    done.set()
    watching.join()
    assert seen == sorted(seen)
    final = reader.snapshot(now=0, seed=0)
    assert (final.workloads.key.size, final.version) == (120, 120)
    events = reader.events(tenant=TENANT, workload="", after=0, limit=ALL)
    assert [event.seq for event in events] == list(range(1, 121))


def test_a_late_leader_is_refused_by_every_replica(replicas: tuple[SqlStore, SqlStore]) -> None:
    old, new = Scene(replicas[0]), Scene(replicas[1])
    old.fleet()
    work = old.submit()
    epoch = old.lead("old")
    assert new.lead("new", after_seconds=60)
    for store in replicas:
        with pytest.raises(Fenced):
            Scene(store).commit(old.allocate(work), epoch=epoch)
    assert replicas[0].allocations(work.key) == ()


def test_a_tenure_does_not_pass_while_a_commit_of_it_is_under_way(
    replicas: tuple[SqlStore, SqlStore], postgres_url: str
) -> None:
    """While a writer holds the lock, a take-over waits: epoch check and commit are one."""
    scene = Scene(replicas[0])
    scene.lead("old")
    taken: list[object] = []
    with psycopg.connect(libpq(postgres_url)) as under_way:
        under_way.execute("SELECT * FROM head FOR UPDATE")
        taking = threading.Thread(target=lambda: taken.append(Scene(replicas[1]).lead("new", after_seconds=60)))
        taking.start()
        taking.join(timeout=0.3)
        assert taking.is_alive()
        assert taken == []
    taking.join()
    assert len(taken) == 1


def test_a_held_lock_is_told_in_bounded_time_and_reads_go_on(postgres_url: str) -> None:
    store = open_postgresql(postgres_url, wait_seconds=0.2)
    scene = Scene(store)
    scene.submit()
    with psycopg.connect(libpq(postgres_url)) as foreign:
        foreign.execute("SELECT * FROM head FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="holds the lock"):
            scene.submit()
        assert time.monotonic() - began < 2
        assert len(scene.all()) == 1
    scene.submit()
    assert len(scene.all()) == 2
    store.close()


def test_a_replica_that_is_stopped_within_a_transaction_holds_up_the_others_only_so_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "IDLE_SECONDS_MAX", 0.3)
    stopped, other = open_postgresql(postgres_url), open_postgresql(postgres_url)
    began = threading.Event()

    def sleeps(connection: sa.Connection) -> None:
        connection.execute(sa.text("UPDATE head SET version = version + 1"))
        began.set()
        time.sleep(1.0)
        connection.execute(sa.text("UPDATE head SET version = version + 1"))

    with ThreadPoolExecutor(1) as threads:
        sleeping = threads.submit(stopped._database.write, sleeps)
        began.wait()
        at = time.monotonic()
        Scene(other).submit()
        assert time.monotonic() - at < 0.9
        with pytest.raises(Unavailable):
            sleeping.result()
    assert (other.version(), len(Scene(stopped).all())) == (1, 1)
    for store in (stopped, other):
        store.close()


def test_a_lost_connection_is_told_and_the_next_call_finds_the_server_again(postgres_url: str) -> None:
    store = open_postgresql(postgres_url)
    scene = Scene(store)
    scene.submit()

    def cut() -> None:
        with psycopg.connect(libpq(postgres_url), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database()"
            )

    cut()
    assert len(scene.all()) == 1
    cut()
    action = Submit(workload=scene.new(), reason=WHY)
    with pytest.raises(Unavailable, match=r"cannot be reached|failed"):
        scene.commit(action, idempotency=idempotency("k"))
    assert scene.commit(action, idempotency=idempotency("k")).reply is None
    assert len(scene.all()) == 2
    store.close()


def test_a_server_that_does_not_answer_is_told() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        open_postgresql("postgresql://nobody@127.0.0.1:1/none")


def test_replicas_that_start_at_once_on_an_empty_database_agree(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(open_postgresql, [postgres_url] * 4))
    assert len({store.system() for store in stores}) == 1
    for store in stores:
        store.close()


def test_a_database_with_tables_of_somebody_else_is_not_touched(postgres_url: str) -> None:
    with psycopg.connect(libpq(postgres_url), autocommit=True) as other:
        other.execute("CREATE TABLE diary (entry TEXT)")
    with pytest.raises(StateUnusable, match="not of mainstay"):
        open_postgresql(postgres_url)
