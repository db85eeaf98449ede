"""Each refusal is named for what the caller can do next."""

from __future__ import annotations

import pytest

from mainstay.clusters.kubernetes import errors
from mainstay.clusters.kubernetes.errors import refusal
from mainstay.clusters.kubernetes.objects import Cause, Details, Status
from mainstay.domain import errors as domain

RBAC = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "a"'
QUOTA = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3'
POLICY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'


@pytest.mark.parametrize(
    ("method", "code", "reason", "message", "cause", "kind", "platform"),
    [
        ("GET", 401, "Unauthorized", "", "", errors.Unauthenticated, domain.Denied),
        ("GET", 403, "Forbidden", RBAC, "", errors.Forbidden, domain.Denied),
        ("POST", 403, "Forbidden", QUOTA, "", errors.OverQuota, domain.NoCapacity),
        ("POST", 403, "Forbidden", POLICY, "", errors.Rejected, domain.Invalid),
        ("POST", 403, "Forbidden", "going away", "NamespaceTerminating", errors.Terminating, domain.NotYet),
        ("GET", 403, "", "", "", errors.Forbidden, domain.Denied),
        ("GET", 404, "NotFound", "", "", errors.NotFound, domain.NotFound),
        ("PATCH", 409, "Conflict", "", "", errors.Conflict, domain.Conflict),
        ("POST", 409, "AlreadyExists", "", "", errors.AlreadyExists, domain.Conflict),
        ("GET", 410, "Expired", "", "", errors.Expired, errors.ApiError),
        (
            "GET",
            504,
            "Timeout",
            "Too large resource version",
            "ResourceVersionTooLarge",
            errors.Expired,
            errors.ApiError,
        ),
        ("POST", 422, "Invalid", "", "", errors.Invalid, domain.Invalid),
        ("POST", 413, "", "", "", errors.Invalid, domain.Invalid),
        (
            "GET",
            400,
            "BadRequest",
            'container "m" in pod "x" is waiting to start',
            "",
            errors.NotStarted,
            domain.NotYet,
        ),
        ("GET", 429, "TooManyRequests", "", "", errors.TooManyRequests, domain.Unavailable),
        (
            "PATCH",
            422,
            "Invalid",
            'metadata.uid: Invalid value: "u": field is immutable',
            "",
            errors.Conflict,
            domain.Conflict,
        ),
        ("PATCH", 422, "Invalid", 'metadata.labels: Invalid value: "u"', "", errors.Invalid, domain.Invalid),
        ("POST", 429, "TooManyRequests", "", "DisruptionBudget", errors.Protected, domain.NotYet),
        ("GET", 500, "", "", "", errors.ServerFailed, domain.Unavailable),
        ("POST", 500, "", "", "", errors.OutcomeUnknown, domain.Unavailable),
        ("DELETE", 504, "Timeout", "", "", errors.OutcomeUnknown, domain.Unavailable),
        ("PATCH", 502, "", "", "", errors.OutcomeUnknown, domain.Unavailable),
        ("POST", 503, "", "", "", errors.ServerFailed, domain.Unavailable),
    ],
)
def test_status_and_reason_decide(  # noqa: PLR0917 - a table
    method: str,
    code: int,
    reason: str,
    message: str,
    cause: str,
    kind: type[errors.ApiError],
    platform: type[Exception],
) -> None:
    details = Details(causes=(Cause(reason=cause),))
    error = refusal(Status(code=code, reason=reason, message=message, details=details), method=method, path="/p")
    assert type(error) is kind
    assert isinstance(error, platform)
    assert error.numbers == {"status": code}


def test_what_is_not_granted_is_said_with_how_to_grant_it() -> None:
    error = refusal(Status(code=403, message=RBAC), method="GET", path="/p")
    assert "cannot list" in error.message
    assert error.hint.startswith('grant our account the verb list on pods of API group ""')


def test_the_longer_wait_counts() -> None:
    status = Status(code=429, details=Details(retry_after_seconds=7))
    assert refusal(status, method="GET", path="/p", retry_after=2.0).retry_after == 7.0
    assert refusal(Status(code=429), method="GET", path="/p", retry_after=2.0).retry_after == 2.0


def test_hostile_words_are_cut() -> None:
    assert len(refusal(Status(code=400, message="x" * 100_000), method="GET", path="/p").message) < 1_100


def test_a_wait_is_never_negative_or_endless() -> None:
    for seconds in (-5, 10**15):
        error = refusal(Status(code=429, details=Details(retry_after_seconds=seconds)), method="GET", path="/p")
        assert 0.0 <= error.retry_after <= 3_600.0
