"""The schema: migrated from the oldest with rows in it, equal to `tables`, newer ones refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from mainstay.chain import Verifier
from mainstay.domain.allocation import Owner
from mainstay.domain.caps import CapUse
from mainstay.domain.errors import StateUnusable
from mainstay.domain.plan import Idempotency, ObserveVolumes, Preempt
from mainstay.domain.preemption import Rule, Slot, Victim
from mainstay.domain.volume import VolumeRecord, VolumeState
from mainstay.domain.workload import Phase, Volume
from mainstay.store import SqlStore, migrations, open_postgresql, open_sqlite, tables
from mainstay.store.engine import APPLICATION_ID, Database, Postgresql, Sqlite
from mainstay.store.failures import Contradiction
from mainstay.store.migrations.versions import v0008_lines_and_volumes, v0011_pods_of_nodes, v0018_elastic
from tests.stores import SECOND, TENANT, WHY, Scene

OLDEST = Path(__file__).parent / "schema_0001"
"""The first schema and rows in it, as SQL that nobody edits any more."""


@pytest.fixture(params=["sqlite", "postgresql"])
def oldest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """A store of today, opened on a database of the first schema."""
    script = (OLDEST / f"{request.param}.sql").read_text() + (OLDEST / "rows.sql").read_text()
    if request.param == "sqlite":
        path = tmp_path / "old.db"
        old = sqlite3.connect(path)
        old.executescript(f"PRAGMA application_id = {APPLICATION_ID};" + script)
        old.close()
        store = open_sqlite(path)
    else:
        url = request.getfixturevalue("postgres_url")
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.connection.driver_connection.execute(script)
        engine.dispose()
        store = open_postgresql(url)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    if request.param == "sqlite":
        opened: Database = Sqlite(tmp_path / "mainstay.db")
    else:
        opened = Postgresql(request.getfixturevalue("postgres_url"))
    yield opened
    opened.close()


def test_the_rows_of_the_oldest_schema_are_all_there(oldest: SqlStore) -> None:
    (work,) = Scene(oldest).all()
    assert (work.id, work.phase, work.spec.run) == ("train-0001", Phase.RUNNING, ("python", "train.py"))
    (pod,) = oldest.allocations(work.key)
    assert (pod.pod, pod.address) == ("train-0001-1-0", "127.0.0.1:9000")
    assert oldest.nodes()[0].used.cpu_milli == 1_000
    assert (oldest.nodes()[0].used_pods, oldest.nodes()[0].pods_max) == (1, None)
    assert [row.allocation for row in oldest.wanted("local")] == [pod]
    assert [event.seq for event in oldest.events(tenant="physics", workload="", after=0, limit=9)] == [1, 2]
    assert oldest.snapshot(now=0, seed=0).workloads.key.tolist() == [work.key]
    assert oldest.system() == "0" * 32


def test_the_oldest_schema_goes_on_working(oldest: SqlStore) -> None:
    scene = Scene(oldest)
    scene.run(scene.submit())
    assert [event.seq for event in oldest.events(tenant="physics", workload="", after=0, limit=99)] == list(range(1, 7))


def test_audit_rows_of_before_are_chained_and_the_next_one_follows_from_them(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.executescript(f"PRAGMA application_id = {APPLICATION_ID};" + (OLDEST / "sqlite.sql").read_text())
    old.executescript((OLDEST / "rows.sql").read_text())
    (known,) = old.execute("SELECT count(*) FROM audit").fetchone()
    more = [(seq, seq, "ada", "physics", "submit", f"train-{seq}", "submitted") for seq in range(known + 1, 25_001)]
    old.executemany(
        "INSERT INTO audit (seq, at, actor, tenant, action, object, detail) VALUES (?, ?, ?, ?, ?, ?, ?)", more
    )
    old.execute("UPDATE head SET audit_seq = 25000")
    old.commit()
    old.close()
    store = open_sqlite(path)
    Scene(store).submit()
    chain = Verifier()
    for row in store.audit(after=0, limit=30_000):
        assert chain.take(row) is None
    assert (chain.end(store.audit_head()), chain.head.seq) == (None, 25_001)
    store.close()


def test_a_writer_of_before_cannot_add_a_row_outside_of_the_chain(request: pytest.FixtureRequest) -> None:
    store = open_postgresql(request.getfixturevalue("postgres_url"))
    row = (
        "INSERT INTO audit (seq, at, actor, tenant, action, object, detail) VALUES (1, 1, 'a', 't', 'submit', 'x', '')"
    )
    with pytest.raises(Contradiction):
        store._database.write(lambda connection: connection.exec_driver_sql(row))
    store.close()


def test_the_migrated_schema_is_the_one_in_tables(database: Database) -> None:
    database.write(migrations.migrate)

    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        return compare_metadata(context, tables.metadata)

    assert database.read(differences) == []


def test_a_crash_in_a_migration_leaves_nothing_of_it(database: Database) -> None:
    class Crash(Exception):
        pass

    def crash(connection: sa.Connection) -> None:
        migrations.migrate(connection)
        raise Crash

    with pytest.raises(Crash):
        database.write(crash)
    assert database.read(lambda connection: sa.inspect(connection).get_table_names()) == []
    database.write(migrations.migrate)
    assert database.read(migrations.revision) == migrations.LATEST


def test_a_schema_newer_than_this_code_is_refused_and_left_alone(database: Database) -> None:
    database.write(migrations.migrate)

    def newer(connection: sa.Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    database.write(newer)
    with pytest.raises(StateUnusable, match="newer version of mainstay: its schema is 9999") as error:
        SqlStore(database)
    assert "upgrade mainstay" in error.value.hint


def test_latest_is_the_newest_file_and_the_history_is_one_line() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [migrations.LATEST]
    assert sorted(script.revision for script in scripts.walk_revisions()) == [f"{n:04}" for n in range(1, 35)]


def test_opening_a_current_schema_does_not_load_the_migrations(tmp_path: Path) -> None:
    import subprocess
    import sys

    open_sqlite(tmp_path / "mainstay.db").close()
    script = (
        "import sys; from pathlib import Path; from mainstay.store import open_sqlite;"
        "open_sqlite(Path(sys.argv[1])).close(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "mainstay.db")], check=True)


def test_what_waits_and_runs_is_found_by_the_volumes_that_it_names(oldest: SqlStore) -> None:
    scene = Scene(oldest)
    scene.submit(volumes=(Volume(path="a", name="data"), Volume(path="b", name="more"), Volume(path="scratch")))
    scene.submit()
    expected = [row.used_by for row in _volumes(scene)]
    assert len(expected[0]) == 1

    def anew(connection: sa.Connection) -> None:
        connection.execute(sa.update(tables.workloads).values(volumes=""))
        v0008_lines_and_volumes._name_volumes(connection)

    oldest._database.write(anew)
    assert [row.used_by for row in _volumes(scene)] == expected


def test_pods_that_have_not_ended_are_counted_on_their_nodes(oldest: SqlStore) -> None:
    scene = Scene(oldest)
    scene.fleet(nodes=2)
    first, _ = oldest.nodes()
    scene.end(scene.run(scene.submit()))
    scene.applied(scene.allocate(scene.submit(nodes=2), node=first))
    expected = [node.used_pods for node in oldest.nodes()]
    assert expected == [3, 0]

    def anew(connection: sa.Connection) -> None:
        connection.execute(sa.update(tables.nodes).values(used_pods=0))
        v0011_pods_of_nodes._count(connection)

    oldest._database.write(anew)
    assert [node.used_pods for node in oldest.nodes()] == expected


def _volumes(scene: Scene) -> tuple[VolumeRecord, ...]:
    owner = Owner(tenant=TENANT, project=scene.all()[0].project)
    seen = tuple(VolumeState(owner=owner, name=name) for name in ("data", "more"))
    scene.applied(ObserveVolumes(cluster="local", volumes=seen, reason=WHY))
    return scene.store.volumes(tenant=TENANT)


def test_gangs_have_as_many_ranks_as_they_had_and_what_yields_knows_for_whom(oldest: SqlStore) -> None:
    scene = Scene(oldest)
    scene.fleet(cpus=8, cluster="large")
    node = next(row for row in oldest.nodes() if row.cluster == "large")
    gang, high = scene.submit(nodes=3), scene.submit()
    scene.applied(scene.allocate(gang, node=node))
    scene.applied(scene.advance(gang, Phase.RUNNING))
    keys = tuple(pod.key for pod in oldest.allocations(gang.key))
    victim = Victim(workload_key=gang.key, allocation_keys=keys, rule=Rule.RECLAIM)
    slot = Slot(rank=0, node_key=node.key, resources=high.spec.choices[0])
    until = scene.now + 60 * SECOND
    scene.applied(Preempt(workload_key=high.key, attempt=1, slots=(slot,), until=until, victims=(victim,), reason=WHY))
    expected = _bounds(oldest)
    assert {(3, 3), (1, 1)} < set(expected)
    assert (3, high.key) in expected

    def anew(connection: sa.Connection) -> None:
        connection.execute(sa.update(tables.workloads).values(nodes_min=1, nodes_max=1))
        connection.execute(sa.update(tables.allocations).values(ranks=1, yields_to=0))
        v0018_elastic._fill(connection)

    oldest._database.write(anew)
    assert _bounds(oldest) == expected


def _bounds(store: SqlStore) -> list[tuple[int, int]]:
    """Of each workload its min and max, of each allocation its ranks and for whom it yields."""
    works, pods = tables.workloads.c, tables.allocations.c

    def read(connection: sa.Connection) -> list[tuple[int, int]]:
        rows = connection.execute(sa.select(works.nodes_min, works.nodes_max).order_by(works.key)).all()
        rows += connection.execute(sa.select(pods.ranks, pods.yields_to).order_by(pods.key)).all()
        return [tuple(row) for row in rows]

    return store._database.read(read)


def test_projects_with_work_are_on_record_and_nobody_is_let_in(oldest: SqlStore) -> None:
    work = Scene(oldest).all()[0]
    assert [row.name for row in oldest.projects(tenant=TENANT)] == [
        name for name in {work.project} if name != "default"
    ]
    assert (oldest.tenants(), oldest.members(tenant=TENANT)) == ((), ())


def test_replies_are_those_of_the_administrator_and_endpoints_keep_their_names(database: Database) -> None:
    database.write(lambda connection: migrations.migrate(connection, upto="0026"))

    def fill(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "INSERT INTO idempotency (tenant, route, key, body_hash, reply, at) VALUES ('a', 'r', 'k', 'h', 'made', 1)"
        )
        connection.exec_driver_sql(
            "INSERT INTO endpoints VALUES ('digits', 'a', 'p', 'm', 1, 's', 2, 3, 'c', 4, 'h:1', 0, 5, 6)"
        )

    database.write(fill)
    store = SqlStore(database)
    key = Idempotency(tenant="a", member="admin", route="r", key="k", body_hash="h", reply="")
    assert store.replied(key) == "made"
    assert store.replied(replace(key, member="bob")) is None
    kept = store.endpoint("digits", tenant="a")
    assert (kept.project, kept.serving, kept.candidate, kept.address, kept.version) == ("p", "s", "c", "h:1", 6)


def test_tenants_and_projects_of_before_are_there_and_not_removed(database: Database) -> None:
    database.write(lambda connection: migrations.migrate(connection, upto="0031"))

    def fill(connection: sa.Connection) -> None:
        connection.exec_driver_sql("INSERT INTO tenants (name, created_at, created_by) VALUES ('a', 1, 'ada')")
        connection.exec_driver_sql(
            "INSERT INTO projects (tenant, name, created_at, created_by) VALUES ('a', 'vision', 1, 'ada')"
        )

    database.write(fill)
    scene = Scene(SqlStore(database))
    assert [row.removed_at for row in (*scene.store.tenants(), *scene.store.projects(tenant="a"))] == [0, 0]
    scene.submit(tenant="a", project="vision")


def test_sessions_of_before_share_the_caps_of_the_token_that_they_come_from(database: Database) -> None:
    database.write(lambda connection: migrations.migrate(connection, upto="0031"))
    parents = {"token": "", "link": "token", "session": "token", "second": "session", "third": "second", "alone": ""}

    def fill(connection: sa.Connection) -> None:
        for name, parent in parents.items():
            connection.exec_driver_sql(
                "INSERT INTO tokens (id, tenant, member, name, kind, parent, digest, caps, created_at, created_by,"
                f" expires_at, revoked_at, used_at) VALUES ('{name}', 'a', 'm', 'n', 'token', '{parent}', 'd', '{{}}', 1,"
                " 'm', 9, 0, 0)"
            )

    database.write(fill)
    store = SqlStore(database)
    assert {token.id: token.root for token in store.tokens(tenant="a")} == {
        **dict.fromkeys(("link", "session", "second", "third"), "token"),
        **dict.fromkeys(("token", "alone"), ""),
    }
    assert store.cap_uses(["token"]) == {"token": CapUse()}


def test_runs_of_before_count_for_no_token(oldest: SqlStore) -> None:
    assert {work.token for work in Scene(oldest).all()} == {""}
