"""How an agent refuses to start: one sentence that says what to do, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mainstay.agent.connection import Connection, Way
from mainstay.app_agent import AgentSettings, run_agent, way_of
from mainstay.domain.errors import StateUnusable


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an agent would keep its runs."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("mainstay.app_agent.configure_log", lambda _: None)
    return home


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    token = tmp_path / "token"
    token.write_text("msa_secret\n")
    return {"server": "https://mainstay.test/", "cluster": "plant", "token_file": token, "local": True}


def test_an_agent_that_is_given_what_it_needs_has_a_way(settings: dict[str, Any]) -> None:
    way = way_of(AgentSettings(**settings))
    assert (way.url, way.token()) == ("https://mainstay.test", "msa_secret")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server": "mainstay.test"}, "not the address"),
        ({"server": "http://mainstay.test"}, "plain http"),
        ({"server": "https://mainstay.test:99999"}, "not the address"),
        ({"server": "https://me:pw@mainstay.test"}, "no password"),
        ({"cluster": ""}, "not the name of a cluster"),
        ({"cluster": "../plant"}, "not the name of a cluster"),
        ({"local": False}, "one way"),
        ({"in_cluster": True}, "only one way"),
        ({"token_file": Path("/nowhere")}, "cannot read the token"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    settings: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    assert run_agent(AgentSettings(**{**settings, **changes})) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "hint: " in said
    assert not list(home.iterdir())


def test_a_file_without_authorities_is_named(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    for name in ("ca.crt", "missing.crt"):
        with pytest.raises(StateUnusable, match=name):
            Connection(Way(url="https://mainstay.test", token=lambda: "", ca=tmp_path / name))
