"""A job that prints, exports and dies of its secret, and where that must not be found afterwards."""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.platform import Platform

VALUE = "cAnArY-9f3e/+secret-of-this-test"
SEARCHED = "files and answers in which a secret was looked for that its job has printed: 0 leaks"
CANARIES = (
    VALUE,
    VALUE[:20],
    VALUE[12:],
    base64.b64encode(VALUE.encode()).decode(),
    base64.b64encode(f"user:{VALUE}".encode()).decode()[8:-2],
)
PROGRAM = """
import base64, os, sys, time
value = open(os.environ["MAINSTAY_SECRETS_DIR"] + "/leaked").read()
print("plain", value, flush=True)
print("variable", os.environ["LEAKED"], flush=True)
print("encoded", base64.b64encode(value.encode()).decode(), base64.b64encode(f"user:{value}".encode()).decode(), flush=True)
os.write(1, b"split " + value[:9].encode()); time.sleep(0.2); os.write(1, value[9:].encode() + b"\\n")
if os.path.exists("/dev/termination-log"):
    open("/dev/termination-log", "w").write(f"cannot log in with {value}")
os.system("echo exported $LEAKED; sh -c 'echo by a child: $LEAKED >&2'")
raise SystemExit(f"cannot log in with {value}")
"""
NAMES_ITS_OUTPUT = """
import os
folder, _, name = open(os.environ["MAINSTAY_SECRETS_DIR"] + "/leaked").read().partition("/")
os.chdir(os.environ["MAINSTAY_OUTPUT_DIR"])
os.mkdir(folder)
open(f"{folder}/{name}\\n", "w").close()
"""


def said_of_a_leak(up: Platform, folder: Path, **job: Any) -> str:
    """Run it to its end, masked as it must be: all that the platform says of it then, in whichever way it is asked."""
    done = up.mainstay("secret", "set", "leaked", input=VALUE)
    assert done.returncode == 0, done.stderr
    (folder / "leak.py").write_text(PROGRAM)
    secrets = [{"name": "leaked", "env": "LEAKED"}]
    job = {"name": "leak", "run": "python leak.py", "workdir": ".", "secrets": secrets, "retry": {"user": 0}, **job}
    (folder / "job.yaml").write_text(json.dumps(job))
    done = up.mainstay("apply", "-y", "-f", str(folder / "job.yaml"), timeout=90)
    assert done.returncode == 1, done.stdout + done.stderr
    shown = done.stdout + done.stderr
    for said in ("plain ****", "variable ****", "encoded ****", "split ****", "exported ****", "by a child: ****"):
        assert said in done.stdout, done.stdout
    (folder / "names.py").write_text(NAMES_ITS_OUTPUT)
    (folder / "job.yaml").write_text(json.dumps(job | {"name": "leak-named", "run": "python names.py"}))
    done = up.mainstay("apply", "-y", "-f", str(folder / "job.yaml"), timeout=90)
    assert done.returncode == 1, done.stdout + done.stderr
    sentence = up.json("show", "leak-named")["reason"]["sentence"]
    assert f"cannot be kept: '{'*' * len(VALUE)}" in sentence, sentence
    words = (
        *(("show", "leak-named", "--json"), ("explain", "leak-named")),
        *(("logs", "leak"), ("show", "leak", "--json"), ("explain", "leak"), ("events",), ("ps", "--json")),
        *(("secret", "list", "--json"), ("audit", "--json"), ("audit", "export"), ("cost",)),
    )
    shown += done.stdout + done.stderr + "".join(one.stdout + one.stderr for one in (up.mainstay(*w) for w in words))
    shown += "".join(_answer(up, path) for path in ("/metrics", "/v1/events", "/v1/workloads/leak/logs"))
    assert "hand_secrets" in shown
    return shown


def assert_nowhere(up: Platform, *shown: str) -> int:
    """Neither in what was said, nor in a file of the state (database, artifacts and logs of runs), nor in the platform's own log.

    It is there all the same, sealed. In how many places it was looked for.
    """
    files = [path for path in (*up.state.rglob("*"), up.state.parent / "platform.log") if path.is_file()]
    assert files[-1].name == "platform.log"
    for canary in CANARIES:
        assert [text for text in shown if canary in text] == []
        assert [path for path in files if canary.encode() in path.read_bytes()] == []
    database = b"".join(path.read_bytes() for path in files if path.name.startswith("mainstay.db"))
    assert b"leaked" in database
    return len(files) + len(shown)


def _answer(up: Platform, path: str) -> str:
    """As the API gives it."""
    token = json.loads((up.state / "server.json").read_text())["token"]
    asked = urllib.request.Request(up.url + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        content: bytes = answer.read()
        return content.decode()
