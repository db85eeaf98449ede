"""What is installed is what `pyproject.toml` asks for: pinned, hashed, and from wherever the machine's owner says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def asked() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    return [Requirement(line) for one in lists for line in one]


def pins(lock: Path) -> list[str]:
    """Each pin on one line with its hashes."""
    text = lock.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("requirement", asked(), ids=lambda requirement: requirement.name)
def test_what_the_project_asks_for_is_pinned(requirement: Requirement) -> None:
    found = [Requirement(line.partition(" --hash")[0]) for line in pins(ROOT / "requirements" / "all.txt")]
    mine = [pin for pin in found if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert mine, "not in requirements/all.txt; hint: make lock"
    for pin in mine:
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), "requirements/all.txt is older; hint: make lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_is_exact_and_hashed(lock: Path) -> None:
    assert pins(lock)
    for line in pins(lock):
        assert re.match(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==[^\s;]+( ; .*?)?\s+--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_place_to_download_from(lock: Path) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", lock.read_text())


def test_the_image_has_what_was_tested_and_nothing_of_the_developers() -> None:
    tested = set(pins(ROOT / "requirements" / "all.txt"))
    image = pins(ROOT / "requirements" / "image.txt")
    assert set(image) <= tested, "hint: make lock"
    names = {canonicalize_name(Requirement(line.partition(" --hash")[0]).name) for line in image}
    assert {"sqlalchemy", "psycopg", "onnxruntime"} <= names
    assert not names & {"pytest", "mypy", "ruff", "moto", "playwright", "pip", "uv"}
