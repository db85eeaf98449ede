"""`python -m mainstay.serving`: load one model and answer for it until SIGTERM.

The port is open before the model is loaded, so that a long load looks alive and not ready.
Exit status: 0 after SIGTERM or SIGINT, with the requests in flight answered; 1 if the model is refused or the port
cannot be had; 2 for bad arguments.
"""

# One error, many sentences: each stands where its reason is found.
# ruff: noqa: EM102, TRY003

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import uvicorn

from mainstay.serving.models import load
from mainstay.serving.predictor import ModelRefused
from mainstay.serving.server import Limits, Service, asgi

_log = logging.getLogger("mainstay.serving")

_GRACE_SECONDS = 25  # within Kubernetes' default terminationGracePeriodSeconds of 30, less time to leave


class _Server(uvicorn.Server):
    """uvicorn with our signal handling: its own raises the signal again at the end, which hides our exit status."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status. Returns when the server has been told to stop, or cannot serve."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family, backlog=512)
    except OSError as error:
        _log.error("cannot listen on %s port %d: %s", options.host, options.port, error.strerror or error)
        return 1
    # Head and body of an answer are two writes; without this the second waits some 40 ms for the client's ACK. asyncio
    # sets it only on sockets that name their protocol, which accepted ones do not. They inherit the listener's options.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limits = Limits(body_bytes_max=options.body_bytes_max, pending_max=options.pending_max)
    with listener, ThreadPoolExecutor(max_workers=options.workers, thread_name_prefix="predict") as workers:
        service = Service(name=options.name, version=options.version, workers=workers, limits=limits)
        config = _config(service)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            return runner.run(_run(options, service, config, listener, workers))


async def _run(
    options: argparse.Namespace,
    service: Service,
    config: uvicorn.Config,
    listener: socket.socket,
    workers: ThreadPoolExecutor,
) -> int:
    server = _Server(config)
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, _stop, service, server)
    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(_load(options, service, server, workers))
        await server.serve(sockets=[listener])
        loading.cancel()  # no effect on a load that has ended
    return 0 if loading.cancelled() else loading.result()


def _config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        asgi(service),
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _stop(service: Service, server: uvicorn.Server) -> None:
    _log.info("stopping: requests in flight are finished first, for at most %d s", _GRACE_SECONDS)
    service.retire()
    server.should_exit = True


async def _load(
    options: argparse.Namespace, service: Service, server: uvicorn.Server, workers: ThreadPoolExecutor
) -> int:
    """Exit status of the process: 1, and the server told to leave, if the model is refused."""
    begun = time.monotonic()
    work = partial(load, options.model, threads=options.threads, trusted=options.trust)
    try:
        predictor = await asyncio.get_running_loop().run_in_executor(workers, work)
    except ModelRefused as error:
        _log.error("model refused: %s", error)
        server.should_exit = True
        return 1
    if not server.should_exit:
        service.serve(predictor)
        _log.info("ready: model=%s version=%s seconds=%.2f", options.name, options.version, time.monotonic() - begun)
    return 0


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="python -m mainstay.serving", description="Serve one model over the Open Inference Protocol v2."
    )
    parser.add_argument("--model", type=Path, required=True, help="model directory, with an MLmodel file in it")
    parser.add_argument("--name", required=True, help="name of the model in the paths")
    parser.add_argument("--version", default="1", help="version of the model in the paths (default: %(default)s)")
    parser.add_argument("--host", default=os.environ.get("MAINSTAY_HOST", "127.0.0.1"))
    port = os.environ.get("PORT")
    parser.add_argument(
        "--port", type=_Whole(0, 65535), default=port, required=port is None, help="default: $PORT, where it is set"
    )
    parser.add_argument("--threads", type=_Whole(1, 1024), default=1, help="CPU threads per prediction (default: 1)")
    parser.add_argument("--workers", type=_Whole(1, 1024), default=1, help="predictions at once (default: 1)")
    parser.add_argument("--body-bytes-max", type=_Whole(1, 1 << 40), default=limits.body_bytes_max, metavar="BYTES")
    parser.add_argument("--pending-max", type=_Whole(1, 1 << 20), default=limits.pending_max, metavar="REQUESTS")
    parser.add_argument("--trust", action="append", default=[], metavar="TYPE", help="allow this type in a skops file")
    return parser


class _Whole:
    """Argument type: a whole number in [low, high]."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def __call__(self, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not self._low <= int(text) <= self._high:
            raise argparse.ArgumentTypeError(f"expected a number from {self._low} to {self._high}, got: {text}")
        return int(text)


if __name__ == "__main__":
    sys.exit(main())
