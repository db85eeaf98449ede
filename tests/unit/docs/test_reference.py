"""The documentation says what the code does, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from mainstay.cli.main import ALIASES, COMMANDS, SERVERS

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "scripts" / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says_now(generator):
    stale = [name for name, text in generator.documents().items() if not generator._is_there(name, text)]
    assert not stale, f"stale: {stale}; run `make reference`"


def test_every_field_of_the_job_file_is_described(generator):
    text = generator.job_file()
    for line in text.splitlines():
        assert not re.match(r"\| `\w+` .*\|  \|$", line), f"without a meaning: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_exists(page):
    for name in re.findall(r"(?:^\$ |`|bin/)mainstay ([a-z][a-z-]*)", page.read_text(), re.MULTILINE):
        assert name in {*COMMANDS, *SERVERS, *ALIASES}, f"{page.name} names `mainstay {name}`"


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for name in re.findall(r"make ([a-z][a-z-]+)\b", page.read_text()):
            benchmark = ROOT / "benchmarks" / f"{name.removeprefix('bench-').replace('-', '_')}.py"
            known = re.search(rf"^{name}:", makefile, re.MULTILINE) or (
                name.startswith("bench-") and benchmark.exists()
            )
            assert known or name in {"up", "an", "a", "the", "it"}, f"{page.name} names `make {name}`"
