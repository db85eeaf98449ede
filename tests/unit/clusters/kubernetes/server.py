"""An API server in memory for what is small: objects with versions and UIDs, logs and processes as a test has prepared them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mainstay.clusters.kubernetes.errors import AlreadyExists, ApiError, Conflict, NotFound
from mainstay.clusters.kubernetes.kinds import Kind
from mainstay.ports import Channel
from tests.clock import ManualClock

Name = tuple[str, str, str]
"""(plural, namespace, name)"""


@dataclass
class Process:
    """A process in a container: what it is sent, and what it says."""

    output: Sequence[tuple[Channel, bytes]] = ()
    code: int = 0
    waits_for_input: bool = False
    received: bytearray = field(default_factory=bytearray)
    exit_status: int | None = None
    failure: str = ""

    def __post_init__(self) -> None:
        self._left = deque(self.output)

    async def send(self, data: bytes) -> None:
        self.received += data

    async def receive(self) -> tuple[Channel, bytes] | None:
        if self._left:
            return self._left.popleft()
        self.exit_status = self.code
        return None


@dataclass
class Server:
    """`KubeApi`, as far as it is used here. `before` may raise what a call shall fail with."""

    clock: ManualClock
    objects: dict[Name, dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, Name], None] = lambda _verb, _name: None
    logs: dict[str, list[bytes | ApiError]] = field(default_factory=dict)
    rotated: int = 0
    """Lines of each log that its kubelet does not have any more."""
    processes: deque[Process] = field(default_factory=deque)
    versions: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def server_time(self) -> int:
        return self.clock.now()

    async def get(self, kind: Kind[Any], namespace: str, name: str) -> Any:
        self._told("get", (kind.plural, namespace, name))
        return msgspec.convert(self._there(kind, namespace, name), kind.type)

    async def create(self, kind: Kind[Any], namespace: str, document: Any) -> Any:
        name = document["metadata"]["name"]
        self._told("create", (kind.plural, namespace, name))
        if namespace and ("namespaces", "", namespace) not in self.objects:
            msg = f"no namespace {namespace}"
            raise NotFound(msg)
        if (kind.plural, namespace, name) in self.objects:
            raise AlreadyExists(name)
        made = {
            **document,
            "metadata": {**document["metadata"], "namespace": namespace, "uid": f"uid-{next(self.versions)}"},
        }
        return self._stored(kind, namespace, name, made)

    async def patch(self, kind: Kind[Any], namespace: str, name: str, document: Any) -> Any:
        self._told("patch", (kind.plural, namespace, name))
        found = self._there(kind, namespace, name)
        for field_ in ("uid", "resourceVersion"):
            wanted = document["metadata"].get(field_)
            if wanted is not None and wanted != found["metadata"][field_]:
                msg = f"another {field_}"
                raise Conflict(msg)
        return self._stored(kind, namespace, name, _merged(found, document))

    async def delete(
        self, kind: Kind[Any], namespace: str, name: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        self._told("delete", (kind.plural, namespace, name))
        found = self._there(kind, namespace, name)
        if uid and uid != found["metadata"]["uid"]:
            msg = "another uid"
            raise Conflict(msg)
        change = {
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace_seconds}
        }
        self._stored(kind, namespace, name, _merged(found, change))

    async def log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        timestamps: bool = False,
        since_time: str = "",
    ) -> AsyncGenerator[bytes, None]:
        """Each line has its second; what the kubelet says itself has none."""
        self._told("log", ("pods", namespace, pod))
        if pod not in self.logs:
            raise NotFound(pod)
        number, begins = 0, True
        for piece in self.logs[pod]:
            if isinstance(piece, ApiError):
                self.logs[pod] = [one for one in self.logs[pod] if one is not piece]
                raise piece
            for text in piece.splitlines(keepends=True):
                stamp = stamped(number)
                if number >= self.rotated and stamp[:19] >= since_time[:19]:
                    yield f"{stamp} ".encode() * (begins and timestamps) + text
                begins = text.endswith(b"\n")
                number += begins

    @asynccontextmanager
    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool = False
    ) -> AsyncIterator[Process]:
        self._told("exec", ("pods", namespace, pod))
        yield self.processes.popleft()

    def _told(self, verb: str, name: Name) -> None:
        self.calls.append((verb, name[0]))
        self.before(verb, name)

    def _there(self, kind: Kind[Any], namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.objects[kind.plural, namespace, name]
        except KeyError:
            raise NotFound(name) from None

    def _stored(self, kind: Kind[Any], namespace: str, name: str, document: dict[str, Any]) -> Any:
        """An object that was deleted goes with its last finalizer."""
        meta = {**document["metadata"], "resourceVersion": str(next(self.versions))}
        self.objects[kind.plural, namespace, name] = stored = {**document, "metadata": meta}
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            del self.objects[kind.plural, namespace, name]
        return msgspec.convert(stored, kind.type)


def stamped(number: int) -> str:
    """When a line was written, as a kubelet says it."""
    return f"2026-01-01T{number // 3_600:02}:{number // 60 % 60:02}:{number % 60:02}.000000001Z"


def _merged(into: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Source: RFC 7386."""
    merged = dict(into)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged
