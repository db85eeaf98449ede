"""The whole process: what ends it, and with which words."""

from __future__ import annotations

from mainstay.app import Settings, run
from mainstay.control import runner
from mainstay.control.runner import Loop
from mainstay.domain.errors import DiskFailed


def test_a_disk_that_fails_ends_the_platform_with_a_sentence(tmp_path, monkeypatch, capsys):
    broken = DiskFailed("the disk failed", hint="look at the kernel log")

    async def turn() -> float:
        raise broken

    monkeypatch.setattr(runner, "loops", lambda *_, **__: (Loop(name="any", turn=turn),))
    assert run(Settings(state=tmp_path / "state", port=0)) == 1
    assert capsys.readouterr().err.endswith("mainstay: the disk failed\nhint: look at the kernel log\n")
    assert not (tmp_path / "state" / "server.json").exists()
