"""Plant any of these bugs and a test of the suite fails: in a copy of the product, which a process of its own tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.figures import Figure
from tests.security.planted import COPIES, PLANTS, Plant

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ROOT / "src" / "mainstay"
FAILED = 1
"""What pytest answers where tests ran and failed; other numbers say that they could not be run."""


def planted(plants: Iterable[Plant], folder: Path) -> Path:
    """A copy of the product with the bugs in it, to be imported from there."""
    source = folder / "src"
    shutil.copytree(PRODUCT, source / "mainstay")
    for change in (change for plant in plants for change in plant.changes):
        file = source / "mainstay" / change.file
        text = file.read_text()
        assert text.count(change.before) == 1, f"{change.file} has changed: plant the bug anew"
        file.write_text(text.replace(change.before, change.after))
    return source


def outcome(source: Path, plants: Iterable[Plant]) -> tuple[int, str]:
    """What pytest answers and says of the tests that must find these bugs, run over the product that lies there.

    The same examples each time.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sorted({plant.found_by for plant in plants})],
        env={**kept, "PYTHONPATH": str(source), "CI": "true", "COLUMNS": "300"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("plants", COPIES, ids=range(len(COPIES)))
def test_every_planted_bug_is_found(plants: tuple[Plant, ...], tmp_path: Path, figure: Figure) -> None:
    answer, said = outcome(planted(plants, tmp_path), plants)
    assert answer == FAILED, said[-5_000:]
    missed = [plant.name for plant in plants if f"\nFAILED {plant.found_by}" not in said or plant.says not in said]
    assert missed == [], said[-5_000:]
    figure("bugs that were planted: all found", len(plants))


def test_without_a_bug_the_same_tests_pass() -> None:
    answer, said = outcome(PRODUCT.parent, PLANTS)
    assert answer == 0, said[-5_000:]
    assert "skipped" not in said.splitlines()[-1], said[-1_000:]
