"""Questions with one short answer. Each runs inside one consistent read; lists are paged by a key or a sequence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from operator import itemgetter
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from mainstay.domain.affinity import NO_TRAITS, Traits
from mainstay.domain.allocation import NO_PROGRESS, Allocation, Progress, Seen, Wanted
from mainstay.domain.capacity import Closure, Node
from mainstay.domain.errors import Conflict, NotFound
from mainstay.domain.flavor import NodeFlavorRecord
from mainstay.domain.fleet import ClusterRecord, Stay
from mainstay.domain.plan import AuditRow, Event
from mainstay.domain.quantity import ANY_GPU, Resources
from mainstay.domain.queue import LocalQueueRecord, PriorityClass, QueueRecord
from mainstay.domain.reason import Code
from mainstay.domain.registry import Endpoint, ModelVersion
from mainstay.domain.secret import Sealed, SecretRecord
from mainstay.domain.volume import VolumeRecord, VolumeRef
from mainstay.domain.workload import STARTING, WAITING, Kind, Phase, Workload
from mainstay.ports import EventFilter, WorkloadFilter
from mainstay.store import codec, codec_fleet, tables
from mainstay.store.rows import (
    AllocationRow,
    AuditTableRow,
    ClusterRow,
    EndpointRow,
    EventRow,
    HeadRow,
    LocalQueueRow,
    ModelRow,
    NodeFlavorRow,
    NodeRow,
    NodeTraitsRow,
    PriorityClassRow,
    QueueRow,
    SpecifiedWorkloadRow,
    VolumeRow,
)

BATCH = 5_000
T = TypeVar("T", int, str, tuple[str, str])


def head(connection: sa.Connection) -> HeadRow:
    """Version, counters and identity."""
    return cast("HeadRow", dict(connection.execute(_HEAD).mappings().one()))


def version(connection: sa.Connection) -> int:
    """The version of the last commit."""
    return int(connection.execute(_VERSION).scalar_one())


_HEAD = sa.select(tables.head)
_VERSION = sa.select(tables.head.c.version)


def specifications(connection: sa.Connection, keys: Collection[int]) -> Iterator[tuple[int, str]]:
    """(key, specification as text) of these workloads."""
    table = tables.workloads
    query = sa.select(table.c.key, table.c.spec)
    for batch in batches(keys):
        yield from ((key, text) for key, text in connection.execute(query.where(table.c.key.in_(batch))).all())


def batches(values: Collection[T]) -> Iterator[list[T]]:
    """In order, so that runs repeat, and as many at a time as one IN list takes.

    SQLite allows 32,766 parameters in a statement, PostgreSQL 65,535.
    """
    ordered = sorted(values)
    for first in range(0, len(ordered), BATCH):
        yield ordered[first : first + BATCH]


def open_workloads(connection: sa.Connection, tenant: str) -> int:
    """How many workloads of a tenant are not final."""
    table = tables.open_work
    query = sa.select(table.c.workloads).where(table.c.tenant == codec.storable(tenant))
    return connection.execute(query).scalar() or 0


def workload(
    connection: sa.Connection, reference: str, *, tenant: str, projects: tuple[str, ...] | None = None
) -> Workload:
    """By id, or the newest by name: of the jobs, else of the services, else of the guests; in one of these projects, if given.

    Raises NotFound.

    An endpoint is named after the run that made its model, unless it is told otherwise: the name means the run.
    """
    table = tables.workloads
    mine = sa.select(table).where(table.c.tenant == codec.storable(tenant))
    if projects is not None:
        mine = mine.where(table.c.project.in_(projects))
    text = codec.storable(reference)
    by_name = mine.where(table.c.name == text).order_by(table.c.key.desc()).limit(1)
    by_kind = (by_name.where(table.c.kind == codec.KINDS.index(kind)) for kind in (Kind.JOB, Kind.SERVICE, Kind.POD))
    wanted = (mine.where(table.c.id == text), *by_kind)
    found = next((rows for query in wanted if (rows := fetch(connection, query))), None)
    if not found:
        msg = f"no such workload: {text}"
        raise NotFound(msg, object_=text, hint="list them with: mainstay ps -a")
    return _explained(connection, found)[0]


def workloads(connection: sa.Connection, which: WorkloadFilter, *, before: int, limit: int) -> tuple[Workload, ...]:
    """Newest first."""
    table = tables.workloads
    query = sa.select(table).order_by(table.c.key.desc()).limit(limit)
    if before:
        query = query.where(table.c.key < before)
    for column, value in ((table.c.tenant, which.tenant), (table.c.project, which.project), (table.c.name, which.name)):
        if value:
            query = query.where(column == codec.storable(value))
    if which.projects is not None:
        query = query.where(table.c.project.in_(which.projects))
    if which.phases:
        query = query.where(table.c.phase.in_([int(phase) for phase in which.phases]))
    if which.phases and not any(phase.final for phase in which.phases):
        # Says nothing new to us, but it is what SQLite must read to take the index of what is open.
        query = query.where(table.c.phase < sa.literal_column(str(int(Phase.SUCCEEDED))))
    return _explained(connection, fetch(connection, query))


def _explained(connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> tuple[Workload, ...]:
    """With what the cluster says of a pod that does not start, is in trouble or failed: decisions know codes and figures, no
    words.
    """
    found = tuple(codec.workload_of(cast("SpecifiedWorkloadRow", row)) for row in rows)
    asked = {row.key: row for row in found if row.phase in _WITH_WORDS or row.reason.code in _OF_ONE_POD}
    if not asked:
        return found
    table = tables.allocations
    query = sa.select(table.c.workload_key, table.c.attempt, table.c.rank, table.c.seen, table.c.detail)
    query = query.where(table.c.workload_key.in_(asked), table.c.detail != "").order_by(table.c.rank.desc())
    said = {
        pod["workload_key"]: pod["detail"]
        for pod in fetch(connection, query)
        if _is_meant(asked[pod["workload_key"]], attempt=pod["attempt"], rank=pod["rank"], seen=Seen(pod["seen"]))
    }
    return tuple(_with_detail(row, said[row.key]) if row.key in said else row for row in found)


_WITH_WORDS = frozenset({*STARTING, Phase.RUNNING})
_OF_ONE_POD = frozenset({Code.START_FAILED, Code.OUTPUT_NOT_STORED, Code.COPY_REFUSED, Code.USER_FAILURE})


def _is_meant(workload: Workload, *, attempt: int, rank: int, seen: Seen) -> bool:
    """Whether the words for a pod are the reason of its workload."""
    if attempt != workload.attempt:
        return False
    if workload.phase in STARTING:
        return seen in {Seen.PULLING, Seen.STARTING}
    if workload.phase is Phase.RUNNING and workload.reason.code not in _OF_ONE_POD:
        return seen is Seen.RUNNING
    return rank == workload.reason.numbers.get("rank")


def _with_detail(workload: Workload, detail: str) -> Workload:
    reason = workload.reason
    return replace(workload, reason=replace(reason, numbers={**reason.numbers, "detail": detail}))


def allocations(connection: sa.Connection, workload_key: int) -> tuple[Allocation, ...]:
    """Of one workload, by attempt and rank."""
    table = tables.allocations
    query = sa.select(table).where(table.c.workload_key == workload_key).order_by(table.c.attempt, table.c.rank)
    return allocations_of(connection, query)


def progress(connection: sa.Connection, workload_keys: Collection[int]) -> dict[int, Progress]:
    """Of those that have had a place. An attempt runs from the start of its first pod to the end of its last."""
    found: dict[int, Progress] = {}
    for batch in batches(workload_keys):
        for row in connection.execute(_ATTEMPTS.where(tables.allocations.c.workload_key.in_(batch))):
            before = found.get(row.workload_key, NO_PROGRESS)
            ran = row.ended_at - row.started_at if row.started_at and not row.runs else 0
            found[row.workload_key] = Progress(
                ran_us=before.ran_us + max(0, ran),
                running_since=row.started_at if row.runs else before.running_since,
                stopping_since=row.stopping_since or before.stopping_since,
                ranks=int(row.ranks),
                has=_had(row),
            )
    return found


def _had(row: Any) -> Resources:  # of a row of `_ATTEMPTS`
    return Resources(
        cpu_milli=row.cpu_milli, memory_bytes=row.memory_bytes, gpus=row.gpus, gpu_model=row.gpu_model or ANY_GPU
    )


def _attempts() -> sa.Select[Any]:
    """One row for each attempt of each workload, in order; pods that never ran have no times."""
    pod = tables.allocations.c
    lives = pod.seen != int(Seen.ENDED)
    stops = lives & (pod.stop_asked_at > 0) & (pod.surplus == 0)
    return (
        sa.select(
            pod.workload_key,
            sa.func.coalesce(sa.func.min(sa.case((pod.started_at > 0, pod.started_at))), 0).label("started_at"),
            sa.func.max(sa.case((pod.started_at > 0, pod.ended_at), else_=0)).label("ended_at"),
            sa.func.max(sa.case((lives & (pod.started_at > 0), 1), else_=0)).label("runs"),
            sa.func.coalesce(sa.func.min(sa.case((stops, pod.stop_asked_at))), 0).label("stopping_since"),
            sa.func.sum(1 - pod.surplus).label("ranks"),
            *(
                sa.func.max(sa.case((pod.rank == 0, pod[name]), else_=nothing)).label(name)
                for name, nothing in (("cpu_milli", 0), ("memory_bytes", 0), ("gpus", 0), ("gpu_model", ""))
            ),
        )
        .group_by(pod.workload_key, pod.attempt)
        .order_by(pod.workload_key, pod.attempt)
    )


_ATTEMPTS = _attempts()


def nodes(connection: sa.Connection, *, after: tuple[str, str], limit: int) -> tuple[Node, ...]:
    """By cluster and name, without those of clusters that have left."""
    table = tables.nodes
    place = sa.tuple_(table.c.cluster, table.c.name)
    query = sa.select(table).where(place > sa.tuple_(*map(codec.storable, after)), table.c.cluster.not_in(_LEFT))
    query = query.order_by(*place).limit(limit or None)
    rows = [cast("NodeRow", row) for row in fetch(connection, query)]
    traits = node_traits(connection, {row["traits"] for row in rows})
    return tuple(codec_fleet.node_of(row, traits) for row in rows)


def node_traits(connection: sa.Connection, digests: Collection[str]) -> dict[str, Traits]:
    """Of these digests."""
    table, found = tables.node_traits, {"": NO_TRAITS}
    for batch in batches(digests):
        for row in fetch(connection, sa.select(table).where(table.c.digest.in_(batch))):
            found[row["digest"]] = codec_fleet.traits_of(cast("NodeTraitsRow", row))
    return found


def node(connection: sa.Connection, cluster: str, name: str) -> Node:
    """Raises NotFound with the nearest name as a hint, Conflict if several clusters have a node of this name."""
    table, text = tables.nodes, codec.storable(name)
    query = sa.select(table).where(table.c.cluster.not_in(_LEFT)).order_by(table.c.cluster)
    if cluster:
        query = query.where(table.c.cluster == codec.storable(cluster))
    found = fetch(connection, query.where(table.c.name == text))
    if not found:
        names = [row["name"] for row in fetch(connection, query)]
        near = get_close_matches(text, names, n=1)
        msg = f"no such node: {text}" + (f" in cluster {cluster}" if cluster else "")
        raise NotFound(
            msg, object_=text, hint=f"did you mean {near[0]}?" if near else "list them with: mainstay node list"
        )
    if len(found) > 1:
        places = ", ".join(f"{row['cluster']}/{text}" for row in found)
        msg = f"several clusters have a node {text}"
        raise Conflict(msg, object_=text, hint=f"name one of: {places}")
    (row,) = (cast("NodeRow", one) for one in found)
    return codec_fleet.node_of(row, node_traits(connection, [row["traits"]]))


def closed_nodes(connection: sa.Connection, cluster: str) -> dict[str, Closure]:
    """Those that somebody keeps out, by name."""
    table = tables.nodes
    # Literally as the index of these few has it, or SQLite does not take that.
    query = sa.select(table).where(sa.text("closure <> ''"), table.c.cluster == codec.storable(cluster))
    rows = (cast("NodeRow", row) for row in fetch(connection, query.order_by(table.c.name)))
    return {row["name"]: closure for row in rows if (closure := codec_fleet.closure_of(row)) is not None}


def allocations_on(connection: sa.Connection, node_key: int) -> tuple[Allocation, ...]:
    """Those on a node that have not ended, by key."""
    table = tables.allocations
    query = sa.select(table).where(table.c.closed == 0, table.c.node_key == node_key, table.c.seen != int(Seen.ENDED))
    return allocations_of(connection, query.order_by(table.c.key))


_LEFT = sa.select(tables.clusters.c.name).where(tables.clusters.c.wanted == Stay.REMOVED.value)


def clusters(connection: sa.Connection) -> tuple[ClusterRecord, ...]:
    """By name, removed ones too."""
    query = sa.select(tables.clusters).order_by(tables.clusters.c.name)
    return tuple(codec_fleet.cluster_of(cast("ClusterRow", row)) for row in fetch(connection, query))


def cluster(connection: sa.Connection, name: str) -> ClusterRecord:
    """Raises NotFound, also for a removed one."""
    here = {row.name: row for row in clusters(connection) if row.wanted is not Stay.REMOVED}
    text = codec.storable(name)
    if text not in here:
        msg = f"no such cluster: {text}"
        near = get_close_matches(text, here, n=1)
        hint = f"did you mean {near[0]}?" if near else "list them with: mainstay cluster list"
        raise NotFound(msg, object_=text, hint=hint)
    return here[text]


def events(
    connection: sa.Connection, *, tenant: str, workload: str, after: int, limit: int, which: EventFilter
) -> tuple[Event, ...]:
    """Oldest first. An empty tenant is the platform's own view: everybody's, and those of nodes and prices."""
    seq = tables.events.c.seq
    parts = _events_of(tenant, workload, which)
    rows = [row for part in parts for row in fetch(connection, part.where(seq > after).order_by(seq).limit(limit))]
    return _as_events(rows)[:limit]


def last_events(
    connection: sa.Connection, *, tenant: str, workload: str, limit: int, which: EventFilter
) -> tuple[Event, ...]:
    """The newest, oldest first."""
    seq = tables.events.c.seq
    parts = _events_of(tenant, workload, which)
    rows = [row for part in parts for row in fetch(connection, part.order_by(seq.desc()).limit(limit))]
    return _as_events(rows)[-limit:]


def _as_events(rows: list[dict[str, Any]]) -> tuple[Event, ...]:
    return tuple(codec.event_of(cast("EventRow", row)) for row in sorted(rows, key=itemgetter("seq")))


def audit(connection: sa.Connection, *, after: int, limit: int) -> tuple[AuditRow, ...]:
    """Oldest first."""
    table = tables.audit
    query = sa.select(table).where(table.c.seq > after).order_by(table.c.seq).limit(limit)
    return tuple(codec.audit_of(cast("AuditTableRow", row)) for row in fetch(connection, query))


def last_audit(connection: sa.Connection, *, before: int, limit: int) -> tuple[AuditRow, ...]:
    """Newest first; `before` 0: from the newest."""
    table = tables.audit
    query = sa.select(table).order_by(table.c.seq.desc()).limit(limit)
    query = query.where(table.c.seq < before) if before else query
    return tuple(codec.audit_of(cast("AuditTableRow", row)) for row in fetch(connection, query))


def queues(connection: sa.Connection) -> tuple[QueueRecord, ...]:
    """By name."""
    query = sa.select(tables.queues).order_by(tables.queues.c.name)
    return tuple(codec.queue_of(cast("QueueRow", row)) for row in fetch(connection, query))


def default_limits(connection: sa.Connection) -> dict[str, int]:
    """By name, of those that have one."""
    queue = tables.queues.c
    query = sa.select(queue.name, queue.default_max_duration_seconds).where(queue.default_max_duration_seconds > 0)
    return {row.name: row.default_max_duration_seconds for row in connection.execute(query)}


def local_queues(connection: sa.Connection) -> tuple[LocalQueueRecord, ...]:
    """By namespace and name."""
    table = tables.local_queues.c
    query = sa.select(tables.local_queues).order_by(table.namespace, table.name, table.cluster)
    return tuple(codec.local_queue_of(cast("LocalQueueRow", row)) for row in fetch(connection, query))


def node_flavors(connection: sa.Connection) -> tuple[NodeFlavorRecord, ...]:
    """In their order."""
    query = sa.select(tables.node_flavors).order_by(tables.node_flavors.c.place)
    return tuple(codec.node_flavor_of(cast("NodeFlavorRow", row)) for row in fetch(connection, query))


def queue_counts(connection: sa.Connection, *, tenant: str) -> dict[str, tuple[int, int]]:
    """Queue -> how many of its workloads wait, and how many have a place. An empty tenant: everybody's."""
    table = tables.workloads
    waits = sa.case((table.c.phase.in_([int(phase) for phase in WAITING]), 1), else_=0)
    query = sa.select(table.c.queue, sa.func.sum(waits), sa.func.count()).where(sa.text("phase < 10"))
    if tenant:
        query = query.where(table.c.tenant == codec.storable(tenant))
    found = connection.execute(query.group_by(table.c.queue))
    return {name: (int(waiting), int(all_) - int(waiting)) for name, waiting, all_ in found}


