"""Jobs, endpoints and bills on a real node of a real Kubernetes, typed as users type it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mainstay.domain.allocation import End, Seen
from mainstay.sdk import Client
from mainstay.wire.job import Job
from mainstay.wire.jobfile import read
from testbed import folders, images, mainstay_image
from testbed.images import Image
from tests.clusters import RealCluster, create, kubernetes_rig, storage
from tests.e2e import registry
from tests.e2e.leaks import assert_nowhere, said_of_a_leak
from tests.e2e.platform import Platform, platform
from tests.integration.kubernetes.installed import let_reach
from tests.objects import objects

pytestmark = pytest.mark.xdist_group("kubernetes")
ROOT = Path(__file__).resolve().parents[2]
BED = "bed"
SMALL = ("--cpus", "0.1", "--memory", "64MB")
REGISTRY_PORT = 5_000
PATIENCE_SECONDS = 90


@pytest.fixture(scope="module")
def up(real_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose fleet has the cluster."""
    real_cluster.node.load(mainstay_image.mainstay())
    folder = tmp_path_factory.mktemp("platform")
    with (
        (folder / "platform.log").open("wb") as log,
        platform(folder / "state", "--log-level", "debug", output=log) as running,
    ):
        add_cluster(running, real_cluster)
        yield running


def add_cluster(up: Platform, real: RealCluster) -> None:
    words = ("--helper-image", images.BUSYBOX, "--image", mainstay_image.mainstay().reference)
    done = up.mainstay("cluster", "add", BED, "--kubeconfig", str(real.control_plane.kubeconfig), *words)
    assert done.returncode == 0, done.stderr


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := true()):
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.1)
    return answer


def submitted(up: Platform, *arguments: str) -> str:
    """The id of a run on the cluster that nobody follows."""
    return str(up.json("run", "--infra", BED, *SMALL, *arguments)["id"])


def applied(up: Platform, folder: Path, **job: Any) -> str:
    """The same of a job file in a folder."""
    job = {"infra": BED, "resources": {"cpu": 0.1, "memory": "64MB"}, **job}
    (folder / "job.yaml").write_text(json.dumps(job))
    return str(up.json("apply", "-f", str(folder / "job.yaml"))["id"])


def finished(up: Platform, ref: str) -> Any:
    return until(lambda: (view := up.json("show", ref))["finished_at"] and view)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds_run(view: Any) -> float:
    """Of all pods of a run."""
    pods = [pod for pod in view["pods"] if pod["started_at"]]
    return sum((instant(pod["ended_at"]) - instant(pod["started_at"])).total_seconds() for pod in pods)


def core_hours_billed(up: Platform, ref: str) -> float:
    """By the lines of the bill: the sum of all charges of a run."""
    return sum(line["cpu_core_hours"] for line in up.json("cost")["lines"] if line["group"] == ref)


def test_a_job_runs_in_a_container_and_its_output_is_all_there_is(up: Platform):
    done = up.mainstay("run", "-y", "--infra", BED, *SMALL, "-n", "who", "--", "sh", "-c", "hostname; id -u; pwd")
    assert done.returncode == 0, done.stderr
    view = up.json("show", "who")
    assert done.stdout == f"{view['pods'][0]['pod']}\n1000\n/mainstay/work\n"
    assert view["pods"][0]["cluster"] == BED


