"""Columns that are kept current: rows that changed are merged in, and what was handed out never changes.

Copy on write: a column whose values did not change stays the same array in the next snapshot, and rows that are only
added, like those of a submission, cost no copy at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

ROOM = 8
"""One part in so many is kept free at the end of a column that has grown, for the rows that come next."""

Column = npt.NDArray[Any]
"""int64 or bool; `Any` because a mapping of columns holds both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """Rows that changed, by column, in ascending order of their keys; `keep` False: the row leaves the table."""

    columns: Mapping[str, Column]
    keep: npt.NDArray[np.bool_]

    @property
    def key(self) -> Column:
        """The keys of the rows."""
        return self.columns["key"]


def empty(names: Sequence[str], *, flags: frozenset[str]) -> dict[str, Column]:
    """Columns without rows; those in `flags` are bool."""
    return {name: _frozen(np.empty(0, dtype=np.bool_ if name in flags else np.int64)) for name in names}


def columns_of(rows: Sequence[Sequence[Any]], names: Sequence[str], *, flags: frozenset[str]) -> dict[str, Column]:
    """The first columns of rows, as arrays; a row may be longer than `names`."""
    by_column = list(zip(*rows, strict=True)) or [() for _ in names]
    return {
        name: np.array(values, dtype=np.int64).astype(np.bool_) if name in flags else np.array(values, dtype=np.int64)
        for name, values in zip(names, by_column, strict=False)
    }


def joined(parts: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """Chunks of one table, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def merged(before: Mapping[str, Column], delta: Delta) -> dict[str, Column]:
    """The columns with the changed rows in place. O(changed), and a memcpy of the columns in which values changed."""
    if not delta.key.size:
        return dict(before)
    row = np.searchsorted(before["key"], delta.key)
    inside = row < before["key"].size
    present = inside.copy()
    present[inside] = before["key"][row[inside]] == delta.key[inside]
    updated, added = present & delta.keep, ~present & delta.keep
    columns = {
        name: _with_values(column, row[updated], delta.columns[name][updated]) for name, column in before.items()
    }
    gone = row[present & ~delta.keep]
    columns = {name: _without(column, gone) for name, column in columns.items()}
    if not added.any():
        return columns
    return _in_order({name: _with_more(column, delta.columns[name][added]) for name, column in columns.items()})


def _with_values(column: Column, rows: Column, values: Column) -> Column:
    if np.array_equal(column[rows], values):
        return column
    changed = column.copy()
    changed[rows] = values
    return _frozen(changed)


def _without(column: Column, gone: Column) -> Column:
    return _frozen(np.delete(column, gone)) if gone.size else column


def _with_more(column: Column, added: Column) -> Column:
    """The column with rows at its end, in the room that was left there if there is some.

    That room is not part of any column handed out before, so writing to it changes none of them; and only the latest
    state is ever continued, so nobody else writes there.
    """
    size = column.size + added.size
    buffer = column.base
    if buffer is None or buffer.size < size:
        buffer = np.empty(size + size // ROOM + 1, dtype=column.dtype)
        buffer[: column.size] = column
    buffer[column.size : size] = added
    return _frozen(buffer[:size])


def _in_order(columns: dict[str, Column]) -> dict[str, Column]:
    """By key. New keys are nearly always the highest, and then nothing is to be done."""
    key = columns["key"]
    if key.size < 2 or bool((key[1:] > key[:-1]).all()):
        return columns
    order = np.argsort(key, kind="stable")
    return {name: _frozen(column[order]) for name, column in columns.items()}


def _frozen(column: Column) -> Column:
    column.flags.writeable = False
    return column
