"""Nodes: what a cluster reports of them, and who keeps them out.

What is reported and what is wanted are columns of their own: no report opens a node that somebody has closed.
"""

from __future__ import annotations

from mainstay.domain.affinity import Traits
from mainstay.domain.capacity import Keeping, NodeState
from mainstay.domain.plan import CordonNode, DrainNode, ObserveNodes, QuarantineNode, ReleaseNode, UncordonNode
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec, codec_fleet, guards
from mainstay.store.rows import NodeRow, NodeTraitsRow
from mainstay.store.world import World


def observe_nodes(world: World, action: ObserveNodes) -> Reason | None:
    """New nodes are added, changed ones written, those that are no longer reported become not ready.

    Late nodes of a cluster that has left the fleet are refused.
    """
    if action.nodes and world.has_left(action.cluster):
        return guards.no_such_cluster(action.cluster)
    world.witness(action.cluster, action.at)
    digests = _Digests(world)
    for state in action.nodes:
        row = world.node(action.cluster, state.name)
        if row is None:
            digests.put(state.traits)
            row = _new_row(world, action.cluster, state, digests)
            world.add_node(row)
            _log(world, row)
        elif _differs(row, state, digests):
            digests.put(state.traits)
            is_news = _is_news(row, state, digests)
            _take_over(row, state, digests)
            world.touch_node(row)
            if is_news:
                _log(world, row)
    reported = {state.name for state in action.nodes}
    for row in world.cluster_nodes(action.cluster):
        if (row["ready"] or row["admits"] or row["barred"]) and row["name"] not in reported:
            was_ready = row["ready"]
            row["ready"], row["admits"], row["barred"] = 0, "", 0
            row["problem"], row["complaints"], row["strangers"] = "", "", ""
            world.touch_node(row)
            if was_ready:
                _log(world, row)
    return None


def cordon_node(world: World, action: CordonNode) -> Reason | None:
    """One that is kept out already stays as it is."""
    row = world.node(action.cluster, action.node)
    if row is None or world.has_left(action.cluster):
        return guards.no_such_node(action.node)
    if not row["closure"]:
        _close(world, row, Keeping.CORDONED, action.reason)
    return None


def drain_node(world: World, action: DrainNode) -> Reason | None:
    """Of one in quarantine its reason stays: it is kept out when the drain is over, too."""
    row = world.node(action.cluster, action.node)
    if row is None or world.has_left(action.cluster):
        return guards.no_such_node(action.node)
    if row["drains"] and row["wait_seconds"] == action.wait_seconds:
        return None
    row["drains"], row["wait_seconds"] = 1, action.wait_seconds
    if row["closure"] == Keeping.QUARANTINED:
        world.touch_node(row)
        world.log("node", row["name"], action.reason)
    else:
        _close(world, row, Keeping.CORDONED, action.reason)
    return None


def quarantine_node(world: World, action: QuarantineNode) -> Reason | None:
    """A suspicion by itself does not go before the word of a person, nor against what a person has seen since."""
    row = world.node(action.cluster, action.node)
    if row is None or world.has_left(action.cluster):
        return guards.no_such_node(action.node)
    if action.refused_at and (row["closure"] or action.refused_at <= row["closed_at"]):
        return None
    same = row["closure"] == Keeping.QUARANTINED and row["closed_until"] == action.until
    if same and row["closure_reason"] == codec.reason_text(action.reason):
        return None
    _close(world, row, Keeping.QUARANTINED, action.reason, until=action.until)
    return None


def uncordon_node(world: World, action: UncordonNode) -> Reason | None:
    """Nothing happens to one that nobody keeps out."""
    row = world.node(action.cluster, action.node)
    if row is None or world.has_left(action.cluster):
        return guards.no_such_node(action.node)
    refusal = guards.node_is_kept_as(row, Keeping.CORDONED)
    if refusal is None and row["closure"]:
        _open(world, row, action.reason)
    return refusal


def release_node(world: World, action: ReleaseNode) -> Reason | None:
    """Nothing happens to one that nobody keeps out, and none to a quarantine that began anew."""
    row = world.node(action.cluster, action.node)
    if row is None or world.has_left(action.cluster):
        return guards.no_such_node(action.node)
    if action.since and (row["closed_at"] != action.since or not row["closed_until"]):
        return guards.changed(row["name"], read=action.since, now=row["closed_at"])
    refusal = guards.node_is_kept_as(row, Keeping.QUARANTINED)
    if refusal is None and row["closure"]:
        _open(world, row, action.reason)
    return refusal


def _close(world: World, row: NodeRow, keeping: Keeping, reason: Reason, *, until: int = 0) -> None:
    row["closure"], row["closure_reason"] = keeping.value, codec.reason_text(reason)
    row["closed_at"], row["closed_until"] = world.now, until
    world.touch_node(row)
    world.log("node", row["name"], reason)


