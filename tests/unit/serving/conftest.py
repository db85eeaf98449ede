"""Model directories and a caller that speaks ASGI to the application without a port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mainstay.serving import load, save_onnx, save_sklearn
from mainstay.serving.server import Limits, Service, asgi

from . import onnx_bytes

LIMITS = Limits(body_bytes_max=1 << 20, pending_max=2, body_seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert list(self.json) == ["error"]
        return str(self.json["error"])


class Caller:
    """Requests to one service, in process."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.app = asgi(service)

    def get(self, path: str) -> Answer:
        return asyncio.run(self.request("GET", path, b"", {}))

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return asyncio.run(self.request("POST", path, content, headers or {}))

    def infer(self, **tensor: object) -> Answer:
        return self.post("/v2/models/m/infer", {"inputs": [tensor]})

    async def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        given = {"content-length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        sent: list[Any] = []
        chunks = [body[start : start + 65536] for start in range(0, len(body), 65536)] or [b""]

        async def receive() -> dict[str, Any]:
            if not chunks:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(status=sent[0]["status"], headers=answered, body=b"".join(part["body"] for part in sent[1:]))


@pytest.fixture(scope="session")
def classifier_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels 3 and 8 by the sign of the first of two numbers."""
    rows = np.array([[-1.0, 0.0], [-2.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    model = LogisticRegression().fit(rows, [3, 3, 8, 8])
    return save_sklearn(model, tmp_path_factory.mktemp("classifier"), sample=rows, metrics={"accuracy": 1.0})


@pytest.fixture(scope="session")
def onnx_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_onnx(onnx_bytes.times_two(), tmp_path_factory.mktemp("onnx"))


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield executor


@pytest.fixture
def serving(workers: ThreadPoolExecutor) -> Any:
    """Directory -> Caller of a ready service with the model `m`, version 3."""

    def serve(directory: Path, limits: Limits = LIMITS) -> Caller:
        service = Service(name="m", version="3", workers=workers, limits=limits)
        service.serve(load(directory))
        return Caller(service)

    return serve


@pytest.fixture
def doubling(serving: Any, onnx_directory: Path) -> Caller:
    caller: Caller = serving(onnx_directory)
    return caller
