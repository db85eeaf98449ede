"""What there is to run on: nodes and GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api import convert
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit
from mainstay.api.routes import Caller, Routes, json_response
from mainstay.decide.billing import price_per_hour
from mainstay.domain.billing import Price
from mainstay.domain.capacity import Node
from mainstay.domain.quantity import Resources
from mainstay.operations.principal import Permission
from mainstay.wire.views import GpuView, NodeView, Page

routes = Routes("fleet")
_NODES = TypeAdapter(Page[NodeView])
_GPUS = TypeAdapter(Page[GpuView])


@routes.add("GET", "/v1/nodes", needs=Permission.READ, answers=Page[NodeView])
async def list_nodes(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Every node with what is used of it, by cluster and name."""
    cluster, _, name = cursor.rpartition("/")
    store = call.services.store
    found, clusters = await call.services.offload(
        lambda: (store.nodes(after=(cluster, name), limit=limit + 1), store.clusters())
    )
    states = {row.name: row.state for row in clusters}
    page = Page[NodeView](
        items=[convert.node_view(node, cluster_state=states.get(node.cluster, "ready")) for node in found[:limit]],
        next=f"{found[limit - 1].cluster}/{found[limit - 1].name}" if len(found) > limit else "",
    )
    return json_response(_NODES.dump_json(page))


@routes.add("GET", "/v1/gpus", needs=Permission.READ, answers=Page[GpuView])
async def list_gpus(call: Caller) -> Response:
    """GPUs by model and cluster, with the price of one for an hour."""
    store = call.services.store
    nodes, prices = await call.services.offload(lambda: (store.nodes(), store.prices()))
    kinds = sorted({(node.capacity.gpu_model, node.cluster) for node in nodes if node.capacity.gpus})
    items = [_gpus(model, cluster, nodes, prices, now=call.services.clock.now()) for model, cluster in kinds]
    return json_response(_GPUS.dump_json(Page[GpuView](items=items)))


def _gpus(model: str, cluster: str, nodes: Sequence[Node], prices: Sequence[Price], *, now: int) -> GpuView:
    of_kind = [node for node in nodes if (node.capacity.gpu_model, node.cluster) == (model, cluster)]
    return GpuView(
        model=model,
        cluster=cluster,
        total=sum(node.capacity.gpus for node in of_kind),
        used=sum(node.used.gpus for node in of_kind),
        price_per_hour=convert.decimal(price_per_hour(Resources(gpus=1, gpu_model=model), now, prices).micros),
    )
