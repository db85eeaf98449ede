"""Plant any of these bugs and a test of the suite fails: each was tried on a copy of the product, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.security.planted import PLANTS, Plant

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ROOT / "src" / "mainstay"
FAILED = 1
"""What pytest answers where tests ran and failed; other numbers say that they could not be run."""


def planted(plant: Plant, folder: Path) -> Path:
    """A copy of the product with the bug in it, to be imported from there."""
    source = folder / "src"
    shutil.copytree(PRODUCT, source / "mainstay")
    for change in plant.changes:
        file = source / "mainstay" / change.file
        text = file.read_text()
        assert text.count(change.before) == 1, f"{change.file} has changed: plant the bug anew"
        file.write_text(text.replace(change.before, change.after))
    return source


def tested(source: Path, tests: Iterable[str]) -> tuple[int, str]:
    """What pytest answers and says of these tests, run over the product that lies there. The same examples each time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        env={**kept, "PYTHONPATH": str(source), "CI": "true"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("plant", PLANTS, ids=[plant.name for plant in PLANTS])
def test_a_planted_bug_is_found(plant: Plant, tmp_path: Path) -> None:
    answer, said = tested(planted(plant, tmp_path), [plant.found_by])
    assert answer == FAILED, f"not found: {plant.name}\n{said[-3_000:]}"
    assert re.search(r"^\d+ failed", said.splitlines()[-1]), said[-3_000:]
    assert plant.says in said, said[-3_000:]


def test_without_a_bug_the_same_tests_pass() -> None:
    answer, said = tested(PRODUCT.parent, sorted({plant.found_by for plant in PLANTS}))
    assert answer == 0, said[-5_000:]
    assert "skipped" not in said.splitlines()[-1], said[-1_000:]
    print(f"\n{len(PLANTS)} bugs to plant")
