"""How fast jobs are accepted (each on disk before its answer), and how long until the first log line of one.

The limits named beside the figures are measured in the same run: the bare commit rate of the disk under the database.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.platform import Platform, running
from benchmarks.report import figure, percentile, progress, report
from mainstay.sdk import Client, Job, Resources
from mainstay.wire.requests import QueueRequest, QuotaRequest

SINGLES = 1_200
CLIENTS = 4
BULK = 1_000
BULKS = 5
LATENCY_RUNS = 60
REPETITIONS = 3
QUEUE = "narrow"
"""Takes one pod, which is there: accepting is measured, not running."""
FIRST = Job(name="first", run="sleep 3600", queue=QUEUE)
WAITS = Job(name="queued", run="true", queue=QUEUE)


def single(platform: Platform) -> float:
    """Jobs per second, one request each, by a few clients at once that are connected already."""
    connected = threading.Barrier(CLIENTS + 1)

    def submit_some() -> None:
        with platform.client() as client:
            client.server()
            connected.wait()
            for _ in range(SINGLES // CLIENTS):
                client.submit(WAITS)

    threads = [threading.Thread(target=submit_some) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    connected.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    return SINGLES / (time.monotonic() - began)


def bulk(client: Client) -> float:
    """Jobs per second in requests of a thousand."""
    began = time.monotonic()
    for _ in range(BULKS):
        client.submit_many([WAITS] * BULK)
    return BULKS * BULK / (time.monotonic() - began)


def first_line(client: Client) -> float:
    """Seconds from the call of submit to the first line of the log in the hands of the caller."""
    began = time.monotonic()
    run = client.submit(Job(name="hello", run="echo hello", resources=Resources(cpu="0.1", memory="32MB")))
    line = next(iter(run.logs(follow=True)))
    took = time.monotonic() - began
    assert line.text.strip() == "hello", line
    run.wait()
    return took


def commits_per_second(folder: Path) -> float:
    """The floor under every single submission: one-row commits of SQLite (WAL, FULL) on the same disk."""
    with sqlite3.connect(folder / "floor.db", isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (x)")
        began = time.monotonic()
        for number in range(1_000):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        return 1_000 / (time.monotonic() - began)


def main() -> None:
    """Measure and report."""
    singles, bulks, floors, lines = [], [], [], []
    for repetition in range(REPETITIONS):
        progress(f"repetition {repetition + 1} of {REPETITIONS}")
        with (
            tempfile.TemporaryDirectory(prefix="mainstay-bench-") as folder,
            running(Path(folder) / "state") as platform,
            platform.client() as client,
        ):
            client.set_queue(QUEUE, QueueRequest(quotas=[QuotaRequest(resource="pods", nominal=1)]))
            first = client.submit(FIRST)
            first_line(client)
            lines += [first_line(client) for _ in range(LATENCY_RUNS)]
            floors.append(commits_per_second(Path(folder)))
            singles.append(single(platform))
            bulks.append(bulk(client))
            first.stop()
    report(
        "submit",
        [
            figure("accepted jobs, single requests", "jobs/s", singles, goal=300),
            figure("accepted jobs, bulk of 1,000", "jobs/s", bulks, goal=2_000),
            figure("submit to first log line, p50", "s", [percentile(lines, 0.5)], goal=0.3, higher_is_better=False),
            figure("submit to first log line, p99", "s", [percentile(lines, 0.99)]),
            figure("bare one-row commits of the disk", "commits/s", floors),
        ],
        notes=[
            f"single: {CLIENTS} clients on the same cores as the platform; first line: {len(lines)} runs, one at a time",
        ],
    )


if __name__ == "__main__":
    main()
