"""The pages about security name every requirement, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LIST, MODEL = ROOT / "docs" / "reference" / "security.md", ROOT / "docs" / "explanation" / "threat-model.md"
MANY = {"A": 9, "B": 4, "C": 4, "D": 5, "E": 6, "F": 3, "G": 3, "H": 1}


def rows() -> dict[str, list[str]]:
    """Requirement -> its cells."""
    found = re.findall(r"^\| ([A-H]\d) \|(.*)\|$", LIST.read_text(), re.MULTILINE)
    assert len(found) == len(dict(found)), "one stands there twice"
    return {name: cells.split(" | ") for name, cells in found}


def test_every_requirement_is_there_with_its_proof_or_with_what_is_missing():
    assert list(rows()) == [f"{topic}{number}" for topic, most in MANY.items() for number in range(1, most + 1)]
    for name, cells in rows().items():
        assert "tests/" in cells[-1] or "*Not yet:*" in cells[1], name


@pytest.mark.parametrize("page", [LIST, MODEL], ids=lambda page: page.name)
def test_what_proves_it_is_a_file_with_tests(page: Path):
    named = set(re.findall(r"\]\(([^)#]*tests/[^)#]+)\)", page.read_text()))
    assert len(named) > 15
    for target in named:
        file = (page.parent / target).resolve()
        assert file.name == "planted.py" or re.search(r"^(async )?def test_", file.read_text(), re.MULTILINE), target