def priority_classes(connection: sa.Connection) -> tuple[PriorityClass, ...]:
    """The most urgent first, then by name."""
    table = tables.priority_classes
    query = sa.select(table).order_by(table.c.priority.desc(), table.c.name)
    return tuple(codec.priority_class_of(cast("PriorityClassRow", row)) for row in fetch(connection, query))


def model_versions(
    connection: sa.Connection, *, tenant: str, model: str, before: tuple[int, str, int] | None, limit: int
) -> tuple[ModelVersion, ...]:
    """Newest first."""
    table = tables.models
    place = (table.c.registered_at, table.c.model, table.c.number)
    query = sa.select(table).where(table.c.tenant == codec.storable(tenant))
    if model:
        query = query.where(table.c.model == codec.storable(model))
    if before:
        registered_at, name, number = before
        query = query.where(sa.tuple_(*place) < sa.tuple_(registered_at, codec.storable(name), number))
    query = query.order_by(*(column.desc() for column in place)).limit(limit or None)
    return tuple(codec.model_version_of(cast("ModelRow", row)) for row in fetch(connection, query))


def endpoints(connection: sa.Connection, *, tenant: str, after: str, limit: int) -> tuple[Endpoint, ...]:
    """Of one tenant, by name."""
    table = tables.endpoints
    query = _ENDPOINTS.where(table.c.tenant == codec.storable(tenant), table.c.name > codec.storable(after))
    query = query.order_by(table.c.name).limit(limit or None)
    return tuple(codec.endpoint_of(cast("EndpointRow", row)) for row in fetch(connection, query))


