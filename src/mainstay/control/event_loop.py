"""The event loop of a server, and the garbage collector beside it."""

from __future__ import annotations

import gc
from collections.abc import Coroutine

import uvloop

NEW_OBJECTS_MAX = 50_000
"""So many new objects before the collector looks for cycles among them; Python's own 700 are meant for small programs.

A server holds rows, pods and nodes by the hundred thousand, of which hardly any make cycles. To visit them again and again took
a fifth of the time of what was submitted.
"""


def run(work: Coroutine[None, None, None]) -> None:
    """Until the work ends, on libuv: every pod is a request over TLS, whose records asyncio handles in Python."""
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_MAX)
    uvloop.run(work)
