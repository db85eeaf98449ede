"""The queue tree: who may use how much of what, and who may borrow it (scheduling.md rows 1 and 2; Kueue's words).

A queue takes workloads; a cohort is an inner node that shares what its children leave. Both are rows of one table. A
cell is a flavor of nodes and a resource of it, as ("a100", "gpus"): quota is set, used, lent and borrowed per cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.errors import Invalid
from mainstay.domain.preemption import NOBODY_YIELDS, Borrow, PreemptionPolicy, Reclaim
from mainstay.domain.quantity import cores_words, memory_words


class Resource(StrEnum):
    """What quotas are of, and in which unit."""

    CPU = "cpu"
    """Thousandths of a core."""
    MEMORY = "memory"
    """Bytes."""
    GPU = "gpu"
    PODS = "pods"


Cell: TypeAlias = tuple[str, str]
"""(flavor, resource). A flavor is one of nodes (flavor.py), a GPU model or the shape of a slice, or OTHER_FLAVOR. What pods on
such nodes, or with such GPUs, use of CPUs and memory counts against quotas of the flavor too, if there are any.
"""
OTHER_FLAVOR = "default"
"""What is of no flavor that has a quota."""

FAIR = "fair"
"""The order of a queue that says nothing else: who submit to it take turns. Others are in decide/ordering."""
FIFO = "fifo"
"""First come, first served."""
STRICT = "strict"
"""The same, and nothing of the queue starts past what finds no place (Kueue's StrictFIFO)."""
DEFAULT_QUEUE = "default"
"""Where a workload waits that names no queue."""
ALL_QUEUES = "all queues"
"""The object of what is set for all of them together; no queue has such a name."""
NO_LIMIT = 1 << 61
"""More of anything than a whole tree has."""
AMOUNT_MAX = 1 << 50
"""Of one quota; a tree of QUEUES_MAX of them still adds up to less than NO_LIMIT."""
QUEUES_MAX = 1 << 11
RESERVED_AFTER_SECONDS = 600
"""So long something waits before a start is reserved for it, unless its queue says otherwise: where most waits are shorter,
nothing is kept idle for them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a queue or cohort has of one cell, in the units of its resource."""

    nominal: int
    """Its own."""
    borrowing_limit: int | None = None
    """How much above its own it may use while others leave it idle; None: all that is left."""
    lending_limit: int | None = None
    """How much of its own others may use while it leaves it idle; None: all of it."""


QUEUE_USER = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?(/[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?\Z")
"""A tenant, or a project of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """One row of the tree, as administrators say it."""

    name: str
    parent: str = ""
    """The cohort it belongs to; empty: none."""
    cohort: bool = False
    weight: float = 1.0
    """Of its fair share among its siblings; 0: it borrows only what nobody else wants."""
    quotas: Mapping[Cell, Quota] = field(default_factory=dict)
    preemption: PreemptionPolicy = NOBODY_YIELDS
    """Whose place its work may take; of a cohort it is not asked."""
    reserved_after_seconds: int = RESERVED_AFTER_SECONDS
    """So long its work waits before a start is reserved for it; likewise."""
    placement: str = ""
    """The policy by which nodes are chosen for its work, by name; empty: as for everybody. Likewise."""
    order: str = FAIR
    """By which of its equally urgent work the next is chosen: a name of decide/ordering; likewise."""
    default_max_duration_seconds: int = 0
    """The time limit of a job that is submitted to it and says none; 0: none either. Likewise."""
    users: tuple[str, ...] = ()
    """Whose work it takes: `TENANT`, or `TENANT/PROJECT`; empty: everybody's. Likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRecord:
    """A queue or cohort on record. Times in UTC microseconds."""

    queue: QueueSpec
    set_at: int
    set_by: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityClass:
    """A name for a priority. Urgency is one thing, whether a more urgent workload may take its place another."""

    name: str
    priority: int
    """0 to 100."""
    preemptible: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalQueue:
    """The name that a namespace of a cluster has for a queue: pods of others there may say it (Kueue's LocalQueue)."""

    cluster: str = ""
    """Empty: of every cluster that says nothing else of that name."""
    namespace: str
    name: str
    queue: str

    @property
    def words(self) -> str:
        """`NAMESPACE/NAME`, and of which cluster."""
        return f"{self.namespace}/{self.name}" + (f" in {self.cluster}" if self.cluster else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalQueueRecord:
    """A local queue on record."""

    local: LocalQueue
    set_at: int
    """UTC microseconds."""
    set_by: str


def amount_words(resource: str, amount: int, *, like: int = 0) -> str:
    """So much of what quotas are of, in words: `2.5 CPUs`, `16 GiB`, `8`. `like` as of `memory_words`."""
    if resource == Resource.CPU:
        return cores_words(amount)
    return memory_words(amount, like=like) if resource == Resource.MEMORY else str(amount)


def local_name(namespace: str, name: str) -> str:
    """What stands for the queue of a guest until it is submitted and the name is looked up: no queue is called so."""
    return f"{namespace}/{name}"


PRIORITY_MAX = 100
"""As urgent as can be; 0 is the least."""
BUILT_IN_PRIORITIES: Mapping[str, int] = MappingProxyType({"low": 25, "normal": 50, "high": 75, "urgent": 100})
"""Names that are always there."""


def tree_of(queues: Iterable[QueueSpec]) -> QueueTree:
    """The tree of what is on record, with the queue that is always there. Raises Invalid as `QueueTree.of`."""
    rows = {spec.name: spec for spec in queues}
    return QueueTree.of([*rows.values(), *([] if DEFAULT_QUEUE in rows else [QueueSpec(name=DEFAULT_QUEUE)])])


def takes(users: tuple[str, ...], *, tenant: str, project: str) -> bool:
    """Whether a queue of these `users` takes work of that project."""
    return not users or tenant in users or f"{tenant}/{project}" in users


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTree:
    """The tree as columns. A parent's row comes before those of its children; rows of one depth are adjacent."""

    names: tuple[str, ...]
    parent: Ints
    """[queues] Row of the parent, -1 for a root."""
    cohort: Bools
    depth: Ints
    weight: Floats
    cells: tuple[Cell, ...]
    nominal: Ints
    """[queues, cells]"""
    borrowing_limit: Ints
    """[queues, cells] NO_LIMIT where there is none."""
    lending_limit: Ints
    """[queues, cells] NO_LIMIT where there is none."""
    defined: Bools
    """[queues, cells] A queue may use a cell only if it has a quota of it, be it 0."""
    policies: tuple[PreemptionPolicy, ...]
    """By row."""
    reserved_after_seconds: Ints
    """[queues]"""
    placements: tuple[str, ...]
    """Names of policies by row; empty: as for everybody."""
    orders: tuple[str, ...]
    """By row."""
    users: tuple[tuple[str, ...], ...]
    """By row."""

    @classmethod
    def of(cls, specs: Iterable[QueueSpec]) -> QueueTree:
        """The tree of these rows, in any order. A parent that is not among them is a cohort without a quota of its own.

        Raises:
            Invalid: a name twice, a cycle, a parent that is no cohort, a limit or weight that cannot be.
        """
        rows = _with_parents(specs)
        if len(rows) > QUEUES_MAX:
            msg = f"there are {len(rows)} queues and cohorts; one tree holds {QUEUES_MAX}"
            raise Invalid(msg)
        depth = {name: _depth(rows, name) for name in rows}
        names = sorted(rows, key=lambda name: (depth[name], name))
        row_of = {name: row for row, name in enumerate(names)}
        cells = sorted({cell for spec in rows.values() for cell in spec.quotas})
        shape = (len(names), len(cells))
        nominal = np.zeros(shape, dtype=np.int64)
        borrowing, lending = (np.full(shape, NO_LIMIT, dtype=np.int64) for _ in range(2))
        defined = np.zeros(shape, dtype=np.bool_)
        for row, name in enumerate(names):
            for cell, quota in rows[name].quotas.items():
                at = row, cells.index(cell)
                nominal[at], defined[at] = quota.nominal, True
                borrowing[at] = NO_LIMIT if quota.borrowing_limit is None else quota.borrowing_limit
                lending[at] = NO_LIMIT if quota.lending_limit is None else quota.lending_limit
        specs_in_order = [rows[name] for name in names]
        return cls(
            names=tuple(names),
            parent=np.array([row_of.get(spec.parent, -1) for spec in specs_in_order], dtype=np.int64),
            cohort=np.array([spec.cohort for spec in specs_in_order], dtype=np.bool_),
            depth=np.array([depth[name] for name in names], dtype=np.int64),
            weight=np.array([spec.weight for spec in specs_in_order], dtype=np.float64),
            cells=tuple(cells),
            nominal=nominal,
            borrowing_limit=borrowing,
            lending_limit=lending,
            defined=defined,
            policies=tuple(spec.preemption for spec in specs_in_order),
            reserved_after_seconds=np.array([spec.reserved_after_seconds for spec in specs_in_order], dtype=np.int64),
            placements=tuple(spec.placement for spec in specs_in_order),
            orders=tuple(spec.order for spec in specs_in_order),
            users=tuple(spec.users for spec in specs_in_order),
        )


def _with_parents(specs: Iterable[QueueSpec]) -> dict[str, QueueSpec]:
    rows: dict[str, QueueSpec] = {}
    for spec in specs:
        if spec.name in rows:
            msg = f"{spec.name} is there twice: queues and cohorts share one set of names"
            raise Invalid(msg)
        _check(spec)
        rows[spec.name] = spec
    for spec in list(rows.values()):
        if spec.parent and spec.parent not in rows:
            rows[spec.parent] = QueueSpec(name=spec.parent, cohort=True)
        if spec.parent and not rows[spec.parent].cohort:
            msg = f"{spec.name} is below {spec.parent}, which is a queue; only a cohort has children"
            raise Invalid(msg)
    return rows


def _check(spec: QueueSpec) -> None:
    if not 0 <= spec.weight < float("inf"):
        msg = f"the weight of {spec.name} is {spec.weight:g}; it is 0 or any finite number above"
        raise Invalid(msg)
    _check_rules(spec)
    for (flavor, resource), quota in spec.quotas.items():
        cell = f"{resource} of {flavor} in {spec.name}"
        for limit, amount in (
            ("nominal quota", quota.nominal),
            ("borrowing limit", quota.borrowing_limit),
            ("lending limit", quota.lending_limit),
        ):
            if amount is not None and not 0 <= amount <= AMOUNT_MAX:
                msg = f"the {limit} of {cell} is {amount}; it is 0 to {AMOUNT_MAX}"
                raise Invalid(msg)
        if quota.lending_limit is not None and quota.lending_limit > quota.nominal and not spec.cohort:
            msg = (
                f"the lending limit of {cell} is {amount_words(resource, quota.lending_limit)}, more than its nominal quota of"
                f" {amount_words(resource, quota.nominal)}:"
                " nobody lends what they do not have"
            )
            raise Invalid(msg)
        if (
            not spec.parent
            and not spec.cohort
            and (quota.borrowing_limit is not None or quota.lending_limit is not None)
        ):
            msg = f"{cell} has a limit to borrow or lend, but {spec.name} is in no cohort to do so"
            raise Invalid(msg)


def _check_rules(spec: QueueSpec) -> None:
    """How its work waits, and whose place it may take."""
    for said, what in (
        (spec.preemption != NOBODY_YIELDS, "which takes no work that could preempt; set it"),
        (spec.reserved_after_seconds != RESERVED_AFTER_SECONDS, "in which nothing waits for a start; set it"),
        (spec.placement != "", "of which no work is placed; set it"),
        (spec.order != FAIR, "in which no work stands in an order; set it"),
        (spec.default_max_duration_seconds != 0, "to which no job is submitted; set the limit"),
        (spec.users != (), "to which no job is submitted; say who uses them"),
    ):
        if spec.cohort and said:
            msg = f"{spec.name} is a cohort, {what} on the queues below it"
            raise Invalid(msg)
    for user in spec.users:
        if not QUEUE_USER.match(user):
            msg = f"{user!r} is not one who uses {spec.name}: say TENANT or TENANT/PROJECT"
            raise Invalid(msg)
    if spec.default_max_duration_seconds < 0:
        msg = f"jobs in {spec.name} are to end after {spec.default_max_duration_seconds} s; it is 0 or more"
        raise Invalid(msg)
    if spec.reserved_after_seconds < 0:
        msg = f"a start is reserved in {spec.name} after {spec.reserved_after_seconds} s; it is 0 or more"
        raise Invalid(msg)
    if spec.preemption.borrow is not Borrow.NEVER and spec.preemption.reclaim is Reclaim.NEVER:
        msg = f"{spec.name} is to displace work while it borrows, but not to get back its own: set reclaim, too"
        raise Invalid(msg)
    if spec.preemption.min_runtime_seconds < 0:
        msg = f"the minimum run time of {spec.name} is {spec.preemption.min_runtime_seconds} s; it is 0 or more"
        raise Invalid(msg)


def _depth(rows: Mapping[str, QueueSpec], name: str) -> int:
    path = [name]
    while parent := rows[path[-1]].parent:
        if parent in path:
            cycle = " > ".join((*path[path.index(parent) :], parent))
            msg = f"cohorts in a circle: {cycle}; take one of them out of its parent"
            raise Invalid(msg)
        path.append(parent)
    return len(path) - 1
