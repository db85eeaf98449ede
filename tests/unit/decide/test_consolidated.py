"""One node, or whole ones."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.decide.placement.consolidated import consolidated

NODES = [8, 8, 4, 8]


@pytest.mark.parametrize(
    ("free", "gpus", "taken"),
    [
        ([8, 8, 4, 8], 1, [1, 0, 0, 0]),
        ([2, 8, 4, 8], 4, [0, 4, 0, 0]),
        ([2, 3, 3, 3], 4, None),
        ([8, 8, 4, 8], 16, [8, 8, 0, 0]),
        ([8, 7, 4, 8], 16, [8, 0, 4, 8]),
        ([8, 7, 4, 8], 20, [8, 0, 4, 8]),
        ([8, 7, 3, 8], 20, None),
        ([8, 8, 4, 8], 28, [8, 8, 4, 8]),
        ([8, 8, 4, 8], 29, None),
    ],
)
def test_a_job_lies_on_the_first_node_with_room_or_on_whole_ones(free, gpus, taken):
    answer = consolidated(np.array(free), np.array(NODES), gpus)
    assert (answer.tolist() if answer is not None else None) == taken


def test_without_nodes_there_is_no_room():
    none = np.zeros(0, dtype=np.int64)
    assert consolidated(none, none, 1) is None
