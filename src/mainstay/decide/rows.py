"""Other rows for the tables of a snapshot: some of them, or more than there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np

from mainstay.domain.affinity import NodeTraits
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.image import NodeImages
from mainstay.domain.snapshot import AllocationTable, NodeTable, WorkloadTable
from mainstay.domain.topology import Level

TABLE_MAX = 1 << 20
"""Entries of a table from keys to rows: 8 MiB for a moment."""


def rows_by_key(keys: Ints, wanted: Ints) -> Ints:
    """The row of each key that is wanted, -1 where it is not there; `keys` ascend."""
    if not keys.size:
        return np.full(wanted.size, -1, dtype=np.int64)
    least, most = int(keys[0]), int(keys[-1])
    if most - least < TABLE_MAX:
        # Keys lie close together where rows came at the same time: a table is five times faster than a search.
        table = np.full(most - least + 2, -1, dtype=np.int64)
        table[keys - least] = np.arange(keys.size)
        inside = (wanted >= least) & (wanted <= most)
        return table[np.where(inside, wanted - least, most - least + 1)]
    row = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[row] == wanted, row, -1)


def with_workload(table: WorkloadTable, columns: Mapping[str, int], *, others: Mapping[str, int]) -> WorkloadTable:
    """One more, behind all others; 0 in every column that is not named. It has one choice, the columns of its resources."""
    each = {name: np.array([value]) for name, value in columns.items()}
    return with_workloads(table, each, count=1, others={name: np.array([value]) for name, value in others.items()})


def with_workloads(
    table: WorkloadTable, columns: Mapping[str, Ints], *, count: int, others: Mapping[str, Ints] = MappingProxyType({})
) -> WorkloadTable:
    """So many more, likewise."""
    none, nothing = np.zeros_like(table.key), np.zeros(count, dtype=np.int64)
    values = {
        name: np.concatenate((column, columns.get(name, nothing).astype(column.dtype)))
        for name, column in _columns(table).items()
    }
    more = {
        name: np.concatenate((table.others.get(name, none), others.get(name, nothing)))
        for name in sorted(table.others.keys() | others.keys())
    }
    return WorkloadTable(**values, **_by_key(table), others=more)  # type: ignore[arg-type]


def only_workloads(table: WorkloadTable, rows: Ints) -> WorkloadTable:
    """These rows, which are in their order."""
    by_key = _by_key(table)
    keys = set(table.key[rows].tolist()) if any(by_key.values()) else set()
    values = {name: column[rows] for name, column in _columns(table).items()}
    return WorkloadTable(
        **values,  # type: ignore[arg-type]
        **{name: {key: value for key, value in of.items() if key in keys} for name, of in by_key.items()},  # type: ignore[arg-type]
        others={name: column[rows] for name, column in table.others.items()},
    )


def rows_of_sets(table: WorkloadTable, rows: Ints) -> Ints:
    """Where in `rows` those are that have several pod sets."""
    if not table.sets:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.isin(table.key[rows], np.fromiter(table.sets, dtype=np.int64, count=len(table.sets))))


def only_nodes(table: NodeTable, rows: Ints) -> NodeTable:
    """These rows, which are in their order."""
    named = {one.name: getattr(table, one.name) for one in fields(table)}
    values: dict[str, object] = {}
    for name, column in named.items():
        match column:
            case np.ndarray():
                values[name] = column[rows]
            case tuple():
                values[name] = tuple(column[row] for row in rows.tolist())
            case NodeTraits():
                values[name] = replace(column, number=column.number[rows], barred=column.barred[rows])
            case NodeImages():
                values[name] = replace(column, number=column.number[rows])
            case None:
                values[name] = None
            case _:
                values[name] = {key: _of(one, rows) for key, one in column.items()}
    return NodeTable(**values)  # type: ignore[arg-type]


def _of(column: Ints | Level, rows: Ints) -> Ints | Level:
    return replace(column, number=column.number[rows]) if isinstance(column, Level) else column[rows]


def only_allocations(table: AllocationTable, rows: Ints) -> AllocationTable:
    """These rows, which are in their order."""
    values = {name: column[rows] for name, column in _columns(table).items()}
    return AllocationTable(**values)  # type: ignore[arg-type]


def with_allocations(table: AllocationTable, columns: Mapping[str, Ints], *, count: int) -> AllocationTable:
    """So many more, behind all others, with keys that follow theirs. 0 in every column that is not named; none has ended."""
    highest = int(table.key.max(initial=0))
    given = {"key": np.arange(highest + 1, highest + 1 + count), **columns}
    none, nothing = np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    given |= {"end": none, "exit_code": none}
    values = {
        name: np.concatenate((column, given.get(name, nothing).astype(column.dtype)))
        for name, column in _columns(table).items()
    }
    return AllocationTable(**values)


def _columns(table: WorkloadTable | AllocationTable) -> dict[str, Ints | Bools]:
    named = ((one.name, getattr(table, one.name)) for one in fields(table))
    return {name: column for name, column in named if isinstance(column, np.ndarray)}


def _by_key(table: WorkloadTable) -> dict[str, Mapping[int, object]]:
    """What is told by key and not in a column."""
    return {name: getattr(table, name) for name in ("choices", "sets", "equals", "typical_on")}
