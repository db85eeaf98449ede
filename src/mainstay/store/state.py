"""All that is known of the open part of every table, as columns: what a snapshot shows, and what the next refresh needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import sqlalchemy as sa

from mainstay.domain.affinity import NO_TRAITS, NodeNeed, NodeTraits, Restriction, Traits
from mainstay.domain.arrays import Bools
from mainstay.domain.billing import Price
from mainstay.domain.flavor import NodeFlavor
from mainstay.domain.gpu import SHARED_SUFFIX
from mainstay.domain.history import NO_HISTORY, NOTHING_USED, HistoryPolicy, HistoryTable
from mainstay.domain.image import NodeImages
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import ANY_GPU, Resources
from mainstay.domain.queue import QueueTree
from mainstay.domain.reason import Reason
from mainstay.domain.registry import Endpoint
from mainstay.domain.snapshot import (
    NOBODY,
    ONE_QUEUE,
    AllocationTable,
    NodeTable,
    Snapshot,
    WorkloadTable,
)
from mainstay.domain.topology import Level, TopologyNeed
from mainstay.domain.volume import VolumeNeed, VolumeRecord, VolumeRef
from mainstay.domain.workload import PodSet
from mainstay.store.columns import Column, empty

NO_IMAGES: Mapping[str, int] = MappingProxyType({})
NODE = (
    *("key", "version", "ready", "cpu_milli", "memory_bytes", "gpus"),
    *("used_cpu_milli", "used_memory_bytes", "used_gpus"),
    *("whole_cpu_milli", "whole_memory_bytes", "whole_gpus"),
    *("closed_at", "closed_until", "drains", "wait_seconds"),
)
OF_PODS = ("pods_max", "used_pods")
BARRED = "barred"
_NOT_SHOWN = frozenset({*OF_PODS, BARRED, "traits", "images"})
WORKLOAD = (
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
    *("infrastructure_failures", "user_failures", "infrastructure_max", "user_max", "attempts_max"),
    *("backoff_seconds", "backoff_seconds_max", "retry_always"),
)
NUMBERED = ("image", "gpu_model", "cluster", "restriction", "queue", "topology", "volumes")
"""Text of workloads that the columns show by its number in a vocabulary."""
KIND = WORKLOAD.index("kind")
ALLOCATION = (
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
FLAGS = frozenset(
    {"ready", "stop_requested", "held", "preemptible", "retry_always", "stop", "moves", "surplus", "drains", BARRED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything a snapshot shows, at one version. Mappings are replaced when they change, never edited."""

    version: int = -1
    gpu_models: tuple[str, ...] = (ANY_GPU,)
    nodes: Mapping[str, Column] = field(
        default_factory=lambda: empty((*NODE, *OF_PODS, BARRED, "gpu_model", "traits", "images"), flags=FLAGS)
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
        default_factory=lambda: empty((*WORKLOAD, "submitter", *NUMBERED), flags=FLAGS)
    )
    choices: Mapping[int, tuple[Resources, ...]] = field(default_factory=dict)
    sets: Mapping[int, tuple[PodSet, ...]] = field(default_factory=dict)
    equals: Mapping[int, int] = field(default_factory=dict)
    typical_on: Mapping[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    nominations: Mapping[int, Nomination] = field(default_factory=dict)
    displaced_by: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    allocations: Mapping[str, Column] = field(default_factory=lambda: empty((*ALLOCATION, "gpu_model"), flags=FLAGS))
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
    several_tenants: bool = False
    """Jobs of one could lie beside those of another."""
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
                shapes=self._given(self.shapes),
                used_shapes=self.used_shapes,
                whole_shapes=self._given(self.whole_shapes),
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

    def _given(self, shapes: Mapping[str, Column]) -> Mapping[str, Column]:
        """As many of each shape as jobs may have. Shares in time have no wall between them: with several tenants there are none.

        Source: security.md A8. What runs on some runs on.
        """
        if not self.several_tenants:
            return shapes
        return {
            name: np.zeros_like(column) if name.endswith(SHARED_SUFFIX) else column for name, column in shapes.items()
        }


def columns_query(table: sa.Table, *names: tuple[str, ...] | str) -> sa.Select[Any]:
    """These columns of a table, in this order."""
    flat = [name for part in names for name in (part if isinstance(part, tuple) else (part,))]
    return sa.select(*(table.c[name] for name in flat))
