"""Refusals of an API server, named for what the caller can do next; each is one of the platform's own errors too.

Sources: the HTTP status codes and reasons of the Kubernetes API conventions
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#http-status-codes).
"""

from __future__ import annotations

import re

from mainstay.clusters.kubernetes.objects import Status
from mainstay.domain import errors

READS = frozenset({"GET", "HEAD"})
RETRY_AFTER_MAX = 3_600.0
"""Who asks us to stay away for longer is wrong."""


class ApiError(errors.MainstayError):
    """Anything that an API server refuses, or that keeps us from it. `retry_after` is in seconds, 0 if it does not say."""

    retry_after: float = 0.0


class NotFound(ApiError, errors.NotFound):
    """There is no such object (or no such kind of object)."""


class Conflict(ApiError, errors.Conflict):
    """The object is not the one that was meant: another UID or version. Read it again."""


class AlreadyExists(Conflict):
    """The name is taken: look whether the object is ours."""


class Expired(ApiError):
    """The version or the page is too old, or from a future that was undone (410): list again."""

    code = "expired"


class Invalid(ApiError, errors.Invalid):
    """The object is wrong; it will never be accepted as it is."""


class Rejected(ApiError, errors.Invalid):
    """An admission rule of the cluster said no: a policy, Pod Security, a webhook."""


class OverQuota(ApiError, errors.NoCapacity):
    """A ResourceQuota of the namespace is used up."""


class Terminating(ApiError, errors.NotYet):
    """The namespace is being deleted: come back when it is gone."""


class NotStarted(ApiError, errors.NotYet):
    """The container has not started: it has no log and takes no commands yet."""


class Protected(ApiError, errors.NotYet):
    """A disruption budget does not allow this eviction now."""


class Forbidden(ApiError, errors.Denied):
    """Our account may not do this: the message names verb and resource, the hint says how to grant it."""


class Unauthenticated(ApiError, errors.Denied):
    """The API server does not accept our credentials."""


class TooManyRequests(ApiError, errors.Unavailable):
    """We, or others, ask too much: nothing was done; come back after `retry_after`, and later each time."""


class ServerFailed(ApiError, errors.Unavailable):
    """The API server, or what stands before it, failed. Nothing was changed; ask again later."""


class Garbled(ServerFailed):
    """The answer is not what an API server says: half of it, or something else's."""


class Unreachable(ApiError, errors.Unavailable):
    """The request did not get there: the network, the name or the certificate."""


class Silent(Unreachable):
    """Nothing came for too long on a stream that must not be silent."""


class OutcomeUnknown(ApiError, errors.Unavailable):
    """A change was sent and its answer is missing: it may have happened. Look before anything that must not happen twice."""


def refusal(status: Status, *, method: str, path: str, retry_after: float = 0.0) -> ApiError:
    """The error for an answer of 400 and above. `retry_after` is what its header says; the body may say more."""
    kind, hint = _kind(status, method)
    message = _words(status, method=method, path=path)
    error = kind(message, hint=hint, object_=status.details.name, numbers={"status": status.code})
    error.retry_after = min(max(retry_after, float(status.details.retry_after_seconds), 0.0), RETRY_AFTER_MAX)
    return error


_BY_CODE: dict[int, tuple[type[ApiError], str]] = {
    401: (Unauthenticated, "renew the token or the certificate of this cluster; they expire"),
    404: (NotFound, ""),
    410: (Expired, ""),
    503: (ServerFailed, ""),
}


def _kind(status: Status, method: str) -> tuple[type[ApiError], str]:
    causes = {cause.reason for cause in status.details.causes}
    match status.code:
        case code if code in _BY_CODE:
            return _BY_CODE[code]
        case 403:
            return _forbidden(status, causes)
        case 409:
            return (AlreadyExists if status.reason == "AlreadyExists" else Conflict), ""
        case 429:
            return (Protected if "DisruptionBudget" in causes else TooManyRequests), ""
        case 504 if "ResourceVersionTooLarge" in causes:
            return Expired, ""
        case 422 if (
            "metadata.uid: " in status.message
        ):  # a patch that names the object by its UID, and meets another one
            return Conflict, ""
        case 400 if "is waiting to start" in status.message:
            return NotStarted, ""
        case code if code < 500:
            return Invalid, ""
    return (ServerFailed if method in READS else OutcomeUnknown), ""  # a change may have been made nevertheless


_NOT_GRANTED = re.compile(r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"')


def _forbidden(status: Status, causes: set[str]) -> tuple[type[ApiError], str]:
    """RBAC, quota, a namespace that goes, or an admission rule: all of them answer 403."""
    if granted := _NOT_GRANTED.search(status.message):
        group = granted["group"] or '""'
        return Forbidden, (
            f"grant our account the verb {granted['verb']} on {granted['resource']} of API group {group},"
            " by a Role and a RoleBinding (or their cluster-wide kinds)"
        )
    if "NamespaceTerminating" in causes:
        return Terminating, ""
    if "exceeded quota" in status.message:
        return OverQuota, "raise the ResourceQuota of the namespace, or wait"
    if status.message and not status.message.startswith("forbidden: User"):
        return Rejected, "the cluster's own rules refuse this object"
    return Forbidden, "grant our account what it needs, by a Role and a RoleBinding"


def _words(status: Status, *, method: str, path: str) -> str:
    said = status.message or status.reason or "no reason given"
    return f"the API server answered {status.code} to {method} {path}: {said[:1_000]}"
