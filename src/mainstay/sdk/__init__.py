"""The Python SDK: `Client().submit(Job(run="python train.py")).wait()`, and the same with `async` and `await`.

Names are imported when they are first used, so that a command that needs none of them starts in a blink.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mainstay.sdk.aio import AsyncClient, AsyncRun
    from mainstay.sdk.client import Client, Run
    from mainstay.sdk.errors import ApiError, NotConfigured, RunFailed, SdkError, Unreachable
    from mainstay.wire.job import Job, PodSet, Resources, Retry

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncRun",
    "Client",
    "Job",
    "NotConfigured",
    "PodSet",
    "Resources",
    "Retry",
    "Run",
    "RunFailed",
    "SdkError",
    "Unreachable",
]

_HOME = {
    "Client": "mainstay.sdk.client",
    "Run": "mainstay.sdk.client",
    "AsyncClient": "mainstay.sdk.aio",
    "AsyncRun": "mainstay.sdk.aio",
    "ApiError": "mainstay.sdk.errors",
    "NotConfigured": "mainstay.sdk.errors",
    "RunFailed": "mainstay.sdk.errors",
    "SdkError": "mainstay.sdk.errors",
    "Unreachable": "mainstay.sdk.errors",
    "Job": "mainstay.wire.job",
    "PodSet": "mainstay.wire.job",
    "Resources": "mainstay.wire.job",
    "Retry": "mainstay.wire.job",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)
