"""Pods on this machine when things go wrong: keepers killed, daemons, hostile output, full disks, set clocks, reused ids."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from mainstay.clusters.local import LocalCluster, processes, spec
from mainstay.clusters.local.processes import boot_id
from mainstay.clusters.local.runs import Run
from mainstay.domain.allocation import DeletePod, End, ForgetPod, Seen
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Gone, Invalid, NotFound, NotYet
from tests.clusters import OWNER, Program, Rig, create, local_rig, mount

pytestmark = pytest.mark.xdist_group("local-cluster")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = local_rig(tmp_path)
    yield made
    made.epoch += 1_000
    for pod in (await made.cluster.observe()).pods:
        await made.act(DeletePod(name=pod.name, grace_seconds=0))
        await made.seen(pod.name, Seen.ENDED)
    await made.cluster.close()
    assert not marked(tmp_path), "a process of a pod has survived the test"


def marked(folder: Path) -> list[int]:
    """Processes of pods below this folder, by their environment; without keepers, which may still be on their way out."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            ours = f"MAINSTAY_RUN_DIRECTORY={folder}".encode() in (entry / "environ").read_bytes()
            if ours and b"shim.py" not in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def directory(rig: Rig, pod: str) -> Path:
    cluster = rig.cluster
    assert isinstance(cluster, LocalCluster)
    return cluster._directories.runs / pod


def started(rig: Rig, pod: str) -> dict[str, object]:
    return dict(json.loads((directory(rig, pod) / "started.json").read_text()))


def keeper(rig: Rig, pod: str) -> int:
    """The process that keeps a pod."""
    done = subprocess.run(["pgrep", "-f", f"shim.py {directory(rig, pod)}"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


async def until(true: object) -> None:
    assert callable(true)
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def script(rig: Rig, pod: str, text: str, **changes: object) -> None:
    await rig.until(create(pod, rig.node, script=text, **changes))


async def test_a_killed_keeper_loses_the_pod_and_leaves_no_process_behind(rig, tmp_path):
    await script(rig, "p", "sleep 300 & sleep 300")
    await rig.seen("p", Seen.RUNNING)
    os.kill(keeper(rig, "p"), signal.SIGKILL)
    ended = await rig.seen("p", Seen.ENDED)
    assert ended.end is End.LOST
    assert ended.started_at <= ended.ended_at
    assert not marked(tmp_path)


async def test_a_killed_pod_is_reported_with_its_signal(rig):
    await script(rig, "p", "kill -9 $$")
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.EXITED, 137)


async def test_daemons_end_with_their_pod(rig, tmp_path):
    await script(rig, "p", "setsid sh -c 'trap \"\" TERM; sleep 300' & setsid setsid sleep 300 & sleep 0.3; exit 0")
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.EXITED, 0)
    assert not marked(tmp_path)


async def test_creating_at_once_starts_one_process(rig, tmp_path):
    action = create("p", rig.node, script="echo once; sleep 30")
    handles = [rig.cluster, rig.remake(), rig.remake()]
    await asyncio.gather(*(handle.act(action, epoch=1) for handle in handles for _ in range(3)))
    await rig.seen("p", Seen.RUNNING)
    await asyncio.sleep(0.2)
    assert await rig.log("p") == "once\n"


async def test_a_new_handle_finds_what_runs_and_what_ended_meanwhile(rig):
    await script(rig, "stays", "sleep 30")
    await script(rig, "ends", "sleep 0.2; exit 3")
    await rig.seen("stays", Seen.RUNNING)
    await rig.cluster.close()
    await asyncio.sleep(0.4)
    rig.cluster = rig.remake()
    assert (await rig.state("stays")).seen is Seen.RUNNING
    ended = await rig.state("ends")
    assert (ended.seen, ended.exit_code) == (Seen.ENDED, 3)


async def test_what_a_crash_left_half_prepared_never_runs(rig):
    making = directory(rig, "p").parent.parent / "making" / "p.1234"
    shutil.copytree(Path(__file__).parent, making / "files" / "work")
    rig.cluster = rig.remake()
    assert not making.exists()
    assert await rig.state("p") is None


