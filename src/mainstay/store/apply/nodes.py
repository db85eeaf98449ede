"""What a cluster reports of its nodes."""

from __future__ import annotations

from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes
from mainstay.domain.reason import Code, Reason
from mainstay.store import guards
from mainstay.store.rows import NodeRow
from mainstay.store.world import World


def observe_nodes(world: World, action: ObserveNodes) -> Reason | None:
    """New nodes are added, changed ones written, those that are no longer reported become not ready.

    Late nodes of a cluster that has left the fleet are refused.
    """
    if action.nodes and world.has_left(action.cluster):
        return guards.no_such_cluster(action.cluster)
    world.witness(action.cluster, action.at)
    for state in action.nodes:
        row = world.node(action.cluster, state.name)
        if row is None:
            row = _new_row(world, action.cluster, state)
            world.add_node(row)
            _log(world, row)
        elif _differs(row, state):
            is_news = _is_news(row, state)
            _take_over(row, state)
            world.touch_node(row)
            if is_news:
                _log(world, row)
    reported = {state.name for state in action.nodes}
    for row in world.cluster_nodes(action.cluster):
        if (row["ready"] or row["admits"]) and row["name"] not in reported:
            was_ready, row["ready"], row["admits"] = row["ready"], 0, ""
            world.touch_node(row)
            if was_ready:
                _log(world, row)
    return None


def _new_row(world: World, cluster: str, state: NodeState) -> NodeRow:
    return NodeRow(
        key=world.new_key(),
        cluster=cluster,
        name=state.name,
        ready=int(state.ready),
        cpu_milli=state.capacity.cpu_milli,
        memory_bytes=state.capacity.memory_bytes,
        gpus=state.capacity.gpus,
        gpu_model=state.capacity.gpu_model,
        used_cpu_milli=0,
        used_memory_bytes=0,
        used_gpus=0,
        admits=_admits(state),
        version=world.version,
    )


def _differs(row: NodeRow, state: NodeState) -> bool:
    before = row.copy()
    _take_over(before, state)
    return before != row


def _is_news(row: NodeRow, state: NodeState) -> bool:
    """Which guests it admits changes with each new kind of guest: that is no event of the node."""
    return _differs({**row, "admits": _admits(state)}, state)


def _take_over(row: NodeRow, state: NodeState) -> None:
    row["ready"] = int(state.ready)
    row["cpu_milli"] = state.capacity.cpu_milli
    row["memory_bytes"] = state.capacity.memory_bytes
    row["gpus"] = state.capacity.gpus
    row["gpu_model"] = state.capacity.gpu_model
    row["admits"] = _admits(state)


def _admits(state: NodeState) -> str:
    return " ".join(state.admits)


def _log(world: World, row: NodeRow) -> None:
    numbers = {
        "node": row["name"],
        "state": "ready" if row["ready"] else "not ready",
        "cluster": row["cluster"],
        "cpu_milli": row["cpu_milli"],
        "memory_bytes": row["memory_bytes"],
        "gpus": row["gpus"],
    }
    world.log("node", row["name"], Reason(code=Code.NODE_CHANGED, object=row["name"], numbers=numbers))
