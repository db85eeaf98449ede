"""What has changed since a snapshot: the rows of each table, and the words that its columns show by number."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import sqlalchemy as sa

from mainstay.store.columns import Column

if TYPE_CHECKING:
    from mainstay.store.state import State

Word = TypeVar("Word", bound=Hashable)
CHUNK = 10_000
"""Rows in memory as Python objects at a time while a table is read."""


class Vocabulary(Generic[Word]):
    """Words by number. It grows as words are read, and a number stays what it was."""

    def __init__(self, known: Sequence[Word]) -> None:
        self._numbers = {word: number for number, word in enumerate(known)}

    @property
    def words(self) -> tuple[Word, ...]:
        """By number."""
        return tuple(self._numbers)

    def numbered(self, words: Sequence[Word]) -> Column:
        """The number of each."""
        return np.array([self._numbers.setdefault(word, len(self._numbers)) for word in words], dtype=np.int64)


class Reader:
    """Changed rows of one refresh, and the vocabularies that grow with them."""

    def __init__(self, connection: sa.Connection, state: State) -> None:
        self.connection = connection
        self.since = state.version
        self.gpu_models = Vocabulary(state.gpu_models)
        self.cluster_names = Vocabulary(state.cluster_names)
        self.restrictions = Vocabulary(state.restriction_texts)
        self.volume_needs = Vocabulary(state.volume_needs)
        self.traits = Vocabulary(state.trait_digests)
        self.topologies = Vocabulary(state.topologies)
        self.images = Vocabulary(state.images)
        self.node_images = Vocabulary(state.node_images)
        self.queue_names = Vocabulary(state.queue_names)
        self.submitters = Vocabulary(state.submitters)
        self.rows_read = 0

    def first(self) -> bool:
        """Nothing is known yet: what has left the tables need not be read."""
        return self.since < 0

    def chunks(self, query: sa.Select[Any], *, open_: sa.ColumnElement[bool]) -> Iterator[Sequence[Sequence[Any]]]:
        """Rows by key, which is their first column: at first the open ones, in a stream, later what changed.

        What changed is sorted here: asked for an order, SQLite would walk the whole table along it.
        """
        (table,) = query.get_final_froms()
        if self.first():
            result = self.connection.execute(
                query.where(open_).order_by(table.c.key).execution_options(yield_per=CHUNK)
            )
            while rows := result.fetchmany(CHUNK):
                self.rows_read += len(rows)
                yield rows
            return
        changed = sorted(self.connection.execute(query.where(table.c.version > self.since)).all(), key=itemgetter(0))
        self.rows_read += len(changed)
        if changed:
            yield changed
