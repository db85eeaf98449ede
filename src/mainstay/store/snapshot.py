"""Snapshots: the open part of every table as columns, kept current by version.

Each refresh is one read transaction: `head` says at which version every table last changed, tables that did not are
skipped without a query, and of the others the rows with a version above ours are read. Final workloads and closed
allocations leave. A refresh builds the next state beside the old one, so a failure in the middle changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa

from mainstay.domain.affinity import Restriction
from mainstay.domain.allocation import Owner
from mainstay.domain.preemption import Nomination
from mainstay.domain.queue import tree_of
from mainstay.domain.snapshot import (
    Snapshot,
)
from mainstay.domain.volume import VolumeNeed, VolumeRecord, VolumeRef
from mainstay.domain.workload import Phase, submitter_of
from mainstay.store import bills, codec, history, needs, queries, tables
from mainstay.store.changed import Reader
from mainstay.store.columns import Column, Delta, columns_of, joined, merged
from mainstay.store.engine import Database
from mainstay.store.node_columns import with_clusters, with_nodes
from mainstay.store.rows import HeadRow
from mainstay.store.state import (
    ALLOCATION,
    FLAGS,
    KIND,
    NUMBERED,
    WORKLOAD,
    State,
    columns_query,
)

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
            state = with_clusters(with_nodes(state, reader), queries.clusters(connection))
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


def _with_workloads(state: State, reader: Reader) -> State:
    table = tables.workloads
    yielding = ("nominated", "nominated_until", "displaced_by")
    more = (*yielding, "typical_on", "submitted_by")
    query = columns_query(table, WORKLOAD, "choices_count", *more, *NUMBERED, "tenant", "project")
    nominations, displaced_by = dict(state.nominations), dict(state.displaced_by)
    told = dict[int, str]()
    at = len(WORKLOAD) + 1
    parts = [columns_of((), (*WORKLOAD, "choices_count", "submitter", *NUMBERED), flags=FLAGS)]
    for rows in reader.chunks(query, open_=table.c.phase < int(Phase.SUCCEEDED)):
        part = columns_of(rows, (*WORKLOAD, "choices_count"), flags=FLAGS)
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
    kind = codec.KINDS[row[KIND]]
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
        policy, several = history.history_policy(connection).policy, queries.has_several_tenants(connection)
        state = replace(state, queues=queues, history_policy=policy, several_tenants=several)
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
    query = columns_query(table, ALLOCATION, "closed", "gpu_model", "tenant", "project", "workload", "address")
    at = len(ALLOCATION)
    parts = [columns_of((), (*ALLOCATION, "closed", "gpu_model"), flags=FLAGS)]
    owners: dict[int, tuple[str, str, str]] = {}
    addresses: dict[int, str] = {}
    workload_key = ALLOCATION.index("workload_key")
    for rows in reader.chunks(query, open_=table.c.closed == 0):
        part = columns_of(rows, (*ALLOCATION, "closed"), flags=FLAGS)
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
