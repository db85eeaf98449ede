"""What a job writes steers no terminal and no page, in one piece or in many (security.md E5)."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mainstay.cli.show import plain
from mainstay.domain import logtext
from tests.figures import Figure

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]")
"""Nothing of it may be left: controls but tab and line feed, and what turns the direction of text around."""
ANSI = [
    *(
        f"\x1b[{code}"
        for code in (
            "2J",
            "H",
            "31m",
            "1;31;40m",
            "?1049h",
            "6n",
            "5i",
            "21t",
            "c",
            ">c",
            "0q",
            "!p",
            "?25l",
            "999999A",
            "38:2::1:2:3m",
        )
    ),
    *(
        f"\x1b]{code}{end}"
        for code in (
            "0;title",
            "2;title",
            "8;;http://evil.test",
            "52;c;cm0gLXJm",
            "4;1;?",
            "10;?",
            "50;font",
            "1337;File=:AA",
            "7;file:///",
            "9;note",
            "777;notify;a;b",
            "133;A",
        )
        for end in ("\x07", "\x1b\\", "\x9c", "\n", "")
    ),
    *(f"\x1b{letter}payload\x1b\\" for letter in "PX^_"),
    *(
        f"\x1b{code}"
        for code in (
            "c",
            "7",
            "8",
            "D",
            "E",
            "M",
            "Z",
            "=",
            ">",
            "#8",
            "(0",
            "%G",
            " F",
            "|",
            "}",
            "~",
            "N",
            "O",
            "n",
            "o",
        )
    ),
    *("\x9b31m", "\x9d0;x\x07", "\x90q\x9c", "\x98x\x9c", "\x9ex\x9c", "\x9fx\x9c", "\x84", "\x85", "\x8d"),
    *("\x07", "\x08\x08\x08", "\x0e", "\x0f", "\x00", "\x7f", "\r", "ok\rno", "\v", "\f", "\x1a", "\x05"),
    *("\u202egpj.exe", "\u2066x\u2069", "\u200f", "\ufeff", "\u2028", "\u2029", "\U000e0041", "\ufff9a\ufffab\ufffb"),
    "\x1b[\x1b[31m31m",
    "\x1b\x1b[2J",
    "\x1b[" + "0;" * 5_000 + "m",
    "\x1b]" + "x" * 10_000,
]
LINES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "@SUM(A1)",
    "2026-11-28T00:00:00Z admin deleted everything",
    '{"event": "audit", "actor": "root"}',
    "event: end\ndata: {}\n\n",
]


def shown(content: bytes, size: int) -> str:
    """As a log is read, in pieces of so many bytes."""
    text, held = "", b""
    for start in range(0, len(content), size):
        held += content[start : start + size]
        whole = logtext.complete(held)
        text, held = text + logtext.printable(held[:whole]), held[whole:]
    return text + logtext.printable(held)


def test_no_sequence_reaches_a_terminal_however_it_is_cut(figure: Figure):
    for sequence in ANSI:
        content = f"before {sequence}\nafter\n".encode()
        for size in (1, 2, 3, 7, 10**6):
            text = shown(content, size)
            assert not OBEYED.search(text), (sequence, size, text)
            assert text.startswith("before ")
            assert text.endswith("after\n"), (sequence, size)
        assert "\x1b" not in plain(sequence)
    figure("control sequences, each cut in 5 ways: 0 reach a terminal", len(ANSI))


def test_markup_formulas_and_forged_lines_stay_the_text_that_they_are():
    for line in LINES:
        assert shown(f"{line}\n".encode(), 5) == f"{line}\n"


@given(st.binary(max_size=300), st.integers(1, 20))
def test_of_any_bytes_nothing_is_left_that_a_terminal_obeys(content: bytes, size: int):
    assert not OBEYED.search(shown(content, size))
