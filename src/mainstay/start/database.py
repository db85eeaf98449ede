"""Opening the database of replicas at the start: one that does not answer yet is waited for, in words and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from mainstay.control.loop import backoff_seconds
from mainstay.domain.errors import MainstayError, ShutOut, Unavailable
from mainstay.store.failures import words_of_driver

log = structlog.get_logger()

WAIT_SECONDS_MAX = 300.0
"""A database that is started beside us or handed to its standby is back by then. The start-up probe of deploy/ allows more."""

S = TypeVar("S")


def open_when_it_answers(
    opening: Callable[[], S],
    *,
    wait_seconds_max: float = WAIT_SECONDS_MAX,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> S:
    """What `opening` returns. While it raises Unavailable it is tried again with back-off, each time with a line in the log.

    Raises its last Unavailable after `wait_seconds_max`, and at once what waiting does not mend, such as ShutOut and
    StateUnusable; with the words of the driver, which only who starts us may read.
    """
    began = monotonic()
    tried = 0
    while True:
        try:
            return opening()
        except ShutOut as error:
            raise ShutOut(_in_full(error), hint=error.hint) from error
        except Unavailable as error:
            tried += 1
            waited = monotonic() - began
            if waited >= wait_seconds_max:
                msg = f"gave up after {waited:.0f} seconds: {_in_full(error)}"
                raise Unavailable(msg, hint=error.hint) from error
            pause = min(backoff_seconds(tried), wait_seconds_max - waited)
            log.warning(
                "waiting_for_database",
                reason=_in_full(error),
                hint=error.hint,
                waited_seconds=round(waited, 1),
                again_in_seconds=round(pause, 1),
                gives_up_after_seconds=wait_seconds_max,
            )
        sleep(pause)


def _in_full(error: MainstayError) -> str:
    words = words_of_driver(error.__cause__)
    return f"{error.message} ({words})" if words else error.message
