"""The terminal of the user while a command in a pod has it: raw, its size followed, and given back whatever happens."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator

ESCAPE, LEAVE = b"~", b"."
LINE_ENDS = b"\r\n"


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes to the other side, Ctrl-C too, for the block. What was typed already is not lost."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def size(descriptor: int) -> tuple[int, int]:
    """(columns, rows); that of an old terminal where nobody knows."""
    try:
        found = os.get_terminal_size(descriptor)
    except OSError:
        return 80, 24
    return found.columns or 80, found.lines or 24


def is_one() -> bool:
    """Whether the user sits at both ends of ours."""
    return sys.stdin.isatty() and sys.stdout.isatty()


class Escapes:
    """Finds `~.` at the beginning of a line, which leaves a connection that answers no more; `~~` is a `~`. As ssh(1)."""

    def __init__(self) -> None:
        self._at_line_start = True
        self._escaped = False

    def typed(self, keys: bytes) -> tuple[bytes, bool]:
        """(what goes to the other side, whether the user wants to leave)."""
        passed = bytearray()
        for number in keys:
            key = bytes([number])
            if self._escaped:
                self._escaped = False
                if key == LEAVE:
                    return bytes(passed), True
                passed += key if key == ESCAPE else ESCAPE + key
            elif key == ESCAPE and self._at_line_start:
                self._escaped = True
                continue
            else:
                passed += key
            self._at_line_start = key in LINE_ENDS
        return bytes(passed), False
