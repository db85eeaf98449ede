"""A platform with many queued jobs, as `restart` and `footprint` need it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.platform import Platform
from benchmarks.report import progress
from mainstay.sdk import Client, Job, Resources

BULK = 1_000
SHAPES = 50


def fill(platform: Platform, count: int, *, release: Path) -> str:
    """Occupy the node with one job that ends when `release` appears or its folder goes; queue `count` jobs behind it.

    They are of 50 shapes.
    """
    cores = os.cpu_count() or 1
    with platform.client(timeout=120) as client:
        blocker = client.submit(
            Job(
                name="blocker",
                run=f"while [ -d {release.parent} ] && [ ! -e {release} ]; do sleep 0.1; done",
                resources=Resources(cpu=str(cores), memory="64MB"),
            )
        )
        _until_running(client, blocker.id)
        for start in range(0, count, BULK):
            progress(f"queued {start:,} of {count:,}")
            client.submit_many([_job(start + number, cores) for number in range(min(BULK, count - start))])
        return blocker.id


def _job(number: int, cores: int) -> Job:
    memory = f"{16 + number % SHAPES}MB"
    return Job(name="queued", run="true", resources=Resources(cpu=str(cores), memory=memory), priority=number % 100)


def _until_running(client: Client, run: str) -> None:
    while client.get(run).phase != "running":
        time.sleep(0.05)
