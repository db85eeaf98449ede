"""The event loop of a server, and the garbage collector beside it."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine

NEW_OBJECTS_MAX = 50_000
"""So many new objects before the collector looks for cycles among them; Python's own 700 are meant for small programs.

A server holds rows, pods and nodes by the hundred thousand, of which hardly any make cycles. To visit them again and again took
a fifth of the time of what was submitted.
"""

SWITCH_SECONDS = 0.0005
"""So long the event loop waits for a thread of the store that computes, each time that it wakes. Python's own 5 ms, several times
in each request, made requests four times as long while others were busy.
"""


def run(work: Coroutine[None, None, None]) -> None:
    """Until the work ends, on the loop of asyncio.

    uvloop spares an eighth of the CPU of a request over TLS, and loses the end of what is read slowly: where the other side
    closes while reading is paused, it drops what has come and is not read yet (its pull request 661). It cut off outputs of pods.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_MAX)
    asyncio.run(work)
