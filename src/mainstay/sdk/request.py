"""One request as a value, its answer, and the rule by which it is tried again. No network in here.

A call of the API is a `Flow`: a generator that yields requests, is sent their answers and returns the result. The
sync and the async client run the same flows; each adds only how to wait.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from mainstay.sdk.errors import ApiError, Unreachable
from mainstay.wire.views import Problem

Result = TypeVar("Result")
View = TypeVar("View", bound=BaseModel)

RETRIED = frozenset({429, 502, 503, 504})
"""Answers that may be other ones in a moment. Every write carries an Idempotency-Key: twice is once (RFC 9110, 9.2.2)."""
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 0.1, 5.0
RETRY_AFTER_SECONDS_MAX = 60.0


class Sink(Protocol):
    """Takes the content of an answer as it arrives."""

    def begin(self) -> None:
        """Forget what an earlier try has brought."""

    def write(self, chunk: bytes) -> None:
        """The next piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send. `json` is text; `file` is sent as it is; an answer goes into `sink` if there is one."""

    method: str
    path: str
    params: Mapping[str, str | int | bool | list[str]] = field(default_factory=dict)
    json: str = ""
    file: Path | None = None
    sink: Sink | None = None
    key: str = ""
    timeout: float | None = None
    retried: bool = True
    """False where twice may be harmful and no key makes it once."""

    @property
    def headers(self) -> dict[str, str]:
        """Beside those of the client."""
        headers = {"Content-Type": "application/json"} if self.json else {}
        if self.file:
            headers["Content-Type"] = "application/octet-stream"
        if self.key:
            headers["Idempotency-Key"] = self.key
        return headers


def write(
    method: str,
    path: str,
    *,
    params: Mapping[str, str | int | bool] | None = None,
    json: str = "",
    key: str | None = None,
) -> Request:
    """A request that changes something. Its key is made once, so that all tries are one."""
    return Request(method=method, path=path, params=params or {}, json=json, key=key or secrets.token_urlsafe(18))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, with a status that means success."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def read(self, view: type[View]) -> View:
        """The body as a view. Raises ApiError if it is none: then it is no platform that answers."""
        try:
            return view.model_validate_json(self.content)
        except ValidationError as error:
            raise ApiError(not_ours(self.status)) from error


def _is_our_429(answer: Answer) -> bool:
    """The platform says that there is too much of something, which a moment does not change, and not when to come back."""
    ours = answer.headers.get("content-type", "").startswith("application/problem+json")
    return answer.status == 429 and ours and "retry-after" not in answer.headers


Flow: TypeAlias = Generator[Request, Answer, Result]


def require_success(answer: Answer) -> Answer:
    """Raises ApiError with the platform's own words."""
    if answer.status < 400:
        return answer
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        problem = not_ours(answer.status)
    raise ApiError(problem)


def not_ours(status: int) -> Problem:
    """What is said of an answer that no platform gives."""
    return Problem(
        title="Unexpected answer",
        status=status,
        detail=f"what answers (status {status}) is not a mainstay platform",
        code="unexpected_answer",
        hint="check the address of the server",
    )


@dataclass(slots=True)
class Tries:
    """How often a request has been tried and how long to wait before the next time."""

    most: int
    made: int = 0

    def pause_after_answer(self, answer: Answer) -> float | None:
        """Seconds to wait before the next try; None if the answer stands."""
        if answer.status not in RETRIED or self.made >= self.most or _is_our_429(answer):
            return None
        self.made += 1
        asked = answer.headers.get("retry-after", "")
        if asked.isascii() and asked.isdecimal():
            return min(float(asked), RETRY_AFTER_SECONDS_MAX)
        return self._backoff()

    def pause_after_failure(self, url: str, error: Exception) -> float:
        """Seconds to wait after a connection that failed. Raises Unreachable when that was the last try."""
        if self.made >= self.most:
            msg = f"the platform at {url} does not answer ({error or type(error).__name__})"
            raise Unreachable(msg, hint="is it running? `mainstay up` starts one on this machine") from error
        self.made += 1
        return self._backoff()

    def _backoff(self) -> float:
        """Full jitter: many clients that failed together do not come back together."""
        return random.uniform(0, min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2**self.made))


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not given."""
    return {name: value for name, value in params.items() if value not in (None, "", 0, False, [])}
