"""Exit codes. They are a contract: scripts decide by them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstay.sdk.errors import ApiError, SdkError


class Exit(enum.IntEnum):
    """What a command's exit code says."""

    OK = 0
    """Done; a run that was followed has succeeded."""
    FAILED = 1
    """A run that was followed has failed, was stopped or was preempted; a platform could not start."""
    USAGE = 2
    """The command line, or the job file, is not right; nothing was sent."""
    REFUSED = 3
    """The platform refused: it says why."""
    NOT_FOUND = 4
    """There is no such run, endpoint or model."""
    DENIED = 5
    """Not signed in, or not allowed."""
    UNREACHABLE = 6
    """No platform is known, or it does not answer."""
    INTERRUPTED = 130
    """Ctrl-C. What was submitted goes on."""


def of_refusal(error: ApiError) -> Exit:
    """The exit code of what the platform answered."""
    if error.status in {401, 403}:
        return Exit.DENIED
    if error.status == 404:
        return Exit.NOT_FOUND
    return Exit.UNREACHABLE if error.status == 503 else Exit.REFUSED


def of_failure(error: SdkError) -> Exit:
    """The exit code of what went wrong on this side."""
    from mainstay.sdk.errors import FolderRefused, NameRefused, NotConfigured, RunFailed, Unreachable

    match error:
        case FolderRefused() | NameRefused():
            return Exit.USAGE
        case NotConfigured() | Unreachable():
            return Exit.UNREACHABLE
        case RunFailed():
            return Exit.FAILED
        case _:
            return Exit.REFUSED
