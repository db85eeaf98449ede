"""What a platform says once it is up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mainstay import __main__ as program

APP = SimpleNamespace(services=SimpleNamespace(url="http://127.0.0.1:8650"))


def test_commands_are_told_how_to_find_a_state_that_is_not_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAINSTAY_STATE", str(tmp_path / "usual"))
    program._say_where(tmp_path / "usual", APP)
    assert "MAINSTAY_STATE" not in capsys.readouterr().out
    program._say_where(tmp_path / "another one", APP)
    assert f"export MAINSTAY_STATE='{tmp_path}/another one'" in capsys.readouterr().out
