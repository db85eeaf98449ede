"""Files that somebody else put where ours belong, and text that would steer a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mainstay.api.auth import needs_token
from mainstay.cli.show import plain
from mainstay.clusters.local.files import read_json
from mainstay.domain.errors import StateUnusable
from mainstay.start.state import administrator_token

STRANGE: list[Callable[[Path], object]] = [
    Path.mkdir,
    os.mkfifo,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.write_bytes(b"\xff"),
    lambda path: path.write_text("[" * 100_000),
]


@pytest.mark.parametrize("make", STRANGE, ids=["directory", "pipe", "link", "bytes", "deep"])
def test_a_strange_file_is_as_good_as_none(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "exit.json")
    assert read_json(tmp_path / "exit.json") is None


@pytest.mark.parametrize("text", ["", "\n", "mst_", "x" * 60])
def test_a_token_file_without_a_token_lets_nobody_in(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(StateUnusable, match="no token"):
        administrator_token(tmp_path)


def test_the_token_stays_the_same(tmp_path: Path) -> None:
    assert administrator_token(tmp_path) == administrator_token(tmp_path)


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("/endpoints/v2x", False),
        ("/endpoints/v2", False),
        ("/endpoints/digits", False),
        ("/endpoints/digits/v2/health/ready", True),
        ("/endpoints/v2x/v2/x", True),
        ("/v1/workloads", True),
    ],
)
def test_pages_need_no_token_and_predictions_do(path: str, *, needed: bool) -> None:
    assert needs_token(path) is needed


def test_control_characters_never_reach_a_terminal() -> None:
    assert plain("a\x1b]0;x\x07\x9b1m\tö\n") == "a\ufffd]0;x\ufffd\ufffd1m\tö\n"
