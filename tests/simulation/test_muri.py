"""The player gives the published figures of SRTF and SRSF; `make bench-muri` shows them."""

from __future__ import annotations

import pytest

from benchmarks import muri


@pytest.mark.parametrize("trace", muri.TRACES)
@pytest.mark.parametrize("policy", muri.POLICIES)
def test_the_player_reproduces_published_figures(trace, policy):
    if not muri.DATA.is_dir():
        pytest.skip(f"no traces: {muri.DATA}; set MAINSTAY_DATA to the folder that holds traces/muri")
    ours, theirs = muri.played(trace, policy), muri.published(trace, policy)
    assert ours == pytest.approx(theirs, rel=1e-7)
