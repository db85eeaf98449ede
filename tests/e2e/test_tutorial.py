"""The tutorial is tried as it is written: its commands in its order, and its Python."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.platform import platform, until

pytestmark = pytest.mark.xdist_group("command-line")
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "first-job.md").read_text()
ADDRESS = "http://127.0.0.1:8650"


def run(*argv: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_every_command_and_every_program_of_the_tutorial_works_in_its_order(tmp_path):
    page = PAGE.replace("/tmp/digits", str(tmp_path / "digits")).replace("~/.mainstay", str(tmp_path / "state"))
    pattern = r"^\$ mainstay ([^\n]+)$|^```python\n(.*?)^```|^(curl .*?)^```"
    steps = re.findall(pattern, page, re.MULTILINE | re.DOTALL)
    assert len(steps) > 15
    said = {}
    with platform(tmp_path / "state") as up:
        for command, program, request in steps:
            if command:
                done = up.mainstay(*shlex.split(command), cwd=ROOT)
            elif program:
                done = run(sys.executable, "-W", "ignore", "-c", program, environment=up.environment)
            elif shutil.which("curl"):
                done = run("/bin/sh", "-c", request.replace(ADDRESS, up.url), environment=up.environment)
                assert '"outputs"' in done.stdout
            assert done.returncode == 0, f"{command or program or request}: {done.stderr}"
            said[command or "program"] = done.stdout + done.stderr
        until(lambda: not up.json("endpoints"))
    assert "held-out accuracy: 0.9" in said["apply -y -f examples/01-first-job/job.yaml"]
    assert "✓ ready" in said["deploy digits"]
    assert "hello" in said["program"]