def all_endpoints(connection: sa.Connection) -> tuple[Endpoint, ...]:
    """Those that are not removed, by name."""
    query = _ENDPOINTS.order_by(tables.endpoints.c.name)
    return tuple(codec.endpoint_of(cast("EndpointRow", row)) for row in fetch(connection, query))


def endpoint(connection: sa.Connection, name: str, *, tenant: str) -> Endpoint:
    """Raises NotFound, also for a removed one."""
    table, text = tables.endpoints, codec.storable(name)
    found = fetch(connection, _ENDPOINTS.where(table.c.name == text, table.c.tenant == codec.storable(tenant)))
    if not found:
        msg = f"no such endpoint: {text}"
        raise NotFound(msg, object_=text, hint="list them with: mainstay endpoints")
    return codec.endpoint_of(cast("EndpointRow", found[0]))


_ENDPOINTS = sa.select(tables.endpoints).where(tables.endpoints.c.removed == 0)


def pod(connection: sa.Connection, name: str) -> Wanted:
    """The allocation of a pod of any tenant by its name, with its specification. Raises NotFound, also once it is closed."""
    work, _, numbers = codec.storable(name).rpartition("-")
    work, _, attempt = work.rpartition("-")
    if attempt.isdecimal() and numbers.isdecimal() and len(attempt) < 10 and len(numbers) < 10:
        of_id = sa.select(tables.workloads.c.key).where(tables.workloads.c.id == work).scalar_subquery()
        table = tables.allocations
        query = sa.select(table).where(
            table.c.workload_key == of_id, table.c.attempt == int(attempt), table.c.rank == int(numbers)
        )
        for found in allocations_of(connection, query.where(table.c.closed == 0)):
            ((_, text),) = specifications(connection, {found.workload_key})
            return Wanted(allocation=found, spec=codec.spec_of(text))
    msg = f"no such pod: {name}"
    raise NotFound(msg, object_=name)


