"""All that we ask of an API server, on one page. `connection.py` is it over HTTPS; a test may be it in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from mainstay.clusters.kubernetes.kinds import Kind
from mainstay.clusters.kubernetes.objects import Object, Version
from mainstay.ports import Process, Stream

T = TypeVar("T", bound=Object)
T_co = TypeVar("T_co", bound=Object, covariant=True)

Document = Mapping[str, Any] | Sequence[Mapping[str, Any]] | bytes
"""An object as JSON: a mapping (a list for a JSON patch), or encoded already. Any: trees of JSON."""

STALL_SECONDS = 130.0
"""Bookmarks come once a minute: a watch that is silent for two is dead (R9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An object that could not be decoded: the cluster lies about it, or is newer than we know."""

    namespace: str
    name: str
    uid: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T_co]):
    """A part of a list; every page of one list carries the version of the whole. `size` is in bytes."""

    items: Sequence[T_co]
    unreadable: tuple[Unreadable, ...]
    resource_version: str
    size: int
    remaining: int = 0
    """How many objects follow, where the server says so: in lists without a selector."""


class Change(StrEnum):
    """What a watch tells of."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    UNREADABLE = "UNREADABLE"
    """Something changed on an object that cannot be decoded: only its version is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent(Generic[T_co]):
    """One line of a watch. Of a bookmark only `resource_version` counts. `size` is in bytes."""

    change: Change
    object: T_co
    resource_version: str
    size: int


FIELD_MANAGER = "mainstay"
"""Who changes an object, where nobody asks under which epoch."""


class Patch(StrEnum):
    """How a patch is meant: its content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"
    """Server-side apply: what we state is ours; created if it is not there."""


class Propagation(StrEnum):
    """What becomes of the objects that a deleted one owns."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


class KubeApi(Protocol):
    """One cluster. Every call may raise ApiError; changes raise OutcomeUnknown if the answer was lost."""

    def list_pages(
        self, kind: Kind[T], *, namespace: str = "", selector: str = "", fields: str = "", limit: int = 500
    ) -> AsyncGenerator[Page[T], None]:
        """A consistent list in pages of at most `limit`. Raises Expired (list again) if it took too long."""

    def watch(
        self,
        kind: Kind[T],
        since: str,
        *,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        stall_seconds: float = STALL_SECONDS,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Changes after a version, bookmarks included, until the server ends the watch: resume from the last version seen.

        Raises Expired (list again), Silent after `stall_seconds` without a byte, Garbled.
        """

    async def get(self, kind: Kind[T], namespace: str, name: str) -> T:
        """The object as it is now. Raises NotFound."""

    async def create(
        self, kind: Kind[T], namespace: str, document: Document, *, not_after: float = inf, by: str = FIELD_MANAGER
    ) -> T:
        """Raises AlreadyExists, Invalid, Rejected, OverQuota, Terminating. `by`: the field manager, here and below.

        After the monotonic second `not_after` it is not sent any more, also if we were stopped until then with the connection
        in our hands: what the API server has not heard of for two minutes it has closed.
        """

    async def bind(
        self,
        namespace: str,
        pod: str,
        *,
        node: str,
        uid: str = "",
        version: str = "",
        annotations: Mapping[str, str] | None = None,
        by: str = FIELD_MANAGER,
    ) -> None:
        """Place a pod that waits. Raises Conflict if it is placed already or has another UID or version. The annotations
        are written on it in the same moment.
        """

    async def evict(
        self, namespace: str, pod: str, *, uid: str = "", grace_seconds: int | None = None, by: str = FIELD_MANAGER
    ) -> None:
        """Delete a pod where its disruption budget allows it. Raises Protected, NotFound, Conflict."""

    async def patch(
        self,
        kind: Kind[T],
        namespace: str,
        name: str,
        document: Document,
        *,
        how: Patch = Patch.MERGE,
        subresource: str = "",
        by: str = FIELD_MANAGER,
    ) -> T:
        """Change part of an object (with APPLY by force). Raises NotFound, Conflict."""

    async def delete(
        self,
        kind: Kind[T],
        namespace: str,
        name: str,
        *,
        uid: str = "",
        grace_seconds: int | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> None:
        """Ask for the end of an object. Raises NotFound, and Conflict if it has another UID."""

    def log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        previous: bool = False,
        timestamps: bool = False,
        since_time: str = "",
        tail: int | None = None,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Output of a container in chunks, from `since_time` (RFC 3339) or the last `tail` lines. Raises NotFound, NotYet."""

    def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AbstractAsyncContextManager[Process]:
        """Start a process in a container; closed at the end of the block."""

    def port_forward(self, namespace: str, pod: str, port: int) -> AbstractAsyncContextManager[Stream]:
        """Open a TCP connection to a port of a pod, through the API server and the kubelet."""

    async def can(
        self, verb: str, kind: Kind[Any], *, namespace: str = "", subresource: str = "", name: str = ""
    ) -> bool:
        """Whether our account may do this (SelfSubjectAccessReview); in every namespace where `namespace` is empty."""

    async def version(self) -> Version:
        """Of the API server."""

    async def cluster_uid(self) -> str:
        """The UID of the namespace kube-system: another one means another (or a rebuilt) cluster."""

    def server_time(self) -> int:
        """UTC microseconds by the clock of the server, to a second; ours until it has answered once."""

    async def close(self) -> None:
        """Let go of all connections."""
