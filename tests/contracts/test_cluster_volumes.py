"""What every cluster promises of the files that a pod finds beside its code: secrets, scratch, and claims that outlive it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mainstay.domain.allocation import DropVolume, End, ForgetPod, Owner, Seen
from mainstay.domain.errors import Gone, Invalid, NotYet, Unavailable
from mainstay.domain.secret import SecretUse
from mainstay.domain.volume import VolumeState
from mainstay.domain.workload import Volume
from tests.clusters import Program, RealCluster, Rig, kubernetes_rig, local_rig, simulated_rig
from tests.objects import Objects, objects

pytestmark = pytest.mark.xdist_group("local-cluster")
KUBERNETES = pytest.param("kubernetes", marks=pytest.mark.xdist_group("kubernetes"))
TOKEN = (SecretUse(name="hf-token", env="HF_TOKEN"),)


@pytest.fixture(scope="module")
def bound(real_cluster: RealCluster) -> Iterator[RealCluster]:
    """A cluster whose own scheduler runs, as it does everywhere but in most tests: it binds claims."""
    real_cluster.control_plane.scheduler.start()
    yield real_cluster
    real_cluster.control_plane.scheduler.stop()


async def rig_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Rig:
    match kind:
        case "local":
            return local_rig(folder)
        case "simulated":
            return simulated_rig(folder)
        case _:
            # A claim goes only once no pod names it any more, and the tombstone of one still does.
            return await kubernetes_rig(request.getfixturevalue("bound"), folder, tombstone_seconds=1)


@pytest.fixture(params=["local", "simulated", KUBERNETES])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Every cluster."""
    made = await rig_of(request.param, request, tmp_path)
    yield made
    await made.close()


@pytest.fixture(params=["local", KUBERNETES])
async def real(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """One where processes are processes."""
    made = await rig_of(request.param, request, tmp_path)
    yield made
    await made.close()


async def says(rig: Rig, name: str, script: str, **changes: object) -> str:
    """What a script prints that ends well."""
    await rig.create(name, Program(), argv=("/bin/sh", "-c", script), **changes)
    ended = await rig.seen(name, Seen.ENDED)
    said = await whole_log(rig, name)
    assert (ended.end, ended.exit_code) == (End.EXITED, 0), (ended, said)
    await rig.until(ForgetPod(name=name))
    return said


async def whole_log(rig: Rig, name: str) -> str:
    while not (chunk := await rig.cluster.read_log(name, offset=0, limit=10_000)).ended:
        await rig.let_pass(0.05)
    return chunk.data.decode()


async def refusal(rig: Rig, name: str, **changes: object) -> str:
    """The words with which a pod is not started: at once, or as its end."""
    action = rig.creation(name, Program(), **changes)
    while True:
        try:
            await rig.act(action)
        except Invalid as error:
            return error.message
        except (Gone, NotYet):
            pass
        state = await rig.state(name)
        if state is not None and state.seen is Seen.ENDED:
            assert state.end is End.START_FAILED
            return state.detail
        await rig.let_pass(0.05)


async def test_a_pod_with_all_of_it_runs_to_its_end(rig: Rig) -> None:
    rig.drawer.values["hf-token"] = b"hf_1"
    volumes = (Volume(path="scratch", size_bytes=1 << 20), rig.claim("kept", path="kept"))
    await rig.create("p", Program(lines=("ran",)), volumes=volumes, secrets=TOKEN)
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.node, ended.end, ended.exit_code) == (rig.node, End.EXITED, 0)
    assert await whole_log(rig, "p") == "ran\n"


async def test_secrets_are_files_that_only_the_pod_reads_and_variables_where_asked_for(real: Rig) -> None:
    odd = b'it\'s "$odd" `x` \\ \xc3\xbc\n'
    real.drawer.values |= {"hf-token": odd, "key.pem": bytes(range(256))}
    script = """
        bytes() { od -A n -v -t x1 | tr -d ' \\n'; echo; }
        stat -c '%a' "$MAINSTAY_SECRETS_DIR/hf-token" "$MAINSTAY_SECRETS_DIR/key.pem"
        bytes < "$MAINSTAY_SECRETS_DIR/hf-token"
        wc -c < "$MAINSTAY_SECRETS_DIR/key.pem" | tr -d ' '
        printf '%s\\n' "${HF_TOKEN:-none}"
        . "$MAINSTAY_SECRETS_DIR/.environment"
        printf '%s\\n' "$HF_TOKEN" | bytes
    """
    said = await says(real, "p", script, secrets=(*TOKEN, SecretUse(name="key.pem")))
    # As it is, its log would not show it.
    assert said == f"400\n400\n{odd.hex()}\n256\nnone\n{odd.hex()}\n"


