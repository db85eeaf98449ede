"""`KubeApi` over HTTPS: each verb as its path, its parameters and its document."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any, TypeVar

import msgspec

from mainstay.clusters.kubernetes import decoding
from mainstay.clusters.kubernetes.api import (
    FIELD_MANAGER,
    STALL_SECONDS,
    Document,
    Page,
    Patch,
    Propagation,
    WatchEvent,
)
from mainstay.clusters.kubernetes.errors import Garbled, Unreachable
from mainstay.clusters.kubernetes.kinds import NAMESPACES, PODS, Kind
from mainstay.clusters.kubernetes.objects import Object, Slim, Version
from mainstay.clusters.kubernetes.sockets import PORT_PROTOCOLS, PROCESS_PROTOCOLS, Port, Process
from mainstay.clusters.kubernetes.sources import Source
from mainstay.clusters.kubernetes.transport import Transport
from mainstay.ports import Clock

T = TypeVar("T", bound=Object)

WATCH_SECONDS = 540
"""The server ends a watch after this; a little under the relist, so that no watch lives for ever on one connection."""
UNCHECKED = ("fieldValidation", "Ignore")
"""The API server is not to look for fields that it does not know, only to warn of them: nobody reads that, and it costs it time
with every pod. What is wrong with known fields is refused all the same.
"""
LINE_BYTES_MAX = 16 << 20
"""etcd takes objects of 1.5 MB; their JSON is larger, never ten times."""


class _Verdict(Slim, frozen=True):
    allowed: bool = False


class _Review(Slim, frozen=True):
    status: _Verdict = _Verdict()


class Connection:
    """`api.KubeApi`. One per cluster; share it."""

    def __init__(self, source: Source, *, clock: Clock) -> None:
        self._transport = Transport(source, clock=clock)

    async def list_pages(
        self, kind: Kind[T], *, namespace: str = "", selector: str = "", fields: str = "", limit: int = 500
    ) -> AsyncGenerator[Page[T], None]:
        """As in `KubeApi`."""
        chosen = (("labelSelector", selector), ("fieldSelector", fields), ("limit", str(limit)))
        following = ""
        while True:
            content = await self._transport.request(
                "GET", kind.path(namespace=namespace), parameters=(*chosen, ("continue", following))
            )
            page, following = decoding.page(kind, content)
            yield page
            if not following:
                return

    async def watch(
        self,
        kind: Kind[T],
        since: str,
        *,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        stall_seconds: float = STALL_SECONDS,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """As in `KubeApi`."""
        parameters = (
            ("watch", "true"),
            ("resourceVersion", since),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(WATCH_SECONDS)),
            ("labelSelector", selector),
            ("fieldSelector", fields),
        )
        path = kind.path(namespace=namespace)
        async with self._transport.stream(path, parameters=parameters, stall_seconds=stall_seconds) as chunks:
            async for line in lines(chunks):
                yield decoding.event(kind, line)

    async def get(self, kind: Kind[T], namespace: str, name: str) -> T:
        """As in `KubeApi`."""
        return _object(kind, await self._transport.request("GET", kind.path(namespace=namespace, name=name)))

    async def create(
        self, kind: Kind[T], namespace: str, document: Document, *, not_after: float = inf, by: str = FIELD_MANAGER
    ) -> T:
        """As in `KubeApi`."""
        path = kind.path(namespace=namespace)
        how = (("fieldManager", by), UNCHECKED)
        content = await self._transport.request("POST", path, parameters=how, body=_json(document), not_after=not_after)
        return _object(kind, content)

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
        """As in `KubeApi`."""
        stated = {"uid": uid, "resourceVersion": version, "annotations": dict(annotations or {})}
        binding = {
            "metadata": {"name": pod, **{field: value for field, value in stated.items() if value}},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = PODS.path(namespace=namespace, name=pod, subresource="binding")
        await self._transport.request("POST", path, parameters=(("fieldManager", by),), body=_json(binding))

    async def evict(
        self, namespace: str, pod: str, *, uid: str = "", grace_seconds: int | None = None, by: str = FIELD_MANAGER
    ) -> None:
        """As in `KubeApi`."""
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": _delete_options(uid=uid, grace_seconds=grace_seconds),
        }
        path = PODS.path(namespace=namespace, name=pod, subresource="eviction")
        await self._transport.request("POST", path, parameters=(("fieldManager", by),), body=_json(eviction))

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
        """As in `KubeApi`."""
        forced = (("force", "true"),) if how is Patch.APPLY else ()
        content = await self._transport.request(
            "PATCH",
            kind.path(namespace=namespace, name=name, subresource=subresource),
            parameters=(("fieldManager", by), *forced),
            body=_json(document),
            content_type=how,
        )
        return _object(kind, content)

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
        """As in `KubeApi`."""
        options = _delete_options(uid=uid, grace_seconds=grace_seconds) | {"propagationPolicy": propagation.value}
        path = kind.path(namespace=namespace, name=name)
        await self._transport.request("DELETE", path, body=_json(options))

    async def log(
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
        """As in `KubeApi`. A followed log may be silent for days: only a broken connection ends it."""
        parameters = (
            ("container", container),
            ("follow", _flag(follow)),
            ("previous", _flag(previous)),
            ("timestamps", _flag(timestamps)),
            ("sinceTime", since_time),
            ("tailLines", _number(tail)),
            ("limitBytes", _number(limit_bytes)),
        )
        path = PODS.path(namespace=namespace, name=pod, subresource="log")
        stall_seconds = None if follow else STALL_SECONDS
        async with self._transport.stream(path, parameters=parameters, stall_seconds=stall_seconds) as chunks:
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AsyncIterator[Process]:
        """As in `KubeApi`."""
        parameters = (
            ("container", container),
            *(("command", part) for part in argv),
            ("stdin", _flag(stdin)),
            ("stdout", "true"),
            ("stderr", _flag(not tty)),  # a terminal has one output
            ("tty", _flag(tty)),
        )
        path = PODS.path(namespace=namespace, name=pod, subresource="exec")
        async with self._transport.websocket(path, parameters=parameters, protocols=PROCESS_PROTOCOLS) as socket:
            yield Process(socket, argv[0])

    @asynccontextmanager
    async def port_forward(self, namespace: str, pod: str, port: int) -> AsyncIterator[Port]:
        """As in `KubeApi`."""
        path = PODS.path(namespace=namespace, name=pod, subresource="portforward")
        parameters = (("ports", str(port)),)
        async with self._transport.websocket(path, parameters=parameters, protocols=PORT_PROTOCOLS) as socket:
            yield Port(socket, pod=pod, port=port)

    async def can(
        self, verb: str, kind: Kind[Any], *, namespace: str = "", subresource: str = "", name: str = ""
    ) -> bool:
        """As in `KubeApi`."""
        asked = {
            "verb": verb,
            "group": kind.group,
            "version": kind.version,
            "resource": kind.plural,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        review = {"spec": {"resourceAttributes": asked}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = decoding.one(_Review, await self._transport.request("POST", path, body=_json(review)))
        return answer.status.allowed

    async def version(self) -> Version:
        """As in `KubeApi`."""
        return decoding.one(Version, await self._transport.request("GET", "/version"))

    async def cluster_uid(self) -> str:
        """As in `KubeApi`."""
        return (await self.get(NAMESPACES, "", "kube-system")).metadata.uid

    def server_time(self) -> int:
        """As in `KubeApi`."""
        return self._transport.server_time()

    async def close(self) -> None:
        """As in `KubeApi`."""
        await self._transport.close()


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines. Raises Garbled at one that is too long, Unreachable at the end of half a line."""
    half = b""
    async for chunk in chunks:
        *whole, half = (half + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
        if len(half) > LINE_BYTES_MAX:
            msg = f"a line of a watch has more than {LINE_BYTES_MAX >> 20} MiB"
            raise Garbled(msg)
    if half:
        msg = "a watch ended in the middle of a line"
        raise Unreachable(msg)


def _object(kind: Kind[T], content: bytes) -> T:
    """Raises Garbled if the answer is something else: it must never look like an object without fields."""
    found = decoding.one(kind.type, content)
    if not found.metadata.name:
        msg = f"asked for a {kind.name}, the answer has no name"
        raise Garbled(msg)
    return found


def _json(document: Document) -> bytes:
    return document if isinstance(document, bytes) else msgspec.json.encode(document)


def _delete_options(*, uid: str, grace_seconds: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if uid:
        options["preconditions"] = {"uid": uid}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    return options


def _flag(value: bool) -> str:  # noqa: FBT001 - it is the value
    return "true" if value else ""


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
