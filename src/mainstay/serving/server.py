"""The HTTP side: routes of the Open Inference Protocol v2, limits, readiness.

The event loop only moves bytes. Decoding and predicting run in worker threads, so that a slow model never makes the
pod look dead, and at most `Limits.pending_max` requests are held at once, which bounds memory.
"""

# One error, many sentences: each stands where its reason is found.
# ruff: noqa: EM102, TRY003

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mainstay.serving import protocol
from mainstay.serving.predictor import Predictor, first_line
from mainstay.serving.protocol import Refusal

_log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Defaults suit a pod with a few hundred MB: 32 bodies of 8 MiB are 256 MiB at the very worst."""

    body_bytes_max: int = 8 << 20
    pending_max: int = 32
    """Requests being read, waiting or predicted at once; more are refused with 503."""
    body_seconds: float = 30
    """Time to send a request body in."""


class Service:
    """One model under one name and version. Not ready until `serve` has been given the warmed-up predictor."""

    def __init__(self, *, name: str, version: str, workers: Executor, limits: Limits) -> None:
        self.name = name
        self.version = version
        self._workers = workers
        self._limits = limits
        self._predictor: Predictor | None = None
        self._pending = 0

    def serve(self, predictor: Predictor) -> None:
        """Ready from now on."""
        self._predictor = predictor

    def retire(self) -> None:
        """Ready no more; requests that are already in are still answered."""
        self._predictor = None

    @property
    def ready(self) -> bool:
        """True while requests are taken."""
        return self._predictor is not None

    async def live(self, _: Request) -> Response:
        """200 as soon as the port is open, also while the model is still being loaded."""
        return _json({"live": True})

    async def server_ready(self, _: Request) -> Response:
        """200 or 503. The specification's text calls the field `live`, servers call it `ready`: both are given."""
        return _json({"live": True, "ready": self.ready}, status=200 if self.ready else 503)

    async def server_metadata(self, _: Request) -> Response:
        """No extension is offered."""
        return _json({"name": "mainstay", "version": _package_version(), "extensions": []})

    async def model_ready(self, request: Request) -> Response:
        """200 or 503; 404 for another model or version."""
        self._require_known(request)
        return _json({"name": self.name, "ready": self.ready}, status=200 if self.ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """What to send and what to expect; 503 until the model is loaded."""
        self._require_known(request)
        predictor = self._required_predictor()
        return _json(
            {
                "name": self.name,
                "versions": [self.version],
                "platform": predictor.platform,
                "inputs": predictor.inputs,
                "outputs": predictor.outputs,
            }
        )

    async def infer(self, request: Request) -> Response:
        """Refusals become the protocol's error object in `asgi`."""
        self._require_known(request)
        _require_plain_json(request)
        predictor = self._required_predictor()
        async with self._place():
            body = await self._body(request)
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._workers, self._answer, predictor, body)
        return Response(answer, media_type="application/json")

    def _answer(self, predictor: Predictor, body: bytes) -> bytes:
        """Runs in a worker thread: decode, predict, encode."""
        request = protocol.decode(body)
        inputs = protocol.tensors(request, predictor.inputs)
        wanted = protocol.wanted_outputs(request, predictor.outputs)
        try:
            outputs = predictor.predict(inputs, wanted)
        except Exception as error:  # the model's own code: whatever it raises becomes the protocol's error object
            _log.exception("prediction failed")
            raise Refusal(500, f"the model failed: {first_line(error)}") from error
        return protocol.encode(self.name, self.version, request.id, outputs)

    def _require_known(self, request: Request) -> None:
        name = request.path_params["name"]
        asked = request.path_params.get("version", self.version)
        if name != self.name:
            raise Refusal(404, f"unknown model: {name[:100]!r}; this server has: {self.name}")
        if asked != self.version:
            raise Refusal(404, f"unknown version of {self.name}: {asked[:100]!r}; this server has: {self.version}")

    def _required_predictor(self) -> Predictor:
        if self._predictor is None:
            raise Refusal(503, f"model is not ready: {self.name}")
        return self._predictor

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._pending >= self._limits.pending_max:
            raise Refusal(503, f"too many requests at once: {self._pending}; hint: try again shortly")
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def _body(self, request: Request) -> bytes:
        """Never holds more than the limit. The declared length is checked first: what is too large is not even read."""
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._limits.body_bytes_max:
            raise self._too_large(declared)
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._limits.body_bytes_max:
                        raise self._too_large(f"more than {self._limits.body_bytes_max}")
        except TimeoutError as error:
            raise Refusal(408, f"the request body did not arrive within {self._limits.body_seconds:g} s") from error
        return bytes(body)

    def _too_large(self, got: str) -> Refusal:
        return Refusal(413, f"request body too large: limit {self._limits.body_bytes_max} bytes, got {got}")


def asgi(service: Service) -> Starlette:
    """All paths of the protocol, with and without a version."""
    model = "/v2/models/{name}"
    versioned = model + "/versions/{version}"
    paths: list[tuple[str, str, Handler]] = [
        ("/v2", "GET", service.server_metadata),
        ("/v2/", "GET", service.server_metadata),  # spelled so in open_inference_rest.yaml
        ("/v2/health/live", "GET", service.live),
        ("/v2/health/ready", "GET", service.server_ready),
    ]
    for base in (model, versioned):
        paths += [
            (base, "GET", service.model_metadata),
            (base + "/ready", "GET", service.model_ready),
            (base + "/infer", "POST", service.infer),
        ]
    return Starlette(
        routes=[Route(path, handler, methods=[method]) for path, method, handler in paths],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _not_routed,
            ClientDisconnect: _gone,
            Exception: _unexpected,
        },
    )


def _json(content: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status_code=status, media_type="application/json")


def _require_plain_json(request: Request) -> None:
    """A missing content type is taken for JSON, as other servers of the protocol do."""
    if "inference-header-content-length" in request.headers:
        raise Refusal(400, protocol.binary_refused())
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, f"content type: expected application/json, got {media_type[:100]!r}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refusal(415, f"content encoding is not offered: {encoding[:100]!r}")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _json({"error": error.message}, status=error.status)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json(
        {"error": f"{error.detail.lower()}: {request.method} {request.url.path[:200]}"}, status=error.status_code
    )
    response.headers.update(error.headers or {})
    return response


async def _gone(_request: Request, _error: Exception) -> Response:
    """The client hung up while sending; nobody reads this answer, but the log keeps its peace."""
    return _json({"error": "client disconnected"}, status=400)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return _json({"error": "internal error of the server; its log has the details"}, status=500)


def _package_version() -> str:
    try:
        return version("mainstay")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