async def test_a_file_that_is_named_after_a_secret_and_cannot_be_kept_is_refused_without_naming_it(real: Rig) -> None:
    real.drawer.values["hf-token"] = b"canary-3d0e"
    script = 'cd "$MAINSTAY_OUTPUT_DIR" && : > "$(cat "$MAINSTAY_SECRETS_DIR/hf-token")\n."'
    await real.create("p", Program(), argv=("/bin/sh", "-c", script), secrets=TOKEN)
    await real.seen("p", Seen.ENDED)
    real.drawer.values["hf-token"] = b"another"
    real.again()
    await real.seen("p", Seen.ENDED)
    with pytest.raises(Invalid, match="cannot be kept: ") as caught:
        await real.output("p")
    assert "'***********" in caught.value.message
    assert "canary" not in caught.value.message


async def test_a_secret_that_was_removed_before_the_start_is_told_by_name(real: Rig) -> None:
    assert "there is no secret hf-token any more" in await refusal(real, "p", secrets=TOKEN)


async def test_who_runs_keeps_what_it_was_handed_and_who_starts_later_gets_what_is_new(real: Rig) -> None:
    real.drawer.values["hf-token"] = b"old"
    read = 'cat "$MAINSTAY_SECRETS_DIR/hf-token"'
    waits = f"until [ -e go/on ]; do sleep 0.1; done; {read}"
    kept = real.claim("go", path="go")
    await real.create("p", Program(), argv=("/bin/sh", "-c", waits), secrets=TOKEN, volumes=(kept,))
    await real.seen("p", Seen.RUNNING)
    real.drawer.values["hf-token"] = b"new"
    assert await says(real, "q", f"{read}; touch go/on", secrets=TOKEN, volumes=(kept,)) == "new"
    await real.seen("p", Seen.ENDED)
    assert await whole_log(real, "p") == "old"


async def test_what_is_written_to_a_claim_is_there_for_the_next_run_also_through_a_new_handle(real: Rig) -> None:
    claim = real.claim("ckpt", path="ckpt")
    await says(real, "p", "echo 7 > ckpt/step", volumes=(claim,))
    real.again()
    there = Volume(path="resumed/ckpt", name="ckpt")
    assert await says(real, "q", "cat resumed/ckpt/step", volumes=(there,)) == "7\n"


async def test_scratch_is_empty_and_ends_with_its_pod(real: Rig) -> None:
    scratch = (Volume(path="scratch", size_bytes=10 << 20),)
    for name in ("p", "q"):
        assert await says(real, name, "ls -A scratch; echo x > scratch/x", volumes=scratch) == ""


async def test_a_claim_that_is_not_there_and_not_to_be_made_is_told_by_name(real: Rig) -> None:
    said = await refusal(real, "p", volumes=(Volume(path="data", name="absent"),))
    assert "there is no" in said
    assert "absent" in said


@pytest.fixture(scope="module")
def bucket() -> Iterator[Objects]:
    with objects() as running:
        yield running


STORE = (SecretUse(name="store", file=False),)


async def test_files_of_an_object_store_are_there_before_the_start_and_what_is_left_goes_back(
    bucket: Objects, tmp_path: Path
) -> None:
    rig = local_rig(tmp_path)
    bucket.put("sets/a.txt", b"one\n")
    rig.drawer.values["store"] = bucket.access()
    volumes = (
        Volume(path="data", source="s3://bucket/sets", secret="store"),
        Volume(path="results", target="s3://bucket/results/7", secret="store"),
    )
    script = 'test -z "$MAINSTAY_SECRETS_DIR" && cat data/a.txt && cp data/a.txt results/b.txt'
    await rig.create("p", Program(), argv=("/bin/sh", "-c", script), volumes=volumes, secrets=STORE)
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.exit_code, await whole_log(rig, "p")) == (0, "one\n")
    rig.again()
    assert await rig.output("p") == {}
    assert bucket.content("results/7") == {"results/7/b.txt": b"one\n"}
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert left == []
    await rig.close()


async def test_what_is_left_goes_back_also_where_the_run_has_removed_its_output(
    bucket: Objects, tmp_path: Path
) -> None:
    rig = local_rig(tmp_path)
    rig.drawer.values["store"] = bucket.access()
    volumes = (Volume(path="results", target="s3://bucket/results/8", secret="store"),)
    script = 'echo one > results/a.txt && rm -r "$MAINSTAY_OUTPUT_DIR"'
    await rig.create("p", Program(), argv=("/bin/sh", "-c", script), volumes=volumes, secrets=STORE)
    assert (await rig.seen("p", Seen.ENDED)).exit_code == 0
    assert await rig.output("p") == {}
    assert bucket.content("results/8") == {"results/8/a.txt": b"one\n"}
    await rig.close()


