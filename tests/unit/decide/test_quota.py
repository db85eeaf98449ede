"""The queue tree: Kueue's published cases, an oracle that walks the tree, laws that hold for every tree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.quota import Quotas, available, quotas_of, shares, usage
from mainstay.domain.errors import Invalid
from mainstay.domain.queue import AMOUNT_MAX, NO_LIMIT, Cell, QueueSpec, QueueTree, Quota

CPU, GPU = ("default", "cpu"), ("default", "gpu")
INFINITE = math.inf


def queue(name: str, parent: str = "", *, weight: float = 1, **quotas: Quota | int) -> QueueSpec:
    return _row(name, parent, weight, quotas, cohort=False)


def cohort(name: str, parent: str = "", *, weight: float = 1, **quotas: Quota | int) -> QueueSpec:
    return _row(name, parent, weight, quotas, cohort=True)


def _row(name: str, parent: str, weight: float, quotas: Mapping[str, Quota | int], *, cohort: bool) -> QueueSpec:
    cells = {_cell(word): Quota(nominal=quota) if isinstance(quota, int) else quota for word, quota in quotas.items()}
    return QueueSpec(name=name, parent=parent, weight=weight, cohort=cohort, quotas=cells)


def _cell(word: str) -> Cell:
    flavor, _, resource = word.rpartition("_")
    return flavor or "default", resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A tree, what the queue "cq" uses and asks for, and the share of each row: (rounded value, it borrows)."""

    rows: tuple[QueueSpec, ...]
    used: Mapping[Cell, int]
    asks: Mapping[Cell, int]
    want: Mapping[str, tuple[float, bool]]


def _case(
    *rows: QueueSpec, used: Mapping[Cell, int], asks: Mapping[Cell, int] | None = None, **want: tuple[float, bool]
) -> Case:
    return Case(
        rows=rows, used=used, asks=asks or {}, want={name.replace("_", "-"): value for name, value in want.items()}
    )


IDLE = (0, False)
TWO = (queue("cq", "all", cpu=2_000, gpu=5), queue("lender", "all", cpu=8_000, gpu=5))

# The cases of Kueue's TestDominantResourceShare (pkg/cache/scheduler/fair_sharing_test.go, 2026), in our words.
KUEUE = {
    "no cohort": _case(queue("cq", cpu=2_000_000, gpu=5), used={CPU: 1_000, GPU: 2}, cq=IDLE),
    "usage below nominal": _case(*TWO, used={CPU: 1_000, GPU: 2}, cq=IDLE, lender=IDLE, all=IDLE),
    "usage above nominal": _case(*TWO, used={CPU: 3_000, GPU: 7}, cq=(200, True), lender=IDLE, all=IDLE),
    "slightly above nominal, large quotas": _case(
        queue("cq", "all", gpu=500), queue("lender", "all", weight=300, gpu=1000), used={GPU: 501}, cq=(1, True)
    ),
    "way above nominal, large quotas and weights": _case(
        queue("cq", "all", weight=300, gpu=500),
        queue("lender", "all", weight=300, gpu=1000),
        used={GPU: 800},
        cq=(1, True),
    ),
    "one resource above nominal": _case(*TWO, used={CPU: 3_000, GPU: 3}, cq=(100, True), lender=IDLE),
    "with a workload above nominal": _case(
        *TWO, used={CPU: 1_000, GPU: 2}, asks={CPU: 4_000, GPU: 4}, cq=(300, True), lender=IDLE
    ),
    "a resource that nobody lends": _case(
        queue("cq", "all", cpu=2_000, gpu=Quota(nominal=2, lending_limit=0)),
        queue("lender", "all", cpu=8_000, gpu=Quota(nominal=64, lending_limit=0)),
        used={CPU: 1_000, GPU: 1},
        asks={CPU: 4_000, GPU: 4},
        cq=(300, True),
        lender=IDLE,
    ),
    "no weight, borrowing only what nobody lends": _case(
        queue("cq", "all", weight=0, gpu=Quota(nominal=2, lending_limit=0)),
        queue("lender", "all", gpu=Quota(nominal=64, lending_limit=0)),
        used={GPU: 3},
        cq=(INFINITE, True),
        lender=IDLE,
    ),
    "several flavors": _case(
        queue("cq", "all", ondemand_cpu=20_000, spot_cpu=80_000),
        queue("lender", "all", cpu=100_000),
        used={("ondemand", "cpu"): 15_000, ("spot", "cpu"): 5_000},
        asks={("ondemand", "cpu"): 10_000},
        cq=(25, True),
        lender=IDLE,
    ),
    "whole weight": _case(
        queue("cq", "all", weight=2, gpu=5), queue("lender", "all", gpu=5), used={GPU: 7}, cq=(100, True)
    ),
    "part of a weight": _case(
        queue("cq", "all", weight=0.5, gpu=5), queue("lender", "all", gpu=5), used={GPU: 7}, cq=(400, True)
    ),
    "no weight": _case(
        queue("cq", "all", weight=0, gpu=5), queue("lender", "all", gpu=10), used={GPU: 7}, cq=(INFINITE, True)
    ),
    "a cohort has a share": _case(
        *(queue("cq", "child", gpu=5), cohort("child", "root", weight=2), cohort("root", gpu=45)),
        used={GPU: 10},
        cq=(100, True),
        child=(50, True),
        root=IDLE,
    ),
    "only the root has the resource": _case(
        *(queue("cq", "child", gpu=0), cohort("child", "root", weight=2), cohort("root", gpu=50)),
        used={GPU: 10},
        cq=(200, True),
        child=(100, True),
        root=IDLE,
    ),
    "a borrowing limit narrows what could be had": _case(
        *(
            queue("cq", "child", gpu=0),
            cohort("child", "root", gpu=Quota(nominal=0, borrowing_limit=10)),
            cohort("root", gpu=50),
        ),
        used={GPU: 10},
        cq=(1000, True),
        child=(200, True),
        root=IDLE,
    ),
    "against more than there is": _case(
        queue("cq", "all", cpu=0), queue("lender", "all", cpu=AMOUNT_MAX), used={CPU: 1_000}, cq=(1, True), lender=IDLE
    ),
}


