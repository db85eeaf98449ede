"""What a job wrote, made harmless: text only, without escape sequences or control characters.

A log is hostile input (security.md E5): an escape sequence can rewrite what a terminal shows, set its title, or make
it answer. Source of the forms: ECMA-48 (CSI, OSC, DCS, SOS, PM, APC; 7-bit and 8-bit).
"""

from __future__ import annotations

import re
import unicodedata

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI ... final
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC ... end
    r"|\x1b[ -/]*[0-~]?"  # the rest
)
_LINE_ENDS = re.compile(r"\r\n")
_KEPT = "\n\t"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
SEQUENCE_BYTES_MAX = 4_096
"""A sequence that is longer is no sequence: it is cut where it is."""


def printable(data: bytes) -> str:
    """UTF-8 with replacement characters for what is not; a carriage return (a progress bar) becomes a new line."""
    text = data.decode("utf-8", "replace")
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    text = _LINE_ENDS.sub("\n", _SEQUENCES.sub("", text)).replace("\r", "\n")
    return "".join(letter for letter in text if letter in _KEPT or unicodedata.category(letter) not in _HIDDEN)


def complete_bytes(data: bytes, *, whole_at: int) -> bytes:
    """The beginning of `data` that cuts neither a UTF-8 character nor an escape sequence in two.

    What is held back comes with the next read. A full read (`whole_at` bytes) always makes progress.
    """
    end = len(data) - _incomplete_character(data)
    start = data.rfind(b"\x1b", max(0, end - SEQUENCE_BYTES_MAX), end)
    if start > 0 or (start == 0 and len(data) < min(whole_at, SEQUENCE_BYTES_MAX)):
        found = _SEQUENCES.match(data[start:end].decode("utf-8", "replace"))
        if found and found.end() >= len(data[start:end].decode("utf-8", "replace")) and not _closed(found.group()):
            return data[:start]
    return data[:end]


def _closed(sequence: str) -> bool:
    """Whether a sequence that reaches the end of what was read is certainly over."""
    if sequence.startswith("\x1b["):
        return len(sequence) > 2 and "@" <= sequence[-1] <= "~"
    if len(sequence) > 1 and sequence[1] in "]PX^_":
        return sequence.endswith(("\x07", "\x1b\\", "\x9c"))
    return len(sequence) > 1 and not " " <= sequence[-1] <= "/"


def _incomplete_character(data: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character without finishing it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0
