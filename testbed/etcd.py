"""Past the API server: what a cluster stores, read and written in its etcd, as whoever repairs or breaks one by hand does."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import httpx2

CHANGES_MAX = 128
"""In one transaction, as etcd allows it by default (--max-txn-ops)."""
PREFIX = "/registry/"


class Etcd:
    """Over its JSON gateway. Keys are those of the API server without `/registry/`: `pods/NAMESPACE/NAME`."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.Client(base_url=url, trust_env=False, timeout=60.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, key: str) -> bytes:
        """As it is stored: protobuf, but for what was put as JSON. Raises LookupError."""
        found = self._ask("kv/range", key=_text(key)).get("kvs")
        if not found:
            raise LookupError(key)
        return base64.b64decode(found[0]["value"])

    def put(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Many at once; the API server reads JSON as well as its own format."""
        left = iter(objects)
        while batch := list(itertools.islice(left, CHANGES_MAX)):
            puts = [{"requestPut": {"key": _text(key), "value": _coded(value)}} for key, value in batch]
            self._ask("kv/txn", success=puts)

    def remove(self, prefix: str) -> None:
        """All whose key begins so."""
        first = (PREFIX + prefix).encode()
        self._ask("kv/deleterange", key=_coded(first), range_end=_coded(first[:-1] + bytes([first[-1] + 1])))

    def compact(self) -> None:
        """Forget all history."""
        revision = self._ask("kv/range", key=_coded(b"\0"))["header"]["revision"]
        self._ask("kv/compaction", revision=revision, physical=True)

    def _ask(self, what: str, **body: Any) -> Any:
        answer = self._http.post(f"/v3/{what}", json=body)
        answer.raise_for_status()
        return answer.json()


def _text(key: str) -> str:
    return _coded((PREFIX + key).encode())


def _coded(value: bytes) -> str:
    return base64.b64encode(value).decode()