async def test_a_run_on_record_whose_keeper_never_came_up_is_started_after_a_restart(rig, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mainstay.clusters.local.runs.Run.launch", lambda _: None)
        await script(rig, "p", "echo late")
        assert (await rig.state("p")).seen is Seen.STARTING
    rig.cluster = rig.remake()
    assert (await rig.seen("p", Seen.ENDED)).exit_code == 0
    assert await rig.log("p") == "late\n"


async def test_a_reused_process_id_is_never_killed(rig):
    await script(rig, "p", "sleep 300")
    await rig.seen("p", Seen.RUNNING)
    bystander = subprocess.Popen(["sleep", "300"])  # noqa: ASYNC220 it does not block
    record = started(rig, "p") | {"pid": bystander.pid}
    (directory(rig, "p") / "started.json").write_text(json.dumps(record))
    rig.cluster = rig.remake()
    os.kill(keeper(rig, "p"), signal.SIGKILL)
    assert (await rig.seen("p", Seen.ENDED)).end is End.LOST
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


async def test_after_a_restart_of_the_machine_its_pods_are_reported_and_nobody_is_killed(rig):
    await script(rig, "p", "sleep 300")
    running = await rig.seen("p", Seen.RUNNING)
    pid = int(str(started(rig, "p")["pid"]))
    os.kill(keeper(rig, "p"), signal.SIGSTOP)
    os.kill(keeper(rig, "p"), signal.SIGKILL)
    await until(lambda: not processes_with_lock(directory(rig, "p")))
    (directory(rig, "p") / "started.json").write_text(json.dumps(started(rig, "p") | {"boot_id": "another"}))
    rig.cluster = rig.remake()
    ended = await rig.seen("p", Seen.ENDED)
    assert ended.end is End.MACHINE_RESTARTED
    assert ended.ended_at >= running.started_at
    os.kill(pid, 0)  # it is alive: a process of another boot is not ours to kill
    os.killpg(pid, signal.SIGKILL)


def processes_with_lock(run: Path) -> bool:
    from mainstay.clusters.local.locks import is_held

    return is_held(run / "lock")


async def test_memory_above_the_limit_ends_the_pod_as_out_of_memory(rig):
    hungry = "python3 -c 'x = bytearray(400 << 20); import time; time.sleep(60)'"
    await script(rig, "p", hungry, memory_limit_bytes=100 << 20)
    assert (await rig.seen("p", Seen.ENDED)).end is End.OUT_OF_MEMORY


async def test_a_command_that_is_not_there_failed_to_start_and_says_so(rig):
    await script(rig, "p", "", argv=("/no/such/program",))
    ended = await rig.seen("p", Seen.ENDED)
    assert ended.end is End.START_FAILED
    assert "/no/such/program" in ended.detail


async def test_nothing_of_the_platform_s_environment_reaches_a_pod(rig, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("MAINSTAY_DATABASE", "postgresql://user:s3cret@host/db")
    await script(rig, "p", "env; ls -l /proc/self/fd", env=(("MINE", "yes"),))
    await rig.seen("p", Seen.ENDED)
    said = await rig.log("p")
    assert "s3cret" not in said
    assert "MINE=yes" in said


async def test_bytes_that_are_no_text_arrive_as_they_are(rig):
    await script(rig, "p", r"printf '\377\000\033[2Jx'; head -c 200000 /dev/zero; printf end")
    await rig.seen("p", Seen.ENDED)
    chunk = await rig.cluster.read_log("p", offset=0, limit=1 << 20)
    assert chunk.data[:7] == b"\xff\x00\x1b[2Jx"
    assert chunk.data[-3:] == b"end"
    assert len(chunk.data) == 7 + 200_000 + 3


async def test_of_a_huge_log_the_newest_is_kept_and_the_gap_is_told(rig, monkeypatch):
    monkeypatch.setattr(spec, "LOG_FILE_BYTES", 1 << 16)
    monkeypatch.setattr(spec, "LOG_FILES_MAX", 3)
    await script(rig, "p", "yes 0123456789 | head -c 2000000; echo; echo last")
    await rig.seen("p", Seen.ENDED)
    kept = sum(file.stat().st_size for file in (directory(rig, "p") / "logs").iterdir())
    assert kept <= 3 << 16
    offset, dropped, tail, ended = 0, 0, b"", False
    while not ended:
        chunk = await rig.cluster.read_log("p", offset=offset, limit=1 << 16)
        assert chunk.next_offset == offset + chunk.dropped + len(chunk.data)
        offset, dropped, ended = chunk.next_offset, dropped + chunk.dropped, chunk.ended
        tail = (tail + chunk.data)[-100:]
    assert dropped > 1_700_000
    assert tail.endswith(b"\nlast\n")


async def test_a_pod_outlives_a_disk_that_fills_up_under_its_log(rig, monkeypatch):
    # The size of a file is limited instead of the disk: what the keeper sees is the same, a write that fails.
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        await script(rig, "p", "yes | head -c 1000000; sleep 0.2; exit 5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.EXITED, 5)


@pytest.mark.parametrize("name", ["../p", "a/b", "", ".", "..", "-x", "P", "p" * 200, "p\n", "p\x00"])
async def test_a_name_that_leads_elsewhere_is_refused(rig, name):
    for action in (create(name, rig.node, script="true"), DeletePod(name=name, grace_seconds=0), ForgetPod(name=name)):
        with pytest.raises(Invalid):
            await rig.act(action)
    with pytest.raises(NotFound):
        await rig.cluster.read_log(name, offset=0, limit=10)


async def test_links_and_pipes_among_the_output_are_left_out(rig, tmp_path):
    (tmp_path / "secret").write_text("s3cret")
    await script(
        rig,
        "p",
        f'cd "$MAINSTAY_OUTPUT_DIR"; ln -s {tmp_path}/secret link; ln -s {tmp_path} folder; mkfifo pipe; mkdir in;'
        " echo fine > in/file",
    )
    await rig.seen("p", Seen.ENDED)
    assert await rig.output("p") == {"in/file": "fine\n"}


async def test_a_pod_that_removes_the_directory_around_it_runs_on_and_ends_as_itself(rig):
    await script(rig, "p", 'echo here; rm -rf "$(dirname "$PWD")"; cd /; sleep 0.3; exit 4')
    await rig.seen("p", Seen.RUNNING)
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.EXITED, 4)
    assert await rig.log("p") == "here\n"
    await rig.act(ForgetPod(name="p"))


async def test_a_pod_that_removes_its_records_is_ended_as_lost_and_never_started_again(rig, tmp_path):
    action = create("p", rig.node, script=f"rm -rf {directory(rig, 'p')}; sleep 300")
    await rig.act(action)
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.end, ended.detail) == (End.LOST, "its records were removed while it ran")
    assert not marked(tmp_path)
    with pytest.raises(Gone):
        await rig.act(action)
    await rig.act(ForgetPod(name="p"))
    with pytest.raises(Gone):
        await rig.act(action)


async def test_a_pod_whose_records_are_gone_is_not_created_before_the_next_look(rig):
    action = create("p", rig.node, script="sleep 300")
    await rig.act(action)
    await rig.seen("p", Seen.RUNNING)
    shutil.rmtree(directory(rig, "p"))
    with pytest.raises(Gone):
        await rig.act(action)
    await rig.act(DeletePod(name="p", grace_seconds=0))
    assert (await rig.seen("p", Seen.ENDED)).end is End.LOST


async def test_a_crash_between_the_records_of_a_pod_and_its_name_is_made_good(rig, tmp_path):
    await script(rig, "p", "sleep 300")
    await rig.seen("p", Seen.RUNNING)
    name = directory(rig, "p").parent.parent / "names" / "p"
    name.unlink()
    assert (await rig.state("p")).seen is Seen.RUNNING
    assert name.exists()


async def test_a_pod_that_was_prepared_before_the_machine_went_down_is_not_started_after(rig, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mainstay.clusters.local.runs.Run.launch", lambda _: None)
        patch.setattr("mainstay.clusters.local.spec.boot_id", lambda: "an-earlier-boot")
        await script(rig, "p", "echo half of my files are missing")
    rig.cluster = rig.remake()
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.end, ended.started_at) == (End.MACHINE_RESTARTED, 0)


async def test_one_pod_that_cannot_be_looked_at_hides_no_other(rig, monkeypatch):
    await script(rig, "bad", "sleep 300")
    await script(rig, "good", "exit 0")
    look = Run.look

    def failing(run: Run) -> None:
        if run.pod == "bad":
            raise OSError(errno.EIO, "broken")
        look(run)

    monkeypatch.setattr(Run, "look", failing)
    assert (await rig.seen("good", Seen.ENDED)).exit_code == 0
    monkeypatch.undo()
    await rig.seen("bad", Seen.RUNNING)


DIG = "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\nopen('f', 'w').close()"


async def test_folders_nested_thousands_deep_are_refused_as_output_and_forgotten_all_the_same(rig):
    await script(rig, "p", f'cd "$MAINSTAY_OUTPUT_DIR" && python -c "{DIG}" && cd / && rm -f x')
    ended = await rig.seen("p", Seen.ENDED)
    assert ended.exit_code == 0, await rig.log("p")
    with pytest.raises(Invalid, match="more than 1024 bytes"):
        await rig.output("p")
    await rig.act(ForgetPod(name="p"))
    assert not (directory(rig, "p").parent.parent / "files" / "p").exists()


async def test_folders_that_a_pod_has_locked_are_forgotten_all_the_same(rig):
    await script(rig, "p", "mkdir -p a/b/c && touch a/b/c/f && ln -s / a/link && chmod 0 a/b/c a/b a")
    await rig.seen("p", Seen.ENDED)
    await rig.act(ForgetPod(name="p"))
    assert not (directory(rig, "p").parent.parent / "files" / "p").exists()


async def test_a_file_whose_name_no_tree_can_hold_is_refused_as_output(rig):
    await script(rig, "p", "touch \"$MAINSTAY_OUTPUT_DIR/$(printf 'a\\nb')\"")
    await rig.seen("p", Seen.ENDED)
    with pytest.raises(Invalid, match="cannot be kept"):
        await rig.output("p")


async def test_the_output_of_a_name_that_leads_elsewhere_is_empty(rig):
    assert await rig.output("../../..") == {}


async def test_files_are_put_in_place_before_the_pod_starts_with_their_modes(rig):
    cluster = rig.cluster
    assert isinstance(cluster, LocalCluster)
    tree = await stored(cluster, {"run.sh": b"#!/bin/sh\ncat code/data/x\n", "data/x": b"content"}, executable="run.sh")
    await script(rig, "p", "code/run.sh", mounts=mount(tree, "code"))
    await rig.seen("p", Seen.ENDED)
    assert await rig.log("p") == "content"


async def test_files_that_are_not_stored_are_told(rig):
    action = create("p", rig.node, script="true", mounts=mount("0" * 64, "code"))
    with pytest.raises(NotYet):
        await rig.act(action)
    with pytest.raises(Invalid, match="not stored"):
        await rig.until(action)


async def stored(cluster: LocalCluster, files: dict[str, bytes], *, executable: str) -> str:
    import hashlib

    async def once(content: bytes) -> AsyncIterator[bytes]:
        yield content

    entries, artifacts = [], cluster._artifacts.of(OWNER)
    for path, content in sorted(files.items()):
        digest = hashlib.sha256(content).hexdigest()
        await artifacts.put(digest, once(content))
        entries.append(Entry(path=path, size=len(content), digest=digest, executable=path == executable))
    return await artifacts.put_tree(Tree(entries=tuple(entries)))


async def test_ranks_of_a_gang_meet_at_one_port_and_gangs_do_not_share_it(rig):
    for rank in (0, 1):
        await script(rig, f"a-{rank}", "echo $MASTER_PORT", gang="a", rank=rank, size=2)
    await script(rig, "b-0", "echo $MASTER_PORT; sleep 1", gang="b")
    for pod in ("a-0", "a-1", "b-0"):
        await rig.seen(pod, Seen.ENDED)
    ports = [(await rig.log(pod)).strip() for pod in ("a-0", "a-1", "b-0")]
    assert ports[0] == ports[1]
    assert all(port.isdigit() for port in ports)


async def test_a_service_is_ready_once_it_answers(rig):
    serve = "mkdir w && cd w && touch ready && sleep 0.3 && exec python3 -m http.server --bind 127.0.0.1 $PORT"
    await script(rig, "p", serve, port=True, ready_path="/ready")
    running = await rig.seen("p", Seen.RUNNING)
    assert not running.ready
    deadline = time.monotonic() + 20
    while not (state := await rig.state("p")).ready:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert state.address.startswith("127.0.0.1:")


async def test_a_clock_that_is_set_back_moves_no_end_before_its_start(rig):
    await script(rig, "p", Program(runs_for=0.3).script())
    await rig.seen("p", Seen.RUNNING)
    record = started(rig, "p")
    ended = await rig.seen("p", Seen.ENDED)
    # The end is the start and what has elapsed since by a clock that nobody sets.
    assert ended.started_at == record["started_at"]
    assert 300_000 <= ended.ended_at - ended.started_at < 5_000_000
    assert record["boot_id"] == boot_id()


def test_a_process_is_known_by_its_start_and_its_boot_and_not_by_its_number():
    ours = processes.Process(pid=os.getpid(), start_time=0, boot_id=boot_id())
    processes.kill_leftovers(ours, cookie="MAINSTAY_RUN_DIRECTORY=/nowhere", groups=[])
