"""From an allocation to its pod: the command, the environment, the limits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mainstay.decide.kinds import KINDS, pod_spec
from mainstay.decide.kinds.job import command
from mainstay.domain.allocation import Allocation, Owner, Seen
from mainstay.domain.errors import Invalid
from mainstay.domain.quantity import Resources
from mainstay.domain.secret import ENVIRONMENT_FILE, Handed, SecretUse, files_of
from mainstay.domain.workload import Elastic, Kind, Mount, PodSet, Volume, WorkloadSpec

RESOURCES = Resources(cpu_milli=2_000, memory_bytes=1 << 30, gpus=4, gpu_model="H100")


def an_allocation(rank: int = 1, ranks: int = 2) -> Allocation:
    return Allocation(
        key=9, workload_key=3, workload="bert-7", tenant="acme", project="nlp", attempt=2, rank=rank, ranks=ranks,
        node="n", cluster="c", resources=RESOURCES, stop=False, seen=Seen.NOTHING, ready=False,
        address="", created_at=0, started_at=0, ended_at=0,
        metered_until=0, end=None, exit_code=None, detail="", closed=False, version=1,
    )  # fmt: skip


def a_spec(**values) -> WorkloadSpec:
    given = {"kind": Kind.JOB, "name": "bert", "run": ("python", "train.py"), "choices": (RESOURCES,), **values}
    return WorkloadSpec(**given)


def test_the_order_of_kinds_is_that_of_the_columns():
    assert (*KINDS, Kind.POD) == (Kind.JOB, Kind.SERVICE, Kind.POD) == tuple(Kind)


def test_every_rank_is_told_who_it_is():
    env = dict(pod_spec(an_allocation(rank=1), a_spec(nodes=2)).env)
    assert env == {
        "MAINSTAY_RUN": "bert-7",
        "MAINSTAY_ATTEMPT": "2",
        "MAINSTAY_NODE_RANK": "1",
        "MAINSTAY_NUM_NODES": "2",
        "MAINSTAY_NNODES": "2",
        "MAINSTAY_GPUS_PER_NODE": "4",
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "NODE_RANK": "1",
        "GROUP_RANK": "1",
    }


def test_a_rank_of_a_pod_set_is_told_which_and_runs_what_that_runs():
    head = PodSet(name="head", nodes=1, resources=RESOURCES, run=("python", "head.py"), memory_limit_bytes=1 << 30)
    worker = PodSet(name="worker", nodes=2, resources=RESOURCES, cpu_limit_milli=3_000)
    spec = a_spec(nodes=3, sets=(head, worker))
    pods = [pod_spec(an_allocation(rank=rank, ranks=3), spec) for rank in range(3)]
    assert [pod.argv for pod in pods] == [("python", "head.py"), *[("python", "train.py")] * 2]
    assert [pod.memory_limit_bytes for pod in pods] == [1 << 30, 0, 0]
    assert [pod.cpu_limit_milli for pod in pods] == [0, 3_000, 3_000]
    envs = [dict(pod.env) for pod in pods]
    told = [(env["MAINSTAY_SET"], env["MAINSTAY_SET_RANK"], env["MAINSTAY_SET_NODES"]) for env in envs]
    assert told == [("head", "0", "1"), ("worker", "0", "2"), ("worker", "1", "2")]
    assert {env["MAINSTAY_SETS"] for env in envs} == {"head:1,worker:2"}
    assert [(env["MAINSTAY_NODE_RANK"], env["MAINSTAY_NUM_NODES"]) for env in envs] == [
        ("0", "3"),
        ("1", "3"),
        ("2", "3"),
    ]
    assert [env.get("OMP_NUM_THREADS") for env in envs] == [None, "3", "3"]


def test_a_rank_of_an_elastic_job_is_told_how_many_there_are_and_how_many_there_may_be():
    elastic = a_spec(nodes=8, elastic=Elastic(nodes_min=2, nodes_max=8))
    pod = pod_spec(an_allocation(rank=5, ranks=6), elastic)
    env = dict(pod.env)
    assert (env["MAINSTAY_NUM_NODES"], env["WORLD_SIZE"], env["MAINSTAY_NNODES"]) == ("6", "6", "2:8")
    assert (pod.size, pod.elastic) == (6, True)


def test_torchrun_takes_in_ranks_that_join_later_unless_it_is_told_otherwise():
    name, elastic = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", Elastic(nodes_min=2, nodes_max=8)
    assert dict(pod_spec(an_allocation(), a_spec(nodes=8, elastic=elastic)).env)[name] == "1"
    assert dict(pod_spec(an_allocation(), a_spec(nodes=8, elastic=elastic, env=((name, "0"),))).env)[name] == "0"
    assert name not in dict(pod_spec(an_allocation(), a_spec(nodes=8)).env)


def test_the_users_variables_are_kept_but_do_not_change_who_a_rank_is():
    env = dict(pod_spec(an_allocation(), a_spec(env=(("LR", "0.1"), ("RANK", "9")))).env)
    assert (env["LR"], env["RANK"]) == ("0.1", "1")


def test_a_pod_that_may_use_so_many_cores_starts_so_many_threads_unless_told_otherwise():
    env = dict(pod_spec(an_allocation(), a_spec(cpu_limit_milli=1_500, env=(("OMP_NUM_THREADS", "7"),))).env)
    assert (env["OMP_NUM_THREADS"], env["OPENBLAS_NUM_THREADS"]) == ("7", "2")
    assert "OMP_NUM_THREADS" not in dict(pod_spec(an_allocation(), a_spec()).env)


def test_a_pod_says_whose_it_is_and_in_which_image_it_runs():
    pod = pod_spec(an_allocation(), a_spec(image="python:3.12"))
    assert (pod.owner, pod.image) == (Owner(tenant="acme", project="nlp"), "python:3.12")


def test_the_ranks_of_an_attempt_share_a_gang_and_attempts_do_not():
    first, second = (pod_spec(an_allocation(rank), a_spec(nodes=2)) for rank in (0, 1))
    assert first.gang == second.gang == "bert-7-2"
    assert (first.rank, second.rank, first.size) == (0, 1, 2)


def test_limits_and_mounts_are_handed_on():
    mount = Mount(path="code", tree="0" * 64)
    limits = {"cpu_limit_milli": 5, "memory_limit_bytes": 6, "max_duration_seconds": 7, "stop_grace_seconds": 8}
    pod = pod_spec(an_allocation(), a_spec(mounts=(mount,), **limits))
    assert (pod.cpu_limit_milli, pod.memory_limit_bytes, pod.deadline_seconds, pod.stop_grace_seconds) == (5, 6, 7, 8)
    assert (pod.mounts, pod.resources) == ((mount,), RESOURCES)


def test_a_service_always_has_a_port():
    assert pod_spec(an_allocation(), a_spec(kind=Kind.SERVICE, ready_path="/healthy")).port
    assert not pod_spec(an_allocation(), a_spec()).port


def run(spec: WorkloadSpec) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(spec), capture_output=True, text=True, check=False)


def test_without_a_setup_the_command_is_the_users_own():
    assert command(a_spec()) == ("python", "train.py")


def test_a_setup_runs_first_and_what_it_exports_reaches_the_command():
    done = run(
        a_spec(setup="export GREETING='good day'\n", run=("/bin/sh", "-c", 'echo "$GREETING" "$1"', "x", "it's $me"))
    )
    assert done.stdout == "good day it's $me\n"


def test_a_setup_that_fails_ends_the_run():
    done = run(a_spec(setup="false\necho after", run=("echo", "never")))
    assert (done.returncode, done.stdout) == (1, "")


def test_a_setup_that_ends_in_a_comment_does_not_swallow_the_command():
    assert run(a_spec(setup="true # done", run=("echo", "ran"))).stdout == "ran\n"


def test_secrets_and_volumes_are_handed_on():
    uses, volumes = (SecretUse(name="a"),), (Volume(path="/data", name="sets"),)
    pod = pod_spec(an_allocation(), a_spec(secrets=uses, volumes=volumes))
    assert (pod.secrets, pod.volumes) == (uses, volumes)
    assert pod.argv == ("python", "train.py")


@pytest.mark.parametrize(
    "value", [b"plain", b"it's", b"a b\nc\n", b"$HOME `id` \\", "ü".encode(), b"\xff\n", b"'", b""]
)
def test_a_secret_that_is_to_be_a_variable_reaches_the_setup_and_the_command_as_it_is(tmp_path: Path, value: bytes):
    handed = Handed(use=SecretUse(name="a", env="TOKEN"), value=value)
    for name, content in files_of([handed]).items():
        (tmp_path / name).write_bytes(content)
    spec = a_spec(secrets=(handed.use,), setup='export TWICE="$TOKEN$TOKEN"', run=("/bin/sh", "-c", "env -0"))
    environment = {"MAINSTAY_SECRETS_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command(spec), capture_output=True, check=True, env=environment)
    found = dict(line.split(b"=", 1) for line in done.stdout.split(b"\0") if line)
    plain = value.removesuffix(b"\n")
    assert (found[b"TOKEN"], found[b"TWICE"]) == (plain, plain * 2)
    assert (tmp_path / "a").read_bytes() == value


def test_a_secret_that_no_variable_can_hold_is_refused_by_its_name_and_not_shown():
    with pytest.raises(Invalid, match="the secret a holds a NUL") as refused:
        files_of([Handed(use=SecretUse(name="a", env="TOKEN"), value=b"canary\0")])
    assert "canary" not in str(refused.value) + refused.value.hint


def test_a_command_whose_secrets_did_not_come_does_not_run():
    spec = a_spec(secrets=(SecretUse(name="a", env="TOKEN"),), run=("echo", "ran"))
    done = subprocess.run(command(spec), capture_output=True, check=False, env={"MAINSTAY_SECRETS_DIR": "/nowhere"})
    assert done.returncode != 0
    assert done.stdout == b""
    assert ENVIRONMENT_FILE.startswith(".")
