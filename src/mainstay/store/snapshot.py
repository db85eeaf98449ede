"""Snapshots: the open part of every table as columns, kept current by version.

Each refresh is one read transaction: `head` says at which version every table last changed, tables that did not are
skipped without a query, and of the others the rows with a version above ours are read. Final workloads and closed
allocations leave. A refresh builds the next state beside the old one, so a failure in the middle changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa

from mainstay.domain.affinity import NO_TRAITS, NodeNeed, NodeTraits, Restriction, Traits
from mainstay.domain.allocation import Owner
from mainstay.domain.arrays import Bools
from mainstay.domain.billing import Price
from mainstay.domain.capacity import not_ready
from mainstay.domain.flavor import NodeFlavor
from mainstay.domain.fleet import ClusterRecord
from mainstay.domain.history import NO_HISTORY, NOTHING_USED, HistoryPolicy, HistoryTable
from mainstay.domain.image import NodeImages
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import ANY_GPU, Resources
from mainstay.domain.queue import QueueTree, tree_of
from mainstay.domain.reason import Reason
from mainstay.domain.registry import Endpoint
from mainstay.domain.snapshot import (
    NO_LIMIT,
    NOBODY,
    ONE_QUEUE,
    PODS,
    AllocationTable,
    NodeTable,
    Snapshot,
    WorkloadTable,
)
from mainstay.domain.topology import Level, TopologyNeed, levels_of
from mainstay.domain.volume import REACH_PREFIX, VolumeNeed, VolumeRecord, VolumeRef
from mainstay.domain.workload import Phase, PodSet, submitter_of
from mainstay.store import bills, codec, codec_fleet, history, needs, queries, tables
from mainstay.store.changed import Reader
from mainstay.store.columns import Column, Delta, columns_of, empty, joined, merged
from mainstay.store.engine import Database
from mainstay.store.rows import HeadRow

T = TypeVar("T")


class SnapshotCache:
    """The last state read from one database. Thread-safe; one refresh at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._state = State()
        self.rows_read = 0
        """Rows fetched so far, to see that a refresh costs what changed."""

    def snapshot(self, *, now: int, seed: int, fresh: bool = True) -> Snapshot:
        """The world of the last commit; if it need not be `fresh`, that of the last look, if there was one."""
        state = self._state
        if not fresh and state.version >= 0:
            return state.snapshot(now=now, seed=seed)
        with self._turn:
            self._state = self._database.read(self._refreshed)
            return self._state.snapshot(now=now, seed=seed)

    def _refreshed(self, connection: sa.Connection) -> State:
        state = self._state
        head = queries.head(connection)
        if head["version"] == state.version:
            return state
        reader = Reader(connection, state)
        if head["nodes_at"] > state.version:
            state = _with_clusters(_with_nodes(state, reader), queries.clusters(connection))
        if head["workloads_at"] > state.version:
            state = _with_workloads(state, reader)
        if max(head["nodes_at"], head["workloads_at"]) > state.version:
            state = needs.with_needs(state, _restrictions(state, reader))
        if head["allocations_at"] > state.version:
            state = _with_allocations(state, reader)
        if head["endpoints_at"] > state.version:
            state = replace(state, endpoints=queries.all_endpoints(connection))
        if head["volumes_at"] > state.version:
            state = replace(state, volumes=_volumes(queries.all_volumes(connection)))
        if head["prices_at"] > state.version:
            state = replace(state, prices=bills.prices(connection))
        state = _with_tree(state, reader, head)
        self.rows_read += reader.rows_read
        return replace(
            state,
            version=head["version"],
            gpu_models=reader.gpu_models.words,
            cluster_names=reader.cluster_names.words,
            restriction_texts=reader.restrictions.words,
            restrictions=_restrictions(state, reader),
            volume_needs=reader.volume_needs.words,
            topologies=reader.topologies.words,
            images=reader.images.words,
            queue_names=reader.queue_names.words,
            submitters=reader.submitters.words,
        )


def _restrictions(state: State, reader: Reader) -> tuple[Restriction, ...]:
    """Those that are new are read."""
    known, texts = state.restrictions, reader.restrictions.words
    return (*known, *map(codec.restriction_of, texts[len(known) :]))


