"""SQLite when things go wrong: killed processes, a full disk, a foreign lock, files that are not ours (F2, F4, F5)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainstay.domain.errors import DiskFailed, StateUnusable, StorageFull, Unavailable
from mainstay.domain.plan import Submit
from mainstay.store import SqlStore, open_sqlite
from mainstay.store.engine import APPLICATION_ID
from tests.databases import empty_sqlite
from tests.integration.store import writer
from tests.stores import ALL, TENANT, WHY, Scene, idempotency

ROOT = Path(__file__).parents[3]
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounts a small tmpfs, which only root may do")
not_root = pytest.mark.skipif(os.getuid() == 0, reason="root may write to everything")

WRITER = [sys.executable, "-m", "tests.integration.store.writer"]


def consistent(store: SqlStore) -> None:
    """What holds after any crash."""
    events = store.events(tenant="", workload="", after=0, limit=ALL)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    scene = Scene(store)
    pods = [pod for work in scene.all() for pod in store.allocations(work.key)]
    assert store.nodes()[0].used.cpu_milli == sum(pod.resources.cpu_milli for pod in pods)
    submitted = [event.object for event in events if event.kind == "workload" and event.phase_before is None]
    assert sorted(submitted) == sorted(work.id for work in scene.all())
    assert len(store.audit(after=0, limit=ALL)) == 1 + len(scene.all()) + len(pods)


def test_a_process_killed_between_any_two_statements_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    finished, died_at = False, 0
    while not finished:
        died_at += 9  # about every ninth point of one long run; the remainder changes with each
        state = tmp_path / f"{died_at}.db"
        code, acknowledged = writer.forked(state, die_at=died_at)
        assert code in {0, writer.KILLED}
        finished = code == 0
        store = open_sqlite(state)
        stored = [work.id for work in Scene(store).all()]
        assert set(acknowledged) <= set(stored)
        assert len(stored) - len(acknowledged) in {0, 1}
        consistent(store)
        again = Scene(store)
        for number in range(len(stored)):
            action = Submit(workload=again.new(id=f"other-{number}"), reason=WHY)
            assert again.commit(action, idempotency=idempotency(str(number))).reply == "reply"
        assert len(again.all()) == len(stored)
        store.close()
    assert died_at > 9 * 10


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_process_killed_inside_the_writing_of_a_page_loses_nothing_that_it_acknowledged(
    tmp_path: Path, call: str
) -> None:
    for when in range(1, 60, 8):
        state = tmp_path / f"{call}-{when}.db"
        empty_sqlite(state).close()
        inject = f"inject={call}:signal=KILL:when={when}"
        command = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        command += [*WRITER, str(state), "0"]
        child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if "ptrace" in child.stderr:
            pytest.skip("strace may not trace here")
        if not sqlite3.connect(state).execute("SELECT count(*) FROM nodes").fetchone()[0]:
            continue
        store = open_sqlite(state)
        assert set(child.stdout.split()) <= {work.id for work in Scene(store).all()}
        consistent(store)
        store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB and no more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def submit_for_ever(scene: Scene) -> None:
    for _ in range(1_000):
        scene.submit(setup="x" * 20_000)


@needs_root
def test_a_full_disk_refuses_writes_reads_on_and_goes_on_once_there_is_room(small_disk: Path) -> None:
    store = open_sqlite(small_disk / "mainstay.db")
    scene = Scene(store)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (2 << 20))
    with pytest.raises(StorageFull) as full:
        submit_for_ever(scene)
    assert "free some space" in full.value.hint
    stored = len(scene.all())
    assert stored > 0
    with pytest.raises(StorageFull):
        scene.submit(setup="x" * 20_000)
    assert len(scene.all()) == store.snapshot(now=0, seed=0).workloads.key.size == stored
    ballast.unlink()
    scene.submit(setup="x" * 20_000)
    assert len(scene.all()) == stored + 1
    store.close()
    assert sqlite3.connect(small_disk / "mainstay.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)


@needs_root
def test_opening_on_a_full_disk_says_so_and_works_once_there_is_room(small_disk: Path) -> None:
    store = open_sqlite(small_disk / "mainstay.db")
    Scene(store).submit()
    store.close()
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(b"x" * (8 << 20))
    with pytest.raises(StateUnusable, match="the disk under the state is full"):
        open_sqlite(small_disk / "mainstay.db")
    ballast.unlink()
    store = open_sqlite(small_disk / "mainstay.db")
    assert len(Scene(store).all()) == 1
    store.close()


def test_a_foreign_lock_is_told_in_bounded_time_and_reads_go_on(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "mainstay.db", wait_seconds=0.2)
    scene = Scene(store)
    scene.submit()
    foreign = sqlite3.connect(tmp_path / "mainstay.db", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(Unavailable) as busy:
        scene.submit()
    assert time.monotonic() - began < 2
    assert "another program" in busy.value.message
    assert len(scene.all()) == 1
    foreign.execute("ROLLBACK")
    scene.submit()
    assert len(scene.all()) == 2
    store.close()


def test_after_a_failure_of_the_disk_nothing_is_written_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sqlite(tmp_path / "mainstay.db")
    scene = Scene(store)
    scene.submit()
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    def fail(*_: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr("sqlalchemy.engine.default.DefaultDialect.do_commit", fail)
        with pytest.raises(DiskFailed):
            scene.submit()
    with pytest.raises(DiskFailed):
        scene.submit()
    assert len(scene.all()) == 1
    store.close()


def test_a_reader_cannot_write_and_does_not_checkpoint(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "mainstay.db")

    def pragmas(connection: object) -> tuple[int, int]:
        driver = connection.connection
        return tuple(driver.execute(f"PRAGMA {name}").fetchone()[0] for name in ("query_only", "wal_autocheckpoint"))

    assert store._database.read(pragmas) == (1, 0)
    store.close()


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "mainstay.db")

    def pragmas(connection: object) -> tuple[object, ...]:
        names = ("synchronous", "journal_mode", "foreign_keys")
        return tuple(connection.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)

    full = 2
    assert store._database.write(pragmas) == (full, "wal", 1)
    store.close()


# Opening


def test_a_file_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "mainstay.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE diary (entry TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StateUnusable, match="not a database of mainstay"):
        open_sqlite(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough" * 100, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_a_file_that_is_no_database_is_told_as_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mainstay.db"
    path.write_bytes(content)
    with pytest.raises(StateUnusable, match="damaged") as error:
        open_sqlite(path)
    assert error.value.hint
    assert path.read_bytes() == content


def test_a_damaged_page_is_told_and_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "mainstay.db"
    store = open_sqlite(path)
    Scene(store).applied(*(Submit(workload=Scene(store).new(id=f"w-{n}"), reason=WHY) for n in range(200)))
    store.close()
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(StateUnusable, match="damaged"):
        Scene(open_sqlite(path)).all()


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateUnusable) as error:
        open_sqlite(tmp_path / "nowhere" / "mainstay.db")
    assert "writable" in error.value.hint


def test_a_directory_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateUnusable):
        open_sqlite(tmp_path)


@not_root
def test_a_read_only_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mainstay.db"
    open_sqlite(path).close()
    path.chmod(stat.S_IRUSR)
    with pytest.raises(StateUnusable, match="cannot be written"):
        open_sqlite(path)


@needs_root
def test_a_read_only_directory_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    open_sqlite(folder / "mainstay.db").close()
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from mainstay.domain.errors import StateUnusable
        from mainstay.store import open_sqlite
        os.setuid(65534)
        try:
            open_sqlite(Path(sys.argv[1]))
        except StateUnusable as error:
            print(error.message, "|", error.hint)
    """)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
        if parent.name.startswith("pytest-of"):
            break
    child = subprocess.run(
        [sys.executable, "-c", script, str(folder / "mainstay.db")], capture_output=True, text=True, check=False
    )
    if "PermissionError" in child.stderr or "ModuleNotFound" in child.stderr or "ImportError" in child.stderr:
        pytest.skip("the interpreter is not readable for another user")
    assert "cannot be written" in child.stdout, child.stderr


def test_our_file_says_that_it_is_ours(tmp_path: Path) -> None:
    open_sqlite(tmp_path / "mainstay.db").close()
    (found,) = sqlite3.connect(tmp_path / "mainstay.db").execute("PRAGMA application_id").fetchone()
    assert found == APPLICATION_ID


def test_what_was_stored_is_there_after_reopening(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "mainstay.db")
    work, system = Scene(store).submit(), store.system()
    store.close()
    again = open_sqlite(tmp_path / "mainstay.db")
    assert (again.workload(work.id, tenant=TENANT), again.system()) == (work, system)
    again.close()