@pytest.mark.parametrize("case", KUEUE.values(), ids=KUEUE)
def test_shares_are_kueues(case: Case) -> None:
    tree = QueueTree.of(case.rows)
    quotas = quotas_of(tree)
    used = usage(quotas, _own(tree, case.used))
    asked = _own(tree, case.asks)
    for name, (value, borrowing) in case.want.items():
        row = tree.names.index(name)
        share = shares(quotas, used + (asked if name == "cq" else 0))
        got = INFINITE if share.infinite[row] else math.ceil(share.weighted[row])
        assert (got, bool(share.borrowing[row])) == (value, borrowing), name


def _own(tree: QueueTree, amounts: Mapping[Cell, int]) -> np.ndarray:
    own = np.zeros(tree.nominal.shape, dtype=np.int64)
    for cell, amount in amounts.items():
        own[tree.names.index("cq"), tree.cells.index(cell)] = amount
    return own


def test_limits_of_both_sides_bound_what_may_be_used() -> None:
    tree = QueueTree.of(
        [
            queue("a", "all", gpu=Quota(nominal=10, borrowing_limit=5)),
            queue("b", "all", gpu=Quota(nominal=20, lending_limit=8)),
            queue("c", "all", gpu=0),
        ]
    )
    quotas = quotas_of(tree)
    row = {name: tree.names.index(name) for name in ("a", "b", "c", "all")}
    assert quotas.subtree[row["all"], 0] == 18
    assert [quotas.potential[row[name], 0] for name in "abc"] == [15, 30, 18]
    own = np.zeros(tree.nominal.shape, dtype=np.int64)
    own[row["a"]], own[row["b"]] = 12, 9
    left = available(quotas, usage(quotas, own))
    assert [left[row[name], 0] for name in "abc"] == [3, 9, 6]


def test_more_used_than_there_is_is_told_as_a_negative_number() -> None:
    tree = QueueTree.of([queue("a", "all", gpu=1), queue("b", "all", gpu=1)])
    quotas = quotas_of(tree)
    own = np.array([[0], [5], [0]], dtype=np.int64)
    assert available(quotas, usage(quotas, own)).tolist() == [[-3], [-3], [-3]]


def test_a_cohort_may_lend_more_than_its_own_nominal_as_in_kueue() -> None:
    """What those below it lend passes through it: 12 are 4 of c and 8 of q, and 10 at most of them go further up."""
    tree = QueueTree.of(
        [
            cohort("root"),
            cohort("c", "root", gpu=Quota(nominal=4, lending_limit=10)),
            queue("q", "c", gpu=8),
            queue("other", "root", gpu=0),
        ]
    )
    quotas = quotas_of(tree)
    left = available(quotas, np.zeros(tree.nominal.shape, dtype=np.int64))
    assert [left[tree.names.index(name), 0] for name in ("q", "other")] == [12, 10]


REFUSED = {
    "twice": ([queue("a"), cohort("a")], "a is there twice"),
    "circle": ([cohort("a", "b"), cohort("b", "c"), cohort("c", "a")], "circle: "),
    "itself": ([cohort("a", "a")], "circle: a > a"),
    "below a queue": ([queue("a", "b"), queue("b")], "b, which is a queue"),
    "negative": ([queue("a", gpu=-1)], "nominal quota of gpu of default in a is -1"),
    "too much": ([queue("a", gpu=2**63)], "it is 0 to"),
    "lends more than it has": ([queue("a", "c", gpu=Quota(nominal=1, lending_limit=2))], "nobody lends"),
    "nobody to borrow from": ([queue("a", gpu=Quota(nominal=1, borrowing_limit=2))], "in no cohort"),
    "infinite weight": ([queue("a", "c", weight=math.inf)], "weight of a is inf"),
    "no number": ([queue("a", "c", weight=math.nan)], "weight of a is nan"),
    "negative weight": ([queue("a", "c", weight=-1)], "weight of a is -1"),
    "too many": ([queue(f"q{number}") for number in range(3_000)], "3000 queues"),
}