def secrets(connection: sa.Connection, *, tenant: str, after: str, limit: int) -> tuple[SecretRecord, ...]:
    """Of one tenant, by name. A tenant may have 90 MB of values: they stay where they are."""
    table = tables.secrets
    columns = (table.c.tenant, table.c.name, table.c.set_at, table.c.set_by)
    query = sa.select(*columns).where(table.c.tenant == codec.storable(tenant), table.c.name > codec.storable(after))
    query = query.order_by(table.c.name).limit(limit or None)
    return tuple(SecretRecord(**row) for row in fetch(connection, query))


def sealed_secrets(connection: sa.Connection, names: Collection[str], *, tenant: str) -> dict[str, Sealed]:
    """By name. A job asks for 120 at most, so each is a question of its own."""
    table = tables.secrets
    query = sa.select(table.c.version, table.c.sealed).where(table.c.tenant == codec.storable(tenant))
    found = {name: connection.execute(query.where(table.c.name == codec.storable(name))).first() for name in names}
    return {
        name: Sealed(tenant=tenant, name=name, version=row.version, text=row.sealed)
        for name, row in found.items()
        if row is not None
    }


def handed_secrets(connection: sa.Connection, allocation_key: int) -> tuple[Sealed, ...]:
    """By name and version."""
    handed, now, earlier = tables.handed_secrets, tables.secrets, tables.earlier_secrets
    found: list[Sealed] = []
    for values in (now, earlier):
        same = [values.c[name] == handed.c[name] for name in ("tenant", "name", "version")]
        query = sa.select(values.c.tenant, values.c.name, values.c.version, values.c.sealed.label("text"))
        query = query.join_from(handed, values, sa.and_(*same)).where(handed.c.allocation_key == allocation_key)
        found += [Sealed(**row) for row in fetch(connection, query)]
    return tuple(sorted(found, key=lambda one: one.place))


