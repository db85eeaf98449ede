"""The chain of the audit: every row carries a digest of itself and of the digest before it, so that no row changes alone.

    payload = SHA-256(salt || detail)
    hash    = SHA-256(hash of the row before || JSON of [seq, at, actor, tenant, action, object, payload])

in hexadecimal, UTF-8, and JSON without spaces that escapes nothing it need not: any language computes the same. The detail is
not in the chain but for its salted digest, so it can be taken out (redacted) and the chain still holds; without the salt, which
goes with it, nobody can guess what it was. Standard library only: the platform, the command line and auditors share it.

What a chain alone cannot show is that its end is missing, or that all of it was written anew. For that its head is kept outside
of the database: `anchors`. Source of the design: Crosby and Wallach 2009; security.md G2, G3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

GENESIS = "0" * 64
"""What stands before the first row."""
REDACT = "redact_audit"
"""The action of the row that says which detail was taken out: its object is the number of that row."""
_ENCODED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Row(Protocol):
    """A row of the audit, wherever it was read from. `at` in UTC microseconds."""

    @property
    def seq(self) -> int: ...  # noqa: D102 the names are those of the columns
    @property
    def at(self) -> int: ...  # noqa: D102
    @property
    def actor(self) -> str: ...  # noqa: D102
    @property
    def tenant(self) -> str: ...  # noqa: D102
    @property
    def action(self) -> str: ...  # noqa: D102
    @property
    def object(self) -> str: ...  # noqa: D102
    @property
    def detail(self) -> str: ...  # noqa: D102
    @property
    def salt(self) -> str: ...  # noqa: D102
    @property
    def payload(self) -> str: ...  # noqa: D102
    @property
    def hash(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest row of a chain and its digest; 0 and GENESIS before the first."""

    seq: int
    hash: str


START = Head(seq=0, hash=GENESIS)


class Kind(StrEnum):
    """What was done to a chain, as far as its rows show it."""

    DETAIL = "detail"
    REDACTED = "redacted"
    CHANGED = "changed"
    MISSING = "missing"
    ORDER = "order"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"


SENTENCES = {
    Kind.DETAIL: "the detail of row {seq} is not the one that was written",
    Kind.REDACTED: "the detail of row {seq} was taken out, and no row says by whom",
    Kind.CHANGED: "row {seq} does not follow from the row before it: it was changed, put in, or stands for another",
    Kind.MISSING: "row {seq} is missing: it was deleted",
    Kind.ORDER: "row {seq} comes once more, or too late: rows were put in or moved",
    Kind.TRUNCATED: "row {seq} was there when it was anchored, or by the head of the database, and is not there now",
    Kind.REWRITTEN: "row {seq} is not the one that was anchored: the rows up to it were written anew",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first row at which a chain does not hold."""

    seq: int
    kind: Kind

    @property
    def sentence(self) -> str:
        """In words."""
        return SENTENCES[self.kind].format(seq=self.seq)


def payload_of(salt: str, detail: str) -> str:
    """The digest that stands for a detail."""
    return hashlib.sha256((salt + detail).encode("utf-8", "surrogatepass")).hexdigest()


def link(before: str, *, seq: int, at: int, actor: str, tenant: str, action: str, object_: str, payload: str) -> str:
    """The hash of a row, of that of the row before it and of what it says."""
    said = before + _ENCODED([seq, at, actor, tenant, action, object_, payload])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


class Verifier:
    """Takes the rows of a chain in their order, one at a time, and stops at the first fault.

    Holds the anchors that are still ahead and the numbers of redacted rows whose redaction has not been read yet, and no row.
    """

    def __init__(self, anchors: Sequence[Head] = (), *, start: Head = START) -> None:
        """`start`: the row before the first one that comes, where the rows before it are not looked at."""
        self.head = start
        self.fault: Fault | None = None
        self._anchors = sorted((one for one in anchors if one.seq >= start.seq), key=lambda one: one.seq, reverse=True)
        self._unexplained: set[int] = set()
        self._meet_anchors()

    def take(self, row: Row) -> Fault | None:
        """The next row. What has a fault once has it for good."""
        self.fault = self.fault or self._fault_of(row)
        if self.fault is None:
            self._note_redactions(row)
            self.head = Head(seq=row.seq, hash=row.hash)
            self._meet_anchors()
        return self.fault

    def end(self, head: Head | None = None) -> Fault | None:
        """No more rows come. `head`: what the database itself says of its newest row."""
        ahead = [one.seq for one in (head, *self._anchors) if one and one.seq > self.head.seq]
        if self.fault is None and ahead:
            self.fault = Fault(seq=min(self.head.seq + 1, *ahead), kind=Kind.TRUNCATED)
        if self.fault is None and head is not None and head != self.head:
            self.fault = Fault(seq=self.head.seq, kind=Kind.CHANGED)
        if self.fault is None and self._unexplained:
            self.fault = Fault(seq=min(self._unexplained), kind=Kind.REDACTED)
        return self.fault

    def _fault_of(self, row: Row) -> Fault | None:
        expected = self.head.seq + 1
        if row.seq != expected:
            missing = row.seq > expected
            return Fault(seq=expected if missing else row.seq, kind=Kind.MISSING if missing else Kind.ORDER)
        follows = link(
            self.head.hash,
            seq=row.seq,
            at=row.at,
            actor=row.actor,
            tenant=row.tenant,
            action=row.action,
            object_=row.object,
            payload=row.payload,
        )
        if follows != row.hash:
            return Fault(seq=row.seq, kind=Kind.CHANGED)
        redacted = not row.salt and not row.detail
        if not redacted and payload_of(row.salt, row.detail) != row.payload:
            return Fault(seq=row.seq, kind=Kind.DETAIL)
        return None

    def _note_redactions(self, row: Row) -> None:
        if not row.salt:
            self._unexplained.add(row.seq)
        if row.action == REDACT and row.object.isdecimal():
            self._unexplained.discard(int(row.object))

    def _meet_anchors(self) -> None:
        """Several may be of one row: whoever rewrote a chain may have anchored it again."""
        while self._anchors and self._anchors[-1].seq <= self.head.seq:
            anchor = self._anchors.pop()
            if anchor != self.head and self.fault is None:
                self.fault = Fault(seq=anchor.seq, kind=Kind.REWRITTEN)