@pytest.mark.parametrize(("rows", "words"), REFUSED.values(), ids=REFUSED)
def test_a_tree_that_cannot_be_is_refused_in_words(rows: list[QueueSpec], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        QueueTree.of(rows)


@st.composite
def trees(draw: st.DrawFn) -> QueueTree:
    cohorts = draw(st.integers(0, 4))
    rows = []
    for number in range(cohorts):
        parent = f"c{draw(st.integers(0, number - 1))}" if number and draw(st.booleans()) else ""
        rows.append(cohort(f"c{number}", parent, gpu=draw(_quotas(top=not parent)), cpu=draw(_quotas(top=not parent))))
    for number in range(draw(st.integers(1, 6))):
        parent = f"c{draw(st.integers(0, cohorts - 1))}" if cohorts and draw(st.booleans()) else ""
        rows.append(queue(f"q{number}", parent, gpu=draw(_quotas(top=not parent)), cpu=draw(_quotas(top=not parent))))
    return QueueTree.of(draw(st.permutations(rows)))


def _quotas(*, top: bool) -> st.SearchStrategy[Quota]:
    amount = st.integers(0, 20)
    limit = st.none() if top else st.none() | st.integers(0, 20)
    return st.builds(
        lambda nominal, borrow, lend: Quota(
            nominal=nominal, borrowing_limit=borrow, lending_limit=None if lend is None else min(lend, nominal)
        ),
        amount,
        limit,
        limit,
    )


class Walker:
    """The same numbers, one node and one workload at a time, as Kueue's resource_node.go describes them."""

    def __init__(self, quotas: Quotas) -> None:
        self.tree = quotas.tree
        self.children = {row: np.flatnonzero(self.tree.parent == row).tolist() for row in range(len(self.tree.names))}
        self.used = np.zeros(self.tree.nominal.shape, dtype=np.int64)

    def subtree(self, row: int, cell: int) -> int:
        own = int(self.tree.nominal[row, cell])
        return own + sum(self.subtree(child, cell) - self.local(child, cell) for child in self.children[row])

    def local(self, row: int, cell: int) -> int:
        limit = int(self.tree.lending_limit[row, cell])
        return max(0, self.subtree(row, cell) - limit) if limit < NO_LIMIT else 0

    def add(self, row: int, cell: int, amount: int) -> None:
        idle = max(0, self.local(row, cell) - int(self.used[row, cell]))
        self.used[row, cell] += amount
        if self.tree.parent[row] >= 0 and amount > idle:
            self.add(int(self.tree.parent[row]), cell, amount - idle)

    def available(self, row: int, cell: int) -> int:
        parent, used = int(self.tree.parent[row]), int(self.used[row, cell])
        if parent < 0:
            return self.subtree(row, cell) - used
        above, local = self.available(parent, cell), self.local(row, cell)
        limit = int(self.tree.borrowing_limit[row, cell])
        if limit < NO_LIMIT:
            above = min(above, self.subtree(row, cell) - local - max(0, used - local) + limit)
        return max(0, local - used) + above


@given(tree=trees(), data=st.data())
def test_columns_say_what_walking_the_tree_says(tree: QueueTree, data: st.DataObject) -> None:
    quotas = quotas_of(tree)
    walker = Walker(quotas)
    own = np.zeros(tree.nominal.shape, dtype=np.int64)
    queues = np.flatnonzero(~tree.cohort).tolist()
    for _ in range(data.draw(st.integers(0, 8))):
        row, cell = data.draw(st.sampled_from(queues)), data.draw(st.integers(0, len(tree.cells) - 1))
        amount = data.draw(st.integers(0, 15))
        own[row, cell] += amount
        walker.add(row, cell, amount)
    used = usage(quotas, own)
    left = available(quotas, used)
    assert np.array_equal(used, walker.used)
    for row in range(len(tree.names)):
        for cell in range(len(tree.cells)):
            assert quotas.subtree[row, cell] == walker.subtree(row, cell)
            assert left[row, cell] == walker.available(row, cell)


@given(tree=trees(), data=st.data())
def test_who_takes_no_more_than_is_available_breaks_no_limit(tree: QueueTree, data: st.DataObject) -> None:
    quotas = quotas_of(tree)
    own = np.zeros(tree.nominal.shape, dtype=np.int64)
    queues = np.flatnonzero(~tree.cohort).tolist()
    for _ in range(data.draw(st.integers(1, 10))):
        row, cell = data.draw(st.sampled_from(queues)), data.draw(st.integers(0, len(tree.cells) - 1))
        left = int(available(quotas, usage(quotas, own))[row, cell])
        assert left >= 0
        own[row, cell] += data.draw(st.integers(0, left))
    used = usage(quotas, own)
    assert (used <= quotas.potential).all()
    assert (used - quotas.subtree <= tree.borrowing_limit).all()
    roots = tree.parent < 0
    assert (used[roots] <= quotas.subtree[roots]).all()
