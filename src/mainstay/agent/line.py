"""The line: one outgoing WebSocket over which the control plane asks what only the agent can know or do, such as a log."""

from __future__ import annotations

import random
from collections.abc import Mapping

import aiohttp
import structlog

from mainstay.agent.answers import HEARTBEAT_SECONDS, MESSAGE_BYTES_MAX, Answers
from mainstay.agent.connection import CONNECT_SECONDS, Way
from mainstay.domain.errors import Unavailable
from mainstay.ports import Cluster
from mainstay.wire import agent_line

log = structlog.get_logger()

AGAIN_SECONDS = (0.2, 1.0)
"""By chance, so that agents that lost the same replica do not come back together."""


class Answering:
    """Holds the line of one cluster."""

    def __init__(self, way: Way, clusters: Mapping[str, Cluster], *, cluster: str) -> None:
        self._way = way
        self._clusters = clusters
        self._cluster = cluster

    async def hold(self) -> float:
        """One line, until it breaks; seconds to wait before the next. Raises Unavailable if there was none, or a refusal."""
        tls = self._way.tls() if self._way.url.startswith("https:") else True
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            try:
                socket = await session.ws_connect(
                    self._way.url + agent_line.LINE_PATH,
                    headers=self._way.headers(),
                    protocols=(agent_line.LINE_PROTOCOL,),
                    heartbeat=HEARTBEAT_SECONDS,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    ssl=tls,
                )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                msg = f"the line to {self._way.url} cannot be opened: {error or type(error).__name__}"
                raise Unavailable(msg) from error
            log.info("line_opened", cluster=self._cluster)
            async with socket:
                await Answers(socket, self._opened).answer()
        log.info("line_ended", cluster=self._cluster, close_code=socket.close_code)
        return random.uniform(*AGAIN_SECONDS)

    def _opened(self) -> Cluster:
        cluster = self._clusters.get(self._cluster)
        if cluster is None:
            msg = f"the agent of {self._cluster} has not opened it yet"
            raise Unavailable(msg, object_=self._cluster)
        return cluster
