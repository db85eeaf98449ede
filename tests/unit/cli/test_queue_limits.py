"""The time limit that a queue gives: set and shown, and told before and after a job is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.cli.exits import Exit
from tests.unit.cli.test_commands import mainstay, site
from tests.unit.web.site import Site

__all__ = ["site"]
pytestmark = pytest.mark.xdist_group("command-line")


def test_a_queue_says_when_it_ends_what_says_nothing(site: Site, tmp_path: Path) -> None:
    assert mainstay("queue", "set", "research", "--default-max-duration", "8h").returncode == Exit.OK
    assert "limits   what says no max_duration to 8h 0m" in mainstay("queue", "show", "research").stdout
    file = tmp_path / "job.yaml"
    file.write_text("name: train\nrun: 'true'\nqueue: research\n")
    said = "its queue ends it after 8h 0m, since it has no max_duration of its own"
    assert said in mainstay("plan", "-f", str(file)).stdout
    submitted = mainstay("apply", "-y", "-d", "-f", str(file)).stderr
    assert said in submitted
    assert "queue research ends it after 8h 0m: it has no max_duration" in submitted
    assert "limit      8h 0m" in mainstay("show", "train").stdout
    file.write_text("name: train\nrun: 'true'\nqueue: research\nmax_duration: 30m\n")
    assert "its queue ends it" not in mainstay("plan", "-f", str(file)).stdout
    assert mainstay("queue", "set", "research", "--default-max-duration", "none").returncode == Exit.OK
    assert "limits" not in mainstay("queue", "show", "research").stdout
