"""What travels over the WebSockets of the platform: commands in pods, and connections to their ports.

`mainstay.exec.v1`: each message is binary; its first byte names the channel, as in the protocols of Kubernetes, the rest is
its content. `mainstay.port.v1`: each message is binary and holds bytes of the connection; an empty one says that no more
will be sent that way. Either side may close at any time. An end that is no success has a code of its own and says why.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

EXEC_PROTOCOL: Final = "mainstay.exec.v1"
PORT_PROTOCOL: Final = "mainstay.port.v1"
MESSAGE_BYTES_MAX: Final = 1 << 20
CHUNK_BYTES: Final = 1 << 16
"""What we send ourselves is no longer."""
COMMAND_BYTES_MAX: Final = 8_192
"""A command stands in the address of a request, in which every byte may take three."""

DONE: Final = 1000
GOING: Final = 1012
"""The platform is being restarted."""
FAILED: Final = 4000
"""The other side of the connection failed: the reason says how."""
IDLE: Final = 4001
"""Nothing was said for too long."""
MISUSED: Final = 4002
"""A message was none of the protocol."""
REFUSED: Final = 4003
"""Whoever opened it may not have it any more: the reason says why."""


class Frame(IntEnum):
    """The first byte of a message of a command."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    END = 3
    """From the platform, the last one: an `ExecEnd` as JSON."""
    SIZE = 4
    """To the platform: a `TerminalSize` as JSON."""
    CLOSE = 255
    """To the platform: no more input will come."""


class TerminalSize(BaseModel):
    """The window of whoever looks at a terminal."""

    model_config = ConfigDict(extra="forbid")

    columns: Annotated[int, Field(ge=1, le=10_000)]
    rows: Annotated[int, Field(ge=1, le=10_000)]


class ExecEnd(BaseModel):
    """How a command ended: its exit status as a shell has it, or null and why."""

    exit_code: int | None = None
    message: str = ""


def framed(frame: Frame, content: bytes = b"") -> bytes:
    """A message of a command."""
    return bytes([frame]) + content
