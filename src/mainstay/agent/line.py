"""The line: one outgoing WebSocket over which the control plane asks what only the agent can know, such as a log.

What else is to go this way (connections to ports, commands in pods) becomes a question of its own in `wire/agent.py` and a
`case` in `_answer`; a control plane that asks what this version does not know is told so, and goes on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import aiohttp
import structlog

from mainstay.agent import convert
from mainstay.agent.connection import CONNECT_SECONDS, Way
from mainstay.domain.errors import Invalid, MainstayError, Unavailable
from mainstay.ports import Cluster
from mainstay.wire import agent as wire

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
"""Pings: they find a dead peer, and keep what stands between from cutting an idle line."""
MESSAGE_BYTES_MAX = 4 << 20
AT_ONCE = 32
"""Questions that are answered at the same time; more wait."""
AGAIN_SECONDS = (0.2, 1.0)
"""By chance, so that agents that lost the same replica do not come back together."""
LOG_BYTES_MAX = 1 << 20


class Answering:
    """Holds the line of one cluster."""

    def __init__(self, way: Way, clusters: Mapping[str, Cluster], *, cluster: str) -> None:
        self._way = way
        self._clusters = clusters
        self._cluster = cluster
        self._room = asyncio.Semaphore(AT_ONCE)

    async def hold(self) -> float:
        """One line, until it breaks; seconds to wait before the next. Raises Unavailable if there was none, or a refusal."""
        tls = self._way.tls() if self._way.url.startswith("https:") else True
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            try:
                socket = await session.ws_connect(
                    self._way.url + wire.LINE_PATH,
                    headers=self._way.headers(),
                    protocols=(wire.LINE_PROTOCOL,),
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    ssl=tls,
                )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                msg = f"the line to {self._way.url} cannot be opened: {error or type(error).__name__}"
                raise Unavailable(msg) from error
            log.info("line_opened", cluster=self._cluster)
            async with socket, asyncio.TaskGroup() as group:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        group.create_task(self._reply(socket, message.data))
        log.info("line_ended", cluster=self._cluster, close_code=socket.close_code)
        return random.uniform(*AGAIN_SECONDS)

    async def _reply(self, socket: aiohttp.ClientWebSocketResponse[bool], message: bytes) -> None:
        async with self._room:
            header, _ = wire.parts(message)
            try:
                number = convert.decoded(header, wire.Numbered).id
            except Invalid:
                return
            said, data = await self._answer(header)
            answer = convert.encoded(wire.Answered(id=number, what=said))
            try:
                await socket.send_bytes(wire.frame(answer, data))
            except (aiohttp.ClientError, OSError):
                return

    async def _answer(self, header: bytes) -> tuple[wire.LogSaid | wire.Failed, bytes]:
        try:
            match convert.decoded(header, wire.Asked).what:
                case wire.ReadLog(pod=pod, offset=offset, limit=limit):
                    chunk = await self._opened().read_log(pod, offset=offset, limit=min(limit, LOG_BYTES_MAX))
                    said = wire.LogSaid(next_offset=chunk.next_offset, dropped=chunk.dropped, ended=chunk.ended)
                    return said, chunk.data
        except MainstayError as error:
            return convert.failed(error), b""

    def _opened(self) -> Cluster:
        cluster = self._clusters.get(self._cluster)
        if cluster is None:
            msg = f"the agent of {self._cluster} has not opened it yet"
            raise Unavailable(msg, object_=self._cluster)
        return cluster
