"""Log text is hostile: what a job writes becomes plain text that no terminal and no page obeys (security.md E5).

`complete` finds how many bytes of a chunk can be shown by themselves, so that neither a character nor an escape
sequence is split between two chunks; `printable` makes text of them. Safety does not depend on where a chunk is cut:
escape and control characters are dropped wherever they stand, so what is left of a broken sequence is only ugly.
"""

from __future__ import annotations

import codecs
import re

SEQUENCE_BYTES_MAX = 4096
"""What is longer is taken for text without its control characters: nothing may hold a log back for ever."""

# Source of the grammar: ECMA-48 5.4 (CSI) and 5.6 (command strings), ECMA-35 13.2 (other escapes); BEL ends a string
# as xterm has it. A string ends with its line at the latest: an unfinished one must not hide the lines after it.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,256}[ -/]{0,64}[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\|\x9c|(?=\n)|\Z)"
    r"|\x1b[ -/]{0,64}[0-~]"
)
_LINE_ENDS = re.compile(r"\r+\n?")
_UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks, which make text read as what it is not
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_UNFINISHED = re.compile(
    rb"(?:"
    rb"(?:\x1b\[|\xc2\x9b)[0-?]*[ -/]*"
    rb"|(?:\x1b[\]PX^_]|\xc2[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\n]*\x1b?"
    rb"|\x1b[ -/]*"
    rb"|\r"
    rb")\Z"
)


def printable(content: bytes) -> str:
    r"""UTF-8 with U+FFFD for what is none, without escape sequences, control characters and direction marks.

    Every line end becomes `\n`, a carriage return alone too: what a progress bar overwrote stays readable.
    """
    text = content.decode("utf-8", "replace")
    return _UNWANTED.sub("", _LINE_ENDS.sub("\n", _SEQUENCE.sub("", text)))


def complete(content: bytes) -> int:
    """How many bytes can be shown without those that follow. At least 1 where it is longer than any sequence."""
    whole = len(content) - _unfinished_character(content)
    tail = max(0, whole - SEQUENCE_BYTES_MAX)
    found = _UNFINISHED.search(content, tail, whole)
    end = found.start() if found else whole
    return end if end or len(content) < SEQUENCE_BYTES_MAX else len(content)


def _unfinished_character(content: bytes) -> int:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(content[-4:])
    return len(decoder.getstate()[0])
