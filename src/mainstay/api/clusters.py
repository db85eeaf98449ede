"""The clusters of the fleet, for administrators: add, list, drain, resume, remove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Query, Response
from pydantic import TypeAdapter

from mainstay.api import convert_fleet
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit
from mainstay.api.routes import Call, Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.capacity import Node
from mainstay.domain.fleet import ClusterFacts, ClusterKind, ClusterRecord, Stay
from mainstay.operations import agents
from mainstay.operations import clusters as operations
from mainstay.operations.services import Services
from mainstay.wire.requests import ClusterRequest
from mainstay.wire.views import AgentTokenView, ClusterView, Page

routes = Routes("clusters")
_CLUSTERS = TypeAdapter(Page[ClusterView])


@routes.add("POST", "/v1/clusters", needs=Permission.MANAGE, answers=ClusterView, status=201, keyed=True)
async def add_cluster(call: Caller, body: ClusterRequest) -> Response:
    """Try the credentials and add the cluster. One that is there takes new settings and credentials.

    For an `agent`, its token is in the answer, and never again: a repetition with the same key shows none.
    """
    token, digest = agents.new_token() if body.agent else ("", "")
    tokens: list[str] = []

    def reply(cluster: ClusterRecord, facts: ClusterFacts) -> str:
        if token and cluster.settings.agent_token == digest:
            tokens.append(token)
        return convert_fleet.cluster_view(cluster, warnings=facts.warnings).model_dump_json()

    wish = convert_fleet.cluster_wish(body, agent_token=digest)
    result = await operations.add(call.services, call.principal, wish, request=call.key, reply=reply)
    call.services.pulse.beat()
    if tokens and not result.replayed:
        # What is kept for a repetition must not hold it: only its SHA-256 may be stored.
        view = ClusterView.model_validate_json(result.reply).model_copy(update={"token": tokens[0]})
        return json_response(view.model_dump_json(), status=201)
    return done(result, status=201)


@routes.add(
    "POST", "/v1/clusters/{name}/token", needs=Permission.MANAGE, answers=AgentTokenView, status=201, keyed=True
)
async def renew_agent_token(call: Caller, name: str) -> Response:
    """Make a new token for the agent of a cluster. The one before it ends at once. A repetition with the same key shows none."""
    services = call.services
    token = await services.offload(
        agents.renew_token, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    services.pulse.beat()
    return json_response(AgentTokenView(cluster=name, token=token).model_dump_json(), status=201)


@routes.add("GET", "/v1/clusters", needs=Permission.MANAGE, answers=Page[ClusterView])
async def list_clusters(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Every cluster with its state and what there is on it, by name."""
    store = call.services.store

    def read() -> tuple[list[ClusterView], str]:
        nodes, rows = store.nodes(), store.clusters()
        found = [row for row in rows if row.wanted is not Stay.REMOVED and row.name > cursor]
        views = [_view(call.services, row, nodes) for row in found[:limit]]
        return views, found[limit - 1].name if len(found) > limit else ""

    items, after = await call.services.offload(read)
    return json_response(_CLUSTERS.dump_json(Page[ClusterView](items=items, next=after)))


@routes.add("GET", "/v1/clusters/{name}", needs=Permission.MANAGE, answers=ClusterView)
async def get_cluster(call: Caller, name: str) -> Response:
    """One cluster."""
    store = call.services.store
    view = await call.services.offload(lambda: _view(call.services, store.cluster(name), store.nodes()))
    return json_response(view.model_dump_json())


@routes.add("POST", "/v1/clusters/{name}/drain", needs=Permission.MANAGE, answers=ClusterView, keyed=True)
async def drain_cluster(call: Caller, name: str) -> Response:
    """Place nothing new on this cluster; what runs there runs on."""
    services = call.services
    result = await services.offload(
        operations.drain,
        services.store,
        call.principal,
        name,
        now=services.clock.now(),
        request=call.key,
        reply=_reply(call),
    )
    services.pulse.beat()
    return done(result, status=200)


@routes.add("POST", "/v1/clusters/{name}/resume", needs=Permission.MANAGE, answers=ClusterView, keyed=True)
async def resume_cluster(call: Caller, name: str) -> Response:
    """Let a drained cluster take work again."""
    services = call.services
    result = await services.offload(
        operations.resume,
        services.store,
        call.principal,
        name,
        now=services.clock.now(),
        request=call.key,
        reply=_reply(call),
    )
    services.pulse.beat()
    return done(result, status=200)


@routes.add("DELETE", "/v1/clusters/{name}", needs=Permission.MANAGE, status=204, keyed=True)
async def remove_cluster(
    call: Caller,
    name: str,
    lost: Annotated[bool, Query(description="Nothing runs there any more, for certain.")] = False,  # noqa: FBT002
) -> Response:
    """Take a cluster out of the fleet. Refused while it holds pods, unless it is drained and they are `lost`."""
    services = call.services
    result = await services.offload(
        operations.remove,
        services.store,
        call.principal,
        name,
        lost=lost,
        now=services.clock.now(),
        request=call.key,
    )
    services.pulse.beat()
    return done(result, status=204)


def _reply(call: Call) -> Callable[[ClusterRecord], str]:
    services = call.services
    return lambda cluster: _view(services, cluster, services.store.nodes()).model_dump_json()


def _view(services: Services, cluster: ClusterRecord, nodes: tuple[Node, ...]) -> ClusterView:
    """From a worker thread."""
    heard = None
    if cluster.kind is ClusterKind.AGENT:
        heard = agents.is_heard(services.store, cluster.name, now=services.clock.now())
    return convert_fleet.cluster_view(
        cluster, [node for node in nodes if node.cluster == cluster.name], agent_heard=heard
    )
