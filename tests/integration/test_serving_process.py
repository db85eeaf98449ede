"""The model server as the real process that a pod runs: start, answer, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from mainstay.serving import save_sklearn

START_SECONDS = 60
POLL_SECONDS = 0.02
COMMAND = (sys.executable, "-m", "mainstay.serving")
SLOW_ROWS = 4_000


@contextmanager
def server(directory: Path, log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running server and its address; killed at the end if it is still there."""
    port = free_port()
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "--model", str(directory), "--name", "m", "--version", "3", "--port", str(port), *options],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def call(url: str, body: object | None = None) -> tuple[int, Any]:
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=content, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        try:
            if call(f"{address}/v2/health/ready")[0] == 200:
                return
        except urllib.error.URLError:
            pass  # the port is not open yet
        time.sleep(POLL_SECONDS)
    pytest.fail(f"not ready after {START_SECONDS} s")


def infer_body(rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    entry = {"name": "input", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return {"inputs": [entry], "outputs": [{"name": "label"}]}


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = np.array([[-1.0], [1.0]])
    return save_sklearn(LogisticRegression().fit(rows, [0, 1]), tmp_path_factory.mktemp("small"), sample=rows)


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nearest neighbours without an index: several seconds for SLOW_ROWS rows."""
    rows = np.random.default_rng(1).random((20_000, 8))
    model = KNeighborsClassifier(algorithm="brute", metric="canberra").fit(rows, np.arange(20_000) % 2)
    return save_sklearn(model, tmp_path_factory.mktemp("slow"), sample=rows)


def test_a_server_answers_refuses_and_leaves_with_status_zero(small_model: Path, tmp_path: Path) -> None:
    with server(small_model, tmp_path / "log") as (process, address):
        wait_until_ready(process, address)
        status, answer = call(f"{address}/v2/models/m/infer", infer_body(np.array([[-3.0], [3.0]])))
        assert (status, answer["outputs"][0]["data"]) == (200, [0, 1])
        status, answer = call(f"{address}/v2/models/m/versions/4/infer", infer_body(np.ones((1, 1))))
        assert (status, answer["error"]) == (404, "unknown version of m: '4'; this server has: 3")
        process.terminate()
        assert process.wait(20) == 0


def test_ten_megabytes_are_refused_on_the_wire_before_they_are_read(small_model: Path, tmp_path: Path) -> None:
    with server(small_model, tmp_path / "log") as (process, address):
        wait_until_ready(process, address)
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {10 << 20}\r\n\r\n"
            raw.sendall(head.encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert call(f"{address}/v2/health/live")[0] == 200


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """That it has used so far."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_a_terminated_server_finishes_the_request_in_flight(slow_model: Path, tmp_path: Path) -> None:
    with server(slow_model, tmp_path / "log") as (process, address):
        wait_until_ready(process, address)
        rows = np.random.default_rng(2).random((SLOW_ROWS, 8))
        answers: list[tuple[int, Any]] = []
        asking = threading.Thread(target=lambda: answers.append(call(f"{address}/v2/models/m/infer", infer_body(rows))))
        before = cpu_seconds(process)
        asking.start()
        while cpu_seconds(process) - before < 0.5:  # then it is at work on the answer
            time.sleep(0.01)
        assert not answers
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        asking.join(10)
        assert answers[0][0] == 200
        assert answers[0][1]["outputs"][0]["shape"] == [SLOW_ROWS]


def test_a_refused_model_ends_the_server_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl, serialization_format: pickle}}")
    with server(tmp_path, tmp_path / "log") as (process, _):
        assert process.wait(START_SECONDS) == 1
    log = (tmp_path / "log").read_text()
    assert "model refused: only safe formats are served" in log
    assert "Traceback" not in log


def test_a_port_in_use_is_a_sentence(small_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [*COMMAND, "--model", str(small_model), "--name", "m", "--port", port],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "http", "²"])
def test_an_impossible_port_is_a_usage_error(port: str, small_model: Path) -> None:
    ended = subprocess.run(
        [*COMMAND, "--model", str(small_model), "--name", "m", f"--port={port}"],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert ended.returncode == 2
    assert f"expected a number from 0 to 65535, got: {port}" in ended.stderr