def volumes(
    connection: sa.Connection, *, tenant: str, after: tuple[str, str, str], limit: int
) -> tuple[VolumeRecord, ...]:
    """Of one tenant, by cluster, project and name, with who uses them."""
    table = tables.volumes
    place = sa.tuple_(table.c.cluster, table.c.project, table.c.name)
    query = sa.select(table).where(table.c.tenant == codec.storable(tenant))
    query = query.where(place > sa.tuple_(*map(codec.storable, after)))
    query = query.order_by(table.c.cluster, table.c.project, table.c.name).limit(limit or None)
    rows = [cast("VolumeRow", row) for row in fetch(connection, query)]
    users = volume_users(connection, tenant=tenant) if rows else []
    return tuple(
        codec_fleet.volume_of(row, users_of(users, cluster=row["cluster"], project=row["project"], name=row["name"]))
        for row in rows
    )


def all_volumes(connection: sa.Connection) -> tuple[VolumeRecord, ...]:
    """Of everybody, without who uses them."""
    table = tables.volumes
    query = sa.select(table).order_by(table.c.cluster, table.c.tenant, table.c.project, table.c.name)
    return tuple(codec_fleet.volume_of(cast("VolumeRow", row)) for row in fetch(connection, query))


def removals(connection: sa.Connection, cluster: str) -> tuple[VolumeRef, ...]:
    """The volumes of a cluster that somebody wants gone."""
    table = tables.volumes
    query = sa.select(table).where(table.c.cluster == codec.storable(cluster), table.c.removed == 1)
    found = (codec_fleet.volume_of(cast("VolumeRow", row)).state for row in fetch(connection, query))
    return tuple(VolumeRef(owner=state.owner, name=state.name) for state in found)


