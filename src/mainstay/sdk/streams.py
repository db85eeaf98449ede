"""Streams that go on where they broke: what to ask for next, and what the bytes mean. No network in here.

Server-sent events as the HTML standard defines them (section 9.2), as far as the platform uses them.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mainstay.sdk.calls import segment
from mainstay.sdk.request import Request, plain
from mainstay.wire.views import EventView, LogEnd, LogView

Item_co = TypeVar("Item_co", covariant=True)
SILENCE_SECONDS = 45.0
"""The platform says something every 15 s: after so long the connection is dead."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event of a stream."""

    event: str
    data: str


class Parser:
    """Bytes in any pieces to messages."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that are complete now."""
        self._rest += self._decoder.decode(chunk)
        *lines, self._rest = self._rest.split("\n")
        for line in lines:
            text = line.removesuffix("\r")
            if text:
                self._take(text)
            elif self._data:
                yield Message(self._event, "\n".join(self._data))
                self._event, self._data = "", []

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value


class Following(Protocol[Item_co]):
    """A stream across connections."""

    @property
    def finished(self) -> bool:
        """Nothing will follow."""

    def request(self) -> Request:
        """What to ask for on the next connection."""

    def take(self, message: Message) -> Item_co | None:
        """What a message means; None if it is not for the user."""


class FollowLog:
    """The log of one rank, over the attempts of its run from `attempt` on (0: the newest)."""

    def __init__(self, ref: str, *, rank: int = 0, attempt: int = 0) -> None:
        self._ref, self._rank = ref, rank
        self._attempt, self._offset = attempt, 0
        self.finished = False

    def request(self) -> Request:
        """From the offset that was reached, in the attempt that was reached."""
        params = plain({"rank": self._rank, "attempt": self._attempt, "offset": self._offset})
        return Request(method="GET", path=f"/v1/workloads/{segment(self._ref)}/logs/stream", params=params)

    def take(self, message: Message) -> LogView | None:
        """A piece of log; its end may be the beginning of another attempt."""
        if message.event == "log":
            piece = LogView.model_validate_json(message.data)
            self._attempt, self._offset = piece.attempt, piece.next_offset
            return piece
        if message.event == "end":
            end = LogEnd.model_validate_json(message.data)
            self._attempt, self._offset = end.next_attempt, 0
            self.finished = not end.next_attempt
        return None


class FollowEvents:
    """The event log, without end."""

    finished = False

    def __init__(self, *, workload: str = "", kinds: Sequence[str] = (), about: str = "", after: int = 0) -> None:
        self._which = {"workload": workload, "kind": list(kinds), "object": about}
        self._after = after

    def request(self) -> Request:
        """After the last one that was seen."""
        params = plain({**self._which, "after": self._after})
        return Request(method="GET", path="/v1/events/stream", params=params)

    def take(self, message: Message) -> EventView | None:
        """One event."""
        if message.event != "event":
            return None
        event = EventView.model_validate_json(message.data)
        self._after = event.seq
        return event
