"""The player gives the published figures of SRTF and SRSF (`make bench-muri` has the other traces)."""

from __future__ import annotations

import pytest

from benchmarks import muri


@pytest.mark.parametrize("policy", muri.POLICIES)
def test_the_player_reproduces_published_figures(policy):
    if not muri.DATA.is_dir():
        pytest.skip(f"no traces: {muri.DATA}; set MAINSTAY_DATA to the folder that holds traces/muri")
    ours, theirs = muri.played("trace3_pr", policy), muri.published("trace3_pr", policy)
    assert ours == pytest.approx(theirs, rel=1e-7)
