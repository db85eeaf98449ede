"""What there is to run on: nodes and GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api import convert, convert_fleet
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.decide.billing import price_per_hour
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation
from mainstay.domain.billing import Price
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.operations import nodes
from mainstay.operations.principal import Done, Principal
from mainstay.wire import quantities
from mainstay.wire.requests import CordonRequest, DrainRequest, QuarantineRequest
from mainstay.wire.views import DeviceView, GpuView, NodeView, Page

ANY_CLUSTER = "-"
"""In the place of a cluster: whichever has a node of that name."""
routes = Routes("fleet")
_NODES = TypeAdapter(Page[NodeView])
_GPUS = TypeAdapter(Page[GpuView])


@routes.add("GET", "/v1/nodes", needs=Permission.READ, answers=Page[NodeView], of_projects=True)
async def list_nodes(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Every node with what is used of it, by cluster and name."""
    cluster, _, name = cursor.rpartition("/")
    store = call.services.store
    found, clusters = await call.services.offload(
        lambda: (store.nodes(after=(cluster, name), limit=limit + 1), store.clusters())
    )
    states = {row.name: row.state for row in clusters}
    page = Page[NodeView](
        items=[
            convert_fleet.node_view(node, cluster_state=states.get(node.cluster, "ready")) for node in found[:limit]
        ],
        next=f"{found[limit - 1].cluster}/{found[limit - 1].name}" if len(found) > limit else "",
    )
    return json_response(_NODES.dump_json(page))


@routes.add("GET", "/v1/gpus", needs=Permission.READ, answers=Page[GpuView], of_projects=True)
async def list_gpus(call: Caller) -> Response:
    """GPUs by model, cluster and memory, with the price of one for an hour."""
    store = call.services.store
    rows, prices = await call.services.offload(lambda: (store.nodes(), store.prices()))
    kinds: dict[tuple[str, str, int], list[DeviceView]] = {}
    for node in rows:
        for device in convert_fleet.device_views(node):
            # Drivers say some MiB more or less of the same card.
            size = round(device.memory_bytes / BYTES_PER_GIB)
            kinds.setdefault((device.model, node.cluster, size), []).append(device)
    items = [_gpus(*kind[:2], kinds[kind], prices, now=call.services.clock.now()) for kind in sorted(kinds)]
    return json_response(_GPUS.dump_json(Page[GpuView](items=items)))


@routes.add("GET", "/v1/nodes/{cluster}/{name}", needs=Permission.READ, answers=NodeView, of_projects=True)
async def get_node(call: Caller, cluster: str, name: str) -> Response:
    """One node with the pods on it; `-` for the cluster is any that has a node of this name."""
    store, principal = call.services.store, call.principal

    def read() -> NodeView:
        node = store.node(*_place(cluster, name))
        states = {row.name: row.state for row in store.clusters()}
        residents = nodes.residents(store, node)
        manages = principal.may(Permission.MANAGE)
        seen = [one for one in residents if manages or _may_see(principal, one.allocation)]
        view = convert_fleet.node_view(
            node,
            cluster_state=states.get(node.cluster, "ready"),
            residents=seen,
            labelled=True,
            pods_left=len(residents),
        )
        return view.model_copy(update={"strangers": list(node.strangers)}) if manages else view

    return json_response((await call.services.offload(read)).model_dump_json())


def _may_see(principal: Principal, allocation: Allocation) -> bool:
    return allocation.tenant == principal.tenant and principal.may(Permission.READ, allocation.project)


@routes.add("POST", "/v1/nodes/{cluster}/{name}/cordon", needs=Permission.MANAGE, answers=NodeView, keyed=True)
async def cordon_node(call: Caller, cluster: str, name: str, body: CordonRequest | None = None) -> Response:
    """Place nothing new on this node; what runs there runs on."""
    why = body.reason if body else ""
    return await _changed(call, partial(nodes.cordon, why=why), cluster, name)


@routes.add("POST", "/v1/nodes/{cluster}/{name}/uncordon", needs=Permission.MANAGE, answers=NodeView, keyed=True)
async def uncordon_node(call: Caller, cluster: str, name: str) -> Response:
    """Let a node that was cordoned or is drained take work again. What a drain has not stopped yet stays."""
    return await _changed(call, nodes.uncordon, cluster, name)


@routes.add("POST", "/v1/nodes/{cluster}/{name}/drain", needs=Permission.MANAGE, answers=NodeView, keyed=True)
async def drain_node(call: Caller, cluster: str, name: str, body: DrainRequest | None = None) -> Response:
    """Place nothing new on this node and move away what runs, each pod with its grace; ask for the node to see how far it is."""
    wait = quantities.duration(body.wait) if body and body.wait else 0
    change = partial(nodes.drain, why=body.reason if body else "", wait_seconds=wait)
    return await _changed(call, change, cluster, name)


@routes.add("POST", "/v1/nodes/{cluster}/{name}/quarantine", needs=Permission.MANAGE, answers=NodeView, keyed=True)
async def quarantine_node(call: Caller, cluster: str, name: str, body: QuarantineRequest | None = None) -> Response:
    """Keep this node out for a suspicion, until it is released or its time is over."""
    seconds = quantities.duration(body.duration) if body and body.duration else 0
    change = partial(nodes.quarantine, why=body.reason if body else "", seconds=seconds)
    return await _changed(call, change, cluster, name)


@routes.add("POST", "/v1/nodes/{cluster}/{name}/release", needs=Permission.MANAGE, answers=NodeView, keyed=True)
async def release_node(call: Caller, cluster: str, name: str) -> Response:
    """End the quarantine of a node."""
    return await _changed(call, nodes.release, cluster, name)


async def _changed(call: Caller, change: Callable[..., Done], cluster: str, name: str) -> Response:
    services = call.services
    result = await services.offload(
        change,
        services.store,
        call.principal,
        _place(cluster, name),
        now=services.clock.now(),
        request=call.key,
        reply=lambda node: convert_fleet.node_view(node).model_dump_json(),
    )
    services.pulse.beat()
    return done(result, status=200)


def _place(cluster: str, name: str) -> tuple[str, str]:
    return "" if cluster == ANY_CLUSTER else cluster, name


def _gpus(model: str, cluster: str, devices: Sequence[DeviceView], prices: Sequence[Price], *, now: int) -> GpuView:
    return GpuView(
        model=model,
        cluster=cluster,
        total=sum(one.total for one in devices),
        used=sum(one.used for one in devices),
        unhealthy=sum(one.unhealthy for one in devices),
        memory_bytes=min((one.memory_bytes for one in devices if one.memory_bytes), default=0),
        price_per_hour=convert.decimal(price_per_hour(Resources(gpus=1, gpu_model=model), now, prices).micros),
    )