def _open(world: World, row: NodeRow, reason: Reason) -> None:
    """`closed_at` stays the moment of the last word: no suspicion from before it closes the node again."""
    row["closure"] = row["closure_reason"] = ""
    row["closed_at"], row["closed_until"], row["drains"], row["wait_seconds"] = world.now, 0, 0, 0
    world.touch_node(row)
    world.log("node", row["name"], reason)


def _new_row(world: World, cluster: str, state: NodeState, digests: _Digests) -> NodeRow:
    row = NodeRow(
        key=world.new_key(),
        cluster=cluster,
        name=state.name,
        ready=0,
        cpu_milli=0,
        memory_bytes=0,
        gpus=0,
        gpu_model="",
        used_cpu_milli=0,
        used_memory_bytes=0,
        used_gpus=0,
        admits="",
        traits="",
        images="",
        barred=0,
        topology="",
        problem="",
        complaints="",
        cordoned=0,
        strangers="",
        shapes="",
        used_shapes="",
        pods_max=codec_fleet.NO_LIMIT,
        used_pods=0,
        unhealthy="",
        whole_cpu_milli=0,
        whole_memory_bytes=0,
        whole_gpus=0,
        whole_shapes="",
        closure="",
        closure_reason="",
        closed_at=0,
        closed_until=0,
        drains=0,
        wait_seconds=0,
        version=world.version,
    )
    _take_over(row, state, digests)
    return row


class _Digests:
    """Of traits. Nodes that are alike share theirs, so of a large fleet few are written out."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[int, tuple[Traits, NodeTraitsRow]] = {}

    def of(self, traits: Traits) -> str:
        """As the row of a node has it."""
        found = self._known.get(id(traits))
        if found is None:
            # The traits are kept too: nothing else is at their address then.
            found = self._known[id(traits)] = traits, codec_fleet.traits_row(traits)
        return found[1]["digest"]

    def put(self, traits: Traits) -> str:
        """The same; they are on record from then on."""
        digest = self.of(traits)
        self._world.know_traits(self._known[id(traits)][1])
        return digest


def _differs(row: NodeRow, state: NodeState, digests: _Digests) -> bool:
    before = row.copy()
    _take_over(before, state, digests)
    return before != row


def _is_news(row: NodeRow, state: NodeState, digests: _Digests) -> bool:
    """Which guests it admits, which images it has, which strangers live there and how many changes all the time, and its place
    and its labels say nothing of it: that is no event of the node.
    """
    passing = {
        "admits": _admits(state),
        "traits": digests.of(state.traits),
        "topology": codec_fleet.places_text(state.topology),
        "images": codec_fleet.images_text(state.images),
        "strangers": _lines(state.strangers),
        "pods_max": codec_fleet.limit(state.pods_max),
    }
    return _differs({**row, **passing}, state, digests)  # type: ignore[typeddict-item]


def _take_over(row: NodeRow, state: NodeState, digests: _Digests) -> None:
    row["ready"] = int(state.ready)
    row["cpu_milli"] = state.capacity.cpu_milli
    row["memory_bytes"] = state.capacity.memory_bytes
    row["gpus"] = state.capacity.gpus
    row["gpu_model"] = state.capacity.gpu_model
    row["admits"] = _admits(state)
    row["traits"] = digests.of(state.traits)
    row["images"] = codec_fleet.images_text(state.images)
    row["barred"] = int(state.barred)
    row["topology"] = codec_fleet.places_text(state.topology)
    row["problem"] = codec.storable(state.problem)
    row["complaints"] = codec.storable(_lines(state.complaints))
    row["cordoned"] = int(state.cordoned)
    row["strangers"] = codec.storable(_lines(state.strangers))
    row["shapes"] = codec.counts_text(dict(state.shapes))
    row["pods_max"] = codec_fleet.limit(state.pods_max)
    row["unhealthy"] = codec.counts_text(dict(state.unhealthy))
    whole = state.whole or state.capacity
    row["whole_cpu_milli"] = max(whole.cpu_milli, state.capacity.cpu_milli)
    row["whole_memory_bytes"] = max(whole.memory_bytes, state.capacity.memory_bytes)
    row["whole_gpus"] = max(whole.gpus, state.capacity.gpus)
    row["whole_shapes"] = codec.counts_text({**dict(state.shapes), **dict(state.whole_shapes)})


def _admits(state: NodeState) -> str:
    return " ".join(state.admits)


def _lines(texts: tuple[str, ...]) -> str:
    return "\n".join(" ".join(text.split()) for text in texts)


def _log(world: World, row: NodeRow) -> None:
    why = row["problem"] or ("" if row["ready"] else "it is not reported any more")
    complaints = row["complaints"].replace("\n", "; ")
    numbers = {
        "node": row["name"],
        "state": "ready" if row["ready"] else "not ready",
        "cluster": row["cluster"],
        "cpu_milli": row["cpu_milli"],
        "memory_bytes": row["memory_bytes"],
        "gpus": row["gpus"],
        **({"detail": "; ".join(words for words in (why, complaints) if words)} if why or complaints else {}),
    }
    world.log("node", row["name"], Reason(code=Code.NODE_CHANGED, object=row["name"], numbers=numbers))
