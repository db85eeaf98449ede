"""Local queues from Kueue's files and by command: shown before they are set, listed, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.cli.exits import Exit
from tests.unit.cli.test_commands import mainstay, site
from tests.unit.web.site import Site

__all__ = ["site"]
pytestmark = pytest.mark.xdist_group("command-line")

FILE = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: research}
spec: {}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: user-queue, namespace: team-a}
spec: {clusterQueue: research}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: lost, namespace: team-a}
spec: {clusterQueue: nowhere}
"""


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_local_queues_of_a_file_are_shown_set_listed_and_removed(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "kueue.yaml"
    file.write_text(FILE)
    planned = mainstay("plan", "-f", str(file)).stdout
    assert ["LocalQueue", "team-a/user-queue", "new", "queue", "research"] in words(planned)
    assert "team-a/lost" in planned
    assert "not set: there is no queue nowhere" in planned
    assert "there are none" in mainstay("queue", "local", "list").stderr
    assert "2 set" in mainstay("apply", "-y", "-f", str(file)).stderr
    listed = words(mainstay("queue", "local", "list").stdout)
    assert listed[1][:4] == ["team-a", "user-queue", "any", "research"]
    assert len(listed) == 2
    assert "nothing to change" in mainstay("apply", "-y", "-f", str(file)).stderr
    assert mainstay("queue", "local", "set", "team-a/user-queue", "default").returncode == Exit.OK
    changed = mainstay("plan", "-f", str(file)).stdout
    assert ["LocalQueue", "team-a/user-queue", "changed", "queue", "default", "->", "research"] in words(changed)
    assert mainstay("queue", "local", "remove", "team-a/user-queue").returncode == Exit.OK
    assert "no such local queue" in mainstay("queue", "local", "remove", "team-a/user-queue").stderr
    assert mainstay("queue", "local", "remove", "user-queue").returncode == Exit.USAGE
