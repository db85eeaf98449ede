"""The file of keys: one a line, the first seals; a rotation puts a new one in front, or second at first."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mainstay.cli.secrets import rotate_key
from mainstay.domain.errors import StateUnusable
from mainstay.start.state import sealing_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets-key"
    sealing_keys(path, given=False)
    return path


def rotated(file: Path, *options: str) -> int:
    return CliRunner().invoke(rotate_key, ["--key-file", str(file), *options]).exit_code


def test_a_new_key_seals_and_the_old_one_still_opens(file: Path) -> None:
    (old,) = sealing_keys(file, given=True)
    assert rotated(file) == 0
    new, also = sealing_keys(file, given=True)
    assert (also, new != old, file.stat().st_mode & 0o777) == (old, True, 0o600)


def test_a_key_is_put_second_and_later_first(file: Path) -> None:
    (old,) = sealing_keys(file, given=True)
    assert rotated(file, "--second") == 0
    first, new = sealing_keys(file, given=True)
    assert first == old
    assert rotated(file, "--first") == 0
    assert sealing_keys(file, given=True) == (new, old)


@pytest.mark.parametrize("options", [["--first"], ["--first", "--second"]])
def test_there_must_be_a_second_one_to_seal_with(file: Path, options: list[str]) -> None:
    before = file.read_text()
    assert rotated(file, *options) == 2
    assert file.read_text() == before


def test_what_is_no_file_of_keys_is_left_alone(file: Path) -> None:
    file.write_text("nonsense\n")
    assert rotated(file) != 0
    assert file.read_text() == "nonsense\n"


def test_a_line_that_is_no_key_is_named(file: Path) -> None:
    file.write_text(file.read_text() + "\nmsk_12\n")
    with pytest.raises(StateUnusable, match=r"there is no key in .*secrets-key, line 2"):
        sealing_keys(file, given=True)
    file.write_text("\n")
    with pytest.raises(StateUnusable, match="there is no key in"):
        sealing_keys(file, given=True)