NO_IMAGES: Mapping[str, int] = MappingProxyType({})
_NODE = (
    *("key", "version", "ready", "cpu_milli", "memory_bytes", "gpus"),
    *("used_cpu_milli", "used_memory_bytes", "used_gpus"),
    *("whole_cpu_milli", "whole_memory_bytes", "whole_gpus"),
    *("closed_at", "closed_until", "drains", "wait_seconds"),
)
_OF_PODS = ("pods_max", "used_pods")
_BARRED = "barred"
_NOT_SHOWN = frozenset({*_OF_PODS, _BARRED, "traits", "images"})
_WORKLOAD = (
    *("key", "version", "kind", "phase", "priority", "attempt", "submitted_at", "not_before", "started_at"),
    *(
        "stop_requested",
        "held",
        "preemptible",
        "nodes",
        "nodes_min",
        "nodes_max",
        "cpu_milli",
        "memory_bytes",
        "gpus",
        "max_duration_seconds",
        "usual_seconds",
        "typical_seconds",
        "spread_permille",
        "stop_grace_seconds",
        "checkpoint_seconds",
    ),
    *("infrastructure_failures", "user_failures", "infrastructure_max", "user_max"),
    *("backoff_seconds", "backoff_seconds_max", "retry_always"),
)
_NUMBERED = ("image", "gpu_model", "cluster", "restriction", "queue", "topology", "volumes")
"""Text of workloads that the columns show by its number in a vocabulary."""
_KIND = _WORKLOAD.index("kind")
_ALLOCATION = (
    *("key", "version", "workload_key", "attempt", "rank", "node_key", "cpu_milli", "memory_bytes", "gpus"),
    *(
        "stop",
        "stop_asked_at",
        "moves",
        "preempted",
        "yields_to",
        "surplus",
        "seen",
        "ready",
        "created_at",
        "started_at",
        "ended_at",
        "metered_until",
        "ending",
        "exit_code",
    ),
)
_FLAGS = frozenset(
    {"ready", "stop_requested", "held", "preemptible", "retry_always", "stop", "moves", "surplus", "drains", _BARRED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything a snapshot shows, at one version. Mappings are replaced when they change, never edited."""

    version: int = -1
    gpu_models: tuple[str, ...] = (ANY_GPU,)
    nodes: Mapping[str, Column] = field(
        default_factory=lambda: empty((*_NODE, *_OF_PODS, _BARRED, "gpu_model", "traits", "images"), flags=_FLAGS)
    )
    node_names: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Key -> (name, cluster), in the order of the rows."""
    names: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    node_admits: Mapping[int, str] = field(default_factory=dict)
    """Key -> the restrictions that the node meets, for those that meet any."""
    trait_digests: tuple[str, ...] = ("",)
    """Of the traits that nodes have, by the number in the column `traits` of `nodes`."""
    traits: tuple[Traits, ...] = (NO_TRAITS,)
    """The same, read."""
    node_images: tuple[str, ...] = ("",)
    """As rows have them, by the number in the column `images` of `nodes`."""
    has_images: tuple[Mapping[str, int], ...] = (NO_IMAGES,)
    """The same, read."""
    images: tuple[str, ...] = ("",)
    """Those that workloads have asked for, by the number in their column."""
    needs_of: Column = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """The column of traits by which `needs` were worked out."""
    needs: Mapping[NodeNeed, Bools] = field(default_factory=dict)
    """Of those that workloads have: the nodes that meet them, whether they take work or not."""
    flavors: tuple[NodeFlavor, ...] = ()
    """Of nodes, in their order."""
    flavor: Column | None = None
    """Number of each node's, from 1; 0: of none. None where there are no flavors."""
    flavor_by: Column = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """The column of traits by which that was worked out."""
    node_topology: Mapping[int, str] = field(default_factory=dict)
    """Key -> in which domains the node is, for those of which it is known."""
    levels: Mapping[str, Level] = field(default_factory=dict)
    node_shapes: Mapping[int, tuple[str, str, str]] = field(default_factory=dict)
    """Key -> how many slices of which shape the node has, and how many are used; for those that have or had any."""
    closed_nodes: Mapping[int, Reason] = field(default_factory=dict)
    """Key -> why it takes nothing new by itself, as far as somebody says so: what is no longer reported is not among them."""
    kept_out: frozenset[int] = frozenset()
    """Keys of the nodes that somebody keeps out."""
    workloads: Mapping[str, Column] = field(
        default_factory=lambda: empty((*_WORKLOAD, "submitter", *_NUMBERED), flags=_FLAGS)
    )
    choices: Mapping[int, tuple[Resources, ...]] = field(default_factory=dict)
    sets: Mapping[int, tuple[PodSet, ...]] = field(default_factory=dict)
    equals: Mapping[int, int] = field(default_factory=dict)
    typical_on: Mapping[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    nominations: Mapping[int, Nomination] = field(default_factory=dict)
    displaced_by: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    allocations: Mapping[str, Column] = field(default_factory=lambda: empty((*_ALLOCATION, "gpu_model"), flags=_FLAGS))
    owners: Mapping[int, tuple[str, str, str]] = field(default_factory=dict)
    addresses: Mapping[int, str] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    prices: tuple[Price, ...] = ()
    observed: Mapping[str, int] = field(default_factory=dict)
    closed: Mapping[str, Reason] = field(default_factory=dict)
    open_: Column = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    """Whether each node is ready, nobody keeps it out, and its cluster takes work."""
    closed_at: Column = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    barred: Bools = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    """Whether each would be that if nothing but its taints kept it from it."""
    admits: Mapping[Restriction, Bools] = field(default_factory=dict)
    """Restriction -> the same for what it restricts."""
    meets: Mapping[Restriction, Bools] = field(default_factory=dict)
    """Whether it takes work or not."""
    reaches: Mapping[str, Bools] = field(default_factory=dict)
    volumes: Mapping[VolumeRef, tuple[VolumeRecord, ...]] = field(default_factory=dict)
    shapes: Mapping[str, Column] = field(default_factory=dict)
    used_shapes: Mapping[str, Column] = field(default_factory=dict)
    whole_shapes: Mapping[str, Column] = field(default_factory=dict)
    node_others: Mapping[str, Column] = field(default_factory=dict)
    used_others: Mapping[str, Column] = field(default_factory=dict)
    cluster_names: tuple[str, ...] = ("",)
    restriction_texts: tuple[str, ...] = ("",)
    """As rows have them, by the number in the column of the workloads."""
    restrictions: tuple[Restriction, ...] = ("",)
    """The same, read."""
    volume_needs: tuple[VolumeNeed | None, ...] = (None,)
    topologies: tuple[TopologyNeed | None, ...] = (None,)
    queues: QueueTree = ONE_QUEUE
    history_policy: HistoryPolicy = NO_HISTORY
    history: HistoryTable = NOTHING_USED
    queue_names: tuple[str, ...] = ()
    """Those that workloads have named, by the number in their column, whether anybody has defined them or not."""
    queue: Column = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Row of each workload's queue in the tree."""
    submitters: tuple[str, ...] = (NOBODY,)

    def snapshot(self, *, now: int, seed: int) -> Snapshot:
        """This state as a decision reads it. No copy."""
        return Snapshot(
            now=now,
            seed=seed,
            version=self.version,
            gpu_models=self.gpu_models,
            nodes=NodeTable(
                **{name: column for name, column in self.nodes.items() if name not in _NOT_SHOWN}
                | {"ready": self.open_, "closed_at": self.closed_at},
                admits=self.admits,
                meets=self.meets,
                traits=NodeTraits(number=self.nodes["traits"], each=self.traits, barred=self.barred),
                flavor=self.flavor,
                images=NodeImages(number=self.nodes["images"], each=self.has_images),
                reaches=self.reaches,
                shapes=self.shapes,
                used_shapes=self.used_shapes,
                whole_shapes=self.whole_shapes,
                others=self.node_others,
                used_others=self.used_others,
                levels=self.levels,
                names=self.names,
                clusters=self.clusters,
            ),
            workloads=WorkloadTable(
                **{**self.workloads, "queue": self.queue},
                choices=self.choices,
                others={},
                sets=self.sets,
                equals=self.equals,
                typical_on=self.typical_on,
            ),
            allocations=AllocationTable(
                **{"end" if name == "ending" else name: column for name, column in self.allocations.items()}
            ),
            endpoints=self.endpoints,
            prices=self.prices,
            owners=self.owners,
            addresses=self.addresses,
            observed=self.observed,
            flavors=("", *(one.name for one in self.flavors)),
            queues=self.queues,
            history_policy=self.history_policy,
            history=self.history,
            cluster_names=self.cluster_names,
            restrictions=self.restrictions,
            volume_needs=self.volume_needs,
            submitters=self.submitters,
            topologies=self.topologies,
            images=self.images,
            volumes=self.volumes,
            nominations=self.nominations,
            displaced_by=self.displaced_by,
            closed_clusters=self.closed,
            closed_nodes=self.closed_nodes,
        )


def _with_nodes(state: State, reader: Reader) -> State:
    table = tables.nodes
    texts = (
        *("gpu_model", "name", "cluster", "admits", "topology", "shapes", "used_shapes", "whole_shapes", "images"),
        *("closure", "closure_reason", "problem"),
    )
    whole = (*_NODE, *_OF_PODS, _BARRED)
    query = _select(table, whole, *texts, "traits")
    rows = [row for chunk in reader.chunks(query, open_=sa.true()) for row in chunk]
    gpu_model, name, cluster, admits, topology, shapes, used_shapes, whole_shapes, images, *_ = (
        len(whole) + offset for offset in range(len(texts))
    )
    columns = columns_of(rows, whole, flags=_FLAGS)
    columns["gpu_model"] = reader.gpu_models.numbered([row[gpu_model] for row in rows])
    # Also those that nobody has asked for by their name: whoever asks for a part of a GPU may be given one.
    for text in sorted({row[at] for row in rows for at in (shapes, whole_shapes)} - {""}):
        reader.gpu_models.numbered(sorted(codec.counts_of(text)))
    columns["images"] = reader.node_images.numbered([row[images] for row in rows])
    columns["traits"] = reader.traits.numbered([row[-1] for row in rows])
    delta = Delta(columns=columns, keep=np.ones(len(rows), dtype=np.bool_))
    node_admits = {
        **state.node_admits,
        **{row[0]: row[admits] for row in rows if row[admits] or row[0] in state.node_admits},
    }
    node_shapes = {
        **state.node_shapes,
        **{
            row[0]: (row[shapes], row[used_shapes], row[whole_shapes])
            for row in rows
            if row[whole_shapes] or row[0] in state.node_shapes
        },
    }
    state = replace(
        state,
        nodes=merged(state.nodes, delta),
        node_admits=node_admits,
        node_shapes=node_shapes,
        **_closures(state, rows),
    )
    state = needs.with_images(needs.with_traits(state, reader), reader)
    new = {row[0]: (row[name], row[cluster]) for row in rows if row[0] not in state.node_names}
    state = _with_names(state, new) if new else state
    return _with_levels(state, {row[0]: row[topology] for row in rows}, grown=bool(new))


def _closures(state: State, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Why nodes that changed take nothing new by themselves, and which of them somebody keeps out. `Any`: two kinds of fields."""
    why, kept_out = dict(state.closed_nodes), set(state.kept_out)
    ready, name = _NODE.index("ready"), len(_NODE) + len(_OF_PODS) + 2
    for row in rows:
        key, (closure, reason, problem) = row[0], row[-4:-1]
        why.pop(key, None)
        kept_out.discard(key)
        if closure:
            why[key] = codec.reason_of(reason)
            kept_out.add(key)
        elif problem and not row[ready]:
            why[key] = not_ready(row[name], problem)
    return {"closed_nodes": why, "kept_out": frozenset(kept_out)}


def _with_clusters(state: State, rows: Sequence[ClusterRecord]) -> State:
    """Nodes that somebody keeps out, and those of a cluster that takes no work, are as good as not ready."""
    closed = {row.name: row.reason for row in rows if not row.takes_work}
    ready, keys = state.nodes["ready"], state.nodes["key"]
    takes = np.array([cluster not in closed for cluster in state.clusters], dtype=np.bool_)
    kept_out = np.zeros(keys.size, dtype=np.bool_)
    if state.kept_out:
        kept_out = np.isin(keys, np.fromiter(state.kept_out, dtype=np.int64))
    if closed or state.kept_out:
        takes &= ~kept_out
        ready = ready & takes
        ready.flags.writeable = False
    shapes, used_shapes, whole_shapes = _shapes(state)
    others, used_others = _others(state)
    barred = state.nodes[_BARRED] & takes
    barred.flags.writeable = False
    met = _admits(state)
    return replace(
        state,
        open_=ready,
        barred=barred,
        closed_at=np.where(kept_out, state.nodes["closed_at"], 0),
        shapes=shapes,
        used_shapes=used_shapes,
        whole_shapes=whole_shapes,
        node_others=others,
        used_others=used_others,
        admits={name: mask & takes for name, mask in met.items() if not name.startswith(REACH_PREFIX)},
        meets={name: mask for name, mask in met.items() if not name.startswith(REACH_PREFIX)},
        reaches={name: mask for name, mask in met.items() if name.startswith(REACH_PREFIX)},
        closed=closed,
        observed={row.name: row.observed_at for row in rows},
    )


def _admits(state: State) -> dict[str, Bools]:
    """By restriction, or what volumes ask for, the nodes that meet it. O(nodes x restrictions in use)."""
    masks: dict[str, Bools] = {}
    keys = state.nodes["key"]
    for key, admits in state.node_admits.items():
        row = int(np.searchsorted(keys, key))
        for restriction in admits.split():
            masks.setdefault(restriction, np.zeros(keys.size, dtype=np.bool_))[row] = True
    return masks


def _shapes(state: State) -> tuple[dict[str, Column], dict[str, Column], dict[str, Column]]:
    """By shape, how many slices each node gives, how many are used, and how many there are at all.

    O(nodes x shapes), for those that have any.
    """
    keys = state.nodes["key"]
    have: dict[str, Column] = {}
    used: dict[str, Column] = {}
    whole: dict[str, Column] = {}
    for key, texts in state.node_shapes.items():
        row = int(np.searchsorted(keys, key))
        for columns, text in zip((have, used, whole), texts, strict=True):
            for shape, count in codec.counts_of(text).items():
                columns.setdefault(shape, np.zeros(keys.size, dtype=np.int64))[row] = count
    nothing = np.zeros(keys.size, dtype=np.int64)
    return have, {shape: used.get(shape, nothing) for shape in have}, whole


def _others(state: State) -> tuple[dict[str, Column], dict[str, Column]]:
    """How many pods each node takes and has; nothing where no node has a limit. O(nodes)."""
    most, used = (state.nodes[name] for name in _OF_PODS)
    known = most != codec_fleet.NO_LIMIT
    return ({PODS: np.where(known, most, NO_LIMIT)}, {PODS: used}) if known.any() else ({}, {})


def _with_names(state: State, new: Mapping[int, tuple[str, str]]) -> State:
    """Nodes are never taken away, so the names only become more."""
    known = {**state.node_names, **new}
    named = {key: known[key] for key in state.nodes["key"].tolist()}
    return replace(
        state,
        node_names=named,
        names=tuple(name for name, _ in named.values()),
        clusters=tuple(cluster for _, cluster in named.values()),
    )


def _with_levels(state: State, changed: Mapping[int, str], *, grown: bool) -> State:
    """Where nodes are is worked out again only if one of them is somewhere else, or some are new: it costs O(nodes x levels)."""
    moved = any(places != state.node_topology.get(key, "") for key, places in changed.items())
    if not moved and not (grown and state.node_topology):
        return state
    known = {key: places for key, places in {**state.node_topology, **changed}.items() if places}
    said = [codec_fleet.places_of(known.get(key, "")) for key in state.nodes["key"].tolist()]
    return replace(state, node_topology=known, levels=levels_of(state.clusters, said))


def _with_workloads(state: State, reader: Reader) -> State:
    table = tables.workloads
    yielding = ("nominated", "nominated_until", "displaced_by")
    more = (*yielding, "typical_on", "submitted_by")
    query = _select(table, _WORKLOAD, "choices_count", *more, *_NUMBERED, "tenant", "project")
    nominations, displaced_by = dict(state.nominations), dict(state.displaced_by)
    told = dict[int, str]()
    at = len(_WORKLOAD) + 1
    parts = [columns_of((), (*_WORKLOAD, "choices_count", "submitter", *_NUMBERED), flags=_FLAGS)]
    for rows in reader.chunks(query, open_=table.c.phase < int(Phase.SUCCEEDED)):
        part = columns_of(rows, (*_WORKLOAD, "choices_count"), flags=_FLAGS)
        part["image"] = reader.images.numbered([row[-9] for row in rows])
        part["submitter"] = reader.submitters.numbered([_submitter(row, row[at + 4]) for row in rows])
        part["gpu_model"] = reader.gpu_models.numbered([row[-8] for row in rows])
        part["cluster"] = reader.cluster_names.numbered([row[-7] for row in rows])
        part["restriction"] = reader.restrictions.numbered([row[-6] for row in rows])
        part["queue"] = reader.queue_names.numbered([row[-5] for row in rows])
        part["topology"] = reader.topologies.numbered([codec.need_of(row[-4]) for row in rows])
        part["volumes"] = reader.volume_needs.numbered([_need(*row[-3:]) for row in rows])
        _yielding(rows, at, nominations, displaced_by)
        told.update((row[0], row[at + 3]) for row in rows if row[at + 3])
        parts.append(part)
    columns = joined(parts)
    several = columns.pop("choices_count") > 1
    delta = Delta(columns=columns, keep=columns["phase"] < int(Phase.SUCCEEDED))
    gone = delta.key[~delta.keep].tolist()
    for key in gone:
        nominations.pop(key, None)
        displaced_by.pop(key, None)
    state = _with_requests(state, reader, delta, several=several, told=told)
    return replace(
        state,
        workloads=merged(state.workloads, delta),
        nominations=nominations if nominations != state.nominations else state.nominations,
        displaced_by=displaced_by if displaced_by != state.displaced_by else state.displaced_by,
    )


def _yielding(
    rows: Sequence[Sequence[Any]], at: int, nominations: dict[int, Nomination], displaced_by: dict[int, tuple[int, ...]]
) -> None:
    """Of those that changed: what is kept for them, and for whom they were displaced. `at`: the first of these columns."""
    for row in rows:
        key, (nominated, until, displaced) = row[0], row[at : at + 3]
        nominations.pop(key, None)
        if nominated:
            nominations[key] = codec.nomination_of(nominated, until)
        if displaced:
            displaced_by[key] = codec.keys_of(displaced)
        else:
            displaced_by.pop(key, None)


def _submitter(row: Sequence[Any], submitted_by: str) -> str:
    """Of a row that ends with tenant and project."""
    kind = codec.KINDS[row[_KIND]]
    return submitter_of(tenant=row[-2], project=row[-1], submitted_by=submitted_by, kind=kind)


def _need(names: str, tenant: str, project: str) -> VolumeNeed | None:
    return VolumeNeed(owner=Owner(tenant=tenant, project=project), names=tuple(names.split())) if names else None


def _volumes(records: Sequence[VolumeRecord]) -> Mapping[VolumeRef, tuple[VolumeRecord, ...]]:
    found: dict[VolumeRef, tuple[VolumeRecord, ...]] = {}
    for record in records:
        volume = VolumeRef(owner=record.state.owner, name=record.state.name)
        found[volume] = (*found.get(volume, ()), record)
    return found


def _with_tree(state: State, reader: Reader, head: HeadRow) -> State:
    """The tree of queues, the queue of each workload, what queues have used lately, and the flavors of nodes."""
    connection, flavors = reader.connection, state.flavors
    if head["queues_at"] > state.version:
        flavors = tuple(row.flavor for row in queries.node_flavors(connection))
        queues = tree_of(row.queue for row in queries.queues(connection))
        state = replace(state, queues=queues, history_policy=history.history_policy(connection).policy)
    if max(head["workloads_at"], head["queues_at"]) > state.version:
        state = _with_queues(state, reader.queue_names.words)
    if max(head["allocations_at"], head["queues_at"]) > state.version:
        past = history.history_table(connection, state.history_policy, state.queues)
        state = replace(state, history=past)
    return needs.with_flavors(state, flavors)


def _with_queues(state: State, names: Sequence[str]) -> State:
    """The queue of each workload."""
    queue = history.rows_of(state.queues, names)[state.workloads["queue"]]
    queue.flags.writeable = False
    return replace(state, queue=queue)


def _with_requests(state: State, reader: Reader, delta: Delta, *, several: Column, told: Mapping[int, str]) -> State:
    """The choices and the pod sets of those that have several, which are few: for them alone the specification is read, once.
    `told`: of these what their runs take on kinds of GPUs.
    """
    known = state.choices.keys() | state.sets.keys()
    new = [key for key in delta.key[several & delta.keep].tolist() if key not in known]
    gone = known & set(delta.key[several & ~delta.keep].tolist())
    if not new and not gone:
        return state
    read = {key: codec.requests_of(text) for key, text in queries.specifications(reader.connection, new)}
    typical = {key: codec.typical_of(told[key]) for key in new if key in told}

    def now(before: Mapping[int, T], more: Mapping[int, T]) -> Mapping[int, T]:
        return {key: value for key, value in {**before, **more}.items() if key not in gone}

    return replace(
        state,
        choices=now(
            state.choices, {key: found.choices for key, found in read.items() if found.columns_tell_too_little}
        ),
        sets=now(state.sets, {key: found.sets for key, found in read.items() if found.sets}),
        equals=now(state.equals, {key: found.equals for key, found in read.items() if found.equals > 1}),
        typical_on=now(state.typical_on, typical),
    )


def _with_allocations(state: State, reader: Reader) -> State:
    table = tables.allocations
    query = _select(table, _ALLOCATION, "closed", "gpu_model", "tenant", "project", "workload", "address")
    at = len(_ALLOCATION)
    parts = [columns_of((), (*_ALLOCATION, "closed", "gpu_model"), flags=_FLAGS)]
    owners: dict[int, tuple[str, str, str]] = {}
    addresses: dict[int, str] = {}
    workload_key = _ALLOCATION.index("workload_key")
    for rows in reader.chunks(query, open_=table.c.closed == 0):
        part = columns_of(rows, (*_ALLOCATION, "closed"), flags=_FLAGS)
        part["gpu_model"] = reader.gpu_models.numbered([row[at + 1] for row in rows])
        parts.append(part)
        owners.update((row[workload_key], (row[at + 2], row[at + 3], row[at + 4])) for row in rows)
        addresses.update((row[0], row[at + 5]) for row in rows)
    columns = joined(parts)
    keep = columns.pop("closed") == 0
    delta = Delta(columns=columns, keep=keep)
    allocations = merged(state.allocations, delta)
    return replace(
        state,
        allocations=allocations,
        owners=_owners(state.owners, owners, delta, allocations["workload_key"]),
        addresses=_addresses(state.addresses, addresses, gone=delta.key[~keep].tolist()),
    )


def _owners(
    before: Mapping[int, tuple[str, str, str]],
    changed: Mapping[int, tuple[str, str, str]],
    delta: Delta,
    remaining: Column,
) -> Mapping[int, tuple[str, str, str]]:
    """Those of the workloads that still have an allocation. The same mapping if none came or went."""
    left = delta.columns["workload_key"][~delta.keep]
    gone = set(left[~np.isin(left, remaining)].tolist())
    if not gone and changed.keys() <= before.keys():
        return before
    return {key: owner for key, owner in {**before, **changed}.items() if key not in gone}


def _addresses(before: Mapping[int, str], changed: Mapping[int, str], *, gone: Sequence[int]) -> Mapping[int, str]:
    """The addresses that are not empty. The same mapping if none changed."""
    changes = {**changed, **dict.fromkeys(gone, "")}
    if all(before.get(key, "") == address for key, address in changes.items()):
        return before
    return {key: address for key, address in {**before, **changes}.items() if address}


def _select(table: sa.Table, *names: tuple[str, ...] | str) -> sa.Select[Any]:
    flat = [name for part in names for name in (part if isinstance(part, tuple) else (part,))]
    return sa.select(*(table.c[name] for name in flat))
