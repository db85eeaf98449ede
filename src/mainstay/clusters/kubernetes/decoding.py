"""Bytes from an API server into objects: fast where the cluster is sane, object by object where it is not.

One wrong object must not hide the others. So a page or an event is decoded in one go; only where that fails is it taken apart,
with `null` read as absent (as the API conventions mean it), and what still cannot be read is named and left out.
"""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from mainstay.clusters.kubernetes.api import Change, Page, Unreadable, WatchEvent
from mainstay.clusters.kubernetes.errors import ApiError, Garbled, refusal
from mainstay.clusters.kubernetes.kinds import Kind
from mainstay.clusters.kubernetes.objects import Meta, Object, Slim, Status

T = TypeVar("T", bound=Object)
V = TypeVar("V")


class _ListMeta(Slim, frozen=True):
    resource_version: str = ""
    # `continue` is a word of Python
    next_page: str = msgspec.field(default="", name="continue")
    remaining_item_count: int = 0


class _List(Slim, Generic[T], frozen=True):
    kind: str
    metadata: _ListMeta
    items: list[T]


class _RawList(Slim, frozen=True):
    kind: str
    metadata: _ListMeta
    items: list[Raw] | None


class _Event(Slim, Generic[T], frozen=True):
    type: str
    object: T


class _RawEvent(Slim, frozen=True):
    type: str
    object: Raw


class _Who(Struct):
    """As much of an object as says which one it is."""

    metadata: dict[str, Any]  # Any: whatever a lying cluster puts there


def one(type_: type[V], content: bytes) -> V:
    """One object. Raises Garbled."""
    try:
        return _decoder(type_).decode(content)
    except msgspec.ValidationError:
        return _without_nulls(type_, content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _garbled(error) from error


def page(kind: Kind[T], content: bytes) -> tuple[Page[T], str]:
    """A page and the token of the next one, empty if it is the last. Raises Garbled.

    An answer that is not the list that was asked for is never taken for an empty one.
    """
    unreadable: tuple[Unreadable, ...] = ()
    try:
        found = _decoder(_List[kind.type]).decode(content)  # type: ignore[name-defined]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found, unreadable = _taken_apart(kind, content)
    if found.kind != f"{kind.name}List" or not found.metadata.resource_version:
        msg = f"asked for a {kind.name}List with a version, the answer is a {found.kind or 'thing without a kind'}"
        raise Garbled(msg)
    version, next_page = found.metadata.resource_version, found.metadata.next_page
    return (
        Page(
            items=found.items,
            unreadable=unreadable,
            resource_version=version,
            size=len(content),
            remaining=found.metadata.remaining_item_count,
        ),
        next_page,
    )


def _taken_apart(kind: Kind[T], content: bytes) -> tuple[_List[T], tuple[Unreadable, ...]]:
    found = one(_RawList, content)
    items: list[T] = []
    unreadable: list[Unreadable] = []
    for raw in found.items or ():
        try:
            items.append(one(kind.type, raw))
        except Garbled as error:
            unreadable.append(_unreadable(raw, error))
    return _List(kind=found.kind, metadata=found.metadata, items=items), tuple(unreadable)


def event(kind: Kind[T], line: bytes) -> WatchEvent[T]:
    """One line of a watch. Raises what an ERROR event says, and Garbled."""
    try:
        found = _decoder(_Event[kind.type]).decode(line)  # type: ignore[name-defined]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _odd_event(kind, line)
    if found.type not in _TOLD:
        return _odd_event(kind, line)
    return WatchEvent(
        change=_TOLD[found.type],
        object=found.object,
        resource_version=found.object.metadata.resource_version,
        size=len(line),
    )


_TOLD = {change.value: change for change in Change if change is not Change.UNREADABLE}


def _odd_event(kind: Kind[T], line: bytes) -> WatchEvent[T]:
    found = one(_RawEvent, line)
    if found.type == "ERROR":
        raise _told_error(found.object)
    if found.type not in _TOLD:
        msg = f"a watch told of {found.type[:40]!r}, which is none of its words"
        raise Garbled(msg)
    change: Change = _TOLD[found.type]
    try:
        object_ = one(kind.type, found.object)
    except Garbled as error:
        who = _unreadable(found.object, error)
        change = Change.UNREADABLE
        meta = Meta(namespace=who.namespace, name=who.name, uid=who.uid, resource_version=_version(found.object))
        object_ = kind.type(metadata=meta)
    return WatchEvent(change=change, object=object_, resource_version=object_.metadata.resource_version, size=len(line))


def _told_error(raw: Raw) -> ApiError:
    try:
        status = one(Status, raw)
    except Garbled as error:
        return error
    return refusal(status, method="GET", path="watch")


def _decoder(type_: type[V]) -> msgspec.json.Decoder[V]:
    decoder: msgspec.json.Decoder[V] = _built(type_)  # type: ignore[arg-type]  # a class is hashable
    return decoder


@functools.cache
def _built(type_: Any) -> msgspec.json.Decoder[Any]:  # Any: a cache forgets the type that it is asked for
    """Once per type: that costs more than to decode a hundred objects."""
    return msgspec.json.Decoder(type_)


def _without_nulls(type_: type[V], content: bytes) -> V:
    try:
        return msgspec.convert(_pruned(msgspec.json.decode(content)), type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _garbled(error) from error


def _pruned(tree: Any) -> Any:  # Any: JSON
    if isinstance(tree, dict):
        return {name: _pruned(value) for name, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_pruned(value) for value in tree if value is not None]
    return tree


def _unreadable(raw: Raw, why: Garbled) -> Unreadable:
    known = _known(raw)
    return Unreadable(
        namespace=known.get("namespace", ""), name=known.get("name", ""), uid=known.get("uid", ""), why=why.message
    )


def _version(raw: Raw) -> str:
    return _known(raw).get("resourceVersion", "")


def _known(raw: Raw) -> dict[str, str]:
    try:
        metadata = _decoder(_Who).decode(raw).metadata
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


def _garbled(error: Exception) -> Garbled:
    return Garbled(f"the answer cannot be read: {error}", hint="is this the address of a Kubernetes API server?")
