"""The nodes that have changed, and their clusters, on top of the state before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from mainstay.domain.arrays import Bools
from mainstay.domain.capacity import not_ready
from mainstay.domain.fleet import ClusterRecord
from mainstay.domain.snapshot import NO_LIMIT, PODS
from mainstay.domain.topology import levels_of
from mainstay.domain.volume import REACH_PREFIX
from mainstay.store import codec, codec_fleet, needs, tables
from mainstay.store.changed import Reader
from mainstay.store.columns import Column, Delta, columns_of, merged
from mainstay.store.state import BARRED, FLAGS, NODE, OF_PODS, State, columns_query


def with_nodes(state: State, reader: Reader) -> State:
    """What has changed of nodes. O(nodes that changed), and one pass over all where some are new or lie elsewhere."""
    table = tables.nodes
    texts = (
        *("gpu_model", "name", "cluster", "admits", "topology", "shapes", "used_shapes", "whole_shapes", "images"),
        *("closure", "closure_reason", "problem"),
    )
    whole = (*NODE, *OF_PODS, BARRED)
    query = columns_query(table, whole, *texts, "traits")
    rows = [row for chunk in reader.chunks(query, open_=sa.true()) for row in chunk]
    gpu_model, name, cluster, admits, topology, shapes, used_shapes, whole_shapes, images, *_ = (
        len(whole) + offset for offset in range(len(texts))
    )
    columns = columns_of(rows, whole, flags=FLAGS)
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
    ready, name = NODE.index("ready"), len(NODE) + len(OF_PODS) + 2
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


def with_clusters(state: State, rows: Sequence[ClusterRecord]) -> State:
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
    barred = state.nodes[BARRED] & takes
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
    most, used = (state.nodes[name] for name in OF_PODS)
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
