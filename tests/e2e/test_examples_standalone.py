"""The training scripts of the examples as plain processes, with the variables of the platform set by hand."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mainstay.serving import load
from mainstay.wire.jobfile import read

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN_SECONDS = 120


def start(example: str, variables: Mapping[str, str], *, folder: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, EXAMPLES / example / "train.py"],
        cwd=folder or EXAMPLES / example,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=RUN_SECONDS)
    finally:
        process.kill()
    return process.returncode, output


def rank_variables(rank: int, port: int, output: Path) -> dict[str, str]:
    """What the platform sets for `nodes: 2` with no GPU; one process per node."""
    return {
        "MAINSTAY_OUTPUT_DIR": str(output),
        "MAINSTAY_NODE_RANK": str(rank),
        "MAINSTAY_NUM_NODES": "2",
        "MAINSTAY_NODE_IPS": "127.0.0.1\n127.0.0.1",
        "MAINSTAY_GPUS_PER_NODE": "0",
        "MAINSTAY_MASTER_ADDR": "127.0.0.1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "GROUP_RANK": str(rank),
        "NODE_RANK": str(rank),
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def first_job(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Log and output directory of one run."""
    output = tmp_path_factory.mktemp("first-job") / "out"
    status, log = ended(start("01-first-job", {"MAINSTAY_OUTPUT_DIR": str(output)}))
    assert status == 0, log
    return log, output


def test_the_first_job_learns_and_says_so(first_job: tuple[str, Path]) -> None:
    log, output = first_job
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["accuracy_held_out"] > 0.95
    assert f"held-out accuracy: {metrics['accuracy_held_out']:.4f} on 450 images" in log
    losses = [float(line.split()[-1]) for line in log.splitlines() if line.startswith("epoch")]
    assert losses[0] > 10 * losses[-1]


def test_the_saved_model_recognises_the_saved_held_out_images(first_job: tuple[str, Path]) -> None:
    output = first_job[1]
    request = json.loads((output / "held_out.json").read_text())
    truth = json.loads((output / "held_out_labels.json").read_text())
    (entry,) = request["inputs"]
    images = np.array(entry["data"]).reshape(entry["shape"])
    predictor = load(output / "model")
    assert (predictor.inputs[0].name, predictor.inputs[0].datatype) == (entry["name"], entry["datatype"])
    labels = predictor.predict({entry["name"]: images}, ["label"])["label"]
    assert len(truth) == 8
    assert (labels == truth).mean() >= 7 / 8


def test_the_saved_images_were_held_out(first_job: tuple[str, Path]) -> None:
    """The example row kept with the model comes from training; none of the held-out images may equal it."""
    output = first_job[1]
    shown = json.loads((output / "model" / "input_example.json").read_text())["inputs"][0]
    (entry,) = json.loads((output / "held_out.json").read_text())["inputs"]
    images = np.array(entry["data"]).reshape(entry["shape"])
    assert not (images == shown).all(axis=1).any()


def test_two_ranks_train_one_model(tmp_path: Path) -> None:
    port = free_port()
    processes = [start("02-data-parallel", rank_variables(rank, port, tmp_path / str(rank))) for rank in (0, 1)]
    results = [ended(process) for process in processes]
    assert [status for status, _ in results] == [0, 0], results
    metrics = json.loads((tmp_path / "0" / "metrics.json").read_text())
    assert not (tmp_path / "1").exists()
    assert metrics["weight_difference_max"] < 1e-9
    assert metrics["accuracy_held_out"] == metrics["accuracy_held_out_single_process"] > 0.9
    for rank, (_, log) in enumerate(results):
        assert f"rank {rank}: 674 of 1348 training images are mine" in log
        assert f"rank {rank}: weights sha256 {metrics['weights_sha256'][:16]}, images per rank [674, 674]" in log


def test_a_rank_that_is_alone_in_its_view_of_the_job_is_stopped(tmp_path: Path) -> None:
    variables = rank_variables(0, free_port(), tmp_path) | {"MAINSTAY_NODE_RANK": "1"}
    status, log = ended(start("02-data-parallel", variables))
    assert status == 1
    assert "RANK is '0', but MAINSTAY_NODE_RANK is '1'" in log


def test_a_lost_rank_ends_the_other(tmp_path: Path) -> None:
    port = free_port()
    survivor = start("02-data-parallel", rank_variables(0, port, tmp_path))
    while True:  # the port opens when rank 0 has read its data
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
                peer.sendall(b"\0\0\0\0\0\0\0\x011")
            break
        except ConnectionRefusedError:
            assert survivor.poll() is None
    status, log = ended(survivor)
    assert status == 1
    assert "another rank hung up before the end" in log or "reset by peer" in log


def test_a_run_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    for folder in (secrets, tmp_path / "conf", tmp_path / "ckpt", tmp_path / "scratch"):
        folder.mkdir()
    (secrets / "tracking-token").write_text("canary\n")
    job = read(EXAMPLES / "03-secrets-and-volumes" / "job.yaml")
    for path, text in job.files.items():
        (tmp_path / path).write_text(text)
    variables = {"MAINSTAY_SECRETS_DIR": str(secrets), "TRACKING_TOKEN": "canary"}
    for said in ("starting anew", "resuming at step 200"):
        status, log = ended(start("03-secrets-and-volumes", variables, folder=tmp_path))
        assert status == 0, log
        assert said in log
        assert "canary" not in log
        (tmp_path / "scratch" / "data.npy").unlink()
    assert "step 400: loss 0.0001" in log
