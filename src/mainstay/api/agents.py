"""What the agents of clusters ask: for the agents of this and the version before, and for nobody else.

Not listed in the description of the API: the messages are those of `wire/agent.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import structlog
from fastapi import Query, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection

from mainstay import __version__
from mainstay.agent import convert, convert_plan, convert_wanted
from mainstay.api.denials import note_denial
from mainstay.api.routes import Call, Caller, Routes
from mainstay.api.sockets import GONE
from mainstay.api.standing import until_refused
from mainstay.api.trees import BYTES, Digest, Sent, after
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Tree
from mainstay.domain.errors import Denied, Forbidden, Invalid, MainstayError
from mainstay.operations import agents as operations
from mainstay.operations.lines import Line
from mainstay.operations.pulse import OTHERS
from mainstay.operations.secrets import Handing
from mainstay.ports import Artifacts, WantedChanges
from mainstay.wire import agent as wire
from mainstay.wire import agent_line
from mainstay.wire.sockets import DONE, REFUSED

log = structlog.get_logger()
routes = Routes("agents")

WAIT_SECONDS_MAX = 30.0
PAUSE_SECONDS = 0.02
"""Changes that come at once are told together."""
LOOK_SECONDS = 0.25
"""What another replica commits has no pulse here."""
_ACTS = frozenset(
    {
        "observe_pod",
        "close_pod",
        "observe_nodes",
        "observe_cluster",
        "submit_guests",
        "withdraw_guests",
        "observe_volumes",
    }
)
M = TypeVar("M", bound=wire.Message)

Since = Annotated[int, Query(ge=-1, lt=1 << 62)]
Wait = Annotated[float, Query(ge=0, le=WAIT_SECONDS_MAX)]
Slot = Annotated[str, Query(max_length=200)]
Whose = Annotated[str, Query(alias="owner", max_length=200)]


@routes.add("POST", "/v1/agent/hello", needs=Permission.CARRY, listed=False)
async def greet_agent(call: Caller, request: Request) -> Response:
    """An agent that has tried its cluster learns how to use it."""
    said = await _body(request, wire.Hello)
    services = call.services
    async with _noted(call):
        record = await services.offload(
            operations.greet,
            services.store,
            call.principal,
            identity=said.identity,
            server=said.server,
            one_user=said.one_user,
            now=services.clock.now(),
        )
    services.pulse.beat()
    return _said(convert.cluster_said(record, system=services.system, now=services.clock.now()))


@routes.add("GET", "/v1/agent/cluster", needs=Permission.CARRY, listed=False)
async def get_agent_cluster(call: Caller, request: Request) -> Response:
    """The cluster of an agent as it is on record, before it is tried."""
    _require_protocol(request)
    services = call.services
    record = await services.offload(services.store.cluster, call.principal.cluster)
    return _said(convert.cluster_said(record, system=services.system, now=services.clock.now()))


@routes.add("POST", "/v1/agent/lease", needs=Permission.CARRY, listed=False)
async def lead_cluster(call: Caller, request: Request) -> Response:
    """Take or renew the lease of the cluster."""
    said = await _body(request, wire.LeaseAsked)
    services = call.services
    epoch, held = await services.offload(
        operations.lead,
        services.store,
        call.principal,
        holder=said.holder,
        seconds=said.seconds,
        now=services.clock.now(),
    )
    return _said(wire.LeaseSaid(epoch=epoch.number if epoch else 0, held_by=held.holder if held else ""))


@routes.add("GET", "/v1/agent/wanted", needs=Permission.CARRY, listed=False)
async def get_wanted(call: Caller, request: Request, since: Since = -1, wait: Wait = 0.0) -> Response:
    """What has changed of what is wanted since a version: at once if anything has, or when `wait` seconds are over."""
    _require_protocol(request)
    with call.services.agents.polling(call.principal.cluster) if wait else contextlib.nullcontext():
        return _said(convert_wanted.wanted_said(await _changes(call, since, wait)))


async def _changes(call: Call, since: int, wait: float) -> WantedChanges:
    services, cluster = call.services, call.principal.cluster
    ends = services.clock.monotonic() + wait
    with services.pulse.listener(OTHERS) as listener:
        while True:
            changes = await services.offload(services.store.wanted_changes, cluster, since=since)
            left = ends - services.clock.monotonic()
            if changes.any or left <= 0:
                return changes
            # Nothing of what was committed up to here is news: only what follows is looked at.
            since = changes.version
            await listener.wait(min(left, LOOK_SECONDS))
            await services.clock.sleep(PAUSE_SECONDS)


@routes.add("POST", "/v1/agent/closed", needs=Permission.CARRY, listed=False)
async def get_closed(call: Caller, request: Request) -> Response:
    """Which pods were of this cluster and are over: some may be back, after it was set back to an older state."""
    asked = await _body(request, wire.ClosedAsked)
    services = call.services
    rows = await services.offload(services.store.closed, call.principal.cluster, asked.pods)
    return _said(convert_wanted.wanted_said(WantedChanges(version=0, whole=False, rows=rows)))


@routes.add("POST", "/v1/agent/plans", needs=Permission.CARRY, listed=False)
async def commit_plan(call: Caller, request: Request) -> Response:
    """Commit what an effect loop of this cluster found."""
    services, principal = call.services, call.principal
    async with _noted(call):
        said = _plan(await request.body(), request)
        actions = convert_plan.actions(said, cluster=principal.cluster)
        rows = await services.offload(services.store.wanted, principal.cluster)
        await operations.require_output(services.artifacts, rows, actions)
        result = await services.offload(
            operations.commit,
            services.store,
            principal,
            rows,
            epoch=said.epoch,
            actions=actions,
            now=services.clock.now(),
        )
    services.pulse.beat()
    return _said(convert_plan.commit_said(result))


def _plan(content: bytes, request: Request) -> wire.PlanSaid:
    """Raises Forbidden for an action that no effect loop commits, Invalid for what is none at all."""
    _require_protocol(request)
    try:
        return convert.decoded(content, wire.PlanSaid)
    except Invalid:
        named = convert.decoded(content, wire.PlanNamed)
        strange = sorted({action.type for action in named.actions} - _ACTS)
        if strange:
            what = f"an agent does not commit {', '.join(strange)[:200]}"
            raise operations.not_its_own(what, object_="plans") from None
        raise


@routes.add("PUT", "/v1/agent/blobs/{digest}", needs=Permission.CARRY, listed=False)
async def put_agent_blob(call: Caller, request: Request, digest: Digest, whose: Whose) -> Response:
    """Send the content of one file of a pod."""
    _require_protocol(request)
    owner = await _owner(call, whose)
    await Sent(request).into(operations.files_of(call.services.artifacts, owner), digest)
    return _said(wire.BlobStored(receipt=_receipts(call, owner).of(digest)))


@routes.add("GET", "/v1/agent/blobs/{digest}", needs=Permission.CARRY, media_type=BYTES, listed=False)
async def get_agent_blob(
    call: Caller,
    request: Request,
    digest: Digest,
    whose: Whose,
    tree: Annotated[str, Query(max_length=64)] = "",
    slot: Slot = "",
) -> Response:
    """A file of a tree that a pod of the cluster needs."""
    _require_protocol(request)
    files = await _files_with(call, tree, whose=whose, slot=slot)
    async with _noted(call):
        if digest not in await call.services.agents.blobs(files, tree):
            what = "this file is not one of the tree"
            raise operations.not_its_own(what, object_=digest)
    chunks = files.get(digest)
    first = await anext(chunks, b"")
    return StreamingResponse(after(first, chunks), media_type=BYTES)


@routes.add("POST", "/v1/agent/trees", needs=Permission.CARRY, listed=False)
async def put_agent_tree(call: Caller, request: Request, whose: Whose) -> Response:
    """Store a tree of files that were sent."""
    said = await _body(request, wire.TreeSaid)
    tree = Tree.of_manifest(said.manifest.encode("utf-8", "surrogatepass"))
    owner = await _owner(call, whose)
    receipts, files = _receipts(call, owner), operations.files_of(call.services.artifacts, owner)
    missing = await operations.put_tree(files, tree, receipts=receipts, shown=said.receipts)
    receipt = "" if missing else receipts.of(tree.digest)
    return _said(wire.TreeStored(digest=tree.digest, missing=missing, receipt=receipt))


@routes.add("GET", "/v1/agent/trees/{digest}", needs=Permission.CARRY, listed=False)
async def get_agent_tree(call: Caller, request: Request, digest: Digest, whose: Whose, slot: Slot = "") -> Response:
    """A tree that a pod of the cluster needs."""
    _require_protocol(request)
    tree = await (await _files_with(call, digest, whose=whose, slot=slot)).tree(digest)
    return _said(wire.TreeSaid(manifest=tree.manifest.decode()))


@routes.add("POST", "/v1/agent/slots", needs=Permission.CARRY, listed=False)
async def fill_slot(call: Caller, request: Request) -> Response:
    """Make a tree the output of an attempt, or the log of a pod."""
    said = await _body(request, wire.SlotFilled)
    services, principal = call.services, call.principal
    async with _noted(call):
        owner = await services.offload(
            operations.require_slot, services.store, principal, said.slot, attempt=said.attempt
        )
    await operations.fill_slot(
        operations.files_of(services.artifacts, owner),
        said.slot,
        attempt=said.attempt,
        tree=said.tree,
        receipts=_receipts(call, owner),
        shown=said.receipt,
    )
    return _said(wire.Message())


@routes.add("GET", "/v1/agent/slots", needs=Permission.CARRY, listed=False)
async def get_slot(call: Caller, request: Request, slot: Slot) -> Response:
    """What a slot of the cluster holds."""
    _require_protocol(request)
    services = call.services
    async with _noted(call):
        owner = await services.offload(operations.require_slot, services.store, call.principal, slot)
    attempt, tree = await operations.files_of(services.artifacts, owner).head(slot)
    return _said(wire.SlotSaid(attempt=attempt, tree=tree))


@routes.add("POST", "/v1/agent/secrets", needs=Permission.CARRY, listed=False)
async def hand_secrets(call: Caller, request: Request) -> Response:
    """The secrets that a pod of the cluster is to be handed, once that is on record."""
    asked, handing = await _secrets_asked(call, request)
    handed = await handing.of(asked.pod, owner=Owner(tenant=asked.tenant, project=asked.project))
    return _said(convert.secrets_said(handed))


@routes.add("POST", "/v1/agent/secrets/handed", needs=Permission.CARRY, listed=False)
async def get_handed(call: Caller, request: Request) -> Response:
    """What a pod of the cluster was handed, to be masked in what it says: its agent may have started anew since."""
    asked, handing = await _secrets_asked(call, request)
    values = await handing.handed(asked.pod, owner=Owner(tenant=asked.tenant, project=asked.project))
    return _said(wire.HandedSaid(values=values))


async def _secrets_asked(call: Call, request: Request) -> tuple[wire.SecretsAsked, Handing]:
    """Raises Forbidden for a pod of another cluster, once that is on record."""
    asked = await _body(request, wire.SecretsAsked)
    services = call.services
    async with _noted(call):
        await services.offload(operations.require_pod, services.store, call.principal, asked.pod)
    return asked, Handing(services.store, services.sealing, services.clock, services.offload)


@routes.socket(agent_line.LINE_PATH, needs=Permission.CARRY, speaks=agent_line.LINE_PROTOCOL)
async def hold_line(call: Caller, socket: WebSocket) -> None:
    """The line over which an agent is asked, for as long as it and the token hold."""
    _require_protocol(socket)
    await socket.accept(agent_line.LINE_PROTOCOL)
    agents, cluster = call.services.agents, call.principal.cluster
    line = Line(cluster, _sending(socket))
    refused = asyncio.create_task(until_refused(call, Permission.CARRY))
    tasks = asyncio.create_task(_hear(socket, line)), asyncio.create_task(line.watch()), refused
    agents.lines.opened(cluster, line)
    try:
        await agents.ways.changed(cluster)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        agents.lines.ended(cluster, line)
        code, reason = (REFUSED, refused.result().message) if _has_ended(refused) else (DONE, "")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(*GONE):
            await socket.close(code, reason)
        await agents.ways.changed(cluster)


def _has_ended(task: asyncio.Task[MainstayError]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _hear(socket: WebSocket, line: Line) -> None:
    """Until the agent leaves, or says what is no answer."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            line.heard(message.get("bytes") or b"")
        except Invalid as error:
            log.warning("line_garbled", cluster=socket.state.principal.cluster, reason=error.message)
            return


