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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("queue", "set", "x", "--default-max-duration", "8hours"), "default-max-duration: '8hours' is not a duration"),
        (("queue", "set", "x", "--reserved-after", "none"), "reserved-after: 'none' is not a duration"),
        (("queue", "set", "x", "--weight", "nan"), "weight: input should be"),
        (("reprioritize", "run", "101"), "priority: 101 is no priority"),
        (("queue", "history", "--half-life", "7d", "--entry", "8days"), "entry: '8days' is not a duration"),
    ],
)
def test_a_value_that_is_none_is_refused_by_its_option_before_anything_is_sent(
    site: Site, words: tuple[str, ...], said: str
) -> None:
    done = mainstay(*words)
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith(f"Error: {said}")


def test_what_its_queue_may_never_have_is_never_in_a_plan_as_it_is_refused_at_submission(
    site: Site, tmp_path: Path
) -> None:
    site.fleet()
    assert mainstay("queue", "set", "small", "--quota", "cpu=1").returncode == Exit.OK
    file = tmp_path / "job.yaml"
    file.write_text("name: large\nrun: 'true'\nqueue: small\nresources: {cpu: 2}\n")
    planned = mainstay("plan", "-f", str(file)).stdout
    assert "never" in planned
    assert "queue small may never use so much" in planned
    refused = mainstay("apply", "-y", "-d", "-f", str(file))
    assert refused.returncode == Exit.REFUSED
    assert "queue small may never use so much" in refused.stderr
