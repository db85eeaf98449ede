"""From one replica to another: questions for a cluster that only the other one reaches (docs/decisions/0010).

It is its own machine, or the line of the cluster's agent ends there. Both ends prove that they have the key which the replicas
share, by TLS with a certificate made of it. A replica that is asked answers from its own machine and lines alone: nothing is ever
passed on twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
import structlog
from aiohttp import web

from mainstay.agent.answers import HEARTBEAT_SECONDS, MESSAGE_BYTES_MAX, Answers
from mainstay.control.remote import RemoteCluster
from mainstay.domain.errors import Invalid, MainstayError, Unavailable
from mainstay.operations.lines import Line, Lines, not_reached
from mainstay.operations.offload import Offload
from mainstay.ports import Clock, Cluster, LineRecord, Store
from mainstay.wire import agent as wire
from mainstay.wire import agent_line

log = structlog.get_logger()

PATH = "/lines"
DIAL_SECONDS = 3.0
"""Replicas are near each other: one that takes longer is as good as dead."""
LOOK_SECONDS = 1.0
"""Where a line ends is read again after so long, by whoever asks."""
REFUSED_SECONDS = 5.0
"""A replica that did not answer is passed over for so long."""
CLOSE_SECONDS = 1.0
_WHY = {
    404: "it does not reach that cluster any more",
    426: "it speaks another protocol: give all replicas the same version of mainstay",
}


NO_CLUSTERS: Mapping[str, Cluster] = {}


class Relays:
    """The lines that end here, and ways to those that end elsewhere. Implements `operations.lines.Ways`.

    Where they end is on record; a record is a hint, and only who answers counts. The newest is asked first.
    """

    def __init__(
        self,
        lines: Lines,
        store: Store,
        clock: Clock,
        offload: Offload,
        *,
        replica: str,
        address: str,
        tls: ssl.SSLContext,
        brought: Mapping[str, Cluster] = NO_CLUSTERS,
    ) -> None:
        """`replica`, `address`: how this one is known to the others. `tls`: for connections to them. `brought`: the machine that
        it runs on, where that is a cluster.
        """
        self._lines = lines
        self._brought = brought
        self._store = store
        self._clock = clock
        self._offload = offload
        self._replica = replica
        self._address = address
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._open: dict[tuple[str, str], Line] = {}
        """By cluster and replica."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[str, tuple[float, tuple[LineRecord, ...]]] = {}
        self._refused: dict[str, tuple[float, Unavailable]] = {}

    async def reach(self, cluster: str) -> Line:
        """A line that ends here, or the one of another replica. Raises Unavailable."""
        if self._lines.any(cluster):
            return self._lines.of(cluster)
        for record in await self._records(cluster):
            if (cluster, record.replica) in self._open:
                return self._open[cluster, record.replica]
            if not self._refusal(record):
                break
        async with self._dialling[cluster]:
            return await self._dialled(cluster)

    def hang_up(self, cluster: str) -> None:
        """End those that end here, and the ways to others."""
        self._lines.hang_up(cluster)
        for (of, _), line in self._open.items():
            if of == cluster:
                line.hang_up()

    async def changed(self, cluster: str) -> None:
        """Put on record whether a line ends here; what fails is done by `keep`."""
        try:
            await self._offload(self._record, cluster, self._ends_here(cluster))
        except MainstayError as error:
            log.warning("line_not_recorded", cluster=cluster, reason=error.message)

    async def keep(self, cluster: str) -> None:
        """The record of our own line, as it ought to be. Raises Unavailable."""
        records = await self._offload(self._store.lines, cluster)
        there = any(record.replica == self._replica for record in records)
        if there != self._ends_here(cluster):
            await self._offload(self._record, cluster, not there)

    async def close(self) -> None:
        """Let go of all, and take back that our own machine is reached here."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        for cluster in self._brought:
            with contextlib.suppress(MainstayError):
                await self._offload(self._record, cluster, False)

    def _ends_here(self, cluster: str) -> bool:
        return cluster in self._brought or self._lines.any(cluster)

    def _record(self, cluster: str, there: bool) -> None:  # noqa: FBT001 one of two
        if there:
            self._store.open_line(LineRecord(cluster=cluster, replica=self._replica, address=self._address))
        else:
            self._store.end_line(cluster, replica=self._replica)

    async def _records(self, cluster: str, *, anew: bool = False) -> tuple[LineRecord, ...]:
        """Of other replicas, the newest first."""
        now = self._clock.monotonic()
        looked_at, records = self._known.get(cluster, (0.0, ()))
        if anew or cluster not in self._known or now - looked_at >= LOOK_SECONDS:
            found = await self._offload(self._store.lines, cluster)
            records = tuple(record for record in found if record.replica != self._replica)
            self._known[cluster] = now, records
        return records

    async def _dialled(self, cluster: str) -> Line:
        """One at a time for each cluster: who waits finds what the one before him has opened, or why nothing was."""
        refusals = []
        for record in await self._records(cluster, anew=True):
            key = (cluster, record.replica)
            try:
                return self._open[key] if key in self._open else await self._dial(record)
            except Unavailable as error:
                refusals.append(error)
        if self._lines.any(cluster):
            return self._lines.of(cluster)
        if refusals:
            raise refusals[0]
        raise not_reached(cluster)

    async def _dial(self, record: LineRecord) -> Line:
        if error := self._refusal(record):
            raise error
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                socket = await self._connected(record)
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            error = _unreached(record, failure)
            self._refused[record.replica] = self._clock.monotonic(), error
            log.warning(
                "replica_not_reached",
                replica=record.replica,
                address=record.address,
                reason=str(failure) or error.message,
            )
            raise error from failure
        line = Line(record.cluster, _sending(socket))
        key = record.cluster, record.replica
        self._open[key] = line
        task = asyncio.create_task(self._hold(key, line, socket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return line

    def _refusal(self, record: LineRecord) -> Unavailable | None:
        at, error = self._refused.get(record.replica, (0.0, None))
        if error is None or self._clock.monotonic() - at < REFUSED_SECONDS:
            return error
        del self._refused[record.replica]
        return None

    async def _connected(self, record: LineRecord) -> aiohttp.ClientWebSocketResponse[bool]:
        if self._session is None:
            # Nothing of the environment: replicas are no business of a proxy.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=self._tls))
        return await self._session.ws_connect(
            f"https://{record.address}{PATH}/{record.cluster}",
            headers={wire.PROTOCOL_HEADER: str(wire.PROTOCOL)},
            protocols=(agent_line.LINE_PROTOCOL,),
            heartbeat=HEARTBEAT_SECONDS,
            max_msg_size=MESSAGE_BYTES_MAX,
        )

    async def _hold(self, key: tuple[str, str], line: Line, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        """Until it breaks, or nobody answers over it any more."""
        tasks = asyncio.create_task(_hear(socket, line)), asyncio.create_task(line.watch())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._open[key]
            line.broke()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await socket.close()


class Door:
    """Answers the other replicas, from our own machine and over the lines that end here, and over no others."""

    def __init__(self, lines: Lines, *, tls: ssl.SSLContext, brought: Mapping[str, Cluster] = NO_CLUSTERS) -> None:
        """`tls` lets in whoever has the key of the replicas."""
        self._lines = lines
        self._brought = brought
        self._tls = tls

    @asynccontextmanager
    async def opened(self, listener: socket.socket) -> AsyncIterator[None]:
        """For the block."""
        app = web.Application()
        app.router.add_get(PATH + "/{cluster}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        await runner.setup()
        try:
            await web.SockSite(runner, listener, ssl_context=self._tls).start()
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        cluster, given = request.match_info["cluster"], request.headers.get(wire.PROTOCOL_HEADER, "")
        if given not in {str(number) for number in range(wire.PROTOCOL_OLDEST, wire.PROTOCOL + 1)}:
            return web.Response(status=426)
        if cluster not in self._brought and not self._lines.any(cluster):
            return web.Response(status=404)
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_SECONDS,
            max_msg_size=MESSAGE_BYTES_MAX,
            protocols=(agent_line.LINE_PROTOCOL,),
            compress=False,
        )
        await socket.prepare(request)
        here = self._brought.get(cluster) or RemoteCluster(cluster, self._lines)
        answering = asyncio.create_task(Answers(socket, lambda: here).answer())
        ended = asyncio.create_task(self._until_out_of_reach(cluster))
        try:
            await asyncio.wait((answering, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answering, ended):
                task.cancel()
            await asyncio.gather(answering, ended, return_exceptions=True)
            await socket.close()
        return socket

    async def _until_out_of_reach(self, cluster: str) -> None:
        """Never, of our own machine."""
        if cluster in self._brought:
            await asyncio.Event().wait()
        await self._lines.until_none(cluster)


async def _hear(socket: aiohttp.ClientWebSocketResponse[bool], line: Line) -> None:
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            try:
                line.heard(message.data)
            except Invalid:
                return


def _sending(socket: aiohttp.ClientWebSocketResponse[bool]) -> Callable[[bytes], Awaitable[None]]:
    async def send(data: bytes) -> None:
        try:
            await socket.send_bytes(data)
        except aiohttp.ClientError as error:
            msg = "the other replica has gone"
            raise ConnectionError(msg) from error

    return send


def _unreached(record: LineRecord, failure: Exception) -> Unavailable:
    """In words for users, and for whoever runs the replicas."""
    why = "it does not answer"
    if isinstance(failure, aiohttp.WSServerHandshakeError):
        why = _WHY.get(failure.status, f"it refused with status {failure.status}")
    elif isinstance(failure, (aiohttp.ClientSSLError, ssl.SSLError)):
        why = "it has another key: start all replicas with the same file for --secrets-key"
    msg = f"the replica that reaches cluster {record.cluster} cannot be asked: {why}"
    return Unavailable(msg, object_=record.cluster, hint="try again in a moment")