def _sending(socket: WebSocket) -> Callable[[bytes], Awaitable[None]]:
    async def send(data: bytes) -> None:
        try:
            await socket.send_bytes(data)
        except GONE as error:
            msg = "the line broke"
            raise ConnectionError(msg) from error

    return send


async def _body(request: Request, kind: type[M]) -> M:
    _require_protocol(request)
    return convert.decoded(await request.body(), kind)


def _said(message: wire.Message) -> Response:
    return Response(convert.encoded(message), media_type="application/json")


def _require_protocol(connection: HTTPConnection) -> None:
    """Raises Denied, in words for whoever runs the agent."""
    given = connection.headers.get(wire.PROTOCOL_HEADER, "")
    spoken = int(given) if given.isascii() and given.isdecimal() and len(given) < 10 else 0
    if not wire.PROTOCOL_OLDEST <= spoken <= wire.PROTOCOL:
        ours = f"{wire.PROTOCOL_OLDEST} to {wire.PROTOCOL}"
        msg = f"the agent speaks protocol {given or 'none'}, mainstay {__version__} speaks {ours}"
        hint = "upgrade the agent" if spoken < wire.PROTOCOL_OLDEST else "upgrade the control plane first"
        raise Denied(msg, hint=hint)


def _receipts(call: Call, owner: Owner | None) -> operations.Receipts:
    return operations.Receipts(call.services.sealing, call.principal, owner)


async def _owner(call: Call, said: str) -> Owner | None:
    """Whose files a request names; None: they are logs. Raises Forbidden, once that is on record."""
    async with _noted(call):
        return await call.services.offload(operations.require_owner, call.services.store, call.principal, said)


async def _files_with(call: Call, tree: str, *, whose: str, slot: str) -> Artifacts:
    """Those in which a tree lies that a pod of the cluster needs. Raises Forbidden, once that is on record."""
    services = call.services
    owner = await _owner(call, whose)
    files = operations.files_of(services.artifacts, owner)
    async with _noted(call):
        mounted = await services.offload(services.agents.mounted, services.store, call.principal.cluster)
        await operations.require_tree(mounted, files, call.principal, tree, owner=owner, slot=slot)
    return files


@asynccontextmanager
async def _noted(call: Call) -> AsyncIterator[None]:
    """A refusal within the block goes on record."""
    try:
        yield
    except Forbidden as error:
        await note_denial(call.services, call.principal, error)
        raise
