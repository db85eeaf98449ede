"""Secret values in what a run says: each of their bytes becomes a `*`, so that offsets in a log stay what they were.

Masked are a value without the line break at its end, each longer line of one of several lines, and either in base 64: alone,
within other bytes, for URLs, and in lines of 76; a value as it stands in a URL, in JSON and in a text of Python. A value of less
than four bytes is left: it would be found everywhere.

Standard library only, and loaded by itself from its file: the keeper of a local run uses it, far from everything else. Plain
classes: the import of dataclasses would double the time in which that starts.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterable, Iterator

BYTES_MIN = 4
LINE_BYTES_MIN = 8
"""Shorter lines of a longer value are words of any text."""
ENCODED_BYTES_MIN = 6
WRAPPED_BYTES_MAX = 4096
"""Of longer values neither the lines of 76 are looked for, each a pattern of its own, nor what stands in URLs, JSON or Python."""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""What stands for itself in a URL. Source: RFC 3986, 2.3."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Masks:
    """What is masked, in a whole text and in one that comes in pieces."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        """`patterns` as `patterns_of` makes them. The longest is found first: others may be parts of it."""
        self.patterns = sorted(set(patterns), key=lambda one: (-len(one), one))
        self.longest = max(map(len, self.patterns), default=0)
        self._any = re.compile(b"|".join(map(re.escape, self.patterns)))
        self._first = frozenset(one[0] for one in self.patterns)

    def masked(self, content: bytes) -> bytes:
        """The same number of bytes."""
        return self._any.sub(lambda found: b"*" * len(found[0]), content) if self.patterns else content

    def held(self, masked: bytes) -> int:
        """How many bytes at the end of a masked text may be the beginning of a value whose rest has not come yet."""
        for begin in range(max(0, len(masked) - self.longest + 1), len(masked)):
            if masked[begin] in self._first:
                tail = masked[begin:]
                if any(one.startswith(tail) for one in self.patterns):
                    return len(tail)
        return 0


class Stream:
    """A text that comes in pieces: what may be the beginning of a value waits for what follows."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._tail = b""

    def passed(self, piece: bytes) -> bytes:
        """What may go on now."""
        masked = self._masks.masked(self._tail + piece)
        end = len(masked) - self._masks.held(masked)
        self._tail = masked[end:]
        return masked[:end]

    def rest(self) -> bytes:
        """Nothing more comes: what was held is no whole value."""
        rest, self._tail = self._tail, b""
        return rest


def masked_words(words: str, values: Iterable[bytes]) -> str:
    """What somebody says, without these values."""
    masks = Masks(patterns_of(values))
    masked = masks.masked(words.encode(errors="surrogatepass"))
    cut = masks.held(masked)
    if cut >= BYTES_MIN:  # words are cut to a length, and may be within a value
        masked = masked[:-cut] + b"*" * cut
    return masked.decode(errors="replace")


def patterns_of(values: Iterable[bytes]) -> list[bytes]:
    """What to look for."""
    found: set[bytes] = set()
    for value in values:
        whole = value.strip(b"\r\n")
        if len(whole) < BYTES_MIN:
            continue
        found.add(whole)
        found.update(line for line in whole.splitlines() if len(line) >= LINE_BYTES_MIN)
        for encoded in (*_encoded(whole), *_encoded(value)):
            found |= {encoded, encoded.translate(_URL_SAFE)}
        if len(whole) <= WRAPPED_BYTES_MAX:
            found.update(_escaped(whole))
    return sorted(found)


def _escaped(value: bytes) -> Iterator[bytes]:
    """As it is written where some of its characters cannot stand; the value itself where all can."""
    for plain in (_PLAIN, _PLAIN | {ord("/")}):
        for digits in ("%%%02X", "%%%02x"):
            in_url = "".join(chr(byte) if byte in plain else digits % byte for byte in value)
            yield from (in_url.encode(), in_url.replace("%20", "+").encode())
    with contextlib.suppress(UnicodeDecodeError):
        text = value.decode()
        for written in (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text), ascii(text)):
            yield written[1:-1].encode()


def _encoded(value: bytes) -> Iterator[bytes]:
    """Alone, with and without its padding; in lines; and its core behind one or two other bytes, before any others."""
    alone = base64.b64encode(value)
    yield alone
    yield alone.rstrip(b"=")
    if len(value) <= WRAPPED_BYTES_MAX:
        yield from (line for line in base64.encodebytes(value).splitlines() if len(line) >= ENCODED_BYTES_MIN)
    for before, mixed in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * before + value).rstrip(b"=")
        # The last letter holds bits of what follows, unless the value ends with a group of three.
        core = encoded[mixed : len(encoded) - ((before + len(value)) % 3 > 0)]
        if len(core) >= ENCODED_BYTES_MIN:
            yield core
