"""Who goes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.ordering import ORDERS
from mainstay.decide.ordering.contenders import Contenders

ROW = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))


def contenders(rows, keys):
    table = np.array(rows, dtype=float).reshape(-1, 3)
    return Contenders(
        key=np.array(keys, dtype=int),
        arrived_at=table[:, 0],
        remaining_seconds=table[:, 1],
        gpus=table[:, 2].astype(int),
        share=table[:, 1] / 4,
    )


@pytest.mark.parametrize(
    ("order", "rows"), [("fair", [1, 0, 2]), ("fifo", [2, 0, 1]), ("srtf", [1, 0, 2]), ("srsf", [2, 0, 1])]
)
def test_an_order_looks_at_what_it_is_named_for(order, rows):
    assert ORDERS[order](contenders([(1, 20, 2), (2, 10, 8), (0, 30, 1)], [0, 1, 2])).tolist() == rows


@pytest.mark.parametrize("order", sorted(ORDERS))
@given(rows=st.lists(ROW, max_size=6), seed=st.randoms(use_true_random=False))
def test_an_order_names_each_once_and_does_not_depend_on_rows(order, rows, seed):
    keys = list(range(len(rows)))
    seed.shuffle(keys)
    by_row = ORDERS[order](contenders(rows, range(len(rows)))).tolist()
    assert sorted(by_row) == list(range(len(rows)))
    shuffled = ORDERS[order](contenders([rows[key] for key in keys], keys))
    assert [keys[row] for row in shuffled] == by_row
