"""Model server: first answer after start, CPU and latency per request, resident memory. Linux only (reads /proc).

Run: python benchmarks/serving.py MODEL_DIRECTORY [...]; each gets the default 3,000 requests of 4 rows, one at a time.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

REQUESTS = 3_000
ROWS = 4
PATH = "/v2/models/m"
JSON = {"content-type": "application/json"}


def main(directories: list[str]) -> None:
    for directory in directories:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        command = [sys.executable, "-m", "mainstay.serving", "--model", directory, "--name", "m", "--port", str(port)]
        begun = time.monotonic()
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                print(f"{directory}: {measured(process, port, begun)}", flush=True)
            finally:
                process.terminate()


def measured(process: subprocess.Popen[bytes], port: int, begun: float) -> str:
    connection = connected(process, port)
    body = request_body(json.loads(wait(process, connection)))
    ask(connection, body)
    first_seconds = time.monotonic() - begun
    before = cpu_seconds(process.pid)
    taken = sorted(ask(connection, body) for _ in range(REQUESTS))
    cpu = (cpu_seconds(process.pid) - before) / REQUESTS
    p50, p99 = taken[REQUESTS // 2], taken[REQUESTS * 99 // 100]
    return (
        f"first answer {first_seconds:.2f} s, CPU {cpu * 1e6:.0f} us/request, "
        f"latency p50 {p50 * 1e6:.0f} us p99 {p99 * 1e6:.0f} us, resident {resident_megabytes(process.pid):.0f} MB"
    )


def connected(process: subprocess.Popen[bytes], port: int) -> http.client.HTTPConnection:
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
        except ConnectionRefusedError:
            time.sleep(0.005)
        else:
            return connection
    sys.exit("the server has ended: start it by hand to see why")


def wait(process: subprocess.Popen[bytes], connection: http.client.HTTPConnection) -> bytes:
    """Metadata of the model, once it is loaded."""
    while process.poll() is None:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 200:
            return content
        time.sleep(0.005)
    sys.exit("the model was refused: start the server by hand to see why")


def request_body(metadata: dict[str, list[dict[str, object]]]) -> bytes:
    inputs = []
    for spec in metadata["inputs"]:
        shape = [ROWS if size == -1 else size for size in spec["shape"]]  # type: ignore[attr-defined]  # JSON
        count = 1
        for size in shape:
            count *= size
        inputs.append({**spec, "shape": shape, "data": [0.25] * count})
    return json.dumps({"inputs": inputs}).encode()


def ask(connection: http.client.HTTPConnection, body: bytes) -> float:
    begun = time.perf_counter()
    connection.request("POST", f"{PATH}/infer", body, JSON)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        sys.exit(f"status {answer.status}: {content!r}")
    return time.perf_counter() - begun


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
