"""The whole process: what ends it, and with which words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from mainstay.app import run
from mainstay.control import runner
from mainstay.control.loop import Due, Loop
from mainstay.domain.errors import DiskFailed
from mainstay.start.settings import Settings


@pytest.fixture
def log_again() -> Iterator[None]:
    """The platform writes its log to the stderr that it found, which is this test's own."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("log_again")
def test_a_disk_that_fails_ends_the_platform_with_a_sentence(tmp_path, monkeypatch, capsys):
    broken = DiskFailed("the disk failed", hint="look at the kernel log")

    async def turn() -> Due:
        raise broken

    monkeypatch.setattr(runner, "loops", lambda *_, **__: (Loop(name="any", turn=turn),))
    assert run(Settings(state=tmp_path / "state", port=0)) == 1
    assert capsys.readouterr().err.endswith("mainstay: the disk failed\nhint: look at the kernel log\n")
    assert not (tmp_path / "state" / "server.json").exists()