async def test_what_is_left_is_kept_until_its_store_answers(
    bucket: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = local_rig(tmp_path)
    rig.drawer.values["store"] = bucket.access()
    volumes = (Volume(path="results", target="s3://bucket/results/9", secret="store"),)
    script = "echo one > results/a.txt"
    await rig.create("p", Program(), argv=("/bin/sh", "-c", script), volumes=volumes, secrets=STORE)
    await rig.seen("p", Seen.ENDED)
    real = sys.executable
    away = tmp_path / "away"
    away.write_text(f"#!/bin/sh\nexit {os.EX_TEMPFAIL}\n")
    away.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(away))
    with pytest.raises(Unavailable, match="could not be copied"):
        await rig.output("p")
    monkeypatch.setattr(sys, "executable", real)
    assert await rig.output("p") == {}
    assert bucket.content("results/9") == {"results/9/a.txt": b"one\n"}
    await rig.close()


async def test_a_store_that_does_not_open_is_told_in_words(bucket: Objects, tmp_path: Path) -> None:
    rig = local_rig(tmp_path)
    rig.drawer.values["store"] = bucket.access()
    absent = (Volume(path="data", source="s3://bucket/absent", secret="store"),)
    said = await refusal(rig, "p", volumes=absent, secrets=STORE)
    assert "files of an object store could not be copied: s3://bucket/absent" in said
    await rig.close()


async def test_what_this_machine_has_not_is_refused_in_words(tmp_path: Path) -> None:
    rig = local_rig(tmp_path)
    assert "hands out no devices by claims: mig-1g" in await refusal(rig, "p", devices=("mig-1g",))
    assert "nothing can be mounted at /data" in await refusal(rig, "q", volumes=(Volume(path="/data"),))
    await rig.close()


async def test_a_volume_that_outlives_its_run_is_reported_and_goes_when_it_is_dropped(real: Rig) -> None:
    kept = Volume(path="kept", name="kept-1", size_bytes=1 << 20, storage_class=real.storage())
    assert await says(real, "w-1-0", "echo one > kept/a; cat kept/a", volumes=(kept,)) == "one\n"
    owner = real.creation("none-1-0", Program()).spec.owner

    async def found() -> VolumeState | None:
        seen = (await real.cluster.observe()).volumes
        return next((state for state in seen or () if (state.owner, state.name) == (owner, "kept-1")), None)

    while (state := await found()) is None or not state.bound:
        await real.let_pass(0.1)
    nodes = (await real.cluster.observe()).nodes
    assert [node.name for node in nodes if not state.reach or state.reach in node.admits] == [real.node]
    for _ in range(2):
        await real.act(DropVolume(name="kept-1", owner=owner))
    while await found() is not None:
        await real.let_pass(0.1)
    gone = Volume(path="kept", name="kept-1")
    assert "kept-1" in await refusal(real, "w-2-0", volumes=(gone,))


async def test_no_volume_outside_of_its_project_is_dropped(tmp_path: Path) -> None:
    rig = local_rig(tmp_path)
    (tmp_path / "cluster" / "volumes").mkdir(parents=True, exist_ok=True)
    (tmp_path / "cluster" / "kept").mkdir()
    for owner, name in ((Owner(tenant="t", project="p"), "../../../kept"), (Owner(tenant="..", project="kept"), "x")):
        with pytest.raises(Invalid):
            await rig.act(DropVolume(name=name, owner=owner))
    assert (tmp_path / "cluster" / "kept").is_dir()
    await rig.close()


async def test_a_store_that_does_not_take_what_is_left_takes_nothing_else_away(bucket: Objects, tmp_path: Path) -> None:
    rig = local_rig(tmp_path)
    rig.drawer.values["store"] = bucket.access()
    volumes = (Volume(path="results", target="s3://absent/results/1", secret="store"),)
    script = 'echo one > results/a.txt; echo kept > "$MAINSTAY_OUTPUT_DIR/b.txt"'
    await rig.create("p", Program(), argv=("/bin/sh", "-c", script), volumes=volumes, secrets=STORE)
    assert (await rig.seen("p", Seen.ENDED)).exit_code == 0
    with pytest.raises(Invalid, match="could not be copied: s3://absent"):
        await rig.cluster.copy_out("p")
    found = [(path, b"".join([part async for part in data])) async for path, _, _, data in rig.cluster.outputs("p")]
    assert found == [("b.txt", b"kept\n")]
    await rig.close()
