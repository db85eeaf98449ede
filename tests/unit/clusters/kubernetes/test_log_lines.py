"""A log that is followed with breaks is the one that was written: nothing twice, and what is missing is told."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes.log_lines import GAP, Lines, Place

TEXTS = st.sampled_from([b"\n", b"x\n", b"a b\n", b"2026-01-01T00:00:00.000000000Z \n", b"\r\n", b"y" * 90 + b"\n"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(st.integers(0, 3), TEXTS), min_size=1, max_size=8)),
        st.tuples(st.just("rotate"), st.none()),
        st.tuples(st.just("follow"), st.tuples(st.integers(0, 400), st.integers(1, 60))),
    ),
    max_size=14,
)
GAPS = (0, 7, 400_000_000, 1_000_000_000)
"""Nanoseconds between a line and the one before."""


@dataclass
class Kubelet:
    """Keeps the lines since its last rotation, and what a reader would have if it could tell them by their numbers."""

    lines: list[tuple[int, bytes]] = field(default_factory=list)
    begins: int = 0
    last: int = -1
    taken: int = 0
    """Bytes of the last line that the reader has."""
    text: bytes = b""

    def write(self, lines: list[tuple[int, bytes]]) -> None:
        at = self.lines[-1][0] if self.lines else 10**9
        for gap, text in lines:
            at += GAPS[gap]
            self.lines.append((at, text))

    def rotate(self) -> None:
        """Not between lines of one nanosecond: nobody could tell of which they are."""
        self.begins = len(self.lines)
        if self.lines:
            self.lines.append((self.lines[-1][0] + 1, b"after\n"))

    def stream(self, since: str, cut: int) -> bytes:
        """As it comes over the line until that breaks; the reader by number takes it too."""
        out = b""
        gone = 0 <= self.last < self.begins
        lost = (b"\n" * (not self.text.endswith(b"\n")) + GAP) * gone
        for number in range(self.begins, len(self.lines)):
            at, text = self.lines[number]
            if stamp(at)[:19].decode() < since[:19]:
                continue
            head = stamp(at) + b" "
            room = cut - len(out)
            out += (head + text)[: max(0, room)]
            came = text[: max(0, room - len(head))]
            if room >= len(head) and number > self.last:
                self.text += lost + came
                self.last, self.taken, lost = number, len(came), b""
            elif number == self.last and len(came) > self.taken:
                self.text += came[self.taken :]
                self.taken = len(came)
            if room <= len(head) + len(text):
                break
        return out


def stamp(at: int) -> bytes:
    return b"2026-01-01T00:%02d:%02d.%09dZ" % (at // 10**9 // 60, at // 10**9 % 60, at % 10**9)


@given(STEPS)
@example([("write", [(1, b"x\n"), (0, b"x\n"), (0, b"x\n")]), ("follow", (70, 60)), ("follow", (400, 60))])
@example([("write", [(1, b"x\n")]), ("follow", (33, 60)), ("rotate", None), ("follow", (400, 60))])
def test_a_log_is_whole_however_its_streams_are_cut_and_its_file_is_rotated(steps):
    kubelet, place, text = Kubelet(), Place(), b""
    for step, what in [*steps, ("follow", (1 << 20, 60))]:
        if step == "write":
            kubelet.write(what)
        elif step == "rotate":
            kubelet.rotate()
        else:
            sent, lines = kubelet.stream(place.since, what[0]), Lines(place)
            for start in range(0, len(sent), what[1]):
                text += lines.fresh(sent[start : start + what[1]])
            assert text == kubelet.text


def test_a_kubelet_that_tells_no_timestamps_is_followed_by_bytes():
    place, text = Place(), b""
    for sent in (b"one\ntw", b"one\ntwo\nthree is a long line, longer than any timestamp\n"):
        lines = Lines(place)
        text += lines.fresh(sent[:5]) + lines.fresh(sent[5:])
    assert text == b"one\ntwo\nthree is a long line, longer than any timestamp\n"


@pytest.mark.parametrize("part", [b"the rest of a line that began before the second\n", b"x\n"])
def test_what_is_left_of_a_line_that_began_earlier_is_not_new(part: bytes):
    place = Place()
    old = stamp(5 * 10**9) + b" first\n"
    assert Lines(place).fresh(old) == b"first\n"
    assert Lines(place).fresh(part + old + stamp(6 * 10**9) + b" second\n") == b"second\n"


def test_a_clock_that_moved_to_another_zone_is_the_same_clock():
    place = Place()
    Lines(place).fresh(b"2026-01-01T01:00:00.5+01:00 one\n")
    assert Lines(place).fresh(b"2026-01-01T00:00:00.500000000Z one\n2026-01-01T00:00:00.6Z two\n") == b"two\n"
