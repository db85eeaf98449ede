"""Logs of pods: what a kubelet says in place of one is none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mainstay.clusters.kubernetes.logs import _true_log

REMOVED = b"unable to retrieve container logs for containerd://" + b"0f" * 32


async def sent(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    ("chunks", "log"),
    [
        ((b"a line\n", b"another\n"), b"a line\nanother\n"),
        ((REMOVED,), b""),
        ((REMOVED[:9], REMOVED[9:]), b""),
        ((b"unable", b" to open a file\n"), b"unable to open a file\n"),
        ((b"unable",), b"unable"),
        ((REMOVED + b"\n", b"and more of a log" * 20), REMOVED + b"\n" + b"and more of a log" * 20),
        ((), b""),
    ],
)
async def test_the_words_for_a_removed_container_are_no_log(chunks: tuple[bytes, ...], log: bytes):
    assert b"".join([chunk async for chunk in _true_log(sent(*chunks))]) == log
