"""A proxy in front of an API server that lets happen between it and its clients what happens in a network.

Clients trust it by the same authority and sign in with tokens: a client certificate would end here. It lives in a
thread of its own, so that a test may drive it from ordinary code and from coroutines alike. What is random comes from a
seed; which request draws which number depends on the order in which they arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from testbed import messages
from testbed.certificates import Pair
from testbed.control_plane import ControlPlane, free_ports, write_kubeconfig
from testbed.faults import (
    Active,
    Answer,
    Cut,
    Delay,
    Ending,
    Expire,
    Fault,
    LoseReply,
    LoseRequest,
    OfBody,
    OfWatch,
    Rule,
    is_watch,
)
from testbed.messages import HEAD_BYTES_MAX, Head

ASK_SECONDS_MAX = 10.0
LEAVE_SECONDS_MAX = 1.0
T = TypeVar("T")
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """One side of a conversation."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        self.writer.writelines(pieces)
        await self.writer.drain()

    async def leave(self) -> None:
        """Close the connection after what has been sent."""
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS_MAX):  # `wait_for` swallows cancellations until Python 3.12
                await self.writer.wait_closed()

    def cut(self) -> None:
        """At once."""
        self.writer.transport.abort()


class Proxy:
    """One proxy. Its methods may be called from any thread but its own."""

    def __init__(self, control_plane: ControlPlane, *, seed: int = 0) -> None:
        self._control_plane = control_plane
        authority = control_plane.keys.authority
        self.port = free_ports(1)[0]
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = control_plane.folder / f"proxy-{self.port}.kubeconfig"
        write_kubeconfig(
            self.kubeconfig,
            url=self.url,
            authority=authority.certificate,
            user={"token": control_plane.keys.token},
        )
        pair = self.pair = authority.server(f"proxy-{self.port}", "127.0.0.1", "localhost")
        self._front = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._front.load_cert_chain(pair.certificate, pair.key)
        self._back = ssl.create_default_context(cafile=str(authority.certificate))
        self._chance = random.Random(seed)
        self._active: list[Active] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._talks: set[asyncio.Task[None]] = set()
        self._waiting: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._passable = asyncio.Event()

    @property
    def connections(self) -> int:
        """Of clients, that are open."""
        return len(self._talks)

    def fail(self, rule: Rule) -> Active:
        """Let requests meet a fault from now on, until `heal`. What it returns counts them."""
        active = Active(rule)
        self._active.append(active)
        return active

    def serve_old_list(self, path: str) -> Active:
        """Keep the list of now, and answer with it who is content with any version (`resourceVersion=0`)."""
        content = json.dumps(self._control_plane.ask(path)).encode()
        target = rf"^{path}\?(.*&)?resourceVersion=0(&|$)"
        return self.fail(Rule(fault=Answer(status=200, content=content), method="GET", path=target))

    def present(self, pair: Pair) -> None:
        """Another certificate, for connections from now on."""
        self._front.load_cert_chain(pair.certificate, pair.key)

    def cut_connections(self) -> None:
        """All that are open; new ones are let through."""
        self._ask(self._cut_all())

    def partition(self, how: Literal["refuse", "hang"]) -> None:
        """Nothing passes. `refuse`: connections are cut and refused; `hang`: they stay, and nothing arrives."""
        self._ask(self._parted(how))

    def heal(self) -> None:
        """End every fault and every partition."""
        self._active.clear()
        self._ask(self._opened())

    def start(self) -> None:
        """Until it listens."""
        self._thread.start()
        self._ask(self._opened())

    def close(self) -> None:
        """Cut everything and end."""
        self._ask(self._parted("refuse"))
        self._ask(self._cut_handshakes())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ASK_SECONDS_MAX)
        self._loop.close()

    def _ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(ASK_SECONDS_MAX)

    async def _opened(self) -> None:
        await self._listen(self._accepted, context=self._front)
        self._passable.set()

    async def _parted(self, how: Literal["refuse", "hang"]) -> None:
        self._passable.clear()
        if how == "hang":
            await self._listen(self._kept_waiting)
        else:
            self._deaf()
            await self._cut_all()

    async def _listen(self, accept: Accept, *, context: ssl.SSLContext | None = None) -> None:
        self._deaf()
        place = ("127.0.0.1", self.port)
        self._server = await asyncio.start_server(accept, *place, ssl=context, limit=HEAD_BYTES_MAX)

    def _deaf(self) -> None:
        """Refuse new connections, and those that nobody has answered."""
        if self._server is not None:
            self._server.close()
            self._server = None
        while self._waiting:
            self._waiting.pop().transport.abort()

    async def _cut_all(self) -> None:
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _cut_handshakes(self) -> None:
        """Connections that are not ours yet, or their sockets would be left open. Python 3.12 has `Server.abort_clients`."""
        transports = getattr(self._loop, "_transports", {})
        for _ in range(10):  # what was accepted a moment ago has its transport only in one of the next turns
            for transport in list(transports.values()):
                transport.abort()
            await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = self._loop.create_task(self._talked(_Peer(reader=reader, writer=writer)))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        talk.add_done_callback(
            lambda _: writer.transport.abort()
        )  # one that is cut before its first step cuts nothing itself

    def _kept_waiting(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Never say a word."""
        self._waiting.append(writer)

    async def _talked(self, client: _Peer) -> None:
        """One connection of a client, to its end."""
        leaving = asyncio.ensure_future(client.writer.wait_closed())
        try:
            async with _connected(self._control_plane.port, self._back) as server:
                while (request := await messages.read_head(client.reader)) is not None:
                    work = asyncio.ensure_future(self._exchange(request, client, server))
                    await _first(work, leaving)  # a watch without events would never notice that its client has left
        except Cut:
            await client.leave()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone
        finally:
            client.cut()
            await asyncio.gather(leaving, return_exceptions=True)

    async def _exchange(self, request: Head, client: _Peer, server: _Peer) -> None:
        """One request and its answer. Raises Cut."""
        content = [piece async for piece in messages.body(request, client.reader)]
        await self._passable.wait()
        faults = [
            each.rule.fault for each in self._active if each.strikes(request.method, request.target, self._chance)
        ]
        await asyncio.sleep(sum(fault.seconds for fault in faults if isinstance(fault, Delay)))
        ending = next((fault for fault in faults if isinstance(fault, Ending)), None)
        if isinstance(ending, LoseRequest):
            raise Cut
        if isinstance(ending, Answer):
            await client.send(*_written(ending))
            return
        await server.send(_with_content(request, content), *content)
        reply = await messages.read_head(server.reader)
        if reply is None:
            raise Cut
        if reply.status == 101:
            await self._tunnel(reply, client, server)
        pieces = messages.body(reply, server.reader, of_answer_to=request.method)
        if isinstance(ending, LoseReply):
            _ = [piece async for piece in pieces]
            raise Cut
        await self._answer(request, reply, self._changed(request, reply, pieces, faults), client)
        if any(isinstance(fault, Expire) for fault in faults):
            raise Cut  # the server goes on with its answer: nothing else can be asked of this connection

    async def _answer(self, request: Head, reply: Head, pieces: AsyncIterator[bytes], client: _Peer) -> None:
        """Pass an answer on."""
        chunked = "chunked" in reply.header("transfer-encoding").lower()
        await client.send(reply.written())
        async for piece in pieces:
            await self._passable.wait()
            await client.send(messages.chunk(piece) if chunked else piece)
        if chunked and request.method != "HEAD":
            await client.send(messages.chunk(b""))
        elif not reply.header("content-length") and reply.status not in {204, 304}:
            raise Cut  # its end is the end of the connection

    def _changed(
        self, request: Head, reply: Head, pieces: AsyncIterator[bytes], faults: Sequence[Fault]
    ) -> AsyncIterator[bytes]:
        if is_watch(request.target) and "json" in reply.header("content-type"):
            for fault in (fault for fault in faults if isinstance(fault, OfWatch)):
                pieces = fault.changed(_lines(pieces), self._chance)
        for drops in (fault for fault in faults if isinstance(fault, OfBody)):
            pieces = drops.changed(pieces, self._chance)
        return pieces

    async def _tunnel(self, reply: Head, client: _Peer, server: _Peer) -> None:
        """Commands in pods and forwarded ports: bytes both ways from here on."""
        await client.send(reply.written())
        ways = [self._carry(client, server), self._carry(server, client)]
        await asyncio.gather(*ways)
        raise Cut

    async def _carry(self, source: _Peer, target: _Peer) -> None:
        while piece := await source.reader.read(messages.CHUNK_BYTES):
            await self._passable.wait()
            await target.send(piece)
        raise Cut


@contextlib.contextmanager
def proxied(control_plane: ControlPlane, *, seed: int = 0) -> Iterator[Proxy]:
    """A proxy in front of a cluster until the end of the block."""
    proxy = Proxy(control_plane, seed=seed)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()


@contextlib.asynccontextmanager
async def _connected(port: int, context: ssl.SSLContext) -> AsyncIterator[_Peer]:
    """To the API server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=HEAD_BYTES_MAX)
    server = _Peer(reader=reader, writer=writer)
    try:
        yield server
    finally:
        server.cut()


async def _first(work: asyncio.Future[None], leaving: asyncio.Future[None]) -> None:
    """Do the work, unless the other happens before it is done."""
    try:
        await asyncio.wait([work, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Cut
        work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def _with_content(request: Head, content: Sequence[bytes]) -> bytes:
    """The head of a request whose whole content is there."""
    length = sum(map(len, content))
    if request.header("transfer-encoding"):
        request = request.with_headers(transfer_encoding="", content_length=str(length))
    return request.written()


def _written(ending: Answer) -> Iterator[bytes]:
    seconds = ending.retry_after_seconds
    return messages.answer(ending.status, ending.written(), retry_after="" if seconds is None else str(seconds))


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """One event each, however they were cut."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
