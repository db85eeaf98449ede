"""`domain` and `decide` are pure: no clock, no chance, no environment, no log, no waiting, no order by set."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mainstay.domain.reason import SENTENCES, Code, Reason

SOURCE = Path(__file__).resolve().parents[2] / "src" / "mainstay"
CORE = sorted([*(SOURCE / "domain").rglob("*.py"), *(SOURCE / "decide").rglob("*.py")])
BANNED_MODULES = {"time", "random", "os", "logging", "asyncio", "secrets", "socket", "threading", "uuid", "subprocess"}
BANNED_CALLS = {"now", "utcnow", "today", "id", "hash", "input", "open", "print", "getenv"}


def breaches(source: str) -> list[str]:
    """What in a module breaks the laws, each as `line: what` (a comprehension has no line)."""
    return [
        f"{getattr(node, 'lineno', '?')}: {what}" for node in ast.walk(ast.parse(source)) if (what := _breach(node))
    ]


def _breach(node: ast.AST) -> str:
    match node:
        case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return "waits"
        case ast.Import(names=names) if {name.name.split(".")[0] for name in names} & BANNED_MODULES:
            return f"imports {names[0].name}"
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] in BANNED_MODULES:
            return f"imports {module}"
        case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
            return f"calls {name}"
        case ast.Call(func=ast.Attribute(attr=name)) if name in BANNED_CALLS:
            return f"calls {name}"
        case ast.For(iter=ast.Set()) | ast.comprehension(iter=ast.Set()):
            return "walks a set"
        case ast.For(iter=ast.Call(func=ast.Name(id="set" | "frozenset"))):
            return "walks a set"
        case ast.comprehension(iter=ast.Call(func=ast.Name(id="set" | "frozenset"))):
            return "walks a set"
    return ""


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_core_keeps_its_laws(path: Path) -> None:
    assert breaches(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): pass",
        "import time",
        "import os.path",
        "from random import random",
        "import logging",
        "import os\nos.environ['HOME']",
        "from datetime import datetime\ndatetime.utcnow()",
        "from datetime import datetime\ndatetime.now()",
        "for x in {1, 2}: pass",
        "[x for x in set(y)]",
        "for x in frozenset(y): pass",
        "id(object())",
        "open('x')",
        "print(1)",
    ],
)
def test_the_checker_sees_every_breach(source: str) -> None:
    assert breaches(source)


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Code)


@pytest.mark.parametrize("code", list(Code))
def test_a_sentence_shows_its_numbers(code: Code) -> None:
    names = set(re.findall(r"{(\w+)(?::[^}]+)?}", SENTENCES[code])) - {"object"}
    sentence = Reason(code=code, object="thing", numbers=dict.fromkeys(names, 7)).sentence
    assert "?" not in sentence
    assert "{" not in sentence


def test_a_detail_that_has_no_place_in_the_sentence_follows_it() -> None:
    ended = {"end": "start_failed", "exit_code": "none"}
    plain = Reason(code=Code.POD_ENDED, numbers={**ended, "detail": ""}).sentence
    assert Reason(code=Code.POD_ENDED, numbers={**ended, "detail": "no such file"}).sentence == f"{plain}: no such file"
    assert Reason(code=Code.POD_LOST, numbers={"detail": "gone"}).sentence == "the pod was lost: gone"
