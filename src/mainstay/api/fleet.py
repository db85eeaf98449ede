"""Nodes and GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from mainstay.api.auth import All, Reader
from mainstay.api.convert import amount, node_view
from mainstay.decide.billing import price_per_hour
from mainstay.domain.billing import Price
from mainstay.domain.capacity import Node
from mainstay.domain.quantity import Resources
from mainstay.wire.views import GpuView, NodeView, Page

router = APIRouter(prefix="/v1", tags=["fleet"])


@router.get("/nodes")
async def list_nodes(principal: Reader, services: All) -> Page[NodeView]:
    """Every node with what is used of it."""
    return Page[NodeView](items=[node_view(node) for node in await services.offload(services.store.nodes)])


@router.get("/gpus")
async def list_gpus(principal: Reader, services: All) -> Page[GpuView]:
    """GPUs by model and cluster."""
    nodes = await services.offload(services.store.nodes)
    prices = await services.offload(services.store.prices)
    kinds = sorted({(node.capacity.gpu_model, node.cluster) for node in nodes if node.capacity.gpus})
    return Page[GpuView](
        items=[
            _gpus([node for node in nodes if _is(node, model, cluster)], prices, now=services.clock.now())
            for model, cluster in kinds
        ]
    )


def _is(node: Node, model: str, cluster: str) -> bool:
    return bool(node.capacity.gpus) and (node.capacity.gpu_model, node.cluster) == (model, cluster)


def _gpus(nodes: Sequence[Node], prices: Sequence[Price], *, now: int) -> GpuView:
    one = nodes[0]
    price = price_per_hour(Resources(gpus=1, gpu_model=one.capacity.gpu_model), now, prices)
    return GpuView(
        model=one.capacity.gpu_model,
        cluster=one.cluster,
        total=sum(node.capacity.gpus for node in nodes),
        used=sum(node.used.gpus for node in nodes),
        price_per_hour=amount(price),
    )