def test_a_job_has_no_privileges_and_gains_none(up: Platform):
    """As the kernel says it, from inside."""
    script = "grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; touch /x 2>&1 || true"
    done = up.mainstay("run", "-y", "--infra", BED, *SMALL, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    *said, refused = done.stdout.splitlines()
    assert dict(line.split(":", 1) for line in said) == {
        "Uid": "\t1000" * 4,
        "Groups": "\t1000 ",
        "CapEff": "\t" + "0" * 16,
        "CapBnd": "\t" + "0" * 16,
        "NoNewPrivs": "\t1",
        "Seccomp": "\t2",
    }
    assert "Read-only file system" in refused


def test_a_followed_log_is_whole(up: Platform):
    ref = submitted(up, "--", "sh", "-c", "for i in $(seq 1 500); do echo line $i; done; sleep 3; echo end")
    done = up.mainstay("logs", "-f", ref)
    assert done.stdout == "".join(f"line {number}\n" for number in range(1, 501)) + "end\n"
    assert finished(up, ref)["phase"] == "succeeded"
    assert up.mainstay("logs", ref).stdout == done.stdout


def test_a_job_that_is_stopped_may_say_goodbye(up: Platform):
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    ref = submitted(up, "--", "sh", "-c", script)
    until(lambda: up.mainstay("logs", ref).stdout == "up\n")
    assert up.mainstay("stop", ref).returncode == 0
    assert finished(up, ref)["phase"] == "stopped"
    assert up.mainstay("logs", ref).stdout == "up\nbye\n"


def test_a_job_that_does_not_stop_is_killed_after_its_grace(up: Platform, tmp_path: Path):
    ref = applied(up, tmp_path, run="trap '' TERM; echo up; while :; do sleep 0.1; done", stop_grace="3s")
    until(lambda: up.mainstay("logs", ref).stdout == "up\n")
    began = time.monotonic()
    assert up.mainstay("stop", ref).returncode == 0
    view = finished(up, ref)
    assert 2 < time.monotonic() - began < 20
    assert (view["phase"], view["pods"][0]["end"]) == ("stopped", End.STOPPED)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("sh", "-c", "exit 3"), "exit code 3"),
        (("python", "-c", "print(len(b'x' * (1 << 30)))"), "out of memory"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_how_a_job_failed_is_said_in_words(up: Platform, command: tuple[str, ...], said: str):
    done = up.mainstay("run", "-y", "--infra", BED, *SMALL, "--", *command)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_job_ends_at_its_max_duration(up: Platform):
    ref = submitted(up, "--max-duration", "4s", "--", "sleep", "60")
    view = finished(up, ref)
    assert "max_duration of 4s" in view["reason"]["sentence"]
    assert seconds_run(view) < 8


def test_code_arrives_as_it_was_and_output_comes_back_byte_for_byte(up: Platform, tmp_path: Path):
    deep = "/".join(f"folder-{number}" for number in range(20))
    code, back = tmp_path / "code", tmp_path / "back"
    (code / deep).mkdir(parents=True)
    (code / deep / "tool").write_text('#!/bin/sh\necho "tool $1"\n')
    (code / deep / "tool").chmod(0o755)
    (code / deep / "data").write_bytes(bytes(range(256)) * 4_000)
    (code / "empty").touch()
    (code / "ümläut with spaces").write_text("ä")
    copy = f'./{deep}/tool runs; [ ! -x {deep}/data ] && cp -r . "$MAINSTAY_OUTPUT_DIR"'
    ref = applied(up, code, run=copy, workdir=".")
    assert finished(up, ref)["phase"] == "succeeded", up.mainstay("logs", ref).stdout
    assert up.mainstay("logs", ref).stdout == "tool runs\n"
    assert up.mainstay("download", ref, str(back)).returncode == 0
    assert files_in(back) == files_in(code)


def files_in(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """By path: content, and whether it may be executed."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), bool(path.stat().st_mode & 0o100)) for path in found}


def test_ranks_in_two_pods_find_each_other_and_train_one_model(up: Platform):
    done = up.mainstay(
        "apply", "-y", "-f", str(ROOT / "examples/02-data-parallel/job.yaml"), "--infra", BED, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    others = up.mainstay("logs", "digits-parallel", "--node", "1").stdout
    sums = [line for line in (done.stdout + others).splitlines() if "weights sha256" in line]
    assert len(sums) == 2
    assert sums[0].removeprefix("rank 0") == sums[1].removeprefix("rank 1")


@pytest.fixture
def binder(real_cluster: RealCluster) -> Iterator[None]:
    """The scheduler of the cluster itself, which binds claims."""
    real_cluster.control_plane.scheduler.start()
    yield
    real_cluster.control_plane.scheduler.stop()


@pytest.mark.usefixtures("binder")
def test_a_job_finds_its_secret_and_its_configuration_and_goes_on_from_its_volume(
    up: Platform, real_cluster: RealCluster
):
    canary = "canary-9f3c21aa"
    assert up.mainstay("secret", "set", "tracking-token", input=canary).returncode == 0
    example = ROOT / "examples/03-secrets-and-volumes"
    job = read(example / "job.yaml").model_dump(exclude_defaults=True)
    (kept, scratch) = job["volumes"]
    job["volumes"] = [{**kept, "storage_class": storage(real_cluster)}, scratch]
    job |= {"infra": BED, "workdir": str(example)}
    with Client(server=up.url, token=json.loads((up.state / "server.json").read_text())["token"]) as client:
        for said in ("starting anew", "resuming at step 200"):
            run = client.submit(Job.model_validate(job))
            view = finished(up, run.id)
            log = up.mainstay("logs", run.id).stdout
            assert view["phase"] == "succeeded", (view["reason"], log)
            assert said in log
            assert canary not in log
    assert "step 400: loss 0.0001" in log
    ask = real_cluster.control_plane.ask
    cluster = [ask(f"/api/v1/{kind}") for kind in ("pods", "secrets", "configmaps", "events", "persistentvolumeclaims")]
    assert "tracking-token" in json.dumps(cluster[0])
    assert canary not in json.dumps(cluster)


def test_a_job_that_prints_exports_and_dies_of_its_secret_leaves_it_nowhere(
    up: Platform, real_cluster: RealCluster, tmp_path: Path
):
    shown = said_of_a_leak(up, tmp_path, infra=BED, resources={"cpu": 0.1, "memory": "64MB"})
    ask = real_cluster.control_plane.ask
    cluster = [json.dumps(ask(f"/api/v1/{kind}")) for kind in ("pods", "secrets", "configmaps", "events")]
    assert_nowhere(up, shown, *cluster)


def test_a_job_reads_from_an_object_store_and_writes_to_it(up: Platform, real_cluster: RealCluster, tmp_path: Path):
    with objects() as bucket:
        bucket.put("sets/numbers.txt", b"20\n22\n")
        outer = real_cluster.node.machine.network.outer
        let_reach(real_cluster.control_plane, home(up, real_cluster), outer, bucket.port)
        access = bucket.access(outer).decode()
        assert up.mainstay("secret", "set", "store", input=access).returncode == 0
        volumes = [
            {"path": "/data", "source": "s3://bucket/sets", "secret": "store"},
            {"path": "results", "target": "s3://bucket/sums", "secret": "store"},
        ]
        script = "ls /mainstay/secrets; awk '{ sum += $1 } END { print sum }' /data/numbers.txt | tee results/sum"
        ref = applied(up, tmp_path, name="sum", run=script, volumes=volumes)
        view = finished(up, ref)
        assert view["phase"] == "succeeded", (view["reason"], up.mainstay("logs", ref).stdout)
        assert bucket.content("sums") == {"sums/sum": b"42\n"}
        assert "canary" not in json.dumps(real_cluster.control_plane.ask("/api/v1/pods"))
        absent = [{**volumes[0], "source": "s3://bucket/absent"}]
        view = finished(up, applied(up, tmp_path, name="absent", run="true", volumes=absent))
        assert view["phase"] == "failed"
        assert "s3://bucket/absent" in view["reason"]["sentence"]


def home(up: Platform, real: RealCluster) -> str:
    """The namespace of its jobs."""
    pod = finished(up, submitted(up, "--", "true"))["pods"][0]["pod"]
    (shown,) = real.control_plane.ask(f"/api/v1/pods?fieldSelector=metadata.name={pod}")["items"]
    return str(shown["metadata"]["namespace"])


def test_a_claim_that_nobody_has_is_told_by_name(up: Platform, tmp_path: Path):
    """When it is submitted, where the cluster has told what there is, else once the pod looks for it."""
    told = json.loads(up.mainstay("volume", "list", "--json").stdout)
    small = {"cpu": 0.1, "memory": "64MB"}
    job = {"name": "claims", "run": "true", "infra": BED, "resources": small, "volumes": ["nobodys:/data"]}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = up.mainstay("apply", "-y", "--json", "-f", str(tmp_path / "job.yaml"))
    if any(volume["cluster"] == BED for volume in told):
        assert done.returncode == 3
        assert "there is no nobodys in project default" in done.stderr
    else:
        view = finished(up, json.loads(done.stdout)["id"])
        assert view["phase"] == "failed"
        assert "there is no claim nobodys in namespace ms-default-default-" in view["reason"]["sentence"]


def test_a_model_is_trained_served_and_asked_in_the_cluster(up: Platform, tmp_path: Path):
    done = up.mainstay(
        "apply", "-y", "-f", str(ROOT / "examples/01-first-job/job.yaml"), "--infra", BED, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deployed = up.mainstay("deploy", "digits", "--infra", BED, timeout=PATIENCE_SECONDS)
    assert deployed.returncode == 0, deployed.stderr
    assert up.mainstay("download", "digits", str(tmp_path)).returncode == 0
    asked, truth = (json.loads((tmp_path / f"held_out{end}.json").read_text()) for end in ("", "_labels"))
    with Client(server=up.url, token=json.loads((up.state / "server.json").read_text())["token"]) as client:
        answer = client.predict("digits", asked)
        serving = client.get(client.endpoint("digits").serving)
    (labels,) = (output["data"] for output in answer["outputs"] if output["name"] == "label")
    assert sum(int(said) == true for said, true in zip(labels, truth, strict=True)) >= len(truth) - 2
    assert {pod.cluster for pod in serving.view.pods} == {BED}
    assert up.mainstay("endpoints", "--remove", "digits").returncode == 0
    assert finished(up, serving.id)["phase"] == "stopped"


def test_an_image_that_is_not_there_is_told_in_words_within_seconds(up: Platform, tmp_path: Path):
    ref = applied(up, tmp_path, run="true", image="localhost/nope:1")
    began = time.monotonic()
    view = until(lambda: (view := up.json("show", ref))["phase"] == "pulling" and view)
    assert time.monotonic() - began < 15
    view = until(lambda: "cannot be pulled" in (view := up.json("show", ref))["reason"]["sentence"] and view)
    brief, said = view["reason"]["brief"], view["pods"][0]["detail"]
    assert brief.startswith("pods are starting: image localhost/nope:1 cannot be pulled: its registry is not reachable")
    assert said not in brief
    assert brief in up.mainstay("ps").stdout
    assert said in up.mainstay("explain", ref).stdout
    assert "localhost/nope:1" in up.mainstay("logs", ref).stderr
    assert up.mainstay("stop", ref).returncode == 0
    assert finished(up, ref)["phase"] == "stopped"


async def test_a_pod_whose_image_does_not_come_is_given_up_with_its_words(real_cluster: RealCluster, tmp_path: Path):
    rig = await kubernetes_rig(real_cluster, tmp_path, patience_seconds=2.0)
    try:
        await rig.act(create("nope-1-0", rig.node, script="true", image="localhost/nope:1"))
        state = await rig.seen("nope-1-0", Seen.ENDED)
        assert state.end is End.START_FAILED
        assert "localhost/nope:1" in state.detail
    finally:
        await rig.close()


async def test_a_helper_that_cannot_be_pulled_is_told_while_its_job_runs(real_cluster: RealCluster, tmp_path: Path):
    rig = await kubernetes_rig(real_cluster, tmp_path, helper_image="localhost/no-helper:1")
    try:
        await rig.act(create("lone-1-0", rig.node, script="sleep 300"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (state := await rig.seen("lone-1-0", Seen.RUNNING)).detail:
                await asyncio.sleep(0.2)
        words = "the helper that keeps its output does not start: helper image localhost/no-helper:1 cannot be pulled: "
        assert state.detail.startswith(f"{words}its registry is not reachable: ")
    finally:
        await rig.close()


def test_a_slow_pull_is_told_while_it_lasts(up: Platform, real_cluster: RealCluster, tmp_path: Path):
    node = real_cluster.node
    unpack(
        Image(reference="slow", layers=images.busybox().layers, environment={"SLOW": "yes"}),
        node.machine.folder / "run/slow",
    )
    words = [sys.executable, registry.__file__, str(REGISTRY_PORT), str(node.machine.folder / "run"), "8"]
    server = node.machine.program("registry", lambda: words)
    server.start()
    try:
        image = f"localhost:{REGISTRY_PORT}/slow:1"
        ref = applied(up, tmp_path, run="echo $SLOW", image=image)
        view = until(lambda: (view := up.json("show", ref))["phase"] in {"pulling", "succeeded"} and view)
        assert (view["phase"], view["pods"][0]["detail"]) == ("pulling", f"pulling image {image}")
        assert view["reason"]["sentence"].endswith(f"pulling image {image}")
        (line,) = (line for line in up.mainstay("ps").stdout.splitlines() if ref in line)
        assert "pulling image" in line
        assert finished(up, ref)["phase"] == "succeeded"
        assert up.mainstay("logs", ref).stdout == "yes\n"
    finally:
        server.stop()


def unpack(image: Image, folder: Path) -> None:
    """As the registry reads it."""
    archive = io.BytesIO()
    image.write(archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as opened:
        opened.extractall(folder, filter="data")
    (folder / "tag").write_text(image.digest)


def test_the_bill_is_what_ran(up: Platform):
    runs = [view for view in up.json("ps", "-a") if view["finished_at"] and view["kind"] == "job"]
    assert len(runs) > 8
    for view in (up.json("show", run["id"]) for run in runs):
        cores = view["resources"]["cpu"]
        assert core_hours_billed(up, view["id"]) == pytest.approx(seconds_run(view) * cores / 3_600, abs=1e-6)


def test_the_commands_of_the_how_to_work_in_their_order(up: Platform, real_cluster: RealCluster):
    page = (ROOT / "docs/how-to/run-on-kubernetes.md").read_text().partition("## Try it by hand")[2]
    page = page.partition("\n## ")[0].replace("$KUBECONFIG", str(real_cluster.control_plane.kubeconfig))
    commands = re.findall(r"^\$ mainstay (.+)$", page, re.MULTILINE)
    assert len(commands) > 6
    for command in commands:
        done = up.mainstay(*shlex.split(command), cwd=ROOT, timeout=PATIENCE_SECONDS)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_a_killed_control_plane_is_no_end_of_its_jobs(real_cluster: RealCluster, tmp_path: Path):
    script = 'for i in $(seq 1 100); do echo line $i; sleep 0.1; done; cp /etc/passwd "$MAINSTAY_OUTPUT_DIR/kept"'
    state = tmp_path / "state"
    with platform(state) as first:
        add_cluster(first, real_cluster)
        ref = submitted(first, "-n", "survivor", "--", "sh", "-c", script)
        until(lambda: "line 5\n" in first.mainstay("logs", ref).stdout)
        first.process.kill()
        first.process.wait()
    (state / "server.json").unlink()
    time.sleep(2)
    with platform(state) as second:
        view = finished(second, ref)
        assert (view["phase"], view["attempt"], len(view["pods"])) == ("succeeded", 1, 1)
        assert second.mainstay("logs", ref).stdout == "".join(f"line {number}\n" for number in range(1, 101))
        assert second.mainstay("download", ref, str(tmp_path / "back")).returncode == 0
        assert (tmp_path / "back" / "kept").read_text().startswith("root:")
        assert seconds_run(view) >= 10
        assert core_hours_billed(second, ref) == pytest.approx(seconds_run(view) * 0.1 / 3_600, abs=1e-6)


def test_a_cluster_is_drained_and_leaves_once_it_is_empty(real_cluster: RealCluster, tmp_path: Path):
    with platform(tmp_path / "state") as up:
        add_cluster(up, real_cluster)
        ref = submitted(up, "--", "sh", "-c", "sleep 300")
        until(lambda: up.json("show", ref)["phase"] == "running")
        assert up.mainstay("cluster", "drain", BED).returncode == 0
        waiting = submitted(up, "--", "true")
        refused = up.mainstay("cluster", "remove", BED)
        assert refused.returncode == 3
        assert "still holds 1 pod: 1 run, " in refused.stderr
        assert up.json("show", ref)["phase"] == "running"
        assert up.json("show", waiting)["phase"] == "queued"
        for run in (ref, waiting):
            assert up.mainstay("stop", run).returncode == 0
            assert finished(up, run)["phase"] == "stopped"
        until(lambda: up.mainstay("cluster", "remove", BED).returncode == 0)
        assert [view["name"] for view in up.json("nodes")] != [real_cluster.node.name]


def test_the_demo_does_what_it_says_and_leaves_nothing():
    before = set(folders.abandoned())
    done = subprocess.run(
        [sys.executable, "scripts/demo_kubernetes.py"],
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("held-out accuracy: 0.9", "✓ ready in", "  truth: ", "TOTAL", "is no longer of the fleet"):
        assert words in done.stdout + done.stderr
    (state,) = (line.partition("=")[2] for line in done.stdout.splitlines() if "export MAINSTAY_STATE=" in line)
    assert not Path(state).parent.exists()
    assert folders.processes(Path(state).parent) == []
    assert set(folders.abandoned()) <= before


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
