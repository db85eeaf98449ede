"""Rows of tables by their keys."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.decide import rows
from mainstay.decide.rows import rows_by_key


@pytest.mark.parametrize("table_max", [rows.TABLE_MAX, 0])
def test_the_row_of_each_key_is_found_by_a_table_and_by_a_search(monkeypatch, table_max):
    monkeypatch.setattr(rows, "TABLE_MAX", table_max)
    keys = np.array([3, 4, 9, 20])
    assert rows_by_key(keys, np.array([20, 3, 5, 0, 99, 9, 9])).tolist() == [3, 0, -1, -1, -1, 2, 2]
    assert rows_by_key(keys, keys[:0]).tolist() == []
    assert rows_by_key(keys[:0], keys).tolist() == [-1] * 4
    assert rows_by_key(np.array([0]), np.array([0, 1, -1])).tolist() == [0, -1, -1]
