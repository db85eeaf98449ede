"""Trees of files: what is a safe path, and that a tree has one canonical form."""

from __future__ import annotations

import hashlib

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
    "\ud800",
    "..\u202e",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_could_leave_the_tree_is_refused(path: str) -> None:
    assert not safe_path(path)
    with pytest.raises(Invalid):
        Entry(path=path, size=0, digest=DIGEST)


@pytest.mark.parametrize("path", ["a", "a/b", ".mainstayignore", "a b/c-d_e.f", "ü/ñ", "...", "a/..b"])
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


@pytest.mark.parametrize(
    "manifest", [b"", b"{}", b"[1]", b'[["a"]]', b'[["a",1,"x",false]]', b"\xff", b'[["a","1",2,3]]']
)
def test_what_is_not_a_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(Invalid):
        Tree.of_manifest(manifest)
