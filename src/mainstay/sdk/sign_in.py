"""Signing a terminal in: a code to show, and a token once somebody has entered it at the identity provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from mainstay.sdk.client import Client
from mainstay.sdk.errors import ApiError, NotConfigured
from mainstay.wire.access import SignInCodeView

NOBODY: Final = "nobody-yet"
"""What a client is made with that asks for a token: it is asked for none."""
SLOWER_SECONDS: Final = 5
"""Added each time the provider asks for patience. Source: RFC 8628, 3.5."""


def provider_of(url: str) -> str:
    """The identity provider of a platform; empty if it has none. Raises NotConfigured, ApiError, Unreachable."""
    with Client(server=url, token=NOBODY) as client:
        return client.sign_in_ways().provider


def from_terminal(
    url: str, *, show: Callable[[SignInCodeView], None], sleep: Callable[[float], None] = time.sleep
) -> str:
    """A token for who enters the code that `show` shows. Raises NotConfigured if nobody does in time, ApiError, Unreachable."""
    with Client(server=url, token=NOBODY) as client:
        begun = client.begin_device()
        show(begun)
        waited, interval = 0, begun.interval
        while waited < begun.seconds:
            sleep(interval)
            waited += interval
            try:
                return client.finish_device(begun.device).token
            except ApiError as error:
                if error.problem.code != "not_yet":
                    raise
                interval += SLOWER_SECONDS if error.problem.numbers.get("slower") else 0
    msg = "nobody has entered the code in time"
    raise NotConfigured(msg, hint="begin again: mainstay login")
