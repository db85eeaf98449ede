"""What can go wrong on the way to the platform, each with a hint at what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstay.wire.views import Problem, WorkloadView


class SdkError(Exception):
    """Base of all errors of the SDK. `hint` may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotConfigured(SdkError):
    """Nothing says where the platform is, or its address may not be used as it stands."""


class Unreachable(SdkError):
    """The platform does not answer, also after all retries."""


class ApiError(SdkError):
    """The platform refused. `problem` has its stable code, the figures behind it, and the faults of single fields."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title, hint=problem.hint)
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """The stable code of the problem."""
        return self.problem.code


class RunFailed(SdkError):
    """A run that was waited for has ended, and not well."""

    def __init__(self, view: WorkloadView) -> None:
        super().__init__(f"{view.id} {view.phase}: {view.reason.sentence}", hint=f"see: mainstay logs {view.id}")
        self.view = view


class NameRefused(SdkError):
    """A name that nothing can have; nothing was sent."""


class CommandTooLong(SdkError):
    """A command that cannot be sent; nothing was."""


class FilesRefused(SdkError):
    """What arrived is not what was announced, or may not be written where it should go."""


class FolderRefused(FilesRefused):
    """A folder cannot be sent as it is; nothing was."""
