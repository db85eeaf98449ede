"""Trees of files: what is a safe path, and that a tree has one canonical form."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.domain.artifact import Entry, Tree, safe_path
from mainstay.domain.errors import Invalid

DIGEST = hashlib.sha256(b"").hexdigest()

ESCAPES = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../x",
    "a/..",
    "a/./b",
    "./a",
    "a//b",
    "a/",
    "a\\..\\b",
    "a\0b",
    "a\nb",
    "\x1b[31ma",
    "x" * 2_000,
    "x" * 256,
    "a/" + "x" * 256 + "/b",
    "\u00e4" * 128,
    "\ud800",
    "..\u202e",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_could_leave_the_tree_is_refused(path: str) -> None:
    assert not safe_path(path)
    with pytest.raises(Invalid):
        Entry(path=path, size=0, digest=DIGEST)


@pytest.mark.parametrize(
    "path", ["a", "a/b", ".mainstayignore", "a b/c-d_e.f", "ü/ñ", "...", "a/..b", "x" * 255, "/".join("x" * 500)]
)
def test_an_ordinary_path_is_fine(path: str) -> None:
    assert Entry(path=path, size=0, digest=DIGEST).path == path


@given(st.text())
def test_a_safe_path_never_leaves_the_folder_it_is_put_in(path: str) -> None:
    from pathlib import PurePosixPath

    if safe_path(path):
        joined = PurePosixPath("/root/of/tree") / path
        assert ".." not in joined.parts
        assert str(joined).startswith("/root/of/tree/")


def test_a_tree_is_its_manifest() -> None:
    tree = Tree(
        entries=(
            Entry(path="a/b", size=0, digest=DIGEST, executable=True),
            Entry(path="c", size=0, digest=DIGEST),
        )
    )
    assert Tree.of_manifest(tree.manifest) == tree
    assert tree.digest == hashlib.sha256(tree.manifest).hexdigest()


@pytest.mark.parametrize(
    "paths",
    [("b", "a"), ("a", "a"), ("a", "a/b"), ("a", "a-", "a/b/c")],
    ids=["order", "twice", "inside a file", "deep"],
)
def test_a_tree_with_two_meanings_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        Tree(entries=tuple(Entry(path=path, size=0, digest=DIGEST) for path in paths))


ROW = f'"a",1,"{DIGEST}",false'


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{}",
        "[1]",
        "null",
        '"a"',
        '[["a"]]',
        "[[]]",
        '[["a",1,"x",false]]',
        '[["a","1",2,3]]',
        f"[[{ROW},1]]",
        f"[[{ROW}],1]",
        f'[["a",true,"{DIGEST}",false]]',
        f'[["a",1.0,"{DIGEST}",false]]',
        f'[["a",null,"{DIGEST}",false]]',
        f'[["a",-1,"{DIGEST}",false]]',
        f'[["a",1,"{DIGEST}",1]]',
        f'[["a",1,"{DIGEST}",null]]',
        f'[[1,1,"{DIGEST}",false]]',
        f'[[["a"],1,"{DIGEST}",false]]',
        '[["a",1,1,false]]',
        f'[{{"0":"a","1":1,"2":"{DIGEST}","3":false}}]',
        f'[["a",{"9" * 5_000},"{DIGEST}",false]]',
        f"[ [{ROW}]]",
        "[" * 100_000,
    ],
    ids=lambda manifest: manifest[:30],
)
def test_what_is_not_a_manifest_is_refused(manifest: str) -> None:
    with pytest.raises(Invalid):
        Tree.of_manifest(manifest.encode())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(), st.lists))
def test_whatever_json_comes_is_a_manifest_or_refused(content: object) -> None:
    manifest = json.dumps(content).encode()
    try:
        assert Tree.of_manifest(manifest).manifest == manifest
    except Invalid:
        assert content != []


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(Invalid):
        Tree.of_manifest(b"\xff")
