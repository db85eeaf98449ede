"""Why a request did not get there, in words: what the system says without a number is told too."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from mainstay.clusters.kubernetes.errors import Unreachable
from mainstay.clusters.kubernetes.network import failure

KEY: Any = SimpleNamespace(host="api", port=6443, ssl=True, is_ssl=True)


def told(error: Exception) -> Unreachable:
    found = failure(error, method="POST", server="https://api:6443")
    assert isinstance(found, Unreachable)
    return found


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_a_network_without_a_way_is_told(number: int) -> None:
    found = told(aiohttp.ClientConnectorError(KEY, OSError(number, os.strerror(number))))
    assert found.message == "https://api:6443 cannot be reached: there is no way to it from here"
    assert "routes" in found.hint


def test_several_addresses_that_failed_together_are_told_without_a_number() -> None:
    """As the connecting of several addresses at once says it: an OSError of words only."""
    words = "Multiple exceptions: [Errno 111] Connect call failed, [Errno 101] Network is unreachable"
    found = told(aiohttp.ClientConnectorError(KEY, OSError(words)))
    assert found.message == f"https://api:6443 cannot be reached: no connection is made: {words}"
    assert found.hint


def test_an_error_without_words_still_has_its_name() -> None:
    found = told(aiohttp.ClientConnectorError(KEY, ConnectionAbortedError()))
    assert found.message.endswith("no connection is made: ConnectionAbortedError")


def test_an_address_that_is_none_is_told() -> None:
    found = told(aiohttp.InvalidURL("https://"))
    assert "it is no address" in found.message
    assert "server" in found.hint
