"""The file of an exported audit: JSON lines, each an object with one of three names.

    {"audit": {"system": …, "after": {"seq": …, "hash": …}}}     first: whose it is, and which row came before
    {"row": {…}}                                                 oldest first, as the API has them
    {"anchor": {…}}                                              wherever they stand: signed heads

It may be continued where it ends, also after a line that was cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from mainstay.chain import Head
from mainstay.chain.anchors import Anchor, read
from mainstay.wire.audit import AuditHeadView, AuditRowView

TAIL_BYTES = 1 << 20
"""The last rows of a file stand in it; behind them are a thousand anchors at most."""


class NotAnAudit(Exception):
    """A line is not what it should be: says which."""


def begin(out: TextIO, system: str, after: Head) -> None:
    """The first line."""
    _line(out, "audit", {"system": system, "after": {"seq": after.seq, "hash": after.hash}})


def add_row(out: TextIO, row: AuditRowView) -> None:
    """A row."""
    out.write(f'{{"row": {row.model_dump_json()}}}\n')


def add_anchor(out: TextIO, text: str) -> None:
    """As it is kept."""
    _line(out, "anchor", json.loads(text))


def _line(out: TextIO, name: str, value: object) -> None:
    out.write(json.dumps({name: value}, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first line."""

    system: str
    after: Head


def opened(path: Path) -> tuple[Start, Iterator[Start | AuditRowView | Anchor]]:
    """The first line, and the others as they are read. Raises NotAnAudit."""
    read = _lines(path)
    start = next(read, None)
    if not isinstance(start, Start):
        msg = f"{path}:1: not an exported audit"
        raise NotAnAudit(msg)
    return start, read


def _lines(path: Path) -> Iterator[Start | AuditRowView | Anchor]:
    """What stands in a file, a line in memory at a time. Raises NotAnAudit with the line; OSError."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield _read(line)
            except (ValueError, KeyError, TypeError) as error:
                said = str(error).partition("\n")[0]
                msg = f"{path}:{number}: not a line of an exported audit: {said}"
                raise NotAnAudit(msg) from error


def anchors_in(path: Path) -> Iterator[Anchor]:
    """Its anchors alone, without reading the rows."""
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b'{"anchor"'):
                yield read(json.dumps(json.loads(line)["anchor"]))


def last_row(path: Path) -> Head:
    """Where a file ends; what was cut off behind its last whole line is taken away. Raises NotAnAudit."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        begins = max(0, size - TAIL_BYTES)
        file.seek(begins)
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        file.truncate(begins + whole)
        for line in reversed(tail[:whole].splitlines()):
            if line.startswith(b'{"row"'):
                row = AuditRowView.model_validate(json.loads(line)["row"])
                return Head(seq=row.seq, hash=row.hash)
        return _first_of(file)


def _first_of(file: BinaryIO) -> Head:
    file.seek(0)
    try:
        start = _read(file.readline())
    except (ValueError, KeyError, TypeError):
        start = None
    if not isinstance(start, Start):
        msg = f"{file.name}: not an exported audit: it can not be continued"
        raise NotAnAudit(msg)
    return start.after


def _read(line: bytes) -> Start | AuditRowView | Anchor:
    found = json.loads(line)
    if "row" in found:
        return AuditRowView.model_validate(found["row"])
    if "anchor" in found:
        return read(json.dumps(found["anchor"]))
    after = AuditHeadView.model_validate(found["audit"]["after"])
    return Start(system=str(found["audit"]["system"]), after=Head(seq=after.seq, hash=after.hash))
