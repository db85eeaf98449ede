"""What goes over the line of an agent, and between replicas: questions about a cluster, and their answers."""

from __future__ import annotations

from typing import Final

import msgspec

from mainstay.wire.agent import Message

LINE_PATH: Final = "/v1/agent/line"
LINE_PROTOCOL: Final = "mainstay.agent.v1"
CHUNK_BYTES: Final = 1 << 18
"""Of the data of one message of the line: longer ones are sent in parts."""


class ReadLog(Message, frozen=True, tag="read_log"):
    """A piece of the log of a pod."""

    pod: str
    offset: int
    limit: int


class Connect(Message, frozen=True, tag="connect"):
    """Open a connection to a port of a pod. The number of the question names it in those that follow."""

    pod: str
    port: int


class Exec(Message, frozen=True, tag="exec"):
    """Start a process inside a pod. The number of the question names it in those that follow."""

    pod: str
    argv: tuple[str, ...]
    stdin: bool = False
    tty: bool = False


class Send(Message, frozen=True, tag="send"):
    """Hand on the bytes that follow the header: answered once that is done, which holds back who has more."""

    stream: int


class EndInput(Message, frozen=True, tag="end_input"):
    """No more will be sent."""

    stream: int


class Receive(Message, frozen=True, tag="receive"):
    """What comes next: answered once there is something."""

    stream: int


class Resize(Message, frozen=True, tag="resize"):
    """Of the terminal of a process."""

    stream: int
    columns: int
    rows: int


class Close(Message, frozen=True, tag="close"):
    """Let go of a connection or a process, also of one that is still being opened. The only one that is not answered."""

    stream: int


class Ping(Message, frozen=True, tag="ping"):
    """Is anybody there?"""


Question = ReadLog | Connect | Exec | Send | EndInput | Receive | Resize | Close | Ping
"""What the control plane asks over the line of an agent. Whoever does not know one answers `Failed`."""


class LogSaid(Message, frozen=True, tag="log"):
    """The piece; its bytes follow the header."""

    next_offset: int
    dropped: int = 0
    ended: bool = False


class Done(Message, frozen=True, tag="done"):
    """What was asked for has been done."""


class Received(Message, frozen=True, tag="received"):
    """The bytes follow the header, or nothing more will come."""

    channel: str = ""
    """Of a process: where they came from."""
    ended: bool = False
    exit_status: int | None = None
    """Of a process that has ended: as a shell has it, or -1, and `failure` says why."""
    failure: str = ""


class Failed(Message, frozen=True, tag="failed"):
    """An error under its stable code."""

    code: str
    message: str
    object: str = ""
    hint: str = ""
    numbers: dict[str, int | float | str] = msgspec.field(default_factory=dict)


Said = LogSaid | Done | Received | Failed
"""The answers."""


class Numbered(Message, frozen=True):
    """A question of which only the number is read: it may be one that this version does not know."""

    id: int


class Asked(Message, frozen=True):
    """A question with its number, by which the answer finds back."""

    id: int
    what: Question


class Answered(Message, frozen=True):
    """The answer to a question."""

    id: int
    what: Said


def frame(header: bytes, data: bytes = b"") -> bytes:
    """A message of the line: the length of the header in four bytes, the header as JSON, then bytes as they are."""
    return len(header).to_bytes(4, "big") + header + data


def parts(message: bytes) -> tuple[bytes, bytes]:
    """Inverse of `frame`: header and data. Of what is no frame, the header is empty."""
    end = 4 + int.from_bytes(message[:4], "big")
    return message[4:end], message[end:]
