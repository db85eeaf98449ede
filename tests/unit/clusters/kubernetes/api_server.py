"""An API server in memory, as far as the adapter uses one: names, UIDs, versions, finalizers and graces as the real one has them.

It is a fake: what it promises is held against the real one in tests/integration/kubernetes/test_conformance.py.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any

import msgspec

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.api import FIELD_MANAGER, Change, Page, WatchEvent
from mainstay.clusters.kubernetes.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Invalid,
    NotFound,
    OutcomeUnknown,
    Terminating,
    Unreachable,
)
from mainstay.clusters.kubernetes.quantities import instant
from tests.clock import ManualClock

Key = tuple[str, str, str]
"""(plural, namespace, name)"""


class Server:
    """Implements `KubeApi`, and what users, kubelets and misfortune do beside it."""

    def __init__(self, clock: ManualClock, *, identity: str = "cluster-1") -> None:
        self.clock = clock
        self.identity = identity
        self.ahead_us = 0
        """Of its clock before ours."""
        self.objects: dict[Key, dict[str, Any]] = {}
        self.version = 100
        self.asked: list[tuple[str, str, str]] = []
        """Changes that were asked for: (verb, plural, name)."""
        self.made_by: dict[str, str] = {}
        """The field manager of those who created something, by its name."""
        self.failing: dict[tuple[str, str], ApiError] = {}
        """What a verb on a kind is answered with instead."""
        self.deaf: dict[tuple[str, str], int] = {}
        """So many answers to a verb on a kind are lost after it was done."""
        self.unseen: set[str] = set()
        """Names of which watches do not tell."""
        self._history: dict[str, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)
        self._news = asyncio.Event()
        self._numbers = itertools.count(1)
        self._cut = 0

    # What the adapter asks

    async def list_pages(self, kind: Any, *, limit: int = 500, **_: Any) -> AsyncGenerator[Page[Any], None]:
        self._answer("list", kind)
        found = [msgspec.convert(one, kind.type) for key, one in self.objects.items() if key[0] == kind.plural]
        yield Page(items=found[:limit], unreadable=(), resource_version=str(self.version), size=1)
        if found[limit:]:
            yield Page(items=found[limit:], unreadable=(), resource_version=str(self.version), size=1)

    async def watch(self, kind: Any, since: str, **_: Any) -> AsyncGenerator[WatchEvent[Any], None]:
        self._answer("watch", kind)
        cut = self._cut
        told = int(since)
        if told > self.version:
            msg = "from the future"
            raise Expired(msg)
        while True:
            for number, change, document in tuple(self._history[kind.plural]):
                if number > told:
                    told = number
                    yield WatchEvent(
                        change=Change(change),
                        object=msgspec.convert(document, kind.type),
                        resource_version=str(number),
                        size=1,
                    )
            await self._news.wait()
            if cut != self._cut:
                msg = "cut"
                raise Unreachable(msg)

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        self._answer("get", kind)
        return msgspec.convert(self._found(kind.plural, namespace, name), kind.type)

    async def create(
        self, kind: Any, namespace: str, document: Any, *, not_after: float = inf, by: str = FIELD_MANAGER
    ) -> Any:
        if self.clock.monotonic() > not_after:
            msg = "too late to be sent"
            raise OutcomeUnknown(msg)
        name = document["metadata"]["name"]
        self.asked.append(("create", kind.plural, name))
        self._answer("create", kind)
        if namespace:
            home = self.objects.get(("namespaces", "", namespace))
            if home is None:
                msg = f"no namespace {namespace}"
                raise NotFound(msg)
            if "deletionTimestamp" in home["metadata"]:
                msg = f"namespace {namespace} is being terminated"
                raise Terminating(msg)
        if (kind.plural, namespace, name) in self.objects:
            msg = f"{name} exists"
            raise AlreadyExists(msg)
        made = self.put(kind.plural, namespace, document)
        self.made_by[name] = by
        self._lose("create", kind)
        return msgspec.convert(made, kind.type)

    async def patch(self, kind: Any, namespace: str, name: str, document: Any, **_: Any) -> Any:
        self.asked.append(("patch", kind.plural, name))
        self._answer("patch", kind)
        found = self._found(kind.plural, namespace, name)
        if isinstance(document, list):
            changed = _operated(found, document)
            self._change(kind.plural, namespace, changed)
            self._lose("patch", kind)
            return msgspec.convert(changed, kind.type)
        for field, held in (
            ("uid", found["metadata"]["uid"]),
            ("resourceVersion", found["metadata"]["resourceVersion"]),
        ):
            if document.get("metadata", {}).get(field, held) != held:
                msg = f"another {field}"
                raise Conflict(msg)
        changed = _merged(found, document)
        self._change(kind.plural, namespace, changed)
        self._lose("patch", kind)
        return msgspec.convert(changed, kind.type)

    async def delete(
        self, kind: Any, namespace: str, name: str, *, uid: str = "", grace_seconds: int | None = None, **_: Any
    ) -> None:
        self.asked.append(("delete", kind.plural, name))
        self._answer("delete", kind)
        found = self._found(kind.plural, namespace, name)
        if uid and found["metadata"]["uid"] != uid:
            msg = "another uid"
            raise Conflict(msg)
        self.end_object(kind.plural, namespace, name, grace_seconds=30 if grace_seconds is None else grace_seconds)
        self._lose("delete", kind)

    async def cluster_uid(self) -> str:
        return self.identity

    def server_time(self) -> int:
        return self.clock.now() + self.ahead_us

    async def log(self, *_: Any, **__: Any) -> AsyncGenerator[bytes, None]:
        for line in (b"one\n",):
            yield line

    async def close(self) -> None:
        """Nothing to let go of."""

    # What happens beside it

    def put(self, plural: str, namespace: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object, whoever does it."""
        made: dict[str, Any] = copy.deepcopy(dict(document))
        made["metadata"] |= {
            "namespace": namespace,
            "uid": f"uid-{next(self._numbers)}",
            "creationTimestamp": self.stamp(),
        }
        made.setdefault("status", {"phase": "Pending"} if plural == "pods" else {})
        self._change(plural, namespace, made, change="ADDED")
        return made

    def node(
        self,
        name: str,
        *,
        ready: str = "True",
        cpu: str = "64",
        pods: str = "",
        kubelet: str = "v1.34.4",
        handlers: Sequence[dict[str, Any]] = (),
        **meta: Any,
    ) -> None:
        """Make a node, or change it."""
        document = {
            "metadata": {"name": name, **meta},
            "status": {
                "allocatable": {"cpu": cpu, "memory": "64Gi", **({"pods": pods} if pods else {})},
                "conditions": [{"type": "Ready", "status": ready, "message": "in words"}],
                "nodeInfo": {"kubeletVersion": kubelet},
                "runtimeHandlers": list(handlers),
            },
        }
        if ("nodes", "", name) in self.objects:
            self._change("nodes", "", _merged(self.objects["nodes", "", name], document))
        else:
            self.put("nodes", "", document)

    def pod(self, name: str) -> dict[str, Any]:
        """The pod of this name, in whatever namespace."""
        (found,) = [one for key, one in self.objects.items() if key[0] == "pods" and key[2] == name]
        return found

    def status(self, name: str, **status: Any) -> None:
        """What its kubelet says of a pod."""
        pod = self.pod(name)
        self._change("pods", pod["metadata"]["namespace"], _merged(pod, {"status": status}))

    def run(self, name: str) -> None:
        """Its kubelet runs it."""
        self.status(
            name,
            phase="Running",
            startTime=self.stamp(),
            containerStatuses=[{"name": names.MAIN, "state": {"running": {"startedAt": self.stamp()}}}],
        )

    def refuse(self, name: str) -> None:
        """Its kubelet does not take it."""
        words = "Pod was rejected: Node didn't have enough resource: cpu"
        self.status(name, phase="Failed", reason="OutOfcpu", message=words, startTime=self.stamp())

    def finish(self, name: str, code: int = 0, **more: Any) -> None:
        """It ends, its helper too; an object that only waited for that goes."""
        started = self.pod(name)["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        ended = {"exitCode": code, "startedAt": started, "finishedAt": self.stamp()}
        self.status(
            name,
            phase="Failed" if code else "Succeeded",
            containerStatuses=[{"name": names.MAIN, "state": {"terminated": ended}}],
            **more,
        )

    def vanish(self, plural: str, name: str) -> None:
        """Somebody removes an object, whatever its finalizers say."""
        for key in [key for key in self.objects if key[0] == plural and key[2] == name]:
            self._gone(key)

    def end_object(self, plural: str, namespace: str, name: str, *, grace_seconds: int) -> None:
        """As a DELETE does it."""
        found = copy.deepcopy(self.objects[plural, namespace, name])
        lives = (
            plural == "pods" and found["spec"].get("nodeName") and found["status"]["phase"] in {"Pending", "Running"}
        )
        grace = grace_seconds if lives else 0
        meta = found["metadata"]
        before = meta.get("deletionGracePeriodSeconds")
        if before is None:
            meta |= {"deletionGracePeriodSeconds": grace, "deletionTimestamp": self.stamp(grace)}
        elif grace < before:
            at = instant(meta["deletionTimestamp"]) // 1_000_000 - before + grace
            late = at < self.server_time() // 1_000_000  # what is over is not moved into the past
            meta["deletionGracePeriodSeconds"] = min(grace, 1) if late else grace
            meta["deletionTimestamp"] = self.stamp() if late else self.stamp(at - self.server_time() // 1_000_000)
        self._change(plural, namespace, found)

    def restore(self, objects: dict[Key, dict[str, Any]], version: int) -> None:
        """Set back to an older state; nobody stays connected."""
        self.objects, self.version = copy.deepcopy(objects), version
        self._history.clear()
        self.cut()

    def saved(self) -> tuple[dict[Key, dict[str, Any]], int]:
        """Its state of now."""
        return copy.deepcopy(self.objects), self.version

    def bookmark(self) -> None:
        """As once a minute."""
        self.version += 1
        for plural in ("nodes", "pods", "namespaces"):
            self._history[plural].append((self.version, "BOOKMARK", {"metadata": {}}))
        self._wake()

    def cut(self) -> None:
        """Every watch breaks off."""
        self._cut += 1
        self._wake()

    def stamp(self, seconds: int = 0) -> str:
        """Its time, as in objects."""
        at = datetime.fromtimestamp(self.server_time() // 1_000_000 + seconds, UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _change(self, plural: str, namespace: str, document: dict[str, Any], *, change: str = "MODIFIED") -> None:
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        key = (plural, namespace, document["metadata"]["name"])
        self.objects[key] = document
        self._tell(plural, change, document)
        meta, status = document["metadata"], document.get("status", {})
        over = status.get("phase") in {"Failed", "Succeeded"} or not meta.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in meta and not meta.get("finalizers") and over:
            self._gone(key)

    def _gone(self, key: Key) -> None:
        gone = copy.deepcopy(self.objects.pop(key))
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell(key[0], "DELETED", gone)

    def _tell(self, plural: str, change: str, document: dict[str, Any]) -> None:
        if document["metadata"]["name"] not in self.unseen:
            self._history[plural].append((self.version, change, copy.deepcopy(document)))
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _found(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.objects[plural, namespace, name]
        except KeyError:
            msg = f"no {plural} {name}"
            raise NotFound(msg) from None

    def _answer(self, verb: str, kind: Any) -> None:
        if (verb, kind.plural) in self.failing:
            raise self.failing[verb, kind.plural]

    def _lose(self, verb: str, kind: Any) -> None:
        if self.deaf.get((verb, kind.plural)):
            self.deaf[verb, kind.plural] -= 1
            msg = "the answer was lost"
            raise OutcomeUnknown(msg)


def _operated(document: Mapping[str, Any], operations: list[Any]) -> dict[str, Any]:
    """RFC 6902, as far as it is used."""
    result = copy.deepcopy(dict(document))
    for one in operations:
        *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in one["path"].split("/")[1:]]
        place: Any = result
        for step in steps:
            place = place[step]
        if one["op"] == "test" and place.get(last) != one["value"]:
            msg = "the server rejected our request due to an error in our request"
            raise Invalid(msg)
        place[last] = one["value"]
    return result


def _merged(document: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    result = copy.deepcopy(dict(document))
    for key, value in change.items():
        if isinstance(value, Mapping):
            result[key] = _merged(result.get(key, {}), value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = copy.deepcopy(value)
    return result
