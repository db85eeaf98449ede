"""A few bytes that stand for gigabytes, or for a stack without end: refused in little memory, by whatever reads them."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.figures import Figure

RSS_MIB_MAX = 300
"""Of a process that has read all of them, one after the other, with all that it has imported."""
DEEP = 100_000
TEXTS = {
    "aliases": "\n".join(
        ["a0: &a0 [x,x,x,x,x,x,x,x,x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    ),
    "merges": "\n".join(
        ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}" for n in range(1, 12))]
    ),
    "an alias of itself": "a: &a [*a]",
    "lists": "[" * DEEP,
    "mappings": "{a: " * DEEP,
    "mappings of JSON": '{"a":' * DEEP,
    "blocks": "\n".join(" " * n + "a:" for n in range(900)),
    "a huge number": f"run: {'9' * 900_000}",
    "a huge exponent": "run: 1e999999999",
    "a huge hexadecimal": f"run: 0x{'f' * 900_000}",
    "a long text": f"run: {'x' * 999_000}",
    "a long line": "x" * 4_000_001,
    "the same key": "{" + ",".join('"a":1' for _ in range(20_000)) + "}",
    "many keys": "{" + ",".join(f'"a{n}":1' for n in range(20_000)) + "}",
    "a tag": "!!python/object/apply:os.system [true]",
    "a timestamp": "run: 9999-99-99T99:99:99",
    "sexagesimals": "run: " + ":".join(["59"] * 100_000),
    "binary": "run: !!binary " + "A" * 900_000,
    "no text": "run: \x00\x01\x02",
    "documents": "---\na\n" * 10_000,
    "anchors": "\n".join(f"a{n}: &a{n} x" for n in range(10_000)),
    "comments": "#" * 900_000,
}
PROGRAM = """
import json, sys
from pathlib import Path
from mainstay.clusters.kubernetes import plain_yaml
from mainstay.domain.artifact import Tree
from mainstay.domain.errors import MainstayError
from mainstay.wire import jobfile

texts, refused = json.load(sys.stdin), 0
for text in texts.values():
    for read, fault in (
        (lambda t: jobfile.parse(t.encode(), source="x"), jobfile.JobFileError),
        (lambda t: jobfile.documents(t.encode(), source="x"), jobfile.JobFileError),
        (plain_yaml.parsed, plain_yaml.NotPlainError),
        (lambda t: Tree.of_manifest(t.encode()), MainstayError),
    ):
        try:
            read(text)
        except fault:
            refused += 1
# Not ru_maxrss: that begins with the peak of the process that has started this one.
(peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"refused": refused, "mib": int(peak) / 1024}))
"""


def test_documents_that_stand_for_gigabytes_are_read_in_little_memory(figure: Figure):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    said = json.loads(done.stdout)
    assert said["refused"] >= 2 * len(TEXTS)
    assert said["mib"] < RSS_MIB_MAX
    figure("documents that stand for gigabytes, or nest without end", len(TEXTS))
    figure("MiB at most, in a process that has read them all with 4 readers", round(said["mib"]))
