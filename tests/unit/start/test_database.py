"""A database that is not there yet, never comes, or shuts us out, at the start of a replica."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import yaml

from mainstay.domain.errors import MainstayError, ShutOut, StateUnusable, Unavailable
from mainstay.start.database import WAIT_SECONDS_MAX, open_when_it_answers

ROOT = Path(__file__).parents[3]


class Time:
    """Goes on only while it is slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def opening(*fates: MainstayError | str) -> Callable[[], str]:
    """Fails or returns, in turn; the last one for ever."""
    left = list(fates)

    def attempt() -> str:
        fate = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(fate, MainstayError):
            raise fate
        return fate

    return attempt


def opened(attempt: Callable[[], str], time: Time) -> str:
    return open_when_it_answers(attempt, monotonic=time.monotonic, sleep=time.sleep)


AWAY = Unavailable("the database cannot be reached", hint="check that PostgreSQL runs")


def test_one_that_comes_late_is_opened_and_each_try_has_told_what_it_waits_for():
    time = Time()
    with structlog.testing.capture_logs() as lines:
        assert opened(opening(AWAY, AWAY, AWAY, "a store"), time) == "a store"
    assert [line["event"] for line in lines] == ["waiting_for_database"] * 3
    assert all(line["reason"] == AWAY.message and line["hint"] == AWAY.hint for line in lines)
    assert lines[2]["waited_seconds"] == round(sum(time.pauses[:2]), 1)
    assert {line["gives_up_after_seconds"] for line in lines} == {WAIT_SECONDS_MAX}


def test_pauses_grow_and_one_that_never_comes_is_given_up_in_words_at_the_limit():
    time = Time()
    with structlog.testing.capture_logs() as lines, pytest.raises(Unavailable) as given_up:
        opened(opening(AWAY), time)
    assert sum(time.pauses) == pytest.approx(WAIT_SECONDS_MAX)
    assert time.pauses[0] < 1 < time.pauses[-2] <= 15
    assert len(lines) == len(time.pauses) < 60
    assert given_up.value.message == f"gave up after {WAIT_SECONDS_MAX:.0f} seconds: {AWAY.message}"
    assert given_up.value.hint == AWAY.hint


@pytest.mark.parametrize("error", [ShutOut("the password is another", hint="give it"), StateUnusable("newer schema")])
def test_what_waiting_does_not_mend_ends_at_once(error):
    time = Time()
    with pytest.raises(type(error), match=error.message) as refused:
        opened(opening(AWAY, error), time)
    assert len(time.pauses) == 1
    assert refused.value.hint == error.hint


def test_the_start_up_probe_of_the_files_for_kubernetes_outlasts_the_wait():
    (server,) = yaml.safe_load((ROOT / "deploy/kubernetes/base/deployment.yaml").read_text())["spec"]["template"][
        "spec"
    ]["containers"]
    probe = server["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > WAIT_SECONDS_MAX + 30