def volume_users(connection: sa.Connection, *, tenant: str) -> list[dict[str, Any]]:
    """The workloads of a tenant that name volumes and wait, run, or have a pod that has not ended."""
    table, pods = tables.workloads, tables.allocations
    living = sa.select(pods.c.workload_key).where(pods.c.closed == 0, pods.c.ended_at == 0)
    query = sa.select(table.c.id, table.c.project, table.c.cluster, table.c.volumes)
    query = query.where(table.c.tenant == codec.storable(tenant), table.c.volumes != "")
    open_ = (table.c.phase < int(Phase.SUCCEEDED)) | table.c.key.in_(living)
    return fetch(connection, query.where(open_).order_by(table.c.key))


def users_of(users: Iterable[Mapping[str, Any]], *, cluster: str, project: str, name: str) -> tuple[str, ...]:
    """The ids of those that may use this volume: what is bound to another cluster means another one."""
    return tuple(
        row["id"]
        for row in users
        if row["project"] == project and row["cluster"] in {"", cluster} and name in row["volumes"].split()
    )


def _events_of(tenant: str, workload: str, which: EventFilter) -> list[sa.Select[Any]]:
    """In parts, each of which an index answers in the order of its events."""
    table = tables.events
    query = sa.select(table)
    if workload:
        query = query.where(table.c.workload == codec.storable(workload))
    if which.kinds:
        query = query.where(table.c.kind.in_(which.kinds))
    if which.object:
        # The second says nothing new, but it is what the databases must read to take the index of those.
        query = query.where(table.c.object == codec.storable(which.object), table.c.workload == sa.literal_column("''"))
    if not tenant:
        return [query]
    parts = [query.where(table.c.tenant == codec.storable(tenant))]
    if which.platform and not workload:
        parts.append(query.where(table.c.tenant == ""))
    return parts


def allocations_of(connection: sa.Connection, query: sa.Select[Any]) -> tuple[Allocation, ...]:
    """The answer to a query for whole rows of `allocations`."""
    return tuple(codec.allocation_of(cast("AllocationRow", row)) for row in fetch(connection, query))


def fetch(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """Rows as dictionaries. `Any`: the border to the driver; callers cast to the row type of the table that they asked."""
    result = connection.execute(query)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def has_several_tenants(connection: sa.Connection) -> bool:
    """Whether jobs of different tenants may meet."""
    table = tables.tenants
    return len(connection.execute(sa.select(table.c.name).where(table.c.removed_at == 0).limit(2)).all()) > 1
