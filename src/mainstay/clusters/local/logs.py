"""Reads a log that its shim writes and rotates, by offsets in the whole of it. Its bytes are hostile (security.md E5)."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from pathlib import Path

from mainstay.domain.capacity import LogChunk

CHUNK_BYTES_MAX = 8 << 20


def read_log(directory: Path, *, offset: int, limit: int, total: int | None) -> LogChunk:
    """At most `limit` bytes from `offset` on. `total`: bytes ever written, once the run has ended; None before.

    What lies between two files was dropped: rotated away, or written to a full disk.
    """
    offset, wanted = max(0, offset), max(0, min(limit, CHUNK_BYTES_MAX))
    begin, content = offset, b""
    while len(content) < wanted:
        part, place = _part(directory, begin + len(content), wanted - len(content))
        if not part:
            break
        if place > begin + len(content):
            if content:
                break  # the gap is reported by the next chunk, which starts with it
            begin = place
        content += part
    end = begin + len(content)
    if not content and wanted and total is not None and total > begin:
        begin = end = total
    return LogChunk(data=content, next_offset=end, dropped=begin - offset, ended=total is not None and end >= total)


def log_bytes(directory: Path) -> int:
    """Where the last file ends."""
    starts = _starts(directory)
    return starts[-1] + _path(directory, starts[-1]).stat().st_size if starts else 0


def _part(directory: Path, offset: int, limit: int) -> tuple[bytes, int]:
    """The first bytes that are there at or after an offset, out of one file, and where they begin."""
    starts = _starts(directory)
    first = max(0, bisect_right(starts, offset) - 1)
    for start in starts[first:]:
        place = max(start, offset)
        try:
            descriptor = os.open(_path(directory, start), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # rotated away since it was listed, or not a file of ours
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and (part := os.pread(descriptor, limit, place - start)):
                return part, place
        finally:
            os.close(descriptor)
    return b"", offset


def _starts(directory: Path) -> list[int]:
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except FileNotFoundError:
        return []
    return sorted(int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdecimal())


def _path(directory: Path, start: int) -> Path:
    return directory / f"{start:012d}.log"
