"""What is new in a log that is followed anew, told by the timestamps that a kubelet puts before its lines.

A kubelet knows no offsets, and its current file begins after its last rotation: what is here is no measure of where that begins.
Source of how it writes: `ReadLogs` of k8s.io/cri-client/pkg/logs (parts of a long line have one timestamp, the first). The API
server passes `sinceTime` on in whole seconds (`LogLocation` of pkg/registry/core/pod).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mainstay.clusters.kubernetes.quantities import instant

GAP = (
    b"mainstay: lines may be missing here: the cluster keeps only the newest ones, and was not followed all the time\n"
)
"""How many they were, nobody knows any more."""
STAMP_BYTES_MAX = 36
"""With the space behind it."""
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


@dataclass(slots=True)
class Place:
    """How far a log has come: its last line that is here, perhaps only in part."""

    stamp: bytes = b""
    nth: int = 0
    """It is this one of the lines of its timestamp, from 1."""
    taken: int = 0
    """Bytes of it that are here, its end included; of a kubelet that tells no timestamps, of the whole log."""
    open: bool = False
    """Its end is not here."""
    first: bytes = b""
    """The timestamp of the first line of the log, as far as that was ever seen."""

    @property
    def since(self) -> str:
        """From when on to ask for the rest; empty for all."""
        return self.stamp.decode()


class Lines:
    """One stream. What is here already is skipped; `place` moves on with what is not.

    Lines of one timestamp count as all there if one of them is the first line of the stream. Where the clock of a node is set
    back in the second before a stream breaks, lines may come twice.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.seeking = bool(place.stamp)
        """The last line that is here has not come yet."""
        self._met = 0
        """Lines of its timestamp so far."""
        self._skip = 0 if place.stamp else place.taken
        self._half = b""
        """The beginning of a line, until its timestamp is whole."""
        self._inside = False

    def fresh(self, chunk: bytes) -> bytes:
        """What of it is new, without timestamps."""
        *whole, half = (self._half + chunk).split(b"\n")
        self._half, out = b"", []
        for line in whole:
            out.append(self._more(line + b"\n") if self._inside else self._line(line + b"\n"))
            self._inside = False
        if half and self._inside:
            out.append(self._more(half))
        elif b" " in half or len(half) >= STAMP_BYTES_MAX:
            out.append(self._line(half))
            self._inside = True
        else:
            self._half = half
        return b"".join(out)

    def _line(self, text: bytes) -> bytes:
        """The beginning of one, or all of it."""
        place, (stamp, space, rest) = self._place, text.partition(b" ")
        if not space or not _STAMP.fullmatch(stamp):  # of a line that began too early, or of a kubelet that tells none
            return self._more(text)
        lost = b""
        if self.seeking:
            here, there = _moment(place.stamp), _moment(stamp)
            self._met += here == there
            if there < here or (there == here and self._met < place.nth):
                return b""
            self.seeking = False
            if there == here:
                self._skip = place.taken
                return self._more(rest)
            lost = b"\n" * place.open + GAP
        if not place.stamp:
            lost, place.first = GAP if place.first not in {b"", stamp} else b"", place.first or stamp
        place.nth = place.nth + 1 if stamp == place.stamp else 1
        place.stamp, place.taken, self._skip = stamp, 0, 0
        return lost + self._more(rest)

    def _more(self, text: bytes) -> bytes:
        if self.seeking:
            return b""
        new, self._skip = text[self._skip :], max(0, self._skip - len(text))
        self._place.taken += len(new)
        if new:
            self._place.open = not new.endswith(b"\n")
        return new


def _moment(stamp: bytes) -> tuple[int, bytes]:
    """UTC microseconds of the second, and its fraction: to be compared, also if the clock of the node moved to another zone."""
    found = _STAMP.fullmatch(stamp)
    assert found is not None
    return instant((found[1] + found[3]).decode()), (found[2] or b"").ljust(9, b"0")
